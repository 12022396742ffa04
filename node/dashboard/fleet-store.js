// Owns what the page knows of the fleet: one record a device, the order by id, recent events.
// It never touches the page; views read it once a frame. Applying an update is O(1).

import { nodeNow } from './clock.js';
import { TRACKED, eachSample, freeSlot, pushSample, takeSlot } from './history.js';

export const SILENT_MS = 60000; // A device that said nothing for this long is silent.
const EVENTS_KEPT = 200;
const MERGE_EVERY_MS = 120; // While a snapshot pours in, new ids join the order this often, not every frame.

// Fields that say nothing about the device: shown elsewhere (handlers often return the reading itself), or a mere counter.
const META = new Set(['seq', 'deviceId', 'ts']);

export class FleetStore {
  constructor() {
    this.devices = new Map();
    this.order = []; // Records by id.
    this.added = []; // New records that are not in `order` yet.
    this.mergedAt = 0;
    this.generation = 0;
    this.updates = 0; // State messages applied since the page was opened.
    this.membership = 0; // Grows whenever `order` changes.
    this.events = [];
    this.keySets = new Map();
  }

  /** A snapshot begins: what it does not name is gone once it is complete. */
  beginSnapshot() { this.generation += 1; }

  /** A snapshot is complete. */
  endSnapshot() {
    for (const [id, record] of this.devices) {
      if (record.generation === this.generation) continue;
      record.gone = true;
      freeSlot(record.slot);
      this.devices.delete(id);
    }
    this.order = this.order.filter((r) => !r.gone);
    this.added = this.added.filter((r) => !r.gone);
    this.membership += 1;
    this.mergedAt = 0;
  }

  /** Applies a checked state message (see feed.js). */
  apply(message) {
    this.updates += 1;
    let record = this.devices.get(message.deviceId);
    if (!record) {
      record = { id: message.deviceId, lower: message.deviceId.toLowerCase(), slot: takeSlot(), samples: 0, keys: NO_KEYS,
        state: null, version: -1, connected: false, receivedTime: 0, deviceTime: null, generation: 0, gone: false };
      this.devices.set(record.id, record);
      this.added.push(record);
    }
    record.generation = this.generation;
    record.connected = message.connected === true;
    if (message.version === record.version && message.receivedTime === record.receivedTime) return; // Only the connection changed, or a snapshot came again.
    record.version = message.version;
    record.state = message.state;
    record.receivedTime = message.receivedTime;
    record.deviceTime = Number.isFinite(message.deviceTime) ? message.deviceTime : null;
    if (record.keys.length < TRACKED) this.chooseKeys(record);
    pushSample(record.slot, record.samples, record.receivedTime, record.keys, record.state);
    record.samples += 1;
  }

  /** Keeps an event for the pages that are opened later. */
  addEvent(event) {
    this.events.unshift(event);
    if (this.events.length > EVENTS_KEPT) this.events.length = EVENTS_KEPT;
  }

  /** The records by id. Merges what is new: the new ids are sorted alone, then the two runs are joined in one pass. */
  sorted() {
    if (!this.added.length) return this.order;
    const now = performance.now();
    if (now - this.mergedAt < MERGE_EVERY_MS) return this.order;
    this.mergedAt = now;
    this.order = mergeById(this.order, this.added.sort(byId));
    this.added = [];
    this.membership += 1;
    return this.order;
  }

  /** Whether new ids wait for the next merge. */
  get hasUnmerged() { return this.added.length > 0; }

  /** How many are connected, and how many are silent. One pass; call it once a second. */
  census() {
    const horizon = nodeNow() - SILENT_MS;
    let connected = 0;
    let silent = 0;
    for (const record of this.order) {
      if (record.connected) connected += 1;
      if (record.receivedTime < horizon) silent += 1;
    }
    return { known: this.order.length, connected, silent };
  }

  /** Takes the leading numeric fields of a state as the sampled ones. Equal lists are one array. */
  chooseKeys(record) {
    const keys = record.keys.slice();
    for (const key in record.state) {
      if (keys.length === TRACKED) break;
      if (typeof record.state[key] === 'number' && !META.has(key) && !keys.includes(key)) keys.push(key);
    }
    if (keys.length === record.keys.length) return;
    const name = JSON.stringify(keys);
    if (!this.keySets.has(name)) {
      if (this.keySets.size > 10000) this.keySets.clear(); // A fleet that invents field names must not fill the memory.
      this.keySets.set(name, keys);
    }
    record.keys = this.keySets.get(name);
  }
}

/** How a device is doing: `live`, `quiet` (connected, nothing said), `reporting` (readings, no connection: HTTP) or `offline`. */
export function statusOf(record, now) {
  const silent = record.receivedTime < now - SILENT_MS;
  if (record.connected) return silent ? 'quiet' : 'live';
  return silent ? 'offline' : 'reporting';
}

export const STATUS_WORDS = {
  live: 'Connected', quiet: 'Connected, silent for over a minute', reporting: 'Reporting without a connection (HTTP)', offline: 'Not connected, silent',
};

/** The leading fields of a state, at most `limit`, without the ones that are shown elsewhere. */
export function leadingFields(state, limit) {
  const fields = [];
  for (const key in state) {
    if (fields.length === limit) break;
    if (!META.has(key)) fields.push(key);
  }
  return fields;
}

/** Whether a field is not worth showing among the values. */
export const isMeta = (key) => META.has(key);

/** The kept samples of one tracked field. */
export function samplesOf(record, field, visit) { eachSample(record.slot, record.samples, field, visit); }

const NO_KEYS = [];
const byId = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

function mergeById(left, right) {
  // The common cases first: a snapshot in order, and one new device.
  if (!left.length || byId(left[left.length - 1], right[0]) < 0) return left.concat(right);
  const out = new Array(left.length + right.length);
  let i = 0;
  let j = 0;
  for (let k = 0; k < out.length; k += 1) {
    out[k] = j >= right.length || (i < left.length && left[i].id < right[j].id) ? left[i++] : right[j++];
  }
  return out;
}
