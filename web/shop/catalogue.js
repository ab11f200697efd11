// The catalogue: search, categories, pages.

import * as api from './api.js';
import { defaultOf, failure, h, picture, price, say, thumbnailOf } from './dom.js';

const COUNT = 12;
const WIDTH = 300;

/** A product as a card; picture and price of its default style come in later, into room that is kept. */
export const card = (product) => {
  const frame = h('span', { className: 'frame' });
  const cost = h('span', { className: 'cost' }, price(product.default_price));
  const made = h('a', { className: 'card', href: `/shop/products/${product.id}` }, frame,
    h('span', { className: 'category' }, product.category ?? ''), h('span', { className: 'name' }, product.name), cost);
  api.styles(product.id).then((styles) => {
    const style = defaultOf(styles);
    if (!style) return;
    frame.append(picture(thumbnailOf(style.photos[0]), '', { width: WIDTH, height: WIDTH * 1.25 }));
    cost.replaceChildren(price(style.original_price, style.sale_price));
  }).catch(() => { /* The card says enough without. */ });
  return made;
};

const address = (values) => {
  const query = String(new URLSearchParams(Object.entries(values).filter(([, value]) => value && value !== 1)));
  return query ? `/shop/?${query}` : '/shop/';
};

/** Categories of the catalogue's beginning, asked for once: there is no list of all. */
let known;
const categories = async (chosen) => {
  known ??= (await api.products({ count: 100 })).products.map((product) => product.category).filter(Boolean);
  return [...new Set(chosen ? [...known, chosen] : known)].sort();
};

const filters = (q, category) => {
  const list = h('ul', { className: 'chips' });
  const chip = (name, chosen) =>
    h('li', {}, h('a', { href: address({ q, category: name }), 'aria-current': chosen ? 'true' : null }, name || 'All'));
  list.append(chip('', !category));
  categories(category).then((all) => list.append(...all.map((name) => chip(name, name === category)))).catch(() => {});
  return h('nav', { 'aria-label': 'Categories' }, list);
};

export const show = async (room, parameters, { arrived }) => {
  const [q, category] = [parameters.get('q') ?? '', parameters.get('category') ?? ''];
  const page = Math.max(1, Math.trunc(Number(parameters.get('page'))) || 1);
  document.getElementById('search').value = q;
  const heading = q ? `“${q}”` : category || 'Catalogue';
  const grid = h('ul', { className: 'grid', 'aria-busy': 'true' }, Array.from({ length: COUNT }, () => h('li', { className: 'card empty', 'aria-hidden': 'true' }, h('span', { className: 'frame' }))));
  const pages = h('nav', { className: 'pages', 'aria-label': 'Pages' });
  room.replaceChildren(h('h1', { tabIndex: -1 }, heading), filters(q, category), grid, pages);
  arrived(q || category ? heading : '');
  let found;
  try {
    found = await api.products({ page, count: COUNT, q, category });
  } catch (error) {
    grid.replaceWith(failure(error, () => show(room, parameters, { arrived })));
    return;
  }
  const { products, hasNext } = found;
  const none = page > 1 ? 'Nothing is on this page.' : 'Nothing was found. Fewer or other words may help.';
  if (products.length) grid.replaceChildren(...products.map((product) => h('li', {}, card(product))));
  else grid.replaceWith(h('p', {}, none));
  grid.removeAttribute('aria-busy');
  const link = (to, text, rel) => h('a', { href: address({ q, category, page: to }), rel }, text);
  pages.replaceChildren(...[page > 1 && link(page - 1, '← Previous', 'prev'), h('span', {}, `Page ${page}`), hasNext && link(page + 1, 'Next →', 'next')].filter(Boolean));
  say(products.length ? `${products.length} products, page ${page}` : none);
};
