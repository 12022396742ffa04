// Owns the fleet's table: a window of recycled rows over any number of devices, its keyboard, its
// selection. It reads records and draws what changed; it holds no data of its own.

import { nodeNow } from './clock.js';
import { h, setAttr, setText } from './dom.js';
import { STATUS_WORDS, leadingFields, samplesOf, statusOf } from './fleet-store.js';
import { ago, count, dateTime, number, value } from './format.js';
import { nextFrame, reducedMotion } from './frame.js';
import { deviceHref, navigate } from './router.js';
import { drawSparkline } from './sparkline.js';
import { colours } from './theme.js';

const OVERSCAN = 8; // Rows kept ready above and below, for the compositor scrolls ahead of us.
const CHIPS = 4;
const FLASH_GAP_MS = 350; // A row flashes at most this often.
const SPARK_WIDTH = 96;
const SPARK_HEIGHT = 22;
const narrow = matchMedia('(max-width: 720px)');

export class DeviceTable {
  /** `onSort(key)` is called when a header is clicked. */
  constructor({ onSort }) {
    this.rows = []; // The records to show, in order.
    this.needle = '';
    this.pool = [];
    this.selected = -1;
    this.scrolledAt = 0;
    this.build(onSort);
    this.paint = () => this.draw();
    this.measure();
    new ResizeObserver(() => { this.measure(); nextFrame(this.paint); }).observe(this.element);
    narrow.addEventListener('change', () => { this.measure(); nextFrame(this.paint); });
    addEventListener('tidegate:theme', () => { for (const row of this.pool) row.sparkVersion = -1; nextFrame(this.paint); });
  }

  /** Shows these records. The selected device stays selected wherever it moved. */
  setRows(rows, needle = '') {
    const kept = this.selected >= 0 ? this.rows[this.selected] : null;
    this.rows = rows;
    this.needle = needle;
    this.selected = kept ? rows.indexOf(kept) : -1;
    this.spacer.style.height = `${rows.length * this.rowHeight}px`;
    setAttr(this.element, 'aria-rowcount', rows.length + 1);
    nextFrame(this.paint);
  }

  /** Marks the header of the sorted column. */
  showSort(key, ascending) {
    for (const head of this.heads) {
      const on = head.dataset.sort === key;
      setAttr(head, 'aria-sort', on ? (ascending ? 'ascending' : 'descending') : 'none');
    }
  }

  /** True while the reader is scrolling: not the moment to re-sort. */
  get busy() { return performance.now() - this.scrolledAt < 400; }

  /** The first and the last row in sight, counted from 1. */
  get span() {
    const first = Math.floor(this.element.scrollTop / this.rowHeight);
    const last = Math.min(this.rows.length, Math.ceil((this.element.scrollTop + this.viewport) / this.rowHeight));
    return [Math.min(first + 1, last), last];
  }

  toTop() { this.element.scrollTop = 0; }

  focus() { this.element.focus({ preventScroll: true }); }

  build(onSort) {
    const sortable = (key, label, cls) => h(`div.${cls}`, { role: 'columnheader', 'data-sort': key, 'aria-sort': 'none' },
      h('button.sort', { type: 'button', onclick: () => onSort(key), 'data-testid': `sort-${key}` }, label));
    this.heads = [sortable('id', 'Device', 'c-id'), sortable('seen', 'Last seen', 'c-seen')];
    this.head = h('div.t-head', { role: 'row', 'aria-rowindex': '1' },
      h('div.c-dot', { role: 'columnheader', 'aria-label': 'Status' }), this.heads[0],
      h('div.c-state', { role: 'columnheader' }, 'State'),
      h('div.c-spark', { role: 'columnheader' }, 'Trend'), this.heads[1],
      h('div.c-version', { role: 'columnheader' }, 'Version'));
    this.spacer = h('div.t-body', { role: 'rowgroup' });
    this.element = h('div.table', { role: 'grid', tabindex: '0', 'aria-label': 'Devices', 'aria-rowcount': '1', 'data-testid': 'fleet-table' },
      h('div.t-headgroup', { role: 'rowgroup' }, this.head), this.spacer);
    this.element.addEventListener('scroll', () => { this.scrolledAt = performance.now(); nextFrame(this.paint); }, { passive: true });
    this.element.addEventListener('keydown', (event) => this.key(event));
    this.spacer.addEventListener('click', (event) => {
      const row = event.target.closest('.row');
      if (row?.record && !event.target.closest('a') && !getSelection().toString()) navigate(deviceHref(row.record.id));
    });
  }

  measure() {
    this.rowHeight = narrow.matches ? 58 : 34;
    this.viewport = Math.max(0, this.element.clientHeight - (this.head.offsetHeight || 32));
    this.spacer.style.height = `${this.rows.length * this.rowHeight}px`;
    const wanted = Math.ceil(this.viewport / this.rowHeight) + 2 * OVERSCAN;
    while (this.pool.length < wanted) this.pool.push(this.spacer.appendChild(makeRow()));
    while (this.pool.length > wanted) this.pool.pop().remove();
    // Another pool size puts every index in another row: bind all of them anew.
    for (const row of this.pool) { row.index = -1; row.record = null; }
  }

  /** Row i lives in element i mod pool, so scrolling by one row touches one element. */
  draw() {
    if (!this.pool.length || !this.element.isConnected) return;
    const first = Math.max(0, Math.floor(this.element.scrollTop / this.rowHeight) - OVERSCAN);
    const now = nodeNow();
    for (let n = 0; n < this.pool.length; n += 1) {
      const index = first + n;
      const row = this.pool[index % this.pool.length];
      const record = this.rows[index] ?? null;
      if (!record) { if (row.record !== null || !row.hidden) { row.record = null; row.index = -1; row.hidden = true; } continue; }
      this.bind(row, record, index, now);
    }
    const chosen = this.selected >= 0 ? this.pool.find((r) => r.index === this.selected && !r.hidden) : null;
    setAttr(this.element, 'aria-activedescendant', chosen ? chosen.id : null);
  }

  bind(row, record, index, now) {
    if (row.index !== index || row.top !== index * this.rowHeight) {
      row.index = index;
      row.top = index * this.rowHeight;
      row.style.transform = `translateY(${row.top}px)`;
      setAttr(row, 'aria-rowindex', index + 2);
      row.hidden = false;
    }
    const fresh = row.record !== record;
    const p = row.parts;
    if (fresh || row.needle !== this.needle) {
      row.record = record;
      row.needle = this.needle;
      fillId(p.id, record, this.needle);
    }
    if (fresh || row.version !== record.version) {
      const live = !fresh && record.version > row.version;
      row.version = record.version;
      fillChips(p.chips, record);
      setText(p.version, count(record.version));
      if (live) flash(row);
    }
    const chosen = index === this.selected;
    if (row.chosen !== chosen) { row.chosen = chosen; setAttr(row, 'aria-selected', chosen); }
    const status = statusOf(record, now);
    if (row.status !== status) { row.status = status; p.dot.dataset.status = status; p.dot.title = STATUS_WORDS[status]; setAttr(p.dot, 'aria-label', STATUS_WORDS[status]); }
    if (setText(p.seen, ago(now - record.receivedTime))) p.seen.title = dateTime(record.receivedTime);
    if (row.sparkSlot !== record.slot || row.sparkVersion !== record.samples) {
      row.sparkSlot = record.slot;
      row.sparkVersion = record.samples;
      const values = [];
      if (record.keys.length) samplesOf(record, 0, (_, v) => values.push(v));
      drawSparkline(p.spark, SPARK_WIDTH, SPARK_HEIGHT, values, colours().accent);
    }
  }

  key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.viewport / this.rowHeight) - 1);
    const start = this.selected < 0 ? this.span[0] - 2 : this.selected;
    const to = { ArrowDown: start + 1, ArrowUp: this.selected < 0 ? this.span[1] - 1 : start - 1, PageDown: start + page, PageUp: start - page, Home: 0, End: this.rows.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); this.select(to); }
    else if (event.key === 'Enter' && this.rows[this.selected]) { event.preventDefault(); navigate(deviceHref(this.rows[this.selected].id)); }
  }

  select(index) {
    if (!this.rows.length) return;
    this.selected = Math.max(0, Math.min(this.rows.length - 1, index));
    const top = this.selected * this.rowHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this.rowHeight > this.element.scrollTop + this.viewport) this.element.scrollTop = top + this.rowHeight - this.viewport;
    nextFrame(this.paint);
  }
}

let rowNumber = 0;

function makeRow() {
  const chips = Array.from({ length: CHIPS }, () => {
    const k = h('span.k');
    const v = h('span.v');
    const chip = h('span.chip', null, k, v);
    chip.parts = { k, v };
    return chip;
  });
  const dot = h('i.dot', { role: 'img' });
  const id = h('a.id', { tabindex: '-1' });
  const spark = h('canvas.spark', { 'aria-hidden': 'true' });
  const seen = h('span');
  const version = h('span');
  const glow = h('div.glow', { 'aria-hidden': 'true' });
  const row = h('div.row', { role: 'row', id: `row-${rowNumber += 1}`, 'data-testid': 'fleet-row' }, glow,
    h('div.c-dot', { role: 'gridcell' }, dot), h('div.c-id', { role: 'gridcell' }, id),
    h('div.c-state', { role: 'gridcell' }, chips), h('div.c-spark', { role: 'gridcell' }, spark),
    h('div.c-seen', { role: 'gridcell' }, seen), h('div.c-version', { role: 'gridcell' }, version));
  row.parts = { dot, id, chips, spark, seen, version, glow };
  row.hidden = true;
  row.record = null;
  return row;
}

function fillId(link, record, needle) {
  const id = record.id;
  const at = needle ? record.lower.indexOf(needle) : -1;
  link.href = deviceHref(id);
  link.title = id;
  // Lower-casing can change a text's length (İ); then the place found is not the id's, so mark nothing.
  if (at < 0 || record.lower.length !== id.length) { link.replaceChildren(id); return; }
  link.replaceChildren(id.slice(0, at), h('mark', null, id.slice(at, at + needle.length)), id.slice(at + needle.length));
}

function fillChips(chips, record) {
  const fields = leadingFields(record.state, CHIPS);
  for (let i = 0; i < CHIPS; i += 1) {
    const chip = chips[i];
    const key = fields[i];
    if (chip.hidden !== (key === undefined)) chip.hidden = key === undefined;
    if (key === undefined) continue;
    const v = record.state[key];
    setText(chip.parts.k, key.length > 40 ? `${key.slice(0, 39)}…` : key);
    setText(chip.parts.v, typeof v === 'number' ? number(v) : value(v));
  }
}

function flash(row) {
  const now = performance.now();
  if (reducedMotion() || now - (row.flashedAt ?? 0) < FLASH_GAP_MS) return;
  row.flashedAt = now;
  row.parts.glow.animate([{ opacity: 1 }, { opacity: 0 }], { duration: 700, easing: 'ease-out' });
}
