// The status page while load runs: it moves, and says what happens. Environment as in visit.mjs, and ADMIN_URL, where it is.

import assert from 'node:assert/strict';

import { inspect, open, visit } from './lib.mjs';

const { URL: url, ADMIN_URL: admin } = process.env;

let isOver = false;
const load = async (path) => {
  while (!isOver) await (await fetch(`${url}${path}`)).arrayBuffer();
};

await visit(async () => {
  const page = await open(admin, { viewport: { width: 1600, height: 900 }, colorScheme: 'dark' });
  const loads = ['/products/7', '/products/8/styles', '/reviews?product_id=3'].map(load);
  try {
    await page.goto(`${admin}/`);
    assert.equal(new URL(page.url()).pathname, '/status/');
    const tile = (name) => page.locator('.tile', { hasText: name }).locator('b');
    const rate = async () => Number((await tile('requests/s').textContent()).replace('k', ''));
    await page.waitForFunction(() => document.querySelector('.tile b') && parseFloat(document.querySelector('.tile b').textContent) > 0);
    const first = await rate();
    const lines = () => page.locator('.plot polyline').first().getAttribute('points');
    const before = await lines();
    await page.waitForFunction((before) => document.querySelector('.plot polyline').getAttribute('points') !== before, before);
    assert.ok(first > 0, 'requests are counted');
    assert.match(await tile('hit ratio').textContent(), /^(9\d|100)\.\d %$/);
    assert.equal(await tile('workers').textContent(), await page.evaluate(async () => {
      const { workers } = await (await fetch('/status.json')).json();
      return `${workers.serving}/${workers.wanted}`;
    }));
    for (const [table, text] of [['routes', 'styles'], ['hottest', 'product:7'], ['statements', 'products_fetch'], ['processes', 'serving'], ['nodes', 'primary']]) {
      await page.locator(`#${table}`, { hasText: text }).waitFor();
    }
    const cut = await page.evaluate(() => [...document.querySelectorAll('.room, .tile b')].filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.textContent.slice(0, 60)));
    assert.deepEqual(cut, [], 'on a large screen nothing has to be scrolled for');
    await inspect(page, 'status');
    console.log('  the status page moves while load runs');
  } finally {
    isOver = true;
    await Promise.allSettled(loads);
  }
  // Without load it says so.
  await page.waitForFunction(() => document.querySelector('.tile b').textContent === '0');
  console.log('  and rests when it ends');
  await page.setViewportSize({ width: 390, height: 844 });
  await inspect(page, 'status-phone');
});
