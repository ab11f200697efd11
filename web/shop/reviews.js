// Ratings and reviews of a product: what they come to, all of them, a new one.

import * as api from './api.js';
import { date, dialog, failure, field, h, picture, rating, say, stars, votes } from './dom.js';

const STEP = 5;
const SORTS = ['relevant', 'helpful', 'newest'];
/** What the ends of each scale are called. */
const SCALES = new Map(Object.entries({
  Size: ['A size too small', 'Perfect', 'A size too large'],
  Width: ['Too narrow', 'Perfect', 'Too wide'],
  Comfort: ['Uncomfortable', 'Okay', 'Perfect'],
  Quality: ['Poor', 'As expected', 'Perfect'],
  Length: ['Runs short', 'Perfect', 'Runs long'],
  Fit: ['Runs tight', 'Perfect', 'Runs loose'],
}));
const scaleOf = (name) => SCALES.get(name) ?? ['1', '3', '5'];

const breakdown = (meta, count) =>
  h('ul', { className: 'breakdown' }, [5, 4, 3, 2, 1].map((n) => {
    const votes = Number(meta.ratings[n] ?? 0);
    const part = count ? Math.round((votes * 100) / count) : 0;
    return h('li', {}, h('span', {}, `${n} stars`), h('meter', { min: 0, max: 100, value: part, 'aria-label': `${n} stars: ${part} %` }), h('span', {}, votes));
  }));

const characteristics = (meta) =>
  h('dl', { className: 'scales' }, Object.entries(meta.characteristics).filter(([, { value }]) => value !== null).map(([name, { value }]) => {
    const [low, , high] = scaleOf(name);
    const marker = h('span', { className: 'marker' });
    marker.style.left = `${((Number(value) - 1) * 100) / 4}%`;
    return h('div', {}, h('dt', {}, name),
      h('dd', {}, h('span', { className: 'scale', role: 'img', 'aria-label': `${Number(value).toFixed(1)} between 1, ${low}, and 5, ${high}` }, marker), h('small', {}, h('span', {}, low), h('span', {}, high))));
  }));

const summary = (meta) => {
  const { count, average } = rating(meta);
  if (!count) return h('p', { className: 'summary' }, 'Nobody has said anything of it yet.');
  const yes = Number(meta.recommended.true ?? 0);
  const all = yes + Number(meta.recommended.false ?? 0);
  return h('div', { className: 'summary' },
    h('p', { className: 'average' }, h('strong', {}, average.toFixed(1)), ' ', stars(average), ` ${count} ${count === 1 ? 'review' : 'reviews'}`),
    all > 0 && h('p', {}, `${Math.round((yes * 100) / all)} % of reviews recommend this product`),
    breakdown(meta, count), characteristics(meta));
};

const review = (each) =>
  h('article', { className: 'review', tabIndex: -1 },
    h('p', { className: 'byline' }, stars(each.rating), ' ', h('span', {}, each.reviewer_name, ', ', date(each.date))),
    each.summary && h('h3', {}, each.summary), h('p', { className: 'text' }, each.body),
    each.recommend && h('p', { className: 'good' }, '✓ I recommend this product'),
    each.response && h('blockquote', {}, h('strong', {}, 'Response from the seller: '), each.response),
    each.photos.length > 0 && h('ul', { className: 'photos' }, each.photos.map(({ url }) => h('li', {}, picture(url, `Picture by ${each.reviewer_name}`, { width: 96, height: 96 })))),
    votes('reviews', each.review_id, each, 'helpfulness', api.vote));

/** Radio buttons on one line: [[value, label], …]. */
const choice = (name, legend, values) =>
  h('fieldset', { className: 'choice' }, h('legend', {}, legend), values.map(([value, label]) => h('label', {}, h('input', { type: 'radio', name, value, required: true }), ' ', label)));

const write = (product, meta, written) => {
  const scales = Object.entries(meta.characteristics).map(([name, { id }]) => {
    const [low, middle, high] = scaleOf(name);
    return choice(`characteristic-${id}`, name, [[1, low], [2, '2'], [3, middle], [4, '4'], [5, high]]);
  });
  const content = [
    h('p', {}, `About ${product.name}`),
    choice('rating', 'Overall rating', [[1, '1 Poor'], [2, '2 Fair'], [3, '3 Average'], [4, '4 Good'], [5, '5 Great']]),
    choice('recommend', 'Do you recommend it?', [['yes', 'Yes'], ['no', 'No']]), ...scales,
    field('Summary', h('input', { name: 'summary', maxLength: 60 })),
    field('Review', h('textarea', { name: 'body', required: true, minLength: 50, maxLength: 1000 }), '50 characters at least'),
    field('Nickname', h('input', { name: 'name', required: true, maxLength: 60, autocomplete: 'nickname' }), 'For your privacy, neither your full name nor your address'),
    field('E-mail', h('input', { name: 'email', type: 'email', required: true, maxLength: 60, autocomplete: 'email' }), 'It is not shown'),
  ];
  dialog('Write a review', content, 'Submit review', async (data, key) => {
    const entries = Object.values(meta.characteristics).map(({ id }) => [id, Number(data.get(`characteristic-${id}`))]);
    await api.addReview({ product_id: product.id, rating: Number(data.get('rating')), summary: data.get('summary'), body: data.get('body'),
      recommend: data.get('recommend') === 'yes', name: data.get('name'), email: data.get('email'), photos: [], characteristics: Object.fromEntries(entries) }, key);
  }, written);
};

/** `rate` is told what has become of the ratings. */
export const show = async (room, product, meta, rate) => {
  let [sort, count, turn] = ['relevant', STEP, 0];
  const overview = h('div', {}, summary(meta));
  const list = h('div', { className: 'list' });
  const more = h('button', { type: 'button', onclick: () => again(() => { count += STEP * 2; }) }, 'More reviews');
  const sorted = h('select', { onchange: () => again(() => { sort = sorted.value; }) }, SORTS.map((name) => h('option', { value: name }, name)));
  const load = async () => {
    // One more than is shown tells whether there are more.
    const found = await api.reviews(product.id, sort, count + 1);
    return () => draw(found);
  };
  const draw = (found) => {
    const [had, isEnd] = [list.querySelectorAll('.review').length, found.length <= count];
    const isFocused = document.activeElement === more;
    list.replaceChildren(...found.slice(0, count).map(review));
    more.hidden = isEnd;
    if (isFocused && isEnd) list.children[Math.min(had, list.children.length - 1)]?.focus();
  };
  /** Loads the list as it is wanted from now on; whoever wants something else meanwhile gets that. */
  const again = async (want) => {
    const here = (turn += 1);
    want();
    const drawn = await load().catch((error) => () => list.replaceChildren(failure(error, () => again(() => {}))));
    if (here !== turn) return;
    drawn();
    if (!list.querySelector('.failure')) say(`${list.children.length} reviews, sorted by ${sort}`);
  };
  const written = async () => {
    turn += 1;
    sorted.value = sort = 'newest';
    const [fresh, drawn] = await Promise.all([api.meta(product.id), load()]);
    overview.replaceChildren(summary(fresh));
    rate(fresh);
    drawn();
  };
  room.replaceChildren(h('h2', {}, 'Ratings and reviews'), h('div', { className: 'columns' }, overview,
    h('div', {}, h('p', {}, h('label', {}, 'Sort by ', sorted)), list,
      h('div', { className: 'buttons' }, more, h('button', { type: 'button', className: 'main', onclick: () => write(product, meta, written) }, 'Write a review')))));
  (await load())();
};
