// Owns how values are written: numbers, times, sizes, JSON values. Pure; every function takes
// anything, because what it is given came from a network.

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const decimals = [0, 1, 2, 3, 4].map((d) => new Intl.NumberFormat('en-US', { maximumFractionDigits: d }));
const fixed = [0, 1, 2].map((d) => new Intl.NumberFormat('en-US', { minimumFractionDigits: d, maximumFractionDigits: d }));

/** A count: 50,000. Something that is not a number is an en dash. */
export const count = (n) => (Number.isFinite(n) ? grouped.format(n) : '–');

/** A measured number at a readable precision: 21.48, 1,013.2, 0.0031, 4.1e+12. */
export function number(n) {
  if (!Number.isFinite(n)) return '–';
  const size = Math.abs(n);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return n.toExponential(2);
  if (Number.isInteger(n)) return grouped.format(n);
  return decimals[size >= 10000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 3 : 4].format(n);
}

/** A count in little room: 1.2k, 34M. */
export function compact(n) {
  if (!Number.isFinite(n)) return '–';
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e4]]) {
    if (Math.abs(n) >= size) { const x = n / (unit === 'k' ? 1e3 : size); return fixed[Math.abs(x) >= 100 ? 0 : 1].format(x) + unit; }
  }
  return grouped.format(n);
}

/** Bytes in binary units: 412 MiB. */
export function bytes(n) {
  if (!Number.isFinite(n)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (Math.abs(n) >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${fixed[unit && Math.abs(n) < 100 ? 1 : 0].format(n)} ${units[unit]}`;
}

/** Milliseconds: 0.31 ms, 4.2 ms, 128 ms, 2.4 s. */
export function millis(n) {
  if (!Number.isFinite(n)) return '–';
  if (n >= 1000) return `${fixed[n < 1e4 ? 1 : 0].format(n / 1000)} s`;
  return `${fixed[n >= 100 ? 0 : n >= 1 ? 1 : 2].format(n)} ms`;
}

/** Microseconds: 7.2 µs, 240 µs, 50 ms. */
export function micros(n) {
  if (!Number.isFinite(n)) return '–';
  return n >= 1000 ? millis(n / 1000) : `${fixed[n >= 10 || Number.isInteger(n) ? 0 : 1].format(n)} µs`;
}

/** A length of time in its two leading units: 4 s, 3 m 20 s, 2 d 4 h. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return '–';
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** How long ago, in one unit: now, 12 s, 4 min, 3 h, 12 d. */
export function ago(ms) {
  if (!Number.isFinite(ms)) return '–';
  const s = ms / 1000;
  if (s < 2) return 'now';
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

const two = (n) => String(n).padStart(2, '0');
const valid = (ms) => Number.isFinite(ms) && Math.abs(ms) <= 8.64e15;

/** Local wall time: 14:03:22, with `.117` if asked. */
export function clockTime(ms, withMillis = false) {
  if (!valid(ms)) return '–';
  const d = new Date(ms);
  const base = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return withMillis ? `${base}.${String(d.getMilliseconds()).padStart(3, '0')}` : base;
}

/** Local date and time to the millisecond: 2026-11-24 14:03:22.117. */
export function dateTime(ms) {
  if (!valid(ms)) return '–';
  const d = new Date(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clockTime(ms, true)}`;
}

/** Any JSON value in one short line. */
export function value(v) {
  if (typeof v === 'number') return number(v);
  if (typeof v === 'string') return v.length > 60 ? `${v.slice(0, 59)}…` : v;
  if (Array.isArray(v)) return `[${v.length}]`;
  if (v && typeof v === 'object') return `{${Object.keys(v).length}}`;
  return String(v);
}

/** One line of JSON, cut to `limit` characters. */
export function jsonLine(v, limit = 400) {
  let text = '';
  try { text = JSON.stringify(v) ?? String(v); } catch { text = String(v); }
  return text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
}

/** A device id as part of an address; a lone surrogate would make encodeURIComponent throw. */
export function encodeId(id) {
  try { return encodeURIComponent(id); } catch { return encodeURIComponent(id.replace(/[\ud800-\udfff]/g, '\ufffd')); }
}
