// Which page an address is, and going from one to the next without loading anew.

import * as api from './api.js';
import * as cart from './cart.js';
import * as catalogue from './catalogue.js';
import * as product from './product.js';
import { h, store, stored } from './dom.js';

const main = document.getElementById('main');

const nowhere = {
  show: async (room, _parameters, { arrived }) => {
    room.replaceChildren(h('h1', { tabIndex: -1 }, 'Nothing here'), h('p', {}, h('a', { href: '/shop/' }, 'To the catalogue')));
    arrived('Nothing here');
  },
};

const PAGES = [
  [/^\/shop(\/(index\.html)?)?$/, catalogue],
  [/^\/shop\/products\/(?<id>\d+)\/?$/, product],
  [/^\/shop\/cart\/?$/, cart],
];

const PLACES = 'catwalk-places';
/** How far each entry of the history was scrolled when it was left. */
const places = stored('sessionStorage', PLACES, {});
/** This entry's name among them. */
let entry;
const enter = () => {
  entry = history.state?.entry;
  if (entry) return;
  entry = api.freshKey();
  history.replaceState({ entry }, '');
};
/** Where one is, once that is where one was: before, the page is not drawn. */
const keepPlace = () => { if (isDrawn) places[entry] = scrollY; };
let isDrawn = false;

/** What has been drawn is on the screen: scrolling in the same frame would count as the page's own moving. */
const painted = () => new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); });

let turn = 0;
/** The address of what is shown; a link within a page leaves it as it is. */
let shown = '';
const address = () => location.pathname + location.search;

/** Shows what is at the address. `from`: the path of the page before, if somebody has moved; `place`: how far this one was scrolled. */
const show = async ({ from, place } = {}) => {
  const here = (turn += 1);
  isDrawn = false;
  const isMoved = from !== undefined;
  api.leave();
  document.querySelectorAll('dialog[open]').forEach((dialog) => dialog.close());
  shown = address();
  const [pattern, page] = PAGES.find(([pattern]) => pattern.test(location.pathname)) ?? [/(?:)/, nowhere];
  const parameters = new URLSearchParams(location.search);
  Object.entries(location.pathname.match(pattern).groups ?? {}).forEach(([name, value]) => parameters.set(name, value));
  // A page that comes in late has nowhere to go any more.
  const room = h('div', { className: 'page' });
  /** Whoever has moved is taken to the heading when it is there, unless they have gone on meanwhile. */
  const arrived = (title) => {
    if (here !== turn) return;
    document.title = title ? `${title} · catwalk` : 'catwalk';
    const isIdle = !document.activeElement || [main, document.body].includes(document.activeElement);
    if (isMoved && isIdle) room.querySelector('h1')?.focus({ preventScroll: true });
  };
  main.replaceChildren(room);
  if (isMoved) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  await page.show(room, parameters, { arrived });
  if (place > 0) await painted();
  if (here !== turn) return;
  const isAtHeading = [main, room.querySelector('h1')].includes(document.activeElement);
  isDrawn = true;
  if (place === undefined) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  else {
    window.scrollTo(0, place);
    if (isAtHeading) room.querySelector(`a[href="${CSS.escape(from)}"]`)?.focus({ preventScroll: true });
  }
};

const go = (url) => {
  const from = location.pathname;
  keepPlace();
  if (url !== location.href) history.pushState(null, '', url);
  enter();
  show({ from });
};

document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href]');
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || link.origin !== location.origin || !/^\/shop(\/|$)/.test(link.pathname) || link.hash || link.target) return;
  event.preventDefault();
  go(link.href);
});

document.querySelector('form.search').addEventListener('submit', (event) => {
  event.preventDefault();
  const q = new FormData(event.target).get('q').trim();
  go(new URL(q ? `/shop/?${new URLSearchParams({ q })}` : '/shop/', location.href).href);
});

history.scrollRestoration = 'manual';
addEventListener('popstate', () => {
  const from = shown.split('?')[0];
  keepPlace();
  enter();
  if (address() !== shown) show({ from, place: places[entry] });
  else if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  else window.scrollTo(0, places[entry] ?? 0);
});
addEventListener('pagehide', () => {
  keepPlace();
  store('sessionStorage', PLACES, places);
});
enter();
cart.refresh();
show({ place: places[entry] });
