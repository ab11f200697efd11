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
  const reply = await whole(fetch(path, options), more.signal);
  if (!reply.ok) throw await whole(refusal(reply), more.signal);
  return reply;
};

/** What is lost on its way is told in words; who has left its page meanwhile hears of it no more. */
const whole = async (coming, signal) => {
  try {
    return await coming;
  } catch {
    if (signal?.aborted) return new Promise(() => {});
    throw new Refused(0, 'The shop can’t be reached. Check the connection and try again.');
  }
};

/** { body, hasNext }: JSON, and whether there is a page after this one (a Link, RFC 8288). */
const list = async (path) => {
  const { signal } = leaving;
  const reply = await call('GET', path, { signal, cache: hasWritten ? 'no-cache' : 'default' });
  return { body: await whole(reply.json(), signal), hasNext: /rel="?next"?/.test(reply.headers.get('Link') ?? '') };
};
const read = async (path) => (await list(path)).body;
const write = async (method, path, body, key) => {
  hasWritten = true;
  const reply = await call(method, path, { body, key });
  // Read to its end, so that its connection is free for others.
  await whole(reply.arrayBuffer());
};
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== '' && value != null));

/** A page of the catalogue: { products, hasNext }. */
export const products = async ({ page = 1, count = 12, q, category }) => {
  const { body, hasNext } = await list(`/products?${query({ page, count, q, category })}`);
  return { products: body, hasNext };
};
export const product = (id) => read(`/products/${id}`);
export const styles = async (id) => (await read(`/products/${id}/styles`)).results;
export const related = (id) => read(`/products/${id}/related`);
export const reviews = async (id, sort, count) => (await read(`/reviews?${query({ product_id: id, sort, count })}`)).results;
export const meta = (id) => read(`/reviews/meta?${query({ product_id: id })}`);
/** A page of a product's questions: { questions, hasNext }. */
export const questions = async (id, page, count) => {
  const { body, hasNext } = await list(`/qa/questions?${query({ product_id: id, page, count })}`);
  return { questions: body.results, hasNext };
};
/** What is in the cart, now: [{ sku_id, count }]. */
export const cart = async () => whole((await call('GET', '/cart')).json());

// What is written has a key of its own each time that somebody means it: see freshKey.
export const addReview = (review, key) => write('POST', '/reviews', review, key);
export const addQuestion = (question, key) => write('POST', '/qa/questions', question, key);
export const addAnswer = (question, answer, key) => write('POST', `/qa/questions/${question}/answers`, answer, key);
export const addToCart = (sku, count, key) => write('POST', '/cart', { sku_id: Number(sku), count }, key);
/** `kind`: reviews, qa/questions or qa/answers; `vote`: helpful or report. */
export const vote = (kind, id, vote) => write('PUT', `/${kind}/${id}/${vote}`);
