// The catalogue: search, categories, pages.

import * as api from './api.js';
import { defaultOf, failure, h, picture, price, say } from './dom.js';

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
    frame.append(picture(style.photos[0]?.thumbnail_url ?? style.photos[0]?.url, '', { width: WIDTH, height: WIDTH * 1.25 }));
    cost.replaceChildren(price(style.original_price, style.sale_price));
  }).catch(() => { /* The card says enough without. */ });
  return made;
};

const address = (values) => {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value && value !== 1));
  return query.size ? `/shop/?${query}` : '/shop/';
};

/** Categories of the catalogue's beginning: there is no list of all. */
const categories = async (chosen) => {
  const { products } = await api.products({ count: 100 });
  const all = new Set(products.map((product) => product.category).filter(Boolean));
  if (chosen) all.add(chosen);
  return [...all].sort();
};

const filters = (q, category) => {
  const list = h('ul', { className: 'chips' });
  const chip = (name, chosen) =>
    h('li', {}, h('a', { href: address({ q, category: name }), 'aria-current': chosen ? 'true' : null }, name || 'All'));
  list.append(chip('', !category));
  categories(category).then((all) => list.append(...all.map((name) => chip(name, name === category)))).catch(() => {});
  return h('nav', { 'aria-label': 'Categories' }, list);
};

export const show = async (main, parameters, { title }) => {
  const [q, category] = [parameters.get('q') ?? '', parameters.get('category') ?? ''];
  const page = Math.max(1, Number(parameters.get('page')) || 1);
  document.getElementById('search').value = q;
  const heading = q ? `“${q}”` : category || 'Catalogue';
  const grid = h('ul', { className: 'grid', 'aria-busy': 'true' }, Array.from({ length: COUNT }, () => h('li', { className: 'card empty', 'aria-hidden': 'true' }, h('span', { className: 'frame' }))));
  const pages = h('nav', { className: 'pages', 'aria-label': 'Pages' });
  main.replaceChildren(h('h1', { tabIndex: -1 }, heading), filters(q, category), grid, pages);
  title(q || category ? heading : '');
  try {
    const found = await api.products({ page, count: COUNT, q, category });
    grid.replaceChildren(...found.products.map((product) => h('li', {}, card(product))));
    grid.removeAttribute('aria-busy');
    if (!found.products.length) {
      grid.replaceWith(h('p', {}, page > 1 ? 'Nothing is on this page.' : 'Nothing was found. Fewer or other words may help.'));
    }
    const link = (to, text, rel) => h('a', { href: address({ q, category, page: to }), rel }, text);
    pages.replaceChildren(...[page > 1 && link(page - 1, '← Previous', 'prev'), h('span', {}, `Page ${page}`), found.hasNext && link(page + 1, 'Next →', 'next')].filter(Boolean));
    say(`${found.products.length} products, page ${page}`);
  } catch (error) {
    grid.replaceWith(failure(error, () => show(main, parameters, { title })));
  }
};
