// Owns the samples of one field on a device's page: appended in time order, bounded, cut by age.

const KEPT_MS = 15 * 60000 + 5000;
const MOST = 20000; // Samples a series; a device that reports faster keeps a shorter past.

export class Series {
  constructor(key, colour) {
    this.key = key;
    this.colour = colour; // An index into the palette.
    this.shown = true;
    this.times = [];
    this.values = [];
    this.start = 0; // Samples before this are cut; the arrays are compacted now and then.
  }

  get length() { return this.times.length - this.start; }

  get last() { return this.values[this.values.length - 1]; }

  /** Appends a sample; one that is older than the last is put at the last one's time, so that the line never runs back. */
  push(time, value) {
    const newest = this.times[this.times.length - 1];
    this.times.push(newest !== undefined && time < newest ? newest : time);
    this.values.push(value);
    const oldest = time - KEPT_MS;
    while (this.times[this.start] < oldest || this.length > MOST) this.start += 1;
    if (this.start > 2048 && this.start > this.times.length / 2) {
      this.times = this.times.slice(this.start);
      this.values = this.values.slice(this.start);
      this.start = 0;
    }
  }

  /** The index of the first sample at or after `time`. */
  indexAt(time) {
    let low = this.start;
    let high = this.times.length;
    while (low < high) { const mid = (low + high) >> 1; if (this.times[mid] < time) low = mid + 1; else high = mid; }
    return low;
  }

  /** The index of the sample nearest to `time`, or -1. */
  nearest(time) {
    const at = this.indexAt(time);
    if (this.length === 0) return -1;
    if (at === this.times.length) return at - 1;
    if (at === this.start) return at;
    return time - this.times[at - 1] < this.times[at] - time ? at - 1 : at;
  }

  /** The least and the greatest value since `time`, or null. */
  range(time) {
    let low = Infinity;
    let high = -Infinity;
    for (let i = this.indexAt(time); i < this.values.length; i += 1) {
      if (this.values[i] < low) low = this.values[i];
      if (this.values[i] > high) high = this.values[i];
    }
    return low <= high ? [low, high] : null;
  }

  /** Silence longer than this is drawn as a gap: four usual intervals, but at least three seconds. */
  gapMs() {
    const n = Math.min(64, this.length - 1);
    if (n < 2) return 30000;
    const end = this.times.length - 1;
    const steps = [];
    for (let i = end - n; i < end; i += 1) steps.push(this.times[i + 1] - this.times[i]);
    steps.sort((a, b) => a - b);
    return Math.max(3000, 4 * steps[n >> 1]);
  }
}

/** The numeric leaves of a state as `[path, number]`, nested ones by dotted path, at most `limit`. */
export function numericLeaves(state, limit, skip) {
  const found = [];
  const walk = (value, path, depth) => {
    if (found.length >= limit) return;
    if (typeof value === 'number' && Number.isFinite(value)) found.push([path, value]);
    else if (value !== null && typeof value === 'object' && depth < 3 && !Array.isArray(value)) {
      for (const key in value) if (depth > 0 || !skip(key)) walk(value[key], depth ? `${path}.${key}` : key, depth + 1);
    }
  };
  walk(state, '', 0);
  return found;
}
