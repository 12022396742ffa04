// Owns the node's overview: polls /api/overview once a second, checks its shape, keeps the last
// minutes of what is drawn as lines. Views subscribe; a failed poll is told to them, not thrown.

import { learnClock } from './clock.js';

const EVERY_MS = 1000;
const TIMEOUT_MS = 5000;
const KEPT = 300; // Five minutes of seconds.

export class Overview {
  constructor() {
    this.data = null;
    this.failing = 0; // Polls in a row that failed.
    this.rates = [];
    this.commits = [];
    this.listeners = new Set();
  }

  start() { this.poll(); }

  /** Calls `listener(overview)` after each poll. */
  subscribe(listener) { this.listeners.add(listener); }

  /** The p99 of the journal's commits: the node's own figure if it gives one, else over the sampled last minutes. */
  get commitP99() {
    const own = this.data?.journal.commitP99Ms;
    if (Number.isFinite(own)) return own;
    if (!this.commits.length) return NaN;
    const sorted = Float64Array.from(this.commits).sort();
    return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * 0.99) - 1)];
  }

  async poll() {
    try {
      const response = await fetch('/api/overview', { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
      // The session is over: the page begins anew, with the login.
      if (response.status === 401) location.reload();
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      learnClock(response);
      this.data = checked(await response.json());
      this.failing = 0;
      keep(this.rates, this.data.rates.readingsPerSecond);
      keep(this.commits, this.data.journal.lastCommitMs);
    } catch { this.failing += 1; }
    for (const listener of this.listeners) listener(this);
    // While the node is away, asking every second would only fill the browser's log.
    setTimeout(() => this.poll(), this.failing ? Math.min(10000, EVERY_MS * 2 ** this.failing) : EVERY_MS);
  }
}

const object = (x) => (x !== null && typeof x === 'object' && !Array.isArray(x) ? x : {});
const objects = (x) => (Array.isArray(x) ? x.filter((item) => item !== null && typeof item === 'object') : []);

/** The overview with every part present, so that views need not ask. Leaves stay as they came; format.js takes anything. */
function checked(raw) {
  const all = object(raw);
  const ledger = object(all.ledger);
  return {
    node: object(all.node), devices: object(all.devices), rates: object(all.rates), connections: object(all.connections),
    journal: object(all.journal), pool: object(all.pool), slowWork: { ...object(all.slowWork), operations: objects(object(all.slowWork).operations) },
    scriptSets: object(all.scriptSets), loops: objects(all.loops), scripts: objects(all.scripts), workers: objects(all.workers),
    bridges: objects(all.bridges).map((bridge) => ({ ...bridge, refused: object(bridge.refused), lastError: bridge.lastError ? object(bridge.lastError) : null })),
    ledger: { ...ledger, conflated: object(ledger.conflated), rejected: object(ledger.rejected), dropped: object(ledger.dropped), parked: object(ledger.parked), lifetime: object(ledger.lifetime) },
  };
}

function keep(list, n) {
  if (!Number.isFinite(n)) return;
  list.push(n);
  if (list.length > KEPT) list.shift();
}

/** The sum of a ledger's reasons. */
export const sumReasons = (reasons) => Object.values(reasons).reduce((sum, n) => sum + (Number.isFinite(n) ? n : 0), 0);
