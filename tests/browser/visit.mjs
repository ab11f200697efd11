// A visitor in a real browser: finds a product, picks style and size, puts it into the cart, writes a review, votes, asks. Fails by its exit status.
//
// Environment: URL of the server, MODULES (node_modules with playwright-core and axe-core), CHROMIUM, OUTPUT (a directory for screenshots),
// VISIT=short for one walk on a desktop, else also a phone, the dark, and the keyboard.

import assert from 'node:assert/strict';

import { faults, inspect as look, open as openAt, stands, visit } from './lib.mjs';

const { URL: url, VISIT } = process.env;
/** Sets this visit's words apart from those of visits before. */
const run = Date.now().toString(36);
const open = (options) => openAt(url, options);

const settled = async (page) => {
  await page.waitForLoadState('networkidle');
  await page.evaluate(() => Promise.all([...document.images].filter((image) => image.loading !== 'lazy').map((image) => image.decode().catch(() => {}))));
};

const inspect = async (page, name) => {
  await settled(page);
  await look(page, name);
  await stands(page, name);
};

const step = async (name, work) => {
  const before = faults.length;
  await work();
  assert.deepEqual(faults.slice(before), [], name);
  console.log(`  ${name}`);
};

/** The whole walk. */
const walk = async (page, device) => {
  const who = `${device}-${run}`;
  let product;
  await step(`${device}: / leads to the catalogue, which has pages`, async () => {
    await page.goto(`${url}/`);
    assert.equal(new URL(page.url()).pathname, '/shop/');
    await page.locator('.grid .card .name').first().waitFor();
    assert.equal(await page.locator('.grid .card .name').count(), 12);
    await inspect(page, `${device}-catalogue`);
    const first = await page.locator('.grid .card .name').first().textContent();
    await page.getByRole('link', { name: 'Next →' }).click();
    await page.getByText('Page 2', { exact: true }).waitFor();
    await page.getByRole('link', { name: '← Previous' }).click();
    await page.getByText('Page 1', { exact: true }).waitFor();
    await page.locator('.grid .card .name').first().waitFor();
    assert.equal(await page.locator('.grid .card .name').first().textContent(), first);
    product = await page.locator('.grid .card .name').nth(2).textContent();
  });
  await step(`${device}: a search finds the product`, async () => {
    await page.getByRole('searchbox', { name: 'Search the catalogue' }).fill(`"${product}"`);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name: product }).waitFor();
    await page.getByRole('link', { name: product }).first().click();
    await page.waitForURL('**/shop/products/*');
    await page.getByRole('heading', { level: 1, name: product }).waitFor();
    await page.reload();
    await page.getByRole('heading', { level: 2, name: 'Ratings and reviews' }).waitFor();
    await inspect(page, `${device}-product`);
  });
  await step(`${device}: another picture, another style, a size, into the cart`, async () => {
    const reviews = page.getByRole('link', { name: /^Read all/ });
    if (await reviews.count()) {
      await reviews.click();
      assert.ok(await page.locator('#reviews h2').isVisible(), 'a link within the page leaves it as it is');
    }
    const picture = () => page.locator('.frame.large img').getAttribute('src');
    const [before, pictures] = [await picture(), page.getByRole('button', { name: 'Picture 2' })];
    if (await pictures.count()) {
      await pictures.click();
      assert.notEqual(await picture(), before);
    }
    const styles = page.locator('.styles input');
    if ((await styles.count()) > 1) {
      await styles.nth(1).check({ force: true });
      assert.ok(await styles.nth(1).isChecked());
    }
    for (let n = 0; n < (await styles.count()) && !(await page.getByLabel('Size', { exact: true }).isEnabled()); n += 1) await styles.nth(n).check({ force: true });
    await page.getByLabel('Size', { exact: true }).selectOption({ index: 1 });
    const most = await page.getByLabel('Quantity', { exact: true }).locator('option').count();
    await page.getByLabel('Quantity', { exact: true }).selectOption(String(Math.min(2, most)));
    await page.getByRole('button', { name: 'Add to cart' }).click();
    await page.getByText('in the cart. To the cart').waitFor();
    await page.locator('#cart-count', { hasText: String(Math.min(2, most)) }).waitFor();
    await page.getByRole('link', { name: 'To the cart' }).click();
    await page.getByRole('row', { name: product }).waitFor();
    await inspect(page, `${device}-cart`);
    await page.goBack();
    await page.getByRole('heading', { level: 1, name: product }).waitFor();
  });
  await step(`${device}: writes a review and sees it`, async () => {
    await page.getByRole('button', { name: 'Write a review' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('4 Good').check();
    await dialog.getByLabel('Yes').check();
    for (const scale of await dialog.locator('fieldset:has(input[name^=characteristic])').all()) await scale.getByRole('radio').nth(2).check();
    await dialog.getByLabel('Summary').fill(`Good, says ${who}`);
    await dialog.getByLabel('Review', { exact: true }).fill('It fits as it should, and after ten times in the wash it still looks as it did.');
    await dialog.getByLabel('Nickname').fill('walker');
    await dialog.getByLabel('E-mail').fill('walker@example.invalid');
    await inspect(page, `${device}-review`);
    await dialog.getByRole('button', { name: 'Submit review' }).click();
    await page.getByRole('heading', { level: 3, name: `Good, says ${who}` }).waitFor();
  });
  await step(`${device}: votes, once`, async () => {
    const review = page.locator('.review', { hasText: `Good, says ${who}` });
    await review.getByRole('button', { name: 'Yes (0)' }).click();
    await review.getByRole('button', { name: 'Helpful (1)' }).waitFor();
    assert.ok(await review.getByRole('button', { name: 'Helpful (1)' }).isDisabled());
  });
  await step(`${device}: asks a question, and answers it`, async () => {
    await page.getByRole('button', { name: 'Ask a question' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Your question').fill(`Does it shrink, asks ${who}?`);
    await dialog.getByLabel('Nickname').fill('walker');
    await dialog.getByLabel('E-mail').fill('walker@example.invalid');
    await dialog.getByRole('button', { name: 'Submit question' }).click();
    const question = page.locator('.question', { hasText: `Does it shrink, asks ${who}?` });
    await question.getByRole('button', { name: 'Add an answer' }).click();
    await dialog.getByLabel('Your answer').fill('It does not.');
    await dialog.getByLabel('Nickname').fill('Seller');
    await dialog.getByLabel('E-mail').fill('seller@example.invalid');
    await dialog.getByRole('button', { name: 'Submit answer' }).click();
    await question.getByText('It does not.').waitFor();
    await inspect(page, `${device}-asked`);
  });
  await page.context().close();
};

/** Without a mouse: skip the header, open a product, choose, order. */
const type = async (page) => {
  await step('keyboard: from the catalogue into the cart', async () => {
    const focused = () => page.evaluate(() => document.activeElement?.innerText?.trim() ?? '');
    const until = async (is) => {
      for (let n = 0; n < 120 && !(await is()); n += 1) await page.keyboard.press('Tab');
      assert.ok(await is(), 'it can be reached');
    };
    await page.goto(`${url}/shop/`);
    await page.locator('.grid .card .name').first().waitFor();
    await page.keyboard.press('Tab');
    assert.equal(await focused(), 'Skip to content');
    await page.keyboard.press('Enter');
    const name = await page.locator('.grid .card .name').first().textContent();
    await until(async () => (await focused()).includes(name));
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name }).waitFor();
    await settled(page);
    assert.equal(await page.evaluate(() => document.activeElement.tagName), 'H1', 'what is new is read first');
    await until(() => page.evaluate(() => document.activeElement.name === 'size'));
    await page.keyboard.press('ArrowDown');
    await until(async () => (await focused()) === 'Add to cart');
    await page.keyboard.press('Enter');
    await page.getByText('in the cart. To the cart').waitFor();
  });
  await page.context().close();
};

await visit(async () => {
  await walk(await open(), 'desktop');
  if (VISIT === 'short') return;
  await walk(await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }), 'phone');
  await walk(await open({ colorScheme: 'dark' }), 'dark');
  await type(await open());
});
