// Owns a device's page: its own feed, its values, chart, state, events and times. One instance a visit;
// `close` ends everything that it started.

import { nodeNow } from './clock.js';
import { Chart } from './chart.js';
import { DeviceCommands } from './commands-card.js';
import { h, reconcile, setAttr, setText } from './dom.js';
import { codeBlock, copyButton } from './empty.js';
import { Feed } from './feed.js';
import { STATUS_WORDS, isMeta, samplesOf, statusOf } from './fleet-store.js';
import { ago, clockTime, count, dateTime, encodeId, jsonLine, millis, number, value } from './format.js';
import { nextFrame } from './frame.js';
import { icon } from './icons.js';
import { fillJson, pretty } from './json-view.js';
import { DeviceLedger } from './ledger-card.js';
import { Series, numericLeaves } from './series.js';
import { DeviceShadow } from './shadow-card.js';
import { colours } from './theme.js';

const SERIES = 8; // As many as the palette has colours.
const VALUES = 12;
const SHOWN_AT_FIRST = 4;
const EVENTS = 100;
const WINDOWS = [['1 m', 60000], ['5 m', 300000], ['15 m', 900000]];

export class DeviceView {
  constructor(id, store) {
    this.id = id;
    this.store = store;
    this.device = null;
    this.series = new Map();
    this.conflated = 0;
    this.updates = 0;
    this.events = store.events.filter((e) => e.deviceId === id).slice(0, EVENTS);
    this.chart = new Chart(nodeNow);
    this.build();
    this.paint = () => this.draw();
    const known = store.devices.get(id);
    if (known) { this.seed(known); this.device = { ...known, deviceId: id }; }
    this.feed = new Feed(`/ws?deviceId=${encodeId(id)}`, {
      state: (message) => this.take(message),
      event: (event) => { if (event.deviceId === id) { this.events.unshift(event); this.events.length = Math.min(EVENTS, this.events.length); nextFrame(this.paint); } },
      synced: () => nextFrame(this.paint),
      status: () => nextFrame(this.paint),
    });
    this.chart.start();
    this.repaint = () => { this.recolour(); this.chart.dirty(); };
    addEventListener('tidegate:theme', this.repaint);
    nextFrame(this.paint);
  }

  close() {
    this.feed.close();
    this.ledger.close();
    this.commands.close();
    this.shadow.close();
    this.chart.stop();
    removeEventListener('tidegate:theme', this.repaint);
    this.closed = true;
  }

  tick() { nextFrame(this.paint); }

  /** The chart's past: what the fleet view happened to keep of this device. */
  seed(record) {
    record.keys.forEach((key, field) => {
      const series = this.seriesOf(key);
      if (series) samplesOf(record, field, (time, v) => series.push(time, v));
    });
  }

  take(message) {
    if (message.deviceId !== this.id) return;
    const before = this.device;
    // A version that fell means that the node lost or re-made the device: nothing was conflated.
    if (before && this.updates > 0 && message.version > before.version + 1) this.conflated += message.version - before.version - 1;
    const isNew = !before || message.version !== before.version || message.receivedTime !== before.receivedTime;
    this.device = message;
    this.updates += 1;
    if (isNew) {
      for (const [key, v] of numericLeaves(message.state, VALUES, isMeta)) this.seriesOf(key)?.push(message.receivedTime, v);
      this.stateChanged = true;
    }
    nextFrame(this.paint);
  }

  seriesOf(key) {
    let series = this.series.get(key);
    if (!series && this.series.size < SERIES) {
      series = new Series(key, this.series.size);
      series.shown = this.series.size < SHOWN_AT_FIRST;
      this.series.set(key, series);
      this.chart.series = [...this.series.values()];
      this.togglesChanged = true;
    }
    return series;
  }

  build() {
    this.dot = h('i.dot.big', { role: 'img' });
    this.statusText = h('span');
    this.versionText = h('span.tag', { 'data-testid': 'device-version' });
    this.conflatedText = h('span.tag', { 'data-testid': 'device-conflated', title: 'Updates that the node merged into later ones before they were sent here. Nothing is lost: the state is the latest.' });
    this.malformedText = h('span.tag.warn', { hidden: true });
    this.feedText = h('span.tag.warn', { hidden: true });
    this.heading = h('h1.device-id', { tabindex: '-1', 'data-testid': 'device-id', title: this.id }, this.id);
    const header = h('header.device-head', null,
      h('a.back', { href: '#/', title: 'Back to the fleet (Esc)' }, icon('back'), 'Fleet'),
      h('div.device-title', null, this.dot, this.heading, copyButton(() => this.id, 'Copy the device id')),
      h('div.tags', null, this.statusText, this.versionText, this.conflatedText, this.malformedText, this.feedText));
    this.values = h('div.values', { 'data-testid': 'values' });
    this.windows = segments('Window', WINDOWS.map(([label, ms]) => [label, ms]), this.chart.windowMs, (ms) => { this.chart.windowMs = ms; this.chart.describedAt = 0; this.chart.dirty(); });
    this.layout = segments('Layout', [['Lanes', true], ['Overlay', false]], true, (lanes) => { this.chart.lanes = lanes; this.chart.dirty(); });
    this.toggles = h('div.toggles', { role: 'group', 'aria-label': 'Series' });
    const chart = h('section.card.chart-card', { 'aria-label': 'Chart' }, h('div.card-head', null, this.toggles, h('div.chart-controls', null, this.layout, this.windows)), this.chart.element);
    this.json = h('pre.json', { tabindex: '0', 'aria-label': 'State as JSON', 'data-testid': 'state-json' });
    const state = h('section.card', null, h('div.card-head', null, h('h2', null, 'State'), copyButton(() => pretty(this.device?.state ?? null), 'Copy the state as JSON')), this.json);
    this.facts = { device: fact('Device time'), received: fact('Received time'), gap: fact('Difference'), seen: fact('Last seen'), updates: fact('Updates on this page'), conflated: fact('Conflated') };
    const times = h('section.card', null, h('div.card-head', null, h('h2', null, 'Times')), h('dl.facts', null, Object.values(this.facts).map((f) => f.element)));
    this.ledger = new DeviceLedger(this.id);
    this.commands = new DeviceCommands(this.id);
    this.shadow = new DeviceShadow(this.id);
    this.eventList = h('ol.events', { 'data-testid': 'events' });
    this.noEvents = h('p.quiet', null, 'None yet. A handler sends one with ', h('code', null, "ctx.emit('name', payload)"), '.');
    const events = h('section.card', null, h('div.card-head', null, h('h2', null, 'Events')), this.noEvents, this.eventList);
    this.body = h('div.device-body', null, this.values, chart, h('div.columns', null, h('div.stack', null, state, this.shadow.element, this.ledger.element), h('div.stack', null, times, this.commands.element, events)));
    this.missing = h('section.empty', { hidden: true }, h('h2', null, 'Nothing known of this device yet'), h('p', null, 'The page is listening. The device’s first reading fills it:'), codeBlock(this.sample()));
    this.element = h('div.view.device', { 'data-testid': 'view-device' }, header, this.body, this.missing);
  }

  /** A command that creates exactly this device, whatever its id has in it. */
  sample() {
    const body = JSON.stringify({ deviceId: this.id, temperature: 21.5 }).replaceAll("'", "'\\''");
    return `curl -X POST ${location.origin}/metrics -H 'content-type: application/json' -d '${body}'`;
  }

  draw() {
    if (this.closed) return;
    const d = this.device;
    const now = nodeNow();
    const offline = this.feed.status === 'reconnecting';
    this.feedText.hidden = !offline;
    if (offline) setText(this.feedText, `reconnecting since ${clockTime(this.feed.since)}`);
    this.malformedText.hidden = this.feed.malformed === 0;
    setText(this.malformedText, `${count(this.feed.malformed)} unreadable`);
    this.missing.hidden = Boolean(d) || this.feed.status !== 'live';
    this.body.hidden = !d;
    if (!d) { this.dot.dataset.status = 'offline'; setText(this.statusText, this.feed.status === 'live' ? 'Unknown' : 'Loading…'); this.versionText.hidden = this.conflatedText.hidden = true; return; }
    this.versionText.hidden = this.conflatedText.hidden = false;
    const status = statusOf(d, now);
    this.dot.dataset.status = status;
    setAttr(this.dot, 'aria-label', STATUS_WORDS[status]);
    setText(this.statusText, STATUS_WORDS[status]);
    setText(this.versionText, `version ${count(d.version)}`);
    setText(this.conflatedText, `conflated ${count(this.conflated)}`);
    if (this.stateChanged !== false) { this.stateChanged = false; fillJson(this.json, pretty(d.state)); }
    this.drawValues(d);
    this.drawFacts(d, now);
    if (this.togglesChanged) this.drawToggles();
    this.noEvents.hidden = this.events.length > 0;
    reconcile(this.eventList, this.events, keyOfEvent, makeEvent, () => {});
    this.chart.dirty();
  }

  drawValues(d) {
    const leaves = [];
    for (const key in d.state) {
      if (isMeta(key) || leaves.length >= VALUES) continue;
      const v = d.state[key];
      if (v === null || typeof v !== 'object') leaves.push([key, v]);
    }
    for (const [key, v] of numericLeaves(d.state, VALUES, isMeta)) if (key.includes('.') && leaves.length < VALUES && !(key in d.state)) leaves.push([key, v]);
    this.values.hidden = leaves.length === 0;
    const since = nodeNow() - this.chart.windowMs;
    reconcile(this.values, leaves, ([key]) => key, makeValue, (tile, [key, v]) => {
      const text = typeof v === 'number' ? number(v) : value(v);
      if (setText(tile.parts.value, text)) setAttr(tile.parts.value, 'data-long', text.length > 12 ? '' : null);
      const range = this.series.get(key)?.range(since);
      setText(tile.parts.note, range ? `${number(range[0])} – ${number(range[1])}` : typeof v === 'number' ? 'no sample in the window' : typeof v);
    });
  }

  drawFacts(d, now) {
    const f = this.facts;
    f.device(d.deviceTime === null || d.deviceTime === undefined ? 'not sent' : dateTime(d.deviceTime));
    f.received(dateTime(d.receivedTime));
    const gap = Number.isFinite(d.deviceTime) ? d.receivedTime - d.deviceTime : NaN;
    f.gap(Number.isFinite(gap) ? (gap >= 0 ? `received ${millis(gap)} later` : `device clock ${millis(-gap)} ahead`) : '–');
    const age = now - d.receivedTime;
    f.seen(age < 2000 ? 'now' : `${ago(age)} ago`);
    f.updates(count(this.updates));
    f.conflated(`${count(this.conflated)} by version gaps`);
  }

  drawToggles() {
    this.togglesChanged = false;
    reconcile(this.toggles, this.chart.series, (s) => s.key, (s) => {
      const swatch = h('i.swatch');
      const button = h('button.toggle', { type: 'button', 'aria-pressed': s.shown, onclick: () => { s.shown = !s.shown; setAttr(button, 'aria-pressed', s.shown); this.chart.describedAt = 0; this.chart.dirty(); } },
        swatch, s.key.length > 28 ? `${s.key.slice(0, 27)}…` : s.key);
      button.swatch = swatch;
      return button;
    }, () => {});
    this.recolour();
  }

  recolour() {
    [...this.toggles.children].forEach((button, i) => { button.swatch.style.background = colours().series[this.chart.series[i].colour]; });
  }
}

let eventNumber = 0;

/** Events have no id of their own; the objects are kept, so each gets a number when first seen. */
const eventKeys = new WeakMap();
function keyOfEvent(event) {
  if (!eventKeys.has(event)) eventKeys.set(event, eventNumber += 1);
  return eventKeys.get(event);
}

function makeEvent(event) {
  const payload = event.payload === undefined ? '' : jsonLine(event.payload);
  return h('li', null, h('time', { title: dateTime(event.time) }, clockTime(event.time)), h('b', null, jsonLine(event.name, 80).slice(1, -1)), h('code', null, payload));
}

function makeValue([key]) {
  const shown = h('div.v-value');
  const note = h('div.v-note');
  const tile = h('div.value', null, h('div.v-key', { title: key }, key.length > 60 ? `${key.slice(0, 59)}…` : key), shown, note);
  tile.parts = { value: shown, note };
  return tile;
}

/** A line of a definition list; call it with the text. */
function fact(label) {
  const text = h('dd');
  const set = (shown) => setText(text, shown);
  set.element = h('div', null, h('dt', null, label), text);
  return set;
}

/** A group of buttons of which one is pressed. */
function segments(label, choices, chosen, pick) {
  const group = h('div.segments', { role: 'group', 'aria-label': label });
  for (const [text, choice] of choices) {
    const button = h('button', { type: 'button', 'aria-pressed': choice === chosen }, text);
    button.addEventListener('click', () => { for (const b of group.children) setAttr(b, 'aria-pressed', b === button); pick(choice); });
    group.append(button);
  }
  return group;
}
