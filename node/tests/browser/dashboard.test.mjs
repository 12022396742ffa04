// Drives the dashboard of a running node in headless Chromium, as an operator would.
//
//   TIDEGATE_URL=http://127.0.0.1:8080 TIDEGATE_MQTT=127.0.0.1:1883 node --test dashboard.test.mjs
//
// The caller starts and stops the node; any devices it already has are left alone. CHROMIUM names
// another browser than /usr/bin/chromium. No step sleeps for luck: each waits for its condition.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { connectDevice } from './mqtt-device.mjs';

const base = (process.env.TIDEGATE_URL ?? '').replace(/\/$/, '');
const mqtt = process.env.TIDEGATE_MQTT ?? '';
assert.ok(base, 'TIDEGATE_URL must name a running node');

const WAIT_MS = 15000;
const run = Date.now().toString(36);
const problems = [];
let browser;
let page;

before(async () => {
  // The driver gives the browser a fresh profile of its own.
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' });
  page.setDefaultTimeout(WAIT_MS);
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) problems.push(`console ${message.type()}: ${message.text()}`); });
  page.on('pageerror', (error) => problems.push(`page error: ${error.stack}`));
  page.on('requestfailed', (request) => problems.push(`failed request: ${request.url()} ${request.failure()?.errorText}`));
  page.on('response', (response) => { if (response.status() >= 400) problems.push(`HTTP ${response.status()}: ${response.url()}`); });
  await page.goto(`${base}/`);
  await page.waitForSelector('html[data-feed="live"]');
});

after(async () => { await browser?.close(); });

const at = (id) => `[data-testid="${id}"]`;
// Rows are recycled; one that is put away may still hold what it showed last.
const rowOf = (id) => page.locator(`${at('fleet-row')}:not([hidden])`, { has: page.locator(`a.id[title=${JSON.stringify(id)}]`) });

async function post(reading) {
  const response = await fetch(`${base}/metrics?ack=processed`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(reading) });
  assert.ok(response.ok, `POST /metrics: ${response.status} ${await response.clone().text()}`);
}

async function find(id) {
  await page.goto(`${base}/#/`);
  await page.locator(at('search')).fill(id);
  await rowOf(id).waitFor();
}

test('the page is served with a policy that forbids inline code', async () => {
  const response = await fetch(`${base}/`);
  assert.match(response.headers.get('content-security-policy') ?? '', /default-src 'self'/);
  assert.match(response.headers.get('content-type') ?? '', /text\/html/);
});

test('a reading posted over HTTP appears in the fleet', async () => {
  const id = `browser-${run}`;
  await post({ deviceId: id, temperature: 21.5, pressure: 3.25 });
  await find(id);
  assert.match(await rowOf(id).innerText(), /temperature\s*21\.5/);
});

test('a device page shows the state, and its chart moves with new readings', async () => {
  const id = `chart-${run}`;
  await post({ deviceId: id, temperature: 20 });
  await find(id);
  await rowOf(id).locator('a.id').click();
  await page.waitForSelector(at('view-device'));
  assert.equal(await page.locator(at('device-id')).innerText(), id);
  const canvas = page.locator(at('chart'));
  await page.waitForFunction(() => Number(document.querySelector('[data-testid="chart"]')?.dataset.points) >= 1);
  const points = Number(await canvas.getAttribute('data-points'));
  const before = await canvas.evaluate((c) => c.toDataURL());
  for (const temperature of [22, 26, 24.25]) await post({ deviceId: id, temperature });
  await page.waitForFunction((n) => Number(document.querySelector('[data-testid="chart"]').dataset.points) > n, points);
  assert.notEqual(await canvas.evaluate((c) => c.toDataURL()), before, 'the picture changed');
  await page.waitForFunction(() => document.querySelector('[data-testid="values"]').innerText.includes('24.25'));
  assert.match(await page.locator(at('state-json')).innerText(), /"temperature": 24\.25/);
  await page.keyboard.press('Escape');
  await page.waitForSelector(at('view-fleet'));
});

test('a device that connects over MQTT is shown as connected', { skip: !mqtt && 'TIDEGATE_MQTT is not set' }, async () => {
  const id = `mqtt-${run}`;
  const device = await connectDevice(mqtt, id);
  try {
    await device.publish(`devices/${id}/metrics`, { rpm: 1480 });
    await find(id);
    await rowOf(id).locator('.dot[data-status="live"]').waitFor();
    assert.match(await rowOf(id).innerText(), /rpm\s*1,480/);
  } finally { device.close(); }
  await rowOf(id).locator('.dot[data-status="reporting"]').waitFor();
});

test('a hostile device id is text, in the table and on its page', async () => {
  const id = `<img src=x onerror=alert(1)> "q" 🌊 ${run}`;
  // A node may refuse such an id; what it accepts must be shown as text.
  const response = await fetch(`${base}/metrics?ack=processed`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ deviceId: id, '<b>key</b>': '<i>value</i>' }) });
  await response.text();
  if (!response.ok) { assert.equal(response.status, 400); return; }
  await page.goto(`${base}/#/`);
  await page.locator(at('search')).fill(run);
  const link = page.locator(`${at('fleet-row')}:not([hidden]) a.id`, { hasText: `🌊 ${run}` });
  await link.click();
  await page.waitForFunction((want) => document.querySelector('[data-testid="device-id"]')?.textContent === want, id);
  await page.waitForFunction(() => document.querySelector('[data-testid="values"]').textContent.includes('<i>value</i>'));
  assert.equal(await page.locator('main img, main i:not([class])').count(), 0);
});

test('the keyboard: / searches, arrows choose, Enter opens, Escape goes back', async () => {
  await page.goto(`${base}/#/health`);
  await page.waitForSelector(at('view-health'));
  await page.keyboard.press('/');
  await page.waitForSelector(at('view-fleet'));
  await page.keyboard.type(`browser-${run}`);
  await rowOf(`browser-${run}`).waitFor();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await page.waitForFunction((id) => document.querySelector('[data-testid="device-id"]')?.textContent === id, `browser-${run}`);
  await page.keyboard.press('Escape');
  await page.waitForSelector(at('view-fleet'));
});

test('the theme toggle changes the theme and is remembered', async () => {
  const theme = () => page.locator('html').getAttribute('data-theme');
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const [first, colour] = [await theme(), await ground()];
  await page.locator(at('theme-toggle')).click();
  assert.notEqual(await theme(), first);
  assert.notEqual(await ground(), colour);
  const chosen = await theme();
  await page.reload();
  await page.waitForSelector('html[data-feed="live"]');
  assert.equal(await theme(), chosen);
});

test('the health view shows the loops and a ledger', async () => {
  await page.goto(`${base}/#/health`);
  await page.locator(`${at('health-loops')} tbody tr`).first().waitFor();
  assert.match(await page.locator(`${at('health-loops')} tbody`).innerText(), /loop 0/);
  await page.locator(`${at('health-ledger')} tbody tr`, { hasText: 'Received' }).waitFor();
  await page.waitForFunction(() => document.querySelector('[data-testid="ledger-pill"]').textContent === 'balanced');
});

test('nothing was logged, thrown or refused on the way', () => { assert.deepEqual(problems, []); });
