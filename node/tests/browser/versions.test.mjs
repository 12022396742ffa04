// The versions of the handlers as the health page shows them, in headless Chromium. Run by ../dashboard.rs, which starts a node and
// tells its address in TIDEGATE_URL and its handlers' directory in TIDEGATE_HANDLERS.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const url = process.env.TIDEGATE_URL;
const quiet = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

let browser;
let page;

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: quiet });
  page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(30_000);
  await page.goto(`${url}#/health`);
});

after(() => browser?.close());

const rows = () => page.locator('[data-testid="health-versions"] tbody tr');
const row = (state) => rows().filter({ has: page.locator('.pill', { hasText: state }) });
const handler = (source) => writeFileSync(`${process.env.TIDEGATE_HANDLERS}/10-a.js`, source);
const reload = (query = '') => fetch(`${url}scripts/reload${query}`, { method: 'POST' });

/** Reports until `seen` holds: a canary goes on with readings only. */
async function reportUntil(seen, fields = () => ({})) {
  for (let n = 0; n < 2000; n += 1) {
    if (await seen()) return;
    const answer = await fetch(`${url}metrics?ack=processed`, { method: 'POST', body: JSON.stringify({ deviceId: `d${n % 7}`, n, ...fields(n) }) });
    assert.equal(answer.status, 200, await answer.text());
  }
  assert.fail('it did not come to that');
}

test('the version that runs is told', async () => {
  await row('running').filter({ hasText: '1 handler' }).waitFor();
  assert.equal(await row('running').locator('td').first().innerText(), '1');
  assert.equal(await row('tried').count() + await row('rolled back').count(), 0);
});

test('a version under trial is told with what it did, and why it had to go', async () => {
  handler('export function onMetric(m) { if (m.bad) throw new Error("no good"); return { ...m, version: 2 }; }');
  const reloaded = reload();
  // The trial has begun once it has seen something; the page asks each second.
  await reportUntil(async () => /on 100 % of the devices: [1-9]/.test((await row('tried').allInnerTexts()).join(' ')));
  const seen = await row('tried').innerText();
  assert.match(seen, /of 1,000 readings, [1-9][\d,]* with another result, failed 0 \(running version 0\)/);
  assert.match(await row('running').innerText(), /^1\s/);
  let decided = false;
  reloaded.then(() => { decided = true; });
  await reportUntil(() => decided, () => ({ bad: true }));
  const answer = await reloaded;
  const { canary } = await answer.json();
  assert.equal(answer.status, 409);
  await row('rolled back').filter({ hasText: 'rolled back by the canary' }).waitFor();
  const told = await row('rolled back').innerText();
  assert.ok(told.includes(canary.verdict.slice(0, 100)), `${told}: ${canary.verdict}`);
  await row('tried').waitFor({ state: 'detached' });
  assert.match(await row('running').innerText(), /^1\s/);
});

test('what does not load is told with its place, and what is taken runs', async () => {
  handler('export function onMetric(m) {\n  return {a: };\n}');
  assert.equal((await reload()).status, 422);
  await row('rolled back').filter({ hasText: '10-a.js:2' }).waitFor();
  handler('export function onMetric(m) { return { ...m, version: 3 }; }');
  assert.equal((await reload('?canary=false')).status, 200);
  await row('running').filter({ hasText: /^2/ }).waitFor();
  assert.equal((await fetch(`${url}scripts/rollback`, { method: 'POST' })).status, 200);
  await row('running').filter({ hasText: /^3/ }).waitFor();
  await row('rolled back').filter({ hasText: 'an operator went back' }).waitFor();
});
