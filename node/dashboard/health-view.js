// Owns the health view: the node's parts as the overview tells them, and the parked readings.

import { nodeNow } from './clock.js';
import { h, setAttr, setText } from './dom.js';
import { ago, bytes, compact, count, dateTime, duration, micros, millis } from './format.js';
import { cell, deviceLink, grid, payload, pill, setPill, text } from './grid.js';
import { LedgerCard } from './ledger-card.js';
import { sumReasons } from './overview.js';

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
    this.versions = grid('Versions of the handlers', ['Version', 'State', 'Since', 'What was seen'], 'No handler is loaded.', 'versions');
    this.loops = grid('Loops', ['Loop', 'Lag>', 'Devices>', 'Connections>'], 'No loop reported.', 'loops');
    this.workers = grid('Script workers', ['Process', 'State', 'Restarts>', 'Memory>'], 'No worker runs: they start with the first handler.', 'workers');
    this.ledger = new LedgerCard();
    this.bridges = grid('Bridges', ['Bridge', 'Broker', 'State', 'Since', 'Messages>', 'Readings>', 'Refused>', 'Under way>', 'Reconnects>', 'Last error'], 'No bridge is configured.', 'bridges');
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
    this.work = meter('Slow work of scripts');
    this.limits = facts('Limits', []);
    this.limits.element.append(this.memory.element, this.pool.element, this.work.element);
    this.element = h('div.view.health', { 'data-testid': 'view-health' },
      h('div.page-head', null, this.heading, this.summary),
      h('div.health-grid', null,
        h('div.stack', null, this.node.element, this.limits.element), h('div.stack', null, this.journal.element, this.loops.element, this.workers.element),
        h('div.stack', null, this.ledger.element), this.scripts.element, this.versions.element, this.bridges.element, this.parked.element));
  }

  draw() {
    const o = this.overview.data;
    if (!this.visible) return;
    if (!o) { setText(this.summary, this.overview.failing ? 'The node does not answer.' : 'Loading…'); return; }
    const problems = problemsOf(this.overview);
    setText(this.summary, problems.length ? problems.join(' · ') : 'Everything is well.');
    setAttr(this.summary, 'data-tone', problems.length ? 'bad' : 'good');
    this.node.set([o.node.version ?? '–', duration(o.node.uptimeSeconds * 1000), `pid ${o.node.pid ?? '–'}`, count(o.connections.mqtt), count(o.connections.viewers), `${compact(Math.round(o.rates.readingsPerSecond))} / s`]);
    this.memory.set(o.node.rssBytes, o.node.memoryLimitBytes, bytes, 'sockets are not read above 80 %');
    this.pool.set(o.pool.queued, o.pool.limit, count, `${count(o.pool.running)} of ${count(o.pool.threads)} threads busy; queued jobs${o.pool.refused > 0 ? `; ${count(o.pool.refused)} refused` : ''}`);
    this.work.set(o.slowWork.waiting, o.slowWork.limit, count, workNote(o.slowWork));
    this.drawJournal(o.journal);
    this.loops.fill(o.loops, (l) => l.id, (l) => [`loop ${l.id}`, cell(millis(l.lagMs), l.lagMs >= LAG_WARN_MS ? 'bad' : null), count(l.devices), count(l.connections)]);
    this.workers.fill(o.workers, (w) => w.pid, (w) => [`pid ${w.pid}`, pill(w.busy ? 'busy' : 'idle', w.busy ? 'accent' : 'plain'), cell(count(w.restarts), w.restarts > 0 ? 'warn' : null), bytes(w.rssBytes)]);
    this.scripts.fill(o.scripts, (s) => s.name, (s) => [cell(text(s.name), 'strong'), pill(text(s.status), SCRIPT_TONES[s.status] ?? 'plain', SCRIPT_WORDS[s.status]), count(s.calls),
      cell(count(s.errors), s.errors > 0 ? 'bad' : null), cell(count(s.parked), s.parked > 0 ? 'warn' : null), micros(s.p50Us), micros(s.p99Us), lastError(s.lastError)]);
    const now = nodeNow();
    this.versions.fill(versionsOf(o.scriptSets), (v) => v.state, (v) => [cell(text(v.version), 'strong'), pill(v.state, v.tone, v.words),
      cell(`${ago(now - v.since)} ago`.replace('now ago', 'now'), null, dateTime(v.since)), cell(text(v.seen), null, v.more)]);
    this.ledger.fill(o.ledger);
    this.drawBridges(o.bridges);
  }

  /** Most nodes have no bridge: they have no card either. */
  drawBridges(bridges) {
    this.bridges.element.hidden = bridges.length === 0;
    const now = nodeNow();
    this.bridges.fill(bridges, (b) => b.name, (b) => [cell(text(b.name), 'strong'), `${text(b.url)} (MQTT ${text(b.version)})`, pill(b.connected === true ? 'connected' : 'away', b.connected === true ? 'good' : 'bad'),
      cell(`${ago(now - b.since)} ago`.replace('now ago', 'now'), null, dateTime(b.since)), count(b.messages), count(b.readings), cell(count(sumReasons(b.refused)), sumReasons(b.refused) > 0 ? 'warn' : null, reasonsOf(b.refused)),
      count(b.inFlight), count(b.reconnects), b.lastError ? cell(text(b.lastError.message), b.connected === true ? 'dim' : 'bad', dateTime(b.lastError.time)) : cell('none', 'dim')]);
  }

  drawJournal(j) {
    this.journal.set([count(j.committedPosition), bytes(j.bytes), count(j.segments), millis(j.lastCommitMs)]);
    setPill(this.journalPill, j.healthy === false ? 'unhealthy' : 'healthy', j.healthy === false ? 'bad' : 'good');
    this.journalReason.hidden = !j.reason;
    if (j.reason) setText(this.journalReason, text(j.reason));
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

/** The set of handlers that runs, the one that is tried beside it, and the last that had to go. */
function versionsOf(sets) {
  const rows = [];
  if (sets.handlers > 0) rows.push({ version: sets.generation, state: 'running', tone: 'good', since: sets.since, seen: `${count(sets.handlers)} handler${sets.handlers === 1 ? '' : 's'}` });
  if (sets.trial) {
    const { report } = sets.trial;
    rows.push({ version: sets.trial.generation, state: 'tried', tone: 'warn', since: sets.trial.since, words: 'It works on the same readings beside the running version; its results are compared and dropped',
      seen: `on ${count(sets.trial.share)} % of the devices: ${count(report.readings)} of ${count(sets.trial.wanted)} readings, ${count(report.different)} with another result, failed ${count(report.new.failed)} (running version ${count(report.old.failed)}), ${micros(report.new.cpuUs)} each (${micros(report.old.cpuUs)})`,
      more: report.firstDifference ?? null });
  }
  if (sets.rollback) rows.push({ version: sets.rollback.generation, state: 'rolled back', tone: 'bad', since: sets.rollback.time, seen: sets.rollback.why, words: 'It was not taken, or was taken back: the other version goes on' });
  return rows;
}

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
  const away = o.bridges.filter((b) => b.connected !== true);
  if (away.length) problems.push(`${away.map((b) => `bridge ${text(b.name)}`).join(', ')} not connected`);
  const slow = o.loops.filter((l) => l.lagMs >= LAG_WARN_MS);
  if (slow.length) problems.push(`loop ${slow.map((l) => l.id).join(', ')} lags`);
  if (o.node.rssBytes / o.node.memoryLimitBytes >= 0.8) problems.push('memory is near its limit');
  if (o.slowWork.waiting / o.slowWork.limit >= 0.8) problems.push('slow work of scripts piles up');
  if (o.pool.queued / o.pool.limit >= 0.8) problems.push('the blocking pool is nearly full');
  return problems;
}

/** How many threads scripts hold, and what they had done. */
function workNote(work) {
  const sum = (of) => work.operations.reduce((all, operation) => all + (Number.isFinite(operation[of]) ? operation[of] : 0), 0);
  const used = work.operations.filter((operation) => operation.done > 0).map((operation) => `${text(operation.name)} ${count(operation.done)}`);
  const bad = [['failed', sum('failed')], ['refused', sum('refused')]].filter(([, n]) => n > 0).map(([word, n]) => `${count(n)} ${word}`);
  return [`${count(work.running)} of ${count(work.threads)} threads held; waiting`, ...used, ...bad].join('; ');
}

/** Reasons and their counts, for a tooltip. */
function reasonsOf(refused) {
  const words = Object.entries(refused).map(([reason, n]) => `${text(reason)}: ${count(n)}`);
  return words.length ? words.join(', ') : null;
}

function lastError(error) {
  if (error === null || typeof error !== 'object') return cell('none', 'dim');
  const place = error.file ? `${text(error.file)}${error.line ? `:${error.line}` : ''}${error.line && error.column ? `:${error.column}` : ''}` : '';
  return { kind: 'error', shown: text(error.message), place };
}

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
