// The cart: what the session has in it, by the API; what its skus are called, by what this browser has put in.

import * as api from './api.js';
import { failure, h, money, picture, store, stored } from './dom.js';

const KNOWN = 'catwalk-skus';

const known = () => stored('localStorage', KNOWN, {});

/** Remembers what a sku is: { product, name, style, size, price, thumbnail }. */
export const remember = (sku, what) => {
  store('localStorage', KNOWN, { ...known(), [sku]: what });
};

/** Shows in the header how much is in the cart. */
export const refresh = async () => {
  const badge = document.getElementById('cart-count');
  try {
    const count = (await api.cart()).reduce((sum, row) => sum + Number(row.count), 0);
    badge.textContent = count;
    badge.hidden = count === 0;
    badge.setAttribute('aria-label', `${count} in the cart`);
  } catch { /* It is shown again with the next page. */ }
};

const row = ({ sku_id: sku, count }, what) => {
  const name = what ? h('a', { href: `/shop/products/${what.product}` }, what.name) : `Article ${sku}`;
  return h('tr', {},
    h('td', { className: 'thumb' }, picture(what?.thumbnail, '', { width: 64, height: 80 })),
    h('th', { scope: 'row' }, name, what && h('small', {}, `${what.style}, size ${what.size}`)),
    h('td', {}, count),
    h('td', {}, what ? money((Number(what.price) * Number(count)).toFixed(2)) : '–'));
};

export const show = async (main, _parameters, { title }) => {
  title('Cart');
  main.replaceChildren(h('h1', { tabIndex: -1 }, 'Cart'));
  try {
    const [rows, skus] = [await api.cart(), known()];
    if (!rows.length) {
      main.append(h('p', {}, 'There is nothing in it yet. ', h('a', { href: '/shop/' }, 'To the catalogue')));
      return;
    }
    // What this browser has not put in it knows no price of.
    const isWhole = rows.every(({ sku_id: sku }) => skus[sku]);
    const total = rows.reduce((sum, { sku_id: sku, count }) => sum + Number(skus[sku]?.price ?? 0) * Number(count), 0);
    main.append(h('table', { className: 'cart-table' },
      h('caption', { className: 'hidden' }, 'What is in the cart'),
      h('thead', {}, h('tr', {}, h('td', {}), ...['Product', 'Quantity', 'Price'].map((text) => h('th', { scope: 'col' }, text)))),
      h('tbody', {}, rows.map((each) => row(each, skus[each.sku_id]))),
      h('tfoot', {}, h('tr', {}, h('td', {}), h('th', { scope: 'row', colSpan: 2 }, 'Total'), h('td', {}, isWhole ? money(total.toFixed(2)) : '–')))));
  } catch (error) {
    main.append(failure(error, () => show(main, _parameters, { title })));
  }
  refresh();
};
