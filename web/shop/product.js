// One product: gallery, styles, sizes, cart; related ones; what others say of it.

import * as api from './api.js';
import * as cart from './cart.js';
import { card } from './catalogue.js';
import { defaultOf, failure, field, h, picture, price, rating, say, stars } from './dom.js';
import * as questions from './questions.js';
import * as reviews from './reviews.js';

const QUANTITY_MAX = 15;
const WIDTH = 600;

/** All pictures of a style; the chosen one large. */
const gallery = (name, style, chosen, choose) => {
  const photos = style.photos.filter((photo) => photo.url);
  const at = Math.min(chosen, Math.max(photos.length - 1, 0));
  const label = `${name}, ${style.name}`;
  const large = h('div', { className: 'frame large' }, picture(photos[at]?.url, `${label}, picture ${at + 1} of ${photos.length}`, { width: WIDTH, height: WIDTH * 1.25, lazy: false }));
  const thumbs = photos.map((photo, n) =>
    h('li', {}, h('button', { type: 'button', 'aria-label': `Picture ${n + 1}`, 'aria-current': n === at ? 'true' : null, onclick: () => choose(n) },
      picture(photo.thumbnail_url ?? photo.url, '', { width: 64, height: 80 }))));
  const step = (by, text, label) =>
    h('button', { type: 'button', className: 'step', 'aria-label': label, disabled: !photos[at + by], onclick: () => choose(at + by) }, text);
  return h('section', { className: 'gallery', 'aria-label': 'Pictures' }, large,
    h('div', { className: 'thumbs' }, step(-1, '‹', 'Previous picture'), h('ul', {}, thumbs), step(1, '›', 'Next picture')));
};

const styleChoice = (styles, style, choose) =>
  h('fieldset', { className: 'styles' }, h('legend', {}, 'Style: ', h('strong', {}, style.name)),
    styles.map((each) => h('label', { title: each.name },
      h('input', { type: 'radio', name: 'style', value: each.style_id, checked: each === style, 'aria-label': each.name, onchange: () => choose(each) }),
      picture(each.photos[0]?.thumbnail_url ?? each.photos[0]?.url, '', { width: 64, height: 64 }))));

/** Sizes that can be had, each with the sku that has most of it. */
const sizes = (style) => {
  const bySize = new Map();
  for (const [sku, { quantity, size }] of Object.entries(style.skus)) {
    if (quantity > 0 && quantity > (bySize.get(size)?.quantity ?? 0)) bySize.set(size, { sku, quantity });
  }
  return bySize;
};

const order = (product, style) => {
  const all = sizes(style);
  const size = h('select', { name: 'size', required: true, disabled: !all.size },
    h('option', { value: '' }, all.size ? 'Select a size' : 'Out of stock'), [...all.keys()].map((name) => h('option', { value: name }, name)));
  const quantity = h('select', { name: 'quantity', disabled: true }, h('option', { value: '1' }, '1'));
  const add = h('button', { type: 'submit', className: 'main', disabled: !all.size }, 'Add to cart');
  let key = api.freshKey();
  const told = h('p', { className: 'told', role: 'status' });
  // Another choice is another intent.
  [size, quantity].forEach((choice) => choice.addEventListener('change', () => { key = api.freshKey(); }));
  size.addEventListener('change', () => {
    const most = Math.min(all.get(size.value)?.quantity ?? 0, QUANTITY_MAX);
    quantity.disabled = most === 0;
    quantity.replaceChildren(...Array.from({ length: Math.max(most, 1) }, (_, n) => h('option', { value: n + 1 }, n + 1)));
  });
  const send = async (event) => {
    event.preventDefault();
    const { sku } = all.get(size.value);
    add.disabled = true;
    try {
      await api.addToCart(sku, Number(quantity.value), key);
      key = api.freshKey();
      cart.remember(sku, { product: product.id, name: product.name, style: style.name, size: size.value, price: style.sale_price ?? style.original_price, thumbnail: style.photos[0]?.thumbnail_url });
      told.replaceChildren(`${quantity.value} × size ${size.value} in the cart. `, h('a', { href: '/shop/cart' }, 'To the cart'));
      cart.refresh();
    } catch (error) {
      told.textContent = error.message;
    } finally {
      add.disabled = false;
    }
  };
  return h('form', { className: 'order', onsubmit: send },
    field('Size', size), field('Quantity', quantity), add, told);
};

/** Gallery, name, price and choice, drawn anew when another style or picture is chosen. */
const overview = (product, styles, meta) => {
  const room = h('div', { className: 'overview' });
  let [style, chosen] = [defaultOf(styles), 0];
  const { count, average } = rating(meta);
  const draw = (focus) => {
    const pictures = style ? gallery(product.name, style, chosen, (n) => { chosen = n; draw('.thumbs [aria-current]'); }) : h('div', { className: 'frame large' });
    const about = h('div', { className: 'about' },
      h('p', { className: 'rating' }, count ? [stars(average), ' ', h('a', { href: '#reviews' }, `Read all ${count} reviews`)] : 'No reviews yet'),
      h('p', { className: 'category' }, product.category ?? ''),
      h('h1', { tabIndex: -1 }, product.name),
      h('p', {}, style ? price(style.original_price, style.sale_price) : price(product.default_price)),
      style && styleChoice(styles, style, (each) => { [style, chosen] = [each, 0]; draw(`.styles input[value="${each.style_id}"]`); say(`Style ${each.name}`); }),
      style && order(product, style));
    room.replaceChildren(pictures, about);
    if (focus) room.querySelector(focus)?.focus();
  };
  draw();
  return room;
};

const description = (product) =>
  h('section', { className: 'description' },
    h('div', {}, h('h2', {}, product.slogan || product.name), h('p', {}, product.description ?? '')),
    product.features.length > 0 && h('ul', {}, product.features.map(({ feature, value }) => h('li', {}, h('strong', {}, feature), value ? `: ${value}` : ''))));

const alike = async (room, id) => {
  const ids = [...new Set(await api.related(id))].filter((other) => other !== Number(id));
  const products = await api.productsByIds(ids.slice(0, 12));
  if (!products.length) return room.remove();
  room.append(h('h2', {}, 'Related products'), h('ul', { className: 'row' }, products.map((product) => h('li', {}, card(product)))));
};

export const show = async (main, parameters, { title }) => {
  const id = parameters.get('id');
  main.replaceChildren(h('div', { className: 'overview', 'aria-busy': 'true' }, h('div', { className: 'frame large' })));
  try {
    const [product, styles, meta] = await Promise.all([api.product(id), api.styles(id), api.meta(id)]);
    title(product.name);
    const [related, asked, reviewed] = [
      h('section', { className: 'related', 'aria-label': 'Related products' }),
      h('section', { id: 'questions', className: 'questions', 'aria-label': 'Questions and answers' }),
      h('section', { id: 'reviews', className: 'reviews', 'aria-label': 'Ratings and reviews' })];
    main.replaceChildren(overview(product, styles, meta), description(product), related, asked, reviewed);
    const part = (room, shown) => shown.catch((error) => room.replaceChildren(failure(error)));
    await Promise.all([part(related, alike(related, id)), part(asked, questions.show(asked, product)), part(reviewed, reviews.show(reviewed, product, meta))]);
  } catch (error) {
    title('Not shown');
    const gone = error.status === 404;
    main.replaceChildren(h('h1', { tabIndex: -1 }, gone ? 'There is no such product' : 'It can’t be shown'), failure(error, gone ? null : () => show(main, parameters, { title })));
  }
};
