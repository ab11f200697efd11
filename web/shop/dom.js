// Elements, and the few things that all pages need of them.

import { freshKey } from './api.js';

/** What a browser keeps, where it keeps anything. */
export const stored = (storage, key, fallback) => {
  try {
    return JSON.parse(globalThis[storage].getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
};
export const store = (storage, key, value) => {
  try {
    globalThis[storage].setItem(key, JSON.stringify(value));
  } catch { /* Nothing depends on it. */ }
};

/** An element: properties, attributes (aria-…, data-…, role), listeners (onclick), then children; null and false are left out. */
export const h = (name, properties = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (key in made && !key.includes('-') && key !== 'list' && key !== 'form') made[key] = value;
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false));
  return made;
};

/** Tells those who can't see it what has happened; the same words twice are told twice. */
export const say = (text) => {
  const said = document.getElementById('said');
  said.textContent = '';
  setTimeout(() => { said.textContent = text; }, 50);
};

/** Does `work` when it is pressed or sent, unless it is at it still; the control keeps the focus meanwhile. */
export const busyWhile = (control, work) => async (event) => {
  event.preventDefault();
  if (control.ariaDisabled === 'true') return;
  control.ariaDisabled = 'true';
  try {
    await work(event);
  } finally {
    if (!control.isSpent) control.ariaDisabled = null;
  }
};

export const money = (text) => `$${text}`;

export const date = (text) =>
  h('time', { dateTime: text }, new Date(text).toLocaleDateString(undefined, { year: 'numeric', month: 'long', day: 'numeric', timeZone: 'UTC' }));

/** A price, and what it was before. */
export const price = (original, sale) =>
  sale
    ? h('span', { className: 'price' }, h('strong', { className: 'sale' }, h('span', { className: 'hidden' }, 'now '), money(sale)), ' ', h('s', {}, h('span', { className: 'hidden' }, 'before '), money(original)))
    : h('span', { className: 'price' }, h('strong', {}, money(original)));

/** Stars: `value` of 5, in quarters. */
export const stars = (value) => {
  const shown = Math.round(value * 4) / 4;
  const made = h('span', { className: 'stars', role: 'img', 'aria-label': `${value.toFixed(1)} of 5 stars` });
  made.style.setProperty('--part', `${shown * 20}%`);
  return made;
};

/** Average and number of a product's ratings, as /reviews/meta counts them. */
export const rating = (meta) => {
  const entries = Object.entries(meta.ratings).map(([stars, count]) => [Number(stars), Number(count)]);
  const count = entries.reduce((sum, [, n]) => sum + n, 0);
  return { count, average: count ? entries.reduce((sum, [stars, n]) => sum + stars * n, 0) / count : 0 };
};

/** Where a browser finds a picture; none for what is no address of one. What the server draws itself is wherever the page is from. */
const addressOf = (text) => {
  if (!/^(https?:\/)?\//i.test(text ?? '') || !URL.canParse(text, location.href)) return null;
  const url = new URL(text, location.href);
  return /^\/pictures\/\d+-\d+\.svg$/.test(url.pathname) ? url.pathname + url.search : url.href;
};

/** The first of these that is a picture's address. */
const firstOf = (...urls) => urls.map(addressOf).find(Boolean) ?? null;
/** Of a photo, small or large: whichever it has. */
export const thumbnailOf = (photo) => firstOf(photo?.thumbnail_url, photo?.url);
export const largeOf = (photo) => firstOf(photo?.url, photo?.thumbnail_url);

const nothing = (alt) => (alt ? h('span', { className: 'nothing', role: 'img', 'aria-label': alt }) : h('span', { className: 'nothing', 'aria-hidden': 'true' }));

/** A picture whose room is kept before it is there. */
export const picture = (url, alt, { width, height, lazy = true }) => {
  const src = addressOf(url);
  if (!src) return nothing(alt);
  const made = h('img', { alt, width, height, loading: lazy ? 'lazy' : 'eager', decoding: 'async' });
  made.addEventListener('error', () => made.replaceWith(nothing(alt)), { once: true });
  made.src = src;
  return made;
};

/** The default style, or the first one. */
export const defaultOf = (styles) => styles.find((style) => style['default?']) ?? styles[0];

/** What is shown where something could not be loaded. Whoever tries again is taken to the heading of what comes in its place. */
export const failure = (error, again) => {
  const button = again && h('button', { type: 'button' }, 'Try again');
  const made = h('div', { className: 'failure', role: 'alert' }, h('p', {}, error.message), button);
  button?.addEventListener('click', busyWhile(button, async () => {
    const room = made.parentElement;
    await again();
    const heading = room.querySelector('h1, h2');
    if (made.isConnected || document.activeElement !== document.body || !heading) return;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }));
  return made;
};

let fields = 0;
/** A labelled field: `made` is the input. */
export const field = (label, made, hint) => {
  made.id ||= `field-${(fields += 1)}`;
  const help = hint && h('small', { id: `${made.id}-hint` }, hint);
  if (help) made.setAttribute('aria-describedby', help.id);
  return h('div', { className: 'field' }, h('label', { htmlFor: made.id }, label), made, help);
};

/** A dialog with a form. `send` gets its data and a key for this one intent, and closes it by succeeding; `done` shows what has changed. */
export const dialog = (title, content, label, send, done) => {
  const key = freshKey();
  const error = h('p', { className: 'error', role: 'alert' });
  const submit = h('button', { type: 'submit', className: 'main' }, label);
  const form = h('form', { method: 'dialog' }, h('h2', {}, title), ...content, error,
    h('div', { className: 'buttons' }, h('button', { type: 'button', onclick: () => made.close() }, 'Cancel'), submit));
  const made = h('dialog', { 'aria-label': title }, form);
  const sent = async () => {
    try {
      await send(new FormData(form), key);
      return 'It is published.';
    } catch (refused) {
      // The answer to the first was lost, and something was changed since.
      if (refused.code !== 'idempotency-key-reused') throw refused;
      return 'It was published before you changed it.';
    }
  };
  form.addEventListener('submit', busyWhile(submit, async () => {
    error.textContent = '';
    let told;
    try {
      told = await sent();
    } catch (refused) {
      error.textContent = refused.message;
      if (!made.open) say(`${title}: ${refused.message}`);
      return;
    }
    made.close();
    say(told);
    // Whoever has left its page meanwhile sees it when they come back.
    await done().catch((refused) => say(`${told} ${refused.message}`));
  }));
  made.addEventListener('close', () => made.remove());
  document.body.append(made);
  made.showModal();
  return made;
};

const VOTED = 'catwalk-voted';
const voted = () => new Set(stored('sessionStorage', VOTED, []));

/** "Helpful? Yes (3) · Report"; each once. `kind` as in the API's path; `entry[field]` is how many found it helpful; `send` casts the vote. */
export const votes = (kind, id, entry, field, send) => {
  const error = h('span', { className: 'error' });
  const button = (vote, before, after) => {
    const key = `${kind}/${id}/${vote}`;
    const made = h('button', { type: 'button', className: 'link' }, before());
    const finish = () => {
      made.isSpent = true;
      made.ariaDisabled = 'true';
      made.textContent = after();
    };
    if (voted().has(key)) finish();
    made.addEventListener('click', busyWhile(made, async () => {
      try {
        await send(kind, id, vote);
      } catch (refused) {
        error.textContent = ` ${refused.message}`;
        say(refused.message);
        return;
      }
      error.textContent = '';
      store('sessionStorage', VOTED, [...voted().add(key)]);
      if (vote === 'helpful') entry[field] += 1;
      finish();
      say(vote === 'helpful' ? 'Your vote is counted.' : 'Reported. It is no longer shown to others.');
    }));
    return made;
  };
  return h('p', { className: 'votes' },
    h('span', {}, 'Was this helpful? '),
    button('helpful', () => `Yes (${entry[field]})`, () => `Helpful (${entry[field]})`), ' ',
    button('report', () => 'Report', () => 'Reported'), error);
};

/** Tries to fill a part of a page; where that fails, says why, and offers to try again. */
export const part = async (room, fill) => {
  try {
    await fill();
  } catch (error) {
    room.replaceChildren(failure(error, () => part(room, fill)));
  }
};
