// What every visit in a browser has: pages whose faults are noted, and a look at what readers with and without eyes get.

import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const { MODULES, CHROMIUM, OUTPUT } = process.env;
const require = createRequire(join(MODULES, 'x.js'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

mkdirSync(OUTPUT, { recursive: true });
export const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
/** What no page may do. */
export const faults = [];
let shots = 0;

/** A page that may ask nobody but `origin`; a refusal is a fault, unless it `isRefused` on purpose. */
export const open = async (origin, { isRefused = false, ...options } = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const isWanted = (message) => isRefused && message.text().startsWith('Failed to load resource');
  page.on('console', (message) => message.type() === 'error' && !isWanted(message) && faults.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`error: ${error.stack}`));
  page.on('request', (request) => new URL(request.url()).origin === origin || request.url().startsWith('data:') || faults.push(`asks elsewhere: ${request.url()}`));
  page.on('response', (response) => response.status() >= 400 && !isRefused && faults.push(`${response.status()} ${response.url()}`));
  await page.addInitScript(() => {
    window.shifted = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        if (!entry.hadRecentInput) window.shifted.push([entry.value, entry.sources.map((source) => source.node?.className ?? source.node?.nodeName)]);
      }
    }).observe({ type: 'layout-shift', buffered: true });
  });
  return page;
};

/** Takes a picture, and notes what is not accessible and what is wider than the window. */
export const inspect = async (page, name) => {
  await page.screenshot({ path: join(OUTPUT, `${String((shots += 1)).padStart(2, '0')}-${name}.png`), fullPage: true });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] }));
  for (const { id, help, nodes } of violations) faults.push(`${name}: ${id} (${help}): ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join(' | ').slice(0, 600)}`);
  const wide = await page.evaluate(() => {
    const room = document.documentElement.clientWidth;
    const over = document.scrollingElement.scrollWidth - room;
    if (over <= 0) return [];
    const wide = [...document.querySelectorAll('body *')].filter((each) => each.getBoundingClientRect().right > room + 1);
    return [`by ${over} px`, ...wide.map((each) => `${each.nodeName}.${each.className}`).slice(0, 8)];
  });
  if (wide.length) faults.push(`${name}: it is wider than the window: ${wide}`);
};

/** Notes what has moved under the reader (Core Web Vitals, cumulative layout shift: good is up to 0.1). */
export const stands = async (page, name) => {
  const shifts = await page.evaluate(() => window.shifted);
  const sum = shifts.reduce((sum, [value]) => sum + value, 0);
  if (sum > 0.05) faults.push(`${name}: the layout shifts by ${sum.toFixed(3)}: ${JSON.stringify(shifts)}`);
};

/** Runs a visit; its exit status says whether anything was wrong. */
export const visit = async (work) => {
  try {
    await work();
    if (faults.length) throw new Error('pages had faults');
  } catch (error) {
    console.error(error.message, faults);
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
};
