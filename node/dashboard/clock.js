// Owns the node's idea of "now". A browser's clock may be minutes off; ages are shown against the
// node's clock, taken from the `Date` header of the overview (one second fine, which is enough).

const TOLERANCE_MS = 2500; // Less than this is the header's coarseness and the way there, not skew.
let skewMs = 0;

/** Milliseconds since 1970 as the node counts them. */
export const nodeNow = () => Date.now() - skewMs;

/** Learns from a response's `Date` header. */
export function learnClock(response) {
  const at = Date.parse(response.headers.get('date') ?? '');
  if (!Number.isFinite(at)) return;
  const off = Date.now() - (at + 500);
  skewMs = Math.abs(off) < TOLERANCE_MS ? 0 : off;
}
