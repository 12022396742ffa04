// Owns the fleet view: the figures on top, search, filter and sort, and the table they feed.

import { nodeNow } from './clock.js';
import { h, setAttr, setText } from './dom.js';
import { firstSteps } from './empty.js';
import { SILENT_MS } from './fleet-store.js';
import { bytes, compact, count, duration, millis } from './format.js';
import { nextFrame } from './frame.js';
import { icon } from './icons.js';
import { sumReasons } from './overview.js';
import { drawArea } from './sparkline.js';
import { DeviceTable } from './table.js';
import { colours } from './theme.js';

const RESORT_MS = 1000; // By last seen the order changes all the time; once a second is calm and cheap.

export class FleetView {
  constructor(store, overview, feed) {
    this.store = store;
    this.overview = overview;
    this.feed = feed;
    this.query = '';
    this.filter = 'all';
    this.sort = { key: 'id', ascending: true };
    this.shownMembership = -1;
    this.filteredAt = 0;
    this.table = new DeviceTable({ onSort: (key) => this.sortBy(key) });
    this.table.showSort('id', true);
    this.build();
    this.paint = () => this.draw();
    overview.subscribe(() => this.drawFigures());
    addEventListener('tidegate:theme', () => this.drawFigures());
    addEventListener('resize', () => this.drawFigures());
  }

  /** Back on the page: an element that was taken off it has lost its scroll place. */
  show() {
    this.visible = true;
    this.table.element.scrollTop = this.keptScroll ?? 0;
    this.tick();
    this.drawFigures();
    nextFrame(this.paint);
    if (this.searchOnShow) { this.searchOnShow = false; this.focusSearch(); } else this.table.focus();
  }

  hide() { this.visible = false; this.keptScroll = this.table.element.scrollTop; }

  /** The store changed: draw in the next frame. */
  changed() { if (this.visible) nextFrame(this.paint); }

  /** Once a second: relative times, the counts of the filters, the order by last seen. */
  tick() {
    if (!this.visible) return;
    const { known, connected, silent } = this.store.census();
    setText(this.counts.all, count(known));
    setText(this.counts.connected, count(connected));
    setText(this.counts.silent, count(silent));
    if (this.filter !== 'all' || this.sort.key === 'seen') this.stale = true;
    nextFrame(this.paint);
  }

  focusSearch() { this.search.focus(); this.search.select(); }

  build() {
    this.search = h('input.search', { type: 'search', placeholder: 'Search devices', 'aria-label': 'Search devices by id', autocomplete: 'off', spellcheck: 'false', 'data-testid': 'search' });
    this.search.addEventListener('input', () => { this.query = this.search.value.trim().toLowerCase(); this.refilter(); });
    this.search.addEventListener('keydown', (event) => {
      if (event.key === 'ArrowDown' || event.key === 'Enter') { event.preventDefault(); this.table.focus(); this.table.select(0); }
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      if (this.search.value) { this.search.value = ''; this.query = ''; this.refilter(); } else this.table.focus();
    });
    this.counts = { all: h('span.n'), connected: h('span.n'), silent: h('span.n') };
    const choice = (key, label, title) => h('button', { type: 'button', 'aria-pressed': key === 'all', 'data-filter': key, 'data-testid': `filter-${key}`, title,
      onclick: () => { this.filter = key; this.refilter(); } }, label, this.counts[key]);
    this.filters = h('div.segments', { role: 'group', 'aria-label': 'Filter' }, choice('all', 'All'), choice('connected', 'Connected', 'Devices with an open connection'), choice('silent', 'Silent', 'No reading for a minute or more'));
    this.rangeText = h('span.range', { 'data-testid': 'range' });
    this.figures = { devices: figure('Devices', 'kpi-devices'), rate: figure('Readings / s', 'kpi-rate', true), ledger: figure('Ledger', 'kpi-ledger'), parked: figure('Parked', 'kpi-parked'), commit: figure('Commit p99', 'kpi-commit', true), memory: figure('Memory', 'kpi-memory') };
    this.nothing = h('p.nothing', { hidden: true });
    this.empty = firstSteps();
    this.empty.hidden = true;
    this.waiting = h('p.nothing', { role: 'status' }, 'Waiting for the node’s snapshot…');
    this.toolbar = h('div.toolbar', null,
      h('label.searchbox', null, icon('search'), this.search, h('kbd', { 'aria-hidden': 'true' }, '/')), this.filters, this.rangeText);
    this.tableBox = h('div.table-box', null, this.toolbar, this.table.element, this.nothing);
    this.element = h('div.view.fleet', { 'data-testid': 'view-fleet' }, h('h1.offscreen', null, 'Fleet'),
      h('section.figures', { 'aria-label': 'Key figures' }, Object.values(this.figures).map((f) => f.element)), this.tableBox, this.empty, this.waiting);
  }

  sortBy(key) {
    const ascending = this.sort.key === key ? !this.sort.ascending : key === 'id';
    this.sort = { key, ascending };
    this.table.showSort(key, ascending);
    this.refilter();
  }

  /** The reader changed what is asked for: answer from the top. */
  refilter() {
    for (const button of this.filters.children) setAttr(button, 'aria-pressed', button.dataset.filter === this.filter);
    this.stale = true;
    this.filteredAt = 0;
    this.table.toTop();
    nextFrame(this.paint);
  }

  draw() {
    if (!this.visible) return;
    const order = this.store.sorted();
    if (this.store.hasUnmerged) nextFrame(this.paint);
    const moved = this.store.membership !== this.shownMembership;
    const due = performance.now() - this.filteredAt > RESORT_MS && !this.table.busy;
    if (moved || (this.stale && (due || this.filteredAt === 0))) {
      this.shownMembership = this.store.membership;
      this.filteredAt = performance.now();
      this.stale = false;
      this.table.setRows(this.chosen(order), this.query);
    }
    const any = order.length > 0;
    const known = this.feed().status === 'live';
    this.tableBox.hidden = !any;
    this.empty.hidden = any || !known;
    this.waiting.hidden = any || known;
    const none = any && this.table.rows.length === 0;
    this.nothing.hidden = !none;
    if (none) setText(this.nothing, this.query ? `No ${this.filter === 'all' ? '' : `${this.filter} `}device’s id contains “${this.query}”.` : `No device is ${this.filter}.`);
    const [first, last] = this.table.span;
    setText(this.rangeText, last ? `${count(first)}–${count(last)} of ${count(this.table.rows.length)}` : '');
    this.table.draw();
  }

  /** The records that match, prefix matches before the others, in the asked order. */
  chosen(order) {
    const horizon = nodeNow() - SILENT_MS;
    const keep = this.filter === 'connected' ? (r) => r.connected : this.filter === 'silent' ? (r) => r.receivedTime < horizon : null;
    let rows = keep ? order.filter(keep) : order;
    if (this.query) {
      const prefixed = [];
      const inside = [];
      for (const record of rows) {
        const at = record.lower.indexOf(this.query);
        if (at === 0) prefixed.push(record); else if (at > 0) inside.push(record);
      }
      rows = this.sort.key === 'id' && !this.sort.ascending ? inside.concat(prefixed) : prefixed.concat(inside);
    }
    if (this.sort.key === 'seen') {
      const sign = this.sort.ascending ? 1 : -1;
      return rows.slice().sort((a, b) => sign * (a.receivedTime - b.receivedTime));
    }
    return this.sort.ascending ? rows : rows.slice().reverse();
  }

  drawFigures() {
    const o = this.overview.data;
    if (!this.visible || !o) return;
    const f = this.figures;
    f.devices.set(count(o.devices.known), `${count(o.devices.connected)} connected`);
    f.rate.set(compact(Math.round(o.rates.readingsPerSecond)), `last ${duration(this.overview.rates.length * 1000)}`);
    f.rate.line(this.overview.rates);
    const { ledger } = o;
    const sum = ledger.committed + sumReasons(ledger.conflated) + sumReasons(ledger.rejected) + sumReasons(ledger.dropped) + sumReasons(ledger.parked) + ledger.inFlight;
    const off = ledger.received - sum;
    f.ledger.set(ledger.balanced ? 'Balanced' : Number.isFinite(off) ? `Off by ${count(off)}` : 'Unbalanced', `${compact(ledger.received)} received`, ledger.balanced ? 'good' : 'bad');
    const parked = sumReasons(ledger.parked);
    const [reason] = Object.entries(ledger.parked).sort((a, b) => b[1] - a[1]);
    f.parked.set(count(parked), parked && reason ? `mostly ${reason[0]}` : 'nothing set aside', parked ? 'warn' : 'plain');
    f.commit.set(millis(this.overview.commitP99), o.journal.healthy === false ? 'journal unhealthy' : `last ${millis(o.journal.lastCommitMs)}`, o.journal.healthy === false ? 'bad' : 'plain');
    f.commit.line(this.overview.commits);
    const share = o.node.rssBytes / o.node.memoryLimitBytes;
    f.memory.set(bytes(o.node.rssBytes), Number.isFinite(share) ? `${Math.round(share * 100)} % of ${bytes(o.node.memoryLimitBytes)}` : 'no limit', share >= 0.9 ? 'bad' : share >= 0.8 ? 'warn' : 'plain');
  }
}

/** One figure of the strip: label, value, a line below, perhaps a sparkline. */
function figure(label, testid, withLine = false) {
  const value = h('div.f-value', { 'data-testid': testid }, '–');
  const note = h('div.f-note');
  const canvas = withLine ? h('canvas.f-line', { 'aria-hidden': 'true' }) : null;
  const element = h('div.figure', null, h('div.f-label', null, label), value, note, canvas);
  return {
    element,
    set(text, below, tone = 'plain') { setText(value, text); setText(note, below); note.title = below; setAttr(element, 'data-tone', tone); },
    line(values) {
      const { clientWidth, clientHeight } = canvas;
      if (clientWidth) drawArea(canvas, clientWidth, clientHeight, values, colours().accent);
    },
  };
}
