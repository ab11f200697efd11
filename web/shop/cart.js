// The cart: what the session has in it, by the API; what its skus are called, by what this browser has put in.

import * as api from './api.js';
import { failure, h, money, picture, store, stored } from './dom.js';

const KNOWN = 'catwalk-skus';

const known = () => stored('localStorage', KNOWN, {});

/** Remembers what a sku is: { product, name, style_id, style, size, thumbnail }. What it costs is asked for. */
export const remember = (sku, what) => {
  store('localStorage', KNOWN, { ...known(), [sku]: what });
};

/** Shows in the header how much is in the cart: in these rows, or in those of the API. */
export const refresh = async (rows) => {
  const badge = document.getElementById('cart-count');
  try {
    const count = (rows ?? (await api.cart())).reduce((sum, row) => sum + Number(row.count), 0);
    badge.textContent = count;
    badge.hidden = count === 0;
    badge.ariaLabel = `${count} in the cart`;
  } catch { /* It is shown again with the next page. */ }
};

/** What each of these skus costs now, as far as this browser knows whose they are: { sku: price }. */
const prices = async (skus) => {
  const products = [...new Set(Object.values(skus).map(({ product }) => product))];
  const styles = (await Promise.allSettled(products.map(api.styles))).flatMap(({ value }) => value ?? []);
  const byStyle = new Map(styles.map((style) => [style.style_id, style.sale_price ?? style.original_price]));
  return Object.fromEntries(Object.entries(skus).map(([sku, { style_id }]) => [sku, byStyle.get(style_id)]));
};

const row = ({ sku_id: sku, count }, what, price) => {
  const name = what ? h('a', { href: `/shop/products/${what.product}` }, what.name) : `Article ${sku}`;
  return h('tr', {},
    h('td', { className: 'thumb' }, picture(what?.thumbnail, '', { width: 64, height: 80 })),
    h('th', { scope: 'row' }, name, what && h('small', {}, `${what.style}, size ${what.size}`)),
    h('td', {}, count),
    h('td', {}, price ? money((Number(price) * Number(count)).toFixed(2)) : '–'));
};

const draw = async (room) => {
  const rows = await api.cart();
  refresh(rows);
  if (!rows.length) {
    room.append(h('p', {}, 'There is nothing in it yet. ', h('a', { href: '/shop/' }, 'To the catalogue')));
    return;
  }
  const all = known();
  const skus = Object.fromEntries(rows.filter(({ sku_id: sku }) => all[sku]).map(({ sku_id: sku }) => [sku, all[sku]]));
  // What is no longer in the cart needs no memory.
  store('localStorage', KNOWN, skus);
  const costs = await prices(skus);
  const isWhole = rows.every(({ sku_id: sku }) => costs[sku]);
  const total = rows.reduce((sum, { sku_id: sku, count }) => sum + Number(costs[sku] ?? 0) * Number(count), 0);
  room.append(h('table', { className: 'cart-table' },
    h('caption', { className: 'hidden' }, 'What is in the cart'),
    h('thead', {}, h('tr', {}, h('td', {}), ...['Product', 'Quantity', 'Price'].map((text) => h('th', { scope: 'col' }, text)))),
    h('tbody', {}, rows.map((each) => row(each, skus[each.sku_id], costs[each.sku_id]))),
    h('tfoot', {}, h('tr', {}, h('td', {}), h('th', { scope: 'row', colSpan: 2 }, 'Total'), h('td', {}, isWhole ? money(total.toFixed(2)) : '–')))));
};

export const show = async (room, parameters, { arrived }) => {
  room.replaceChildren(h('h1', { tabIndex: -1 }, 'Cart'));
  arrived('Cart');
  try {
    await draw(room);
  } catch (error) {
    room.append(failure(error, () => show(room, parameters, { arrived })));
  }
};
