// The public API, call by call. Paths are those of the Atelier API, from the root of the server that this page is from.

/** An answer that is no success: its status, and the server's own words. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const words = async (reply) => {
  const text = await reply.text();
  try {
    const problem = JSON.parse(text);
    return problem.detail ?? problem.title ?? text;
  } catch {
    return text || reply.statusText;
  }
};

/** A key for one intent: whoever sends it again, because the answer was lost, still has it done once. */
export const freshKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

const call = async (method, path, body, key) => {
  const options = { method, headers: { Accept: 'application/json, application/problem+json' }, credentials: 'same-origin' };
  if (body !== undefined) {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(body);
    options.headers['Idempotency-Key'] = key;
  }
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Refused(0, 'The shop can’t be reached. Check the connection and try again.');
  }
  if (!reply.ok) throw new Refused(reply.status, await words(reply));
  return reply;
};

const read = async (path) => (await call('GET', path)).json();
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== '' && value != null));

/** A page of the catalogue: { products, hasNext }. */
export const products = async ({ page = 1, count = 12, q, category }) => {
  const reply = await call('GET', `/products?${query({ page, count, q, category })}`);
  return { products: await reply.json(), hasNext: /rel="?next"?/.test(reply.headers.get('Link') ?? '') };
};
export const productsByIds = (ids) => (ids.length ? read(`/products?${query({ ids: ids.join(','), count: ids.length })}`) : []);
export const product = (id) => read(`/products/${id}`);
export const styles = async (id) => (await read(`/products/${id}/styles`)).results;
export const related = (id) => read(`/products/${id}/related`);
export const reviews = async (id, sort, count) => (await read(`/reviews?${query({ product_id: id, sort, count })}`)).results;
export const meta = (id) => read(`/reviews/meta?${query({ product_id: id })}`);
export const questions = async (id, count) => (await read(`/qa/questions?${query({ product_id: id, count })}`)).results;
export const cart = () => read('/cart');

// What is written has a key of its own each time that somebody means it: see freshKey.
export const addReview = (review, key) => call('POST', '/reviews', review, key);
export const addQuestion = (question, key) => call('POST', '/qa/questions', question, key);
export const addAnswer = (question, answer, key) => call('POST', `/qa/questions/${question}/answers`, answer, key);
export const addToCart = (sku, count, key) => call('POST', '/cart', { sku_id: Number(sku), count }, key);
/** `kind`: reviews, qa/questions or qa/answers; `vote`: helpful or report. */
export const vote = (kind, id, vote) => call('PUT', `/${kind}/${id}/${vote}`);
