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

/** Tells those who can't see it what has happened. */
export const say = (text) => {
  document.getElementById('said').textContent = text;
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

const isPicture = (url) => /^(https?:)?\/\//.test(url ?? '') || /^\//.test(url ?? '');

/** A picture whose room is kept before it is there. */
export const picture = (url, alt, { width, height, lazy = true }) => {
  if (!isPicture(url)) return h('span', { className: 'nothing', role: 'img', 'aria-label': alt || 'no picture' });
  const made = h('img', { alt, width, height, loading: lazy ? 'lazy' : 'eager', decoding: 'async' });
  made.addEventListener('error', () => made.replaceWith(h('span', { className: 'nothing', role: 'img', 'aria-label': alt })), { once: true });
  made.src = url;
  return made;
};

/** The default style, or the first one. */
export const defaultOf = (styles) => styles.find((style) => style['default?']) ?? styles[0];

/** What is shown where something could not be loaded. */
export const failure = (error, again) =>
  h('div', { className: 'failure', role: 'alert' }, h('p', {}, error.message), again && h('button', { type: 'button', onclick: again }, 'Try again'));

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
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    submit.disabled = true;
    error.textContent = '';
    try {
      await send(new FormData(form), key);
    } catch (refused) {
      error.textContent = refused.message;
      submit.disabled = false;
      return;
    }
    made.close();
    try {
      await done();
    } catch (refused) {
      say(`It is published. ${refused.message}`);
    }
  });
  made.addEventListener('close', () => made.remove());
  document.body.append(made);
  made.showModal();
  return made;
};

const VOTED = 'catwalk-voted';
const voted = () => new Set(stored('sessionStorage', VOTED, []));

/** "Helpful? Yes (3) · Report"; each once. `kind` as in the API's path, `send` casts the vote. */
export const votes = (kind, id, helpfulness, what, send) => {
  const key = (vote) => `${kind}/${id}/${vote}`;
  const button = (vote, text, done) => {
    const made = h('button', { type: 'button', className: 'link' }, text());
    const finish = () => {
      made.disabled = true;
      made.textContent = done();
    };
    if (voted().has(key(vote))) finish();
    made.addEventListener('click', async () => {
      made.disabled = true;
      try {
        await send(kind, id, vote);
        store('sessionStorage', VOTED, [...voted().add(key(vote))]);
        if (vote === 'helpful') helpfulness += 1;
        finish();
        say(vote === 'helpful' ? 'Your vote is counted.' : 'Reported. It is no longer shown to others.');
      } catch (refused) {
        made.disabled = false;
        say(refused.message);
      }
    });
    return made;
  };
  return h('p', { className: 'votes' },
    h('span', {}, `Was this ${what} helpful? `),
    button('helpful', () => `Yes (${helpfulness})`, () => `Helpful (${helpfulness})`), ' ',
    button('report', () => 'Report', () => 'Reported'));
};
