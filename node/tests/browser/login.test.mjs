// The dashboard of a node with users, as a person sees it. Run by ../dashboard.rs: the viewer anna and the device d1 have the
// password "secret".

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const url = process.env.TIDEGATE_URL;
let browser;
let page;
const errors = [];

before(async () => {
  const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args });
  page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(30_000);
  page.on('pageerror', (error) => errors.push(String(error.stack)));
});

after(() => browser?.close());

const byId = (id) => page.locator(`[data-testid="${id}"]:not([hidden])`);

async function logIn(user, password) {
  await byId('login-user').fill(user);
  await byId('login-password').fill(password);
  await byId('login-button').click();
}

test('a stranger sees a form and no data', async () => {
  await page.goto(url);
  await byId('login').waitFor();
  assert.equal(await byId('fleet-row').count(), 0);
  assert.equal(await byId('log-out').count(), 0);
});

test('a wrong password and a role that may not read are told', async () => {
  await logIn('anna', 'wrong');
  await byId('login-wrong').filter({ hasText: 'wrong user, password or token' }).waitFor();
  await logIn('d1', 'secret');
  await byId('login-wrong').filter({ hasText: 'd1 has the role device' }).waitFor();
});

test('a viewer sees the fleet, live, also after a reload', async () => {
  await logIn('anna', 'secret');
  const row = byId('fleet-row').filter({ hasText: 'd1' });
  await row.waitFor();
  await page.reload();
  await row.waitFor();
  await byId('feed-pill').filter({ hasText: 'Live' }).waitFor();
  assert.equal(await page.evaluate(() => document.cookie), '', 'no script sees the session');
});

test('whoever logs out sees the form again', async () => {
  await byId('log-out').click();
  await byId('login').waitFor();
  assert.deepEqual(errors, []);
});
