// Questions and answers about a product.

import * as api from './api.js';
import { date, dialog, failure, field, h, picture, say, votes } from './dom.js';

const QUESTIONS = 4;
const ANSWERS = 2;
/** As many as are asked for at once: so many a server still has at hand. */
const PAGE = 100;
/** From so many letters on a search looks into the questions. */
const SEARCH_MIN = 3;

const person = () => [
  field('Nickname', h('input', { name: 'name', required: true, maxLength: 60, autocomplete: 'nickname' }), 'For your privacy, neither your full name nor your address'),
  field('E-mail', h('input', { name: 'email', type: 'email', required: true, maxLength: 60, autocomplete: 'email' }), 'It is not shown'),
];

const written = (data) => ({ body: data.get('body'), name: data.get('name'), email: data.get('email') });

const ask = (product, done) =>
  dialog('Ask a question', [h('p', {}, `About ${product.name}`), field('Your question', h('textarea', { name: 'body', required: true, maxLength: 1000 })), ...person()], 'Submit question', async (data, key) => {
    await api.addQuestion({ ...written(data), product_id: product.id }, key);
  }, done);

const reply = (product, question, done) =>
  dialog('Answer', [h('p', {}, `${product.name}: ${question.question_body}`), field('Your answer', h('textarea', { name: 'body', required: true, maxLength: 1000 })), ...person()], 'Submit answer', async (data, key) => {
    await api.addAnswer(question.question_id, { ...written(data), photos: [] }, key);
  }, done);

const answer = (each) =>
  h('li', {}, h('p', { className: 'text' }, h('strong', {}, 'A: '), each.body),
    each.photos.length > 0 && h('ul', { className: 'photos' }, each.photos.map((url) => h('li', {}, picture(url, `Picture by ${each.answerer_name}`, { width: 96, height: 96 })))),
    h('p', { className: 'byline' }, 'by ', each.answerer_name === 'Seller' ? h('strong', {}, 'Seller') : each.answerer_name, ', ', date(each.date)),
    votes('qa/answers', each.id, each, 'helpfulness', api.vote));

/** The seller's come first, then the helpful ones. */
const answers = (question) =>
  Object.values(question.answers).sort((a, b) => (b.answerer_name === 'Seller') - (a.answerer_name === 'Seller') || b.helpfulness - a.helpfulness || a.id - b.id);

/** A question with its first answers, or with all if it is `open`. */
const entry = (product, question, isOpen, { toggle, answered }) => {
  const all = answers(question);
  const list = h('ul', { className: 'answers' });
  const more = h('button', { type: 'button', className: 'link', hidden: all.length <= ANSWERS, onclick: () => draw(toggle(question)) });
  const draw = (isOpen) => {
    list.replaceChildren(...(isOpen ? all : all.slice(0, ANSWERS)).map(answer));
    more.textContent = isOpen ? 'Fewer answers' : `All ${all.length} answers`;
    more.ariaExpanded = String(isOpen);
  };
  draw(isOpen);
  return h('article', { className: 'question', tabIndex: -1, 'data-id': question.question_id }, h('h3', {}, 'Q: ', question.question_body),
    h('p', { className: 'byline' }, 'by ', question.asker_name, ', ', date(question.question_date)),
    votes('qa/questions', question.question_id, question, 'question_helpfulness', api.vote), list, more,
    h('p', {}, h('button', { type: 'button', className: 'link', onclick: () => reply(product, question, () => answered(question)) }, 'Add an answer')));
};

/** All questions that are known so far, and how to get the others. */
const pagesOf = (id) => {
  let [all, page, isWhole, loading] = [[], 0, false, null];
  const next = async () => {
    const found = await api.questions(id, page + 1, PAGE);
    page += 1;
    all = [...all, ...found.questions];
    isWhole = !found.hasNext;
  };
  const load = async () => { while (!isWhole) await next(); };
  // Whoever asks while they come waits for the same.
  const rest = () => {
    loading ??= load().finally(() => { loading = null; });
    return loading;
  };
  return { next, rest, all: () => all, isWhole: () => isWhole };
};

export const show = async (room, product) => {
  let [pages, count, first] = [pagesOf(product.id), QUESTIONS, null];
  const open = new Set();
  const list = h('div', { className: 'list' });
  const search = h('input', { type: 'search', placeholder: 'Have a question? Search for answers', 'aria-label': 'Search in questions' });
  const more = h('button', { type: 'button' }, 'More questions');

  /** What is shown of what is known: one's own first, then as the API sorts them. */
  const found = () => {
    const word = search.value.trim().toLowerCase();
    const all = pages.all();
    const matching = word.length < SEARCH_MIN ? all : all.filter((question) => question.question_body.toLowerCase().includes(word));
    return [...matching].sort((a, b) => (b.question_id === first) - (a.question_id === first));
  };
  const toggle = ({ question_id: id }) => open.delete(id) ? false : Boolean(open.add(id));
  const draw = () => {
    const shown = found();
    list.replaceChildren(...shown.slice(0, count).map((question) => entry(product, question, open.has(question.question_id), { toggle, answered })));
    if (!shown.length) list.append(h('p', {}, pages.all().length ? 'No question has these words.' : 'No questions yet.'));
    more.hidden = shown.length <= count && pages.isWhole();
    return shown;
  };
  /** Whoever has begun something else meanwhile is left with it. */
  const focusOn = (id) => {
    const isIdle = document.activeElement === document.body || room.contains(document.activeElement);
    if (isIdle) list.querySelector(`[data-id="${id}"]`)?.focus();
  };
  /** All of them, as they are now. */
  const reload = async () => {
    const fresh = pagesOf(product.id);
    await fresh.rest();
    pages = fresh;
  };
  const answered = async ({ question_id: id }) => {
    open.add(id);
    await reload();
    const isSearching = document.activeElement === search;
    draw();
    if (!isSearching) focusOn(id);
  };
  const asked = async () => {
    await reload();
    // Who asks has the highest number so far.
    first = Math.max(...pages.all().map(({ question_id: id }) => id));
    search.value = '';
    draw();
    focusOn(first);
  };
  /** Draws when all is known that a search or "More" needs; without it, says so where they would be. */
  const drawAll = async (isNeeded, told) => {
    try {
      if (isNeeded) await pages.rest();
    } catch (error) {
      list.replaceChildren(failure(error, () => drawAll(isNeeded, told)));
      return;
    }
    const shown = draw();
    say(told(shown));
  };
  search.addEventListener('input', () => drawAll(search.value.trim().length >= SEARCH_MIN, (shown) => `${shown.length} questions`));
  more.addEventListener('click', async () => {
    const had = list.querySelectorAll('.question').length;
    count += QUESTIONS;
    const isFocused = document.activeElement === more;
    await drawAll(found().length < count, () => `${list.children.length} questions are shown`);
    if (isFocused && more.hidden) list.children[had]?.focus();
  });
  await pages.next();
  room.replaceChildren(h('h2', {}, 'Questions and answers'), search, list,
    h('div', { className: 'buttons' }, more, h('button', { type: 'button', className: 'main', onclick: () => ask(product, asked) }, 'Ask a question')));
  draw();
};
