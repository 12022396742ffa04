// The dashboard as a person sees it, in headless Chromium. Run by ../dashboard.rs, which starts a node and tells its address
// in TIDEGATE_URL; CHROMIUM names another browser than /usr/bin/chromium.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const url = process.env.TIDEGATE_URL;
const quiet = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

let browser;
let page;
const complaints = [];

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: quiet });
  page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' });
  page.setDefaultTimeout(30_000);
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(`page: ${error.stack}`));
  page.on('requestfailed', (request) => {
    const reason = request.failure()?.errorText;
    // What a page still asks for when it is left is taken back by the browser. A node that fails has another error.
    if (reason !== 'net::ERR_ABORTED') complaints.push(`request: ${request.url()} ${reason}`);
  });
  page.on('response', (response) => {
    if (response.status() >= 400) complaints.push(`response: ${response.status()} ${response.url()}`);
  });
});

after(() => browser?.close());

// A row that is scrolled out of use keeps its text, hidden.
const byId = (id) => page.locator(`[data-testid="${id}"]:not([hidden])`);

async function report(deviceId, fields) {
  const answer = await fetch(`${url}metrics?ack=processed`, { method: 'POST', body: JSON.stringify({ deviceId, ...fields }) });
  assert.equal(answer.status, 200, await answer.text());
}

test('without devices the page says what to try', async () => {
  await page.goto(url);
  await byId('empty-fleet').waitFor();
  assert.match(await byId('empty-fleet').innerText(), /mosquitto_pub/);
});

test('a published reading appears in the fleet, markup and all', async () => {
  await report('pump-1', { temperature: 21.5 });
  await report('<b>x', { note: '<img src=x onerror=alert(1)>' });
  const row = byId('fleet-row').filter({ hasText: 'pump-1' });
  await row.waitFor();
  await row.filter({ hasText: '21.5' }).waitFor();
  await byId('fleet-row').filter({ hasText: '<b>x' }).waitFor();
  assert.equal(await page.locator('main b, main img').count(), 0, 'a device id is text, not markup');
});

test('the search finds a device', async () => {
  await page.keyboard.press('/');
  await page.keyboard.type('pump');
  await byId('fleet-row').filter({ hasText: '<b>x' }).waitFor({ state: 'hidden' });
  await byId('fleet-row').filter({ hasText: 'pump-1' }).waitFor();
});

test("a device's chart moves with its readings", async () => {
  await page.goto(`${url}#/d/pump-1`);
  await byId('values').filter({ hasText: '21.5' }).waitFor();
  const picture = async () => (await byId('chart').screenshot()).toString('base64');
  const points = () => byId('chart').evaluate((canvas) => Number(canvas.dataset.points ?? 0));
  const before = { picture: await picture(), points: await points() };
  for (let n = 1; n <= 5; n += 1) {
    await report('pump-1', { temperature: 21.5 + n * 3 });
    await byId('values').filter({ hasText: String(21.5 + n * 3) }).waitFor();
  }
  await page.waitForFunction((least) => {
    const canvas = document.querySelector('[data-testid="chart"]');
    return Number(canvas.dataset.points ?? 0) > least;
  }, before.points);
  assert.notEqual(await picture(), before.picture, 'the chart is drawn anew');
  assert.match(await byId('state-json').innerText(), /36\.5/);
});

test('an event of a handler is listed', async () => {
  await report('pump-1', { temperature: 99 });
  await byId('events').filter({ hasText: 'hot' }).waitFor();
});

test("a device's page shows its ledger", async () => {
  await report('pump-1', { temperature: 20, ts: 1000 });
  await report('pump-1', { temperature: 21, ts: 500 });
  const refused = await fetch(`${url}devices/pump-1/metrics`, { method: 'POST', body: '[1]' });
  assert.equal(refused.status, 400);
  const ledger = byId('device-ledger');
  await ledger.filter({ hasText: 'bad-shape' }).waitFor();
  await ledger.filter({ hasText: 'late' }).waitFor();
  const rows = await ledger.locator('tbody tr').evaluateAll((lines) => lines.map((line) => [...line.children].slice(0, 2).map((cell) => cell.textContent)));
  const counts = Object.fromEntries(rows);
  const { committed } = await (await fetch(`${url}ledger?deviceId=pump-1`)).json();
  assert.deepEqual([counts.Committed, counts.late, counts['bad-shape'], counts['In flight']], [String(committed), '1', '1', '0']);
  assert.equal(counts['Accounted for'], counts.Received);
  await ledger.getByText('balanced').waitFor();
});

test("a device's page sends it a command and shows its shadow", async () => {
  await byId('command-name').fill('open');
  await byId('command-params').fill('{"angle":30}');
  await page.getByText('wait up to 1 h for the device').click();
  await byId('command-send').click();
  await byId('commands').filter({ hasText: 'open' }).filter({ hasText: 'queued' }).waitFor();
  await byId('command-said').filter({ hasText: 'queued' }).waitFor();
  await byId('command-params').fill('{"angle":');
  await byId('command-send').click();
  await byId('command-said').filter({ hasText: 'not JSON' }).waitFor();
  const listed = await (await fetch(`${url}devices/pump-1/commands`)).json();
  assert.deepEqual(listed.commands.map(({ name, params }) => [name, params]), [['open', { angle: 30 }]]);

  const update = { state: { desired: { speed: 900 }, reported: { speed: 800 } } };
  const answer = await fetch(`${url}devices/pump-1/shadow`, { method: 'PATCH', body: JSON.stringify(update) });
  assert.equal(answer.status, 200, await answer.text());
  await byId('shadow-open').click();
  await byId('shadow-note').filter({ hasText: 'version 1, differs' }).waitFor();
  assert.match(await byId('shadow-json').innerText(), /"delta"/);
  await byId('shadow-open').click();
});

test('the health page shows loops, journal, ledger and the handler', async () => {
  await byId('nav-health').click();
  await byId('health-loops').filter({ hasText: 'loop 0' }).waitFor();
  await byId('ledger-pill').filter({ hasText: 'balanced' }).waitFor();
  const lifetime = byId('health-ledger').locator('tr', { hasText: 'Committed' }).locator('td').nth(3);
  assert.match(await lifetime.innerText(), /^\d+$/, 'the lifetime of the data stands beside the counts since the start');
  await byId('journal-pill').filter({ hasText: 'healthy' }).waitFor();
  await page.getByText('10-hot.js').first().waitFor();
});

test('the health page shows a bridge and what it refused', async () => {
  const row = byId('health-bridges').locator('tbody tr').filter({ hasText: 'plant' });
  await row.filter({ hasText: 'connected' }).waitFor();
  await row.locator('[title="bad-device-id: 1"]').filter({ hasText: '1' }).first().waitFor();
});

test('the theme can be changed, and stays', async () => {
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  const first = await theme();
  for (let click = 0; click < 3 && await theme() === first; click += 1) await byId('theme-toggle').click();
  const second = await theme();
  assert.notEqual(second, first);
  await page.reload();
  await byId('view-health').waitFor();
  assert.equal(await theme(), second);
});

test('nothing was complained about', () => assert.deepEqual(complaints, []));
