// The public API, call by call. Paths are those of the Atelier API, from the root of the server that this page is from.

/** An answer that is no success: its status, the server's own words, and the stable code of the problem (RFC 9457), where it has one. */
export class Refused extends Error {
  constructor(status, detail, code) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** The longest text that is taken for words to people; longer ones are pages of somebody between. */
const WORDS_MAX = 300;

const ofStatus = (status) => {
  if (status === 429) return 'That was too much at once. Wait a moment, then try again.';
  if (status >= 500) return `The shop has trouble at the moment (${status}). Try again in a moment.`;
  return `That was refused (${status}).`;
};

const refusal = async (reply) => {
  const [text, type] = [await reply.text(), reply.headers.get('Content-Type') ?? ''];
  if (type.includes('json')) {
    try {
      const { detail, title, code } = JSON.parse(text);
      return new Refused(reply.status, reply.status >= 500 ? ofStatus(reply.status) : detail ?? title ?? ofStatus(reply.status), code);
    } catch { /* Then it is no problem as the API tells them. */ }
  }
  const isWords = type.startsWith('text/plain') && text.length <= WORDS_MAX && reply.status < 500;
  return new Refused(reply.status, (isWords && text) || ofStatus(reply.status));
};

/** A key for one intent: whoever sends it again, because the answer was lost, still has it done once. */
export const freshKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

let leaving = new AbortController();
/** Nobody waits any more for what was asked so far; what is written goes its way. */
export const leave = () => {
  leaving.abort();
  leaving = new AbortController();
};

/** Whoever has written wants to read it: from then on the browser's cache has to ask. */
let hasWritten = false;

const call = async (method, path, { body, key, ...more } = {}) => {
  const options = { method, headers: { Accept: 'application/json, application/problem+json' }, credentials: 'same-origin', ...more };
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
  if (!reply.ok) throw await refusal(reply);
  return reply;
};

const get = (path) => call('GET', path, { signal: leaving.signal, cache: hasWritten ? 'no-cache' : 'default' });
const read = async (path) => (await get(path)).json();
const write = async (method, path, body, key) => {
  hasWritten = true;
  const reply = await call(method, path, { body, key });
  // Read to its end, so that its connection is free for others.
  await reply.arrayBuffer();
};
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== '' && value != null));
/** Lists have a Link to the page after this one (RFC 8288), where there is one. */
const hasNext = (reply) => /rel="?next"?/.test(reply.headers.get('Link') ?? '');

/** A page of the catalogue: { products, hasNext }. */
export const products = async ({ page = 1, count = 12, q, category }) => {
  const reply = await get(`/products?${query({ page, count, q, category })}`);
  return { products: await reply.json(), hasNext: hasNext(reply) };
};
export const product = (id) => read(`/products/${id}`);
export const styles = async (id) => (await read(`/products/${id}/styles`)).results;
export const related = (id) => read(`/products/${id}/related`);
export const reviews = async (id, sort, count) => (await read(`/reviews?${query({ product_id: id, sort, count })}`)).results;
export const meta = (id) => read(`/reviews/meta?${query({ product_id: id })}`);
/** A page of a product's questions: { questions, hasNext }. */
export const questions = async (id, page, count) => {
  const reply = await get(`/qa/questions?${query({ product_id: id, page, count })}`);
  return { questions: (await reply.json()).results, hasNext: hasNext(reply) };
};
/** What is in the cart, now: [{ sku_id, count }]. */
export const cart = async () => (await call('GET', '/cart')).json();

// What is written has a key of its own each time that somebody means it: see freshKey.
export const addReview = (review, key) => write('POST', '/reviews', review, key);
export const addQuestion = (question, key) => write('POST', '/qa/questions', question, key);
export const addAnswer = (question, answer, key) => write('POST', `/qa/questions/${question}/answers`, answer, key);
export const addToCart = (sku, count, key) => write('POST', '/cart', { sku_id: Number(sku), count }, key);
/** `kind`: reviews, qa/questions or qa/answers; `vote`: helpful or report. */
export const vote = (kind, id, vote) => write('PUT', `/${kind}/${id}/${vote}`);
