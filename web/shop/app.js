// Which page an address is, and going from one to the next without loading anew.

import * as cart from './cart.js';
import * as catalogue from './catalogue.js';
import * as product from './product.js';
import { h } from './dom.js';

const main = document.getElementById('main');

const nowhere = {
  show: async (main, _parameters, { title }) => {
    title('Nothing here');
    main.replaceChildren(h('h1', { tabIndex: -1 }, 'Nothing here'), h('p', {}, h('a', { href: '/shop/' }, 'To the catalogue')));
  },
};

const PAGES = [
  [/^\/shop\/?$/, catalogue],
  [/^\/shop\/products\/(?<id>\d+)\/?$/, product],
  [/^\/shop\/cart\/?$/, cart],
];

let turn = 0;
/** The address of what is shown; a link within a page leaves it as it is. */
let shown = '';
const address = () => location.pathname + location.search;

const show = async (isMoved) => {
  const here = (turn += 1);
  shown = address();
  const [pattern, page] = PAGES.find(([pattern]) => pattern.test(location.pathname)) ?? [/(?:)/, nowhere];
  const parameters = new URLSearchParams(location.search);
  Object.entries(location.pathname.match(pattern).groups ?? {}).forEach(([name, value]) => parameters.set(name, value));
  const title = (text) => {
    if (here === turn) document.title = text ? `${text} · catwalk` : 'catwalk';
  };
  // A page that comes in late has nowhere to go any more.
  const room = h('div', { className: 'page' });
  main.replaceChildren(room);
  const showing = page.show(room, parameters, { title });
  if (isMoved) {
    window.scrollTo(0, 0);
    (room.querySelector('h1') ?? main).focus({ preventScroll: true });
  }
  await showing;
  // Whoever has gone on meanwhile is left where they are.
  const isIdle = [main, document.body, null].includes(document.activeElement);
  if (isMoved && here === turn && isIdle) (room.querySelector('h1') ?? main).focus({ preventScroll: true });
};

const go = (url) => {
  history.pushState(null, '', url);
  show(true);
};

document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href]');
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || link.origin !== location.origin || !link.pathname.startsWith('/shop') || link.hash || link.target) return;
  event.preventDefault();
  go(link.href);
});

document.querySelector('form.search').addEventListener('submit', (event) => {
  event.preventDefault();
  const q = new FormData(event.target).get('q').trim();
  go(q ? `/shop/?${new URLSearchParams({ q })}` : '/shop/');
});

addEventListener('popstate', () => address() === shown || show(true));
cart.refresh();
show(false);
