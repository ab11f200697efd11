// One product: gallery, styles, sizes, cart; related ones; what others say of it.

import * as api from './api.js';
import * as cart from './cart.js';
import { card } from './catalogue.js';
import { busyWhile, defaultOf, failure, field, h, largeOf, part, picture, price, rating, say, stars, thumbnailOf } from './dom.js';
import * as questions from './questions.js';
import * as reviews from './reviews.js';

const QUANTITY_MAX = 15;
const RELATED_MAX = 12;
const WIDTH = 600;

/** All pictures of a style, one of them large. Only what another picture changes is drawn anew. */
const gallery = (name, style) => {
  const photos = style.photos.filter(largeOf);
  const label = `${name}, ${style.name}`;
  const large = h('div', { className: 'frame large' });
  const thumbs = photos.map((photo, n) => h('button', { type: 'button', 'aria-label': `Picture ${n + 1}`, onclick: () => look(n) }, picture(thumbnailOf(photo), '', { width: 64, height: 80 })));
  let at = 0;
  const draw = () => {
    large.replaceChildren(picture(largeOf(photos[at]), photos.length ? `${label}, picture ${at + 1} of ${photos.length}` : `${label}: no picture`, { width: WIDTH, height: WIDTH * 1.25, lazy: false }));
    thumbs.forEach((thumb, n) => { thumb.ariaCurrent = n === at ? 'true' : null; });
  };
  const look = (n) => {
    at = (n + photos.length) % photos.length;
    draw();
    thumbs[at].scrollIntoView({ block: 'nearest', inline: 'nearest' });
    say(`Picture ${at + 1} of ${photos.length}`);
  };
  const step = (by, text, label) => h('button', { type: 'button', className: 'step', 'aria-label': label, onclick: () => look(at + by) }, text);
  draw();
  return [large, h('div', { className: 'thumbs' }, photos.length > 1 && [step(-1, '‹', 'Previous picture'), h('ul', {}, thumbs.map((thumb) => h('li', {}, thumb))), step(1, '›', 'Next picture')])];
};

/** Styles to choose from; it stays as it is when one is chosen. */
const styleChoice = (styles, style, choose) => {
  const chosen = h('strong', {}, style.name);
  return h('fieldset', { className: 'styles' }, h('legend', {}, 'Style: ', chosen),
    styles.map((each) => h('label', { title: each.name },
      h('input', { type: 'radio', name: 'style', value: each.style_id, checked: each === style, 'aria-label': each.name, onchange: () => { chosen.textContent = each.name; choose(each); } }),
      picture(thumbnailOf(each.photos[0]), '', { width: 64, height: 64 }))));
};

/** Sizes that can be had, [{ sku, size, quantity }]: each once, by the sku that has most of it. */
const sizes = (style) => {
  const bySize = new Map();
  for (const [sku, { quantity, size }] of Object.entries(style.skus)) {
    const name = size || 'One size';
    if (quantity > 0 && quantity > (bySize.get(name)?.quantity ?? 0)) bySize.set(name, { sku, size: name, quantity });
  }
  return [...bySize.values()];
};

const order = (product, style) => {
  const all = sizes(style);
  const size = h('select', { name: 'size', required: true, disabled: !all.length },
    h('option', { value: '' }, all.length ? 'Select a size' : 'Out of stock'), all.map(({ sku, size }) => h('option', { value: sku }, size)));
  const quantity = h('select', { name: 'quantity', disabled: true }, h('option', { value: '1' }, '1'));
  const add = h('button', { type: 'submit', className: 'main', disabled: !all.length }, 'Add to cart');
  const told = h('p', { className: 'told', role: 'status' });
  let key = api.freshKey();
  // Another choice is another intent.
  [size, quantity].forEach((choice) => choice.addEventListener('change', () => { key = api.freshKey(); }));
  size.addEventListener('change', () => {
    const most = Math.min(all.find(({ sku }) => sku === size.value)?.quantity ?? 0, QUANTITY_MAX);
    quantity.disabled = most === 0;
    quantity.replaceChildren(...Array.from({ length: Math.max(most, 1) }, (_, n) => h('option', { value: n + 1 }, n + 1)));
  });
  const send = async () => {
    // What is chosen while this is under way is for the next time.
    const [chosen, count, intent] = [all.find(({ sku }) => sku === size.value), Number(quantity.value), key];
    try {
      await api.addToCart(chosen.sku, count, intent);
    } catch (error) {
      told.textContent = error.message;
      return;
    }
    if (key === intent) key = api.freshKey();
    cart.remember(chosen.sku, { product: product.id, name: product.name, style_id: style.style_id, style: style.name, size: chosen.size, thumbnail: thumbnailOf(style.photos[0]) });
    told.replaceChildren(`${count} × size ${chosen.size} in the cart. `, h('a', { href: '/shop/cart' }, 'To the cart'));
    cart.refresh();
  };
  return h('form', { className: 'order', onsubmit: busyWhile(add, send) }, field('Size', size), field('Quantity', quantity), add, told);
};

/** Gallery, name, price and choice; `rate` shows what has become of the ratings. */
const overview = (product, styles, meta) => {
  const [pictures, cost, buying, rated] = [h('section', { className: 'gallery', 'aria-label': 'Pictures' }), h('p', {}), h('div', {}), h('p', { className: 'rating' })];
  const choose = (style) => {
    pictures.replaceChildren(...gallery(product.name, style));
    cost.replaceChildren(price(style.original_price, style.sale_price));
    buying.replaceChildren(order(product, style));
  };
  const rate = (meta) => {
    const { count, average } = rating(meta);
    rated.replaceChildren(...(count ? [stars(average), ' ', h('a', { href: '#reviews' }, count === 1 ? 'Read the review' : `Read all ${count} reviews`)] : ['No reviews yet']));
  };
  const style = defaultOf(styles);
  if (style) choose(style);
  else {
    pictures.append(h('div', { className: 'frame large' }));
    cost.append(price(product.default_price));
  }
  rate(meta);
  const room = h('div', { className: 'overview' }, pictures, h('div', { className: 'about' },
    rated, h('p', { className: 'category' }, product.category ?? ''), h('h1', { tabIndex: -1 }, product.name), cost,
    style && styleChoice(styles, style, (each) => { choose(each); say(`Style ${each.name}`); }), buying));
  return { room, rate };
};

const description = (product) =>
  h('section', { className: 'description' },
    h('div', {}, h('h2', {}, product.slogan || product.name), h('p', { className: 'text' }, product.description ?? '')),
    product.features.length > 0 && h('ul', {}, product.features.map(({ feature, value }) => h('li', {}, h('strong', {}, feature), value ? `: ${value}` : ''))));

/** Cards of these products: one call each, since single products are what a server has at hand. */
const alike = async (room, ids) => {
  const asked = await Promise.allSettled(ids.map(api.product));
  const products = asked.filter(({ status }) => status === 'fulfilled').map(({ value }) => value);
  if (!products.length) throw asked[0].reason;
  room.replaceChildren(h('h2', {}, 'Related products'), h('ul', { className: 'row' }, products.map((product) => h('li', {}, card(product)))));
};

const draw = async (room, id, arrived) => {
  const [product, styles, meta, related] = await Promise.all([api.product(id), api.styles(id), api.meta(id), api.related(id).catch(() => [])]);
  const ids = [...new Set(related)].filter((other) => other !== Number(id)).slice(0, RELATED_MAX);
  const top = overview(product, styles, meta);
  const [others, asked, reviewed] = [
    h('section', { className: 'related', 'aria-label': 'Related products' }),
    h('section', { id: 'questions', className: 'questions', 'aria-label': 'Questions and answers' }),
    h('section', { id: 'reviews', className: 'reviews', 'aria-label': 'Ratings and reviews' })];
  room.replaceChildren(top.room, description(product), ...(ids.length ? [others] : []), asked, reviewed);
  arrived(product.name);
  await Promise.all([
    ids.length && part(others, () => alike(others, ids)),
    part(asked, () => questions.show(asked, product)),
    part(reviewed, () => reviews.show(reviewed, product, meta, top.rate))]);
};

export const show = async (room, parameters, { arrived }) => {
  room.replaceChildren(h('div', { className: 'overview', 'aria-busy': 'true' }, h('div', { className: 'frame large' })));
  try {
    await draw(room, parameters.get('id'), arrived);
  } catch (error) {
    const isGone = error.status === 404;
    const title = isGone ? 'There is no such product' : 'It can’t be shown';
    room.replaceChildren(h('h1', { tabIndex: -1 }, title), failure(error, isGone ? null : () => show(room, parameters, { arrived })));
    arrived(title);
  }
};
