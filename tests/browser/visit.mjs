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
  const missing = await page.evaluate(async () => {
    const isSeen = (image) => image.loading !== 'lazy' || image.getBoundingClientRect().top < innerHeight;
    const all = [...document.images].filter(isSeen);
    await Promise.all(all.map((image) => image.decode().catch(() => {})));
    return all.filter((image) => image.naturalWidth === 0).map((image) => image.src);
  });
  assert.deepEqual(missing, [], 'pictures are there');
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
    const reviews = page.getByRole('link', { name: /^Read / });
    if (await reviews.count()) {
      const heading = await page.locator('h1').elementHandle();
      await reviews.click();
      assert.ok(await page.locator('#reviews').evaluate((room) => room.getBoundingClientRect().top < innerHeight), 'a link within the page goes there');
      assert.ok(await heading.evaluate((heading) => heading.isConnected), 'and leaves the page as it is');
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
    const picture = () => page.locator('.frame.large img').getAttribute('src');
    const [before, next] = [await picture(), page.getByRole('button', { name: 'Next picture' })];
    if (await next.count()) {
      await next.press('Enter');
      assert.notEqual(await picture(), before);
      assert.ok(await next.evaluate((button) => button === document.activeElement), 'whoever has pressed it can press it again');
      await page.getByRole('button', { name: 'Picture 1' }).click();
      assert.equal(await picture(), before);
    }
    assert.equal(await page.getByLabel('Quantity', { exact: true }).inputValue(), String(Math.min(2, most)), 'another picture leaves the choice as it is');
    const orders = [];
    page.on('request', (request) => request.method() === 'POST' && orders.push(request.url()));
    await page.getByRole('button', { name: 'Add to cart' }).dblclick();
    await page.getByText('in the cart. To the cart').waitFor();
    await page.locator('#cart-count', { hasText: String(Math.min(2, most)) }).waitFor();
    assert.equal(orders.length, 1, 'whoever clicks twice has it once');
    await page.getByRole('link', { name: 'To the cart' }).click();
    await page.getByRole('row', { name: product }).waitFor();
    assert.match(await page.getByRole('row', { name: 'Total' }).textContent(), /\$\d+\.\d\d$/);
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
    const voted = review.getByRole('button', { name: 'Helpful (1)' });
    await voted.waitFor();
    assert.equal(await voted.getAttribute('aria-disabled'), 'true');
    await voted.click({ force: true });
    await page.reload();
    await settled(page);
    await page.getByLabel('Sort by').selectOption('newest');
    await voted.waitFor();
  });
  await step(`${device}: reviews in another order, what they come to, related products`, async () => {
    const dates = () => page.locator('.review time').evaluateAll((all) => all.map((each) => each.dateTime));
    assert.deepEqual(await dates(), [...(await dates())].sort().reverse(), 'the newest are first');
    const sum = await page.locator('.breakdown li span:last-child').evaluateAll((all) => all.reduce((sum, each) => sum + Number(each.textContent), 0));
    assert.match(await page.locator('.average').textContent(), new RegExp(`${sum} reviews?$`), 'the breakdown has all of them');
    assert.ok(await page.locator('.scales .marker').count(), 'characteristics');
    assert.ok(await page.locator('.related .card').count(), 'related products');
    await page.getByLabel('Sort by').selectOption('helpful');
    await page.locator('#said', { hasText: 'sorted by helpful' }).waitFor({ state: 'attached' });
    const helpful = await page.locator('.review .votes button:first-of-type').evaluateAll((all) => all.map((each) => Number(/\d+/.exec(each.textContent)[0])));
    assert.deepEqual(helpful, [...helpful].sort((a, b) => b - a), 'the most helpful are first');
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
    // Two more, which are behind the first two and are seen all the same.
    for (const text of ['Not at all.', 'Mine did, a little.']) {
      await question.getByRole('button', { name: 'Add an answer' }).click();
      await dialog.getByLabel('Your answer').fill(text);
      await dialog.getByLabel('Nickname').fill('walker');
      await dialog.getByLabel('E-mail').fill('walker@example.invalid');
      await dialog.getByRole('button', { name: 'Submit answer' }).click();
      await question.getByText(text).waitFor();
    }
    await question.getByRole('button', { name: 'Yes (0)' }).first().click();
    await question.getByRole('button', { name: 'Helpful (1)' }).waitFor();
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
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
    await until(() => page.evaluate((name) => document.activeElement.matches('.card') && document.activeElement.innerText.includes(name), name));
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

/** Back is where one was, as far down, at the same link; and what lay over the page is gone. */
const back = async (page) => {
  await step('back: the same place, the same link, no dialog left', async () => {
    await page.goto(`${url}/shop/`);
    const last = page.locator('.grid .card').last();
    await last.locator('img').waitFor();
    await last.scrollIntoViewIfNeeded();
    const [place, href] = [await page.evaluate(() => scrollY), await last.getAttribute('href')];
    assert.ok(place > 0);
    await last.click();
    await page.getByRole('button', { name: 'Ask a question' }).click();
    await page.getByRole('dialog').waitFor();
    await page.waitForLoadState('networkidle');
    const below = await page.evaluate(() => scrollY);
    await page.goBack();
    await page.waitForFunction((place) => scrollY === place, place);
    assert.equal(await page.getByRole('dialog').count(), 0);
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('href')), href);
    await page.goForward();
    await page.getByRole('heading', { name: 'Ratings and reviews' }).waitFor();
    await page.waitForFunction((place) => scrollY === place, below);
    // Within a page too.
    await page.goto(`${url}/shop/products/3`);
    await page.locator('.review').first().waitFor();
    await page.getByRole('link', { name: /^Read / }).click();
    await page.waitForFunction(() => scrollY > 300);
    await page.goBack();
    await page.waitForFunction(() => scrollY === 0);
  });
  await page.context().close();
};

const LONG = 'Unbrechbar'.repeat(100);
const json = (body) => ({ status: 200, contentType: 'application/json', body: JSON.stringify(body) });

/** What an old catalogue has, and what a server that fails says. */
const trouble = async (page) => {
  const answer = async (path, with_) => page.route(`${url}${path}`, (route) => route.fulfill(with_));
  const problem = { status: 503, contentType: 'application/problem+json', body: JSON.stringify({ title: 'Service Unavailable', detail: 'words of a server', code: 'database-unavailable' }) };
  await step('trouble: no such product, nothing found', async () => {
    await page.goto(`${url}/shop/products/999999999`);
    await page.getByRole('heading', { level: 1, name: 'There is no such product' }).waitFor();
    await page.goto(`${url}/shop/?q=zzzzqqqq`);
    await page.getByText('Nothing was found.').waitFor();
  });
  await step('trouble: a server that fails, and then does not', async () => {
    await answer('/products/3', problem);
    await page.goto(`${url}/shop/products/3`);
    await page.getByText('The shop has trouble at the moment (503)').waitFor();
    await page.unroute(`${url}/products/3`);
    await answer('/reviews?*', { status: 502, contentType: 'text/html', body: '<h1>Bad Gateway</h1>' });
    await page.getByRole('button', { name: 'Try again' }).press('Enter');
    await page.getByText('The shop has trouble at the moment (502)').waitFor();
    await page.waitForFunction(() => document.activeElement.tagName === 'H1');
    assert.equal(await page.getByText('Bad Gateway').count(), 0);
    await page.unroute(`${url}/reviews?*`);
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.locator('.reviews select').waitFor();
    await answer('/reviews?*', problem);
    await page.getByLabel('Sort by').selectOption('newest');
    await page.locator('.reviews .failure').waitFor();
    await page.unroute(`${url}/reviews?*`);
    await page.locator('.reviews').getByRole('button', { name: 'Try again' }).click();
    await page.locator('.review').first().waitFor();
  });
  await step('trouble: dirty pictures, no sizes, words that do not end', async () => {
    await answer('/products/4', json({ id: 4, name: LONG, slogan: LONG, description: LONG, category: 'Hats', default_price: '1.00', features: [{ feature: LONG, value: null }] }));
    const photos = [{ thumbnail_url: 'uhttps://example.invalid/1', url: `${url}/pictures/4-1.svg` }, { thumbnail_url: 'javascript:faults()', url: null }];
    await answer('/products/4/styles', json({ product_id: '4', results: [
      { style_id: 1, name: LONG, original_price: '2.00', sale_price: null, 'default?': true, photos, skus: { 7: { quantity: 3, size: null } } },
      { style_id: 2, name: 'None', original_price: '2.00', sale_price: null, 'default?': false, photos: [{ thumbnail_url: null, url: null }], skus: { null: { quantity: null, size: null } } }] }));
    await answer('/qa/questions?product_id=4*', json({ product_id: '4', results: [{ question_id: 1, question_body: LONG, question_date: '2020-01-01T00:00:00.000Z', asker_name: LONG, question_helpfulness: 0, reported: false, answers: {} }] }));
    await answer('/reviews?product_id=4*', json({ product: '4', page: 0, count: 1, results: [{ review_id: 1, rating: 4, summary: LONG, recommend: true, response: LONG, body: LONG, date: '2020-01-01T00:00:00.000Z', reviewer_name: LONG, helpfulness: 0, photos: [] }] }));
    await page.goto(`${url}/shop/products/4`);
    await page.locator('.review').waitFor();
    await inspect(page, 'trouble');
    assert.equal(await page.locator('.frame.large img').getAttribute('src'), '/pictures/4-1.svg');
    await page.getByLabel('Size', { exact: true }).selectOption('One size');
    await page.locator('.styles input').nth(1).check({ force: true });
    await page.locator('.order option', { hasText: 'Out of stock' }).waitFor({ state: 'attached' });
    assert.ok(await page.getByRole('button', { name: 'Add to cart' }).isDisabled());
  });
  await step('trouble: more questions than come at once', async () => {
    const all = Array.from({ length: 130 }, (_, n) => ({ question_id: n + 1, question_body: `Number ${n + 1}?`, question_date: '2020-01-01T00:00:00.000Z', asker_name: 'a', question_helpfulness: 0, reported: false, answers: {} }));
    await page.route(`${url}/qa/questions?product_id=5*`, async (route) => {
      const number = Number(new URL(route.request().url()).searchParams.get('page'));
      const headers = number === 1 ? { Link: '<?page=2>; rel="next"' } : {};
      await new Promise((resolve) => { setTimeout(resolve, 200); });
      await route.fulfill({ ...json({ product_id: '5', results: all.slice((number - 1) * 100, number * 100) }), headers });
    });
    await page.goto(`${url}/shop/products/5`);
    await page.getByRole('searchbox', { name: 'Search in questions' }).pressSequentially('number 12', { delay: 20 });
    // 12, and 120 to 129.
    await page.locator('#said', { hasText: '11 questions' }).waitFor({ state: 'attached' });
    await page.getByRole('button', { name: 'More questions' }).click();
    await page.getByRole('button', { name: 'More questions' }).click();
    await page.locator('.question').nth(10).waitFor();
    assert.equal(await page.locator('.question').count(), 11);
  });
  await page.context().close();
};

await visit(async () => {
  await walk(await open(), 'desktop');
  if (VISIT === 'short') return;
  await back(await open());
  await trouble(await open({ isRefused: true, viewport: { width: 390, height: 844 } }));
  // By another name of the same machine, which the catalogue's pictures are not told of.
  await step('another name: nobody else is asked', async () => {
    const origin = url.replace('127.0.0.1', 'localhost');
    const page = await openAt(origin);
    await page.goto(`${origin}/shop/`);
    await page.locator('.grid img').first().waitFor();
    await settled(page);
    await page.context().close();
  });
  await walk(await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }), 'phone');
  await walk(await open({ colorScheme: 'dark' }), 'dark');
  await type(await open());
});
