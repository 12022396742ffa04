// Owns the health view: the node's parts as the overview tells them, and the parked readings.

import { nodeNow } from './clock.js';
import { h, reconcile, setAttr, setText } from './dom.js';
import { ago, bytes, compact, count, dateTime, duration, jsonLine, micros, millis } from './format.js';
import { pretty } from './json-view.js';
import { sumReasons } from './overview.js';
import { deviceHref } from './router.js';

const PARKED_EVERY_MS = 3000;
const PARKED_SHOWN = 100;
const LAG_WARN_MS = 100; // As the node's own watchdog.

export class HealthView {
  constructor(overview) {
    this.overview = overview;
    this.build();
    overview.subscribe(() => this.draw());
  }

  show() { this.visible = true; this.draw(); this.loadParked(); this.heading.focus({ preventScroll: true }); }

  hide() { this.visible = false; clearTimeout(this.timer); }

  build() {
    this.heading = h('h1', { tabindex: '-1' }, 'Health');
    this.summary = h('p.summary', { role: 'status', 'data-testid': 'health-summary' });
    this.scripts = grid('Scripts', ['Script', 'Status', 'Calls>', 'Errors>', 'Parked>', 'p50>', 'p99>', 'Last error'], 'No handler is loaded. Put a file in the handlers folder: it is picked up at once.', 'scripts');
    this.loops = grid('Loops', ['Loop', 'Lag>', 'Devices>', 'Connections>'], 'No loop reported.', 'loops');
    this.workers = grid('Script workers', ['Process', 'State', 'Restarts>', 'Memory>'], 'No worker runs: they start with the first handler.', 'workers');
    this.ledger = grid('Ledger', ['Entry', 'Readings>', 'Share>'], '', 'ledger');
    this.ledgerPill = h('span.pill', { 'data-testid': 'ledger-pill' });
    this.ledger.head.append(this.ledgerPill);
    this.parked = grid('Parked readings', ['Position', 'Device', 'Script', 'Reason', 'Message', 'Parked'], 'No reading is parked. A reading that a handler cannot digest is set aside here, with the reason.', 'parked');
    this.parkedNote = h('span.card-note');
    this.parked.head.append(this.parkedNote);
    this.journal = facts('Journal', ['Committed position', 'Size', 'Segments', 'Last commit']);
    this.journalPill = h('span.pill', { 'data-testid': 'journal-pill' });
    this.journal.head.append(this.journalPill);
    this.journalReason = h('p.problem', { hidden: true });
    this.journal.element.append(this.journalReason);
    this.node = facts('Node', ['Version', 'Uptime', 'Process', 'MQTT connections', 'Viewers', 'Readings']);
    this.memory = meter('Memory');
    this.pool = meter('Blocking pool');
    this.limits = facts('Limits', []);
    this.limits.element.append(this.memory.element, this.pool.element);
    this.element = h('div.view.health', { 'data-testid': 'view-health' },
      h('div.page-head', null, this.heading, this.summary),
      h('div.health-grid', null,
        h('div.stack', null, this.node.element, this.limits.element), h('div.stack', null, this.journal.element, this.loops.element, this.workers.element),
        h('div.stack', null, this.ledger.element), this.scripts.element, this.parked.element));
  }

  draw() {
    const o = this.overview.data;
    if (!this.visible) return;
    if (!o) { setText(this.summary, this.overview.failing ? 'The node does not answer.' : 'Loading…'); return; }
    const problems = problemsOf(this.overview);
    setText(this.summary, problems.length ? problems.join(' · ') : 'Everything is well.');
    setAttr(this.summary, 'data-tone', problems.length ? 'bad' : 'good');
    this.node.set([o.node.version ?? '–', duration(o.node.uptimeSeconds * 1000), `pid ${o.node.pid ?? '–'}`, count(o.connections.mqtt), count(o.connections.viewers), `${compact(Math.round(o.rates.readingsPerSecond))} / s`]);
    this.memory.set(o.node.rssBytes, o.node.memoryLimitBytes, bytes, 'back-pressure at 80 %, shedding at 90 %');
    this.pool.set(o.pool.queued, o.pool.limit, count, `${count(o.pool.threads)} threads; queued jobs`);
    this.drawJournal(o.journal);
    this.loops.fill(o.loops, (l) => l.id, (l) => [`loop ${l.id}`, cell(millis(l.lagMs), l.lagMs >= LAG_WARN_MS ? 'bad' : null), count(l.devices), count(l.connections)]);
    this.workers.fill(o.workers, (w) => w.pid, (w) => [`pid ${w.pid}`, pill(w.busy ? 'busy' : 'idle', w.busy ? 'accent' : 'plain'), cell(count(w.restarts), w.restarts > 0 ? 'warn' : null), bytes(w.rssBytes)]);
    this.scripts.fill(o.scripts, (s) => s.name, (s) => [cell(text(s.name), 'strong'), pill(text(s.status), SCRIPT_TONES[s.status] ?? 'plain', SCRIPT_WORDS[s.status]), count(s.calls),
      cell(count(s.errors), s.errors > 0 ? 'bad' : null), cell(count(s.parked), s.parked > 0 ? 'warn' : null), micros(s.p50Us), micros(s.p99Us), lastError(s.lastError)]);
    this.drawLedger(o.ledger);
  }

  drawJournal(j) {
    this.journal.set([count(j.committedPosition), bytes(j.bytes), count(j.segments), millis(j.lastCommitMs)]);
    setPill(this.journalPill, j.healthy === false ? 'unhealthy' : 'healthy', j.healthy === false ? 'bad' : 'good');
    this.journalReason.hidden = !j.reason;
    if (j.reason) setText(this.journalReason, text(j.reason));
  }

  drawLedger(l) {
    const reasons = (name, map) => [[name, sumReasons(map), 'group'], ...Object.entries(map).filter(([, n]) => Number.isFinite(n)).sort((a, b) => b[1] - a[1]).map(([reason, n]) => [reason, n, 'reason', `${name}/${reason}`])];
    const rows = [['Committed', l.committed, 'group'], ...reasons('Conflated', l.conflated), ...reasons('Rejected', l.rejected), ...reasons('Dropped', l.dropped), ...reasons('Parked', l.parked), ['In flight', l.inFlight, 'group']];
    const sum = rows.reduce((n, [, v, kind]) => n + (kind === 'group' && Number.isFinite(v) ? v : 0), 0);
    rows.push(['Sum of the above', sum, 'total'], ['Received', l.received, 'total']);
    this.ledger.fill(rows, ([name, , , key]) => key ?? name, ([name, n, kind]) => [cell(name, kind), count(n), cell(l.received > 0 && kind !== 'total' ? percent(n / l.received) : '', 'dim')]);
    setPill(this.ledgerPill, l.balanced ? 'balanced' : `off by ${count(l.received - sum)}`, l.balanced ? 'good' : 'bad');
  }

  async loadParked() {
    clearTimeout(this.timer);
    try {
      const response = await fetch(`/parked?limit=${PARKED_SHOWN}`, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const { parked } = await response.json();
      this.drawParked(Array.isArray(parked) ? parked.filter((p) => p !== null && typeof p === 'object') : []);
    } catch { setText(this.parkedNote, 'not answered'); }
    if (this.visible) this.timer = setTimeout(() => this.loadParked(), PARKED_EVERY_MS);
  }

  drawParked(parked) {
    setText(this.parkedNote, parked.length >= PARKED_SHOWN ? `the first ${count(parked.length)}` : parked.length ? count(parked.length) : '');
    const now = nodeNow();
    this.parked.fill(parked, (p) => p.position, (p) => [count(p.position), deviceLink(p.deviceId), text(p.script), pill(text(p.reason), 'warn'), payload(p), cell(`${ago(now - p.receivedTime)} ago`.replace('now ago', 'now'), null, dateTime(p.receivedTime))]);
  }
}

const SCRIPT_TONES = { closed: 'good', open: 'bad', 'half-open': 'warn', broken: 'bad' };
const SCRIPT_WORDS = { closed: 'The breaker is closed: the handler runs', open: 'The breaker is open after repeated failures: readings are parked', 'half-open': 'One reading is tried to see if the handler recovered', broken: 'The script does not load' };

/** What is wrong with the node, in words; empty if nothing is. */
export function problemsOf(overview) {
  const o = overview.data;
  if (overview.failing) return ['the node does not answer'];
  if (!o) return [];
  const problems = [];
  if (o.journal.healthy === false) problems.push(`journal unhealthy${o.journal.reason ? `: ${text(o.journal.reason)}` : ''}`);
  if (o.ledger.balanced === false) problems.push('the ledger does not balance');
  const sick = o.scripts.filter((s) => s.status === 'open' || s.status === 'broken');
  if (sick.length) problems.push(`${sick.length} script${sick.length > 1 ? 's' : ''} not running`);
  const slow = o.loops.filter((l) => l.lagMs >= LAG_WARN_MS);
  if (slow.length) problems.push(`loop ${slow.map((l) => l.id).join(', ')} lags`);
  if (o.node.rssBytes / o.node.memoryLimitBytes >= 0.8) problems.push('memory is near its limit');
  if (o.pool.queued / o.pool.limit >= 0.8) problems.push('the blocking pool is nearly full');
  return problems;
}

const text = (x) => (typeof x === 'string' ? (x.length > 300 ? `${x.slice(0, 299)}…` : x) : x === null || x === undefined ? '–' : jsonLine(x, 300));
const percent = (x) => (!Number.isFinite(x) ? '' : x > 0 && x < 0.0001 ? '< 0.01 %' : `${(x * 100).toFixed(2)} %`);

// Cells are plain descriptions, so that a table's row can be filled again without being built again.
const cell = (shown, tone = null, title = null) => ({ kind: 'text', shown, tone, title });
const pill = (shown, tone, title = null) => ({ kind: 'pill', shown, tone, title });
const deviceLink = (id) => ({ kind: 'link', shown: text(id), href: typeof id === 'string' ? deviceHref(id) : null });
const payload = (p) => ({ kind: 'payload', shown: text(p.message), body: p.payload });

function lastError(error) {
  if (error === null || typeof error !== 'object') return cell('none', 'dim');
  const place = error.file ? `${text(error.file)}${error.line ? `:${error.line}` : ''}${error.line && error.column ? `:${error.column}` : ''}` : '';
  return { kind: 'error', shown: text(error.message), place };
}

/** A card with a table; `>` at a column's end aligns it right. */
function grid(title, columns, empty, testid) {
  const names = columns.map((c) => c.replace('>', ''));
  const right = columns.map((c) => c.endsWith('>'));
  const body = h('tbody');
  const nothing = h('p.quiet', { hidden: true }, empty);
  const table = h('table', null, h('thead', null, h('tr', null, names.map((name, i) => h(right[i] ? 'th.num' : 'th', { scope: 'col' }, name)))), body);
  const head = h('div.card-head', null, h('h2', null, title));
  const element = h('section.card', { 'data-testid': `health-${testid}`, 'aria-label': title }, head, h('div.scroll-x', null, table), nothing);
  const makeLine = () => h('tr', null, names.map((_, i) => h(right[i] ? 'td.num' : 'td')));
  return {
    element, head,
    fill(items, keyOf, cellsOf) {
      nothing.hidden = items.length > 0;
      table.hidden = items.length === 0;
      reconcile(body, items, (item) => String(keyOf(item)), makeLine, (line, item) => cellsOf(item).forEach((c, i) => fillCell(line.children[i], c)));
    },
  };
}

function fillCell(td, c) {
  if (typeof c === 'string') c = cell(c);
  if (td.kind !== c.kind) { td.kind = c.kind; td.replaceChildren(...makeCell(td, c)); }
  const { main, extra } = td.parts;
  setText(main, c.shown);
  if (c.kind === 'text') { setAttr(td, 'data-tone', c.tone); setAttr(td, 'title', c.title); }
  if (c.kind === 'pill') { setAttr(main, 'data-tone', c.tone); setAttr(main, 'title', c.title); }
  if (c.kind === 'link') setAttr(main, 'href', c.href);
  if (c.kind === 'error') setText(extra, c.place);
  if (c.kind === 'payload') setText(extra, pretty(c.body));
}

function makeCell(td, c) {
  const main = h({ text: 'span', pill: 'span.pill', link: 'a.id', error: 'div.error-message', payload: 'summary' }[c.kind]);
  const extra = c.kind === 'error' ? h('code.place') : c.kind === 'payload' ? h('pre.json') : null;
  td.parts = { main, extra };
  if (c.kind === 'payload') return [h('details', null, main, extra)];
  return extra ? [main, extra] : [main];
}

function setPill(element, shown, tone) { setText(element, shown); setAttr(element, 'data-tone', tone); }

/** A card with labelled facts. */
function facts(title, labels) {
  const cells = labels.map(() => h('dd'));
  const head = h('div.card-head', null, h('h2', null, title));
  const element = h('section.card', { 'aria-label': title, 'data-testid': `health-${title.toLowerCase()}` }, head,
    h('dl.facts', null, labels.map((label, i) => h('div', null, h('dt', null, label), cells[i]))));
  return { element, head, set(texts) { texts.forEach((t, i) => setText(cells[i], String(t))); } };
}

/** A bar against a limit. */
function meter(label) {
  const bar = h('i.bar');
  const figures = h('span.m-figures');
  const note = h('span.m-note');
  const track = h('div.track', { role: 'meter', 'aria-label': label, 'aria-valuemin': '0', 'aria-valuemax': '100' }, bar);
  return {
    element: h('div.meter', null, h('div.m-head', null, h('span', null, label), figures), track, note),
    set(used, limit, format, below) {
      const share = Number.isFinite(used / limit) ? Math.max(0, Math.min(1, used / limit)) : 0;
      bar.style.transform = `scaleX(${share})`;
      setAttr(track, 'data-tone', share >= 0.9 ? 'bad' : share >= 0.8 ? 'warn' : 'plain');
      setAttr(track, 'aria-valuenow', Math.round(share * 100));
      setText(figures, `${format(used)} of ${format(limit)}`);
      setText(note, below);
    },
  };
}
