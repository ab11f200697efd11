// Questions and answers about a product.

import * as api from './api.js';
import { date, dialog, field, h, picture, say, votes } from './dom.js';

const QUESTIONS = 4;
const ANSWERS = 2;
const ALL = 10000;
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
    say('Your question is published.');
  }, done);

const reply = (product, question, done) =>
  dialog('Answer', [h('p', {}, `${product.name}: ${question.question_body}`), field('Your answer', h('textarea', { name: 'body', required: true, maxLength: 1000 })), ...person()], 'Submit answer', async (data, key) => {
    await api.addAnswer(question.question_id, { ...written(data), photos: [] }, key);
    say('Your answer is published.');
  }, done);

const answer = (each) =>
  h('li', {}, h('p', { className: 'text' }, h('strong', {}, 'A: '), each.body),
    each.photos.length > 0 && h('ul', { className: 'photos' }, each.photos.map((url) => h('li', {}, picture(url, `Picture by ${each.answerer_name}`, { width: 96, height: 96 })))),
    h('p', { className: 'byline' }, 'by ', each.answerer_name === 'Seller' ? h('strong', {}, 'Seller') : each.answerer_name, ', ', date(each.date)),
    votes('qa/answers', each.id, each.helpfulness, 'answer', api.vote));

/** The seller's come first, then the helpful ones. */
const answers = (question) =>
  Object.values(question.answers).sort((a, b) => (b.answerer_name === 'Seller') - (a.answerer_name === 'Seller') || b.helpfulness - a.helpfulness || a.id - b.id);

const entry = (product, question, done) => {
  const all = answers(question);
  const list = h('ul', { className: 'answers' }, all.slice(0, ANSWERS).map(answer));
  const more = all.length > ANSWERS && h('button', { type: 'button', className: 'link', onclick: () => { list.replaceChildren(...all.map(answer)); more.remove(); } }, `All ${all.length} answers`);
  return h('article', { className: 'question' }, h('h3', {}, 'Q: ', question.question_body),
    h('p', { className: 'byline' }, 'by ', question.asker_name, ', ', date(question.question_date)),
    votes('qa/questions', question.question_id, question.question_helpfulness, 'question', api.vote), list, more,
    h('p', {}, h('button', { type: 'button', className: 'link', onclick: () => reply(product, question, done) }, 'Add an answer')));
};

export const show = async (room, product) => {
  let [all, count] = [[], QUESTIONS];
  const list = h('div', { className: 'list' });
  const search = h('input', { type: 'search', placeholder: 'Have a question? Search for answers', 'aria-label': 'Search in questions', oninput: () => draw() });
  const more = h('button', { type: 'button', onclick: () => { count += QUESTIONS; draw(); } }, 'More questions');
  const draw = () => {
    const word = search.value.trim().toLowerCase();
    const found = word.length < SEARCH_MIN ? all : all.filter((question) => question.question_body.toLowerCase().includes(word));
    list.replaceChildren(...found.slice(0, count).map((question) => entry(product, question, load)));
    if (!found.length) list.append(h('p', {}, all.length ? 'No question has these words.' : 'No questions yet.'));
    more.hidden = found.length <= count;
  };
  const load = async () => {
    all = await api.questions(product.id, ALL);
    draw();
  };
  const asked = async () => {
    await load();
    // A new one has no votes, and is the last.
    count = Math.max(count, all.length);
    draw();
  };
  room.replaceChildren(h('h2', {}, 'Questions and answers'), search, list,
    h('div', { className: 'buttons' }, more, h('button', { type: 'button', className: 'main', onclick: () => ask(product, asked) }, 'Ask a question')));
  await load();
};
