// What artillery.yml asks for next.
const { ask } = require('./mix.cjs');

const products = Number(process.env.PRODUCTS ?? 10000);

exports.ask = (context, _events, done) => {
  const [method, path, body] = ask(products);
  Object.assign(context.vars, { path, body, isGet: method === 'GET', isPut: method === 'PUT', isPost: method === 'POST' });
  done();
};
