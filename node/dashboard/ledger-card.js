// Owns the ledger as it is shown: what became of every reading, by reason. A node's has two columns, since the start and
// the lifetime of its data; a device's has one, because its counts are kept with its state.

import { h, setText } from './dom.js';
import { count, encodeId } from './format.js';
import { cell, grid, setPill } from './grid.js';
import { sumReasons } from './overview.js';

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const KINDS = [['Conflated', 'conflated'], ['Rejected', 'rejected'], ['Dropped', 'dropped'], ['Parked', 'parked']];
const WORDS = {
  Committed: 'Readings that became their device’s state',
  Conflated: 'Readings that gave way to another one',
  Rejected: 'Readings that were refused; their senders were told. Counted since the start',
  Dropped: 'Readings that a handler dropped',
  Parked: 'Readings that were set aside with a reason',
  'In flight': 'Readings between admission and their device’s state',
};

export class LedgerCard {
  /** `lifetime`: is there a column for it? */
  constructor({ lifetime = true } = {}) {
    this.lifetime = lifetime;
    const columns = lifetime ? ['Readings', 'Since start>', 'Share>', 'Lifetime>'] : ['Readings', 'Count>', 'Share>'];
    this.grid = grid('Ledger', columns, 'No reading was counted yet.', 'ledger');
    this.note = h('span.card-note');
    this.pill = h('span.pill', { 'data-testid': 'ledger-pill' });
    this.grid.head.append(this.note, this.pill);
    this.element = this.grid.element;
  }

  fill(ledger) {
    const life = ledger.lifetime ?? {};
    const reasonsOf = (kind) => {
      const now = object(ledger[kind]);
      const ever = object(life[kind]);
      const names = [...new Set([...Object.keys(now), ...Object.keys(ever)])];
      return names.map((name) => ({ name, now: now[name] ?? 0, ever: ever[name] })).sort((a, b) => b.now - a.now || a.name.localeCompare(b.name));
    };
    const rows = [{ name: 'Committed', now: ledger.committed, ever: life.committed, kind: 'group' }];
    for (const [name, kind] of KINDS) {
      const refused = kind === 'rejected';
      rows.push({ name, now: sumReasons(object(ledger[kind])), ever: refused ? null : sumReasons(object(life[kind])), kind: 'group' });
      for (const one of reasonsOf(kind)) rows.push({ ...one, ever: refused ? null : one.ever ?? 0, kind: 'reason', key: `${name}/${one.name}` });
    }
    rows.push({ name: 'In flight', now: ledger.inFlight, ever: null, kind: 'group' });
    const sum = (column) => rows.reduce((n, row) => n + (row.kind === 'group' && Number.isFinite(row[column]) ? row[column] : 0), 0);
    const accounted = sum('now');
    rows.push({ name: 'Accounted for', now: accounted, ever: sum('ever'), kind: 'total' }, { name: 'Received', now: ledger.received, ever: null, kind: 'total' });
    this.grid.fill(rows, (row) => row.key ?? row.name, (row) => {
      const share = ledger.received > 0 && row.kind !== 'total' ? percent(row.now / ledger.received) : '';
      const cells = [cell(row.name, row.kind, WORDS[row.name] ?? null), count(row.now), cell(share, 'dim')];
      if (this.lifetime) cells.push(row.ever === null ? cell('', 'dim') : count(row.ever));
      return cells;
    });
    const off = ledger.received - accounted;
    setPill(this.pill, ledger.balanced ? 'balanced' : Number.isFinite(off) && off !== 0 ? `off by ${count(off)}` : 'unbalanced', ledger.balanced ? 'good' : 'bad');
  }
}

/** One device's ledger; asks the node for it until `close`. */
export class DeviceLedger {
  constructor(id) {
    this.url = `/ledger?deviceId=${encodeId(id)}`;
    this.card = new LedgerCard({ lifetime: false });
    this.element = this.card.element;
    this.element.dataset.testid = 'device-ledger';
    this.element.hidden = true;
    this.load();
  }

  close() { this.closed = true; clearTimeout(this.timer); }

  async load() {
    try {
      const response = await fetch(this.url, { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      this.card.fill(object(await response.json()));
      this.element.hidden = false;
      setText(this.card.note, '');
    } catch { if (!this.closed) setText(this.card.note, 'not answered'); }
    if (!this.closed) this.timer = setTimeout(() => this.load(), document.hidden ? EVERY_MS * 5 : EVERY_MS);
  }
}

const object = (x) => (x !== null && typeof x === 'object' && !Array.isArray(x) ? x : {});
const percent = (x) => (!Number.isFinite(x) ? '' : x > 0 && x < 0.0001 ? '< 0.01 %' : `${(x * 100).toFixed(2)} %`);
