// Owns the last few samples of every device, for sparklines and for the first moments of a chart.
// Samples live in typed arrays, a page of devices each: 50,000 devices cost 25 MB and no objects.

export const SAMPLES = 32;
export const TRACKED = 3; // The leading numeric fields of a state that are kept.
const PAGE_BITS = 12;
const PAGE_SLOTS = 1 << PAGE_BITS;
const EPOCH = Date.now(); // Times are kept as 32-bit milliseconds around the page's start: ±24 days.

const pages = [];
const free = [];
let slots = 0;

/** A place for one device's samples. */
export function takeSlot() {
  const slot = free.pop() ?? slots++;
  const page = slot >> PAGE_BITS;
  if (!pages[page]) {
    pages[page] = { times: new Int32Array(PAGE_SLOTS * SAMPLES), values: new Float32Array(PAGE_SLOTS * SAMPLES * TRACKED) };
  }
  return slot;
}

/** Gives a slot back; the caller must forget it. */
export function freeSlot(slot) { free.push(slot); }

/** Appends a sample. `at` is the number of samples ever written to the slot, `keys` name what is taken from `state`. */
export function pushSample(slot, at, time, keys, state) {
  const page = pages[slot >> PAGE_BITS];
  const place = (slot & (PAGE_SLOTS - 1)) * SAMPLES + (at % SAMPLES);
  page.times[place] = time - EPOCH;
  for (let k = 0; k < TRACKED; k += 1) {
    const v = k < keys.length ? state[keys[k]] : NaN;
    page.values[place * TRACKED + k] = typeof v === 'number' ? v : NaN;
  }
}

/** Calls `visit(time, value)` for the kept samples of one tracked field, oldest first. */
export function eachSample(slot, written, field, visit) {
  const page = pages[slot >> PAGE_BITS];
  const base = (slot & (PAGE_SLOTS - 1)) * SAMPLES;
  for (let i = Math.max(0, written - SAMPLES); i < written; i += 1) {
    const place = base + (i % SAMPLES);
    const v = page.values[place * TRACKED + field];
    if (v === v) visit(page.times[place] + EPOCH, v); // NaN is "not in that reading".
  }
}
