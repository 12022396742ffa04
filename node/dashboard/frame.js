// Owns the one animation-frame loop: whoever has something to paint asks for a frame, and is called
// once in it however often it asked. A frame nobody asked for is not requested.

const wanting = new Set();
let requested = false;

/** Calls `paint(now)` in the next frame, once. Always pass the same function object. */
export function nextFrame(paint) {
  wanting.add(paint);
  if (requested) return;
  requested = true;
  requestAnimationFrame(run);
}

function run(now) {
  requested = false;
  const turn = [...wanting];
  wanting.clear();
  for (const paint of turn) paint(now);
}

/** Whether the reader asked for less movement. */
const still = matchMedia('(prefers-reduced-motion: reduce)');
export const reducedMotion = () => still.matches;

/** Sizes a canvas for the screen's density; true if it changed (and is therefore blank). */
export function fitCanvas(canvas, width, height) {
  const density = Math.min(3, devicePixelRatio || 1);
  const w = Math.max(1, Math.round(width * density));
  const h = Math.max(1, Math.round(height * density));
  const changed = canvas.width !== w || canvas.height !== h;
  if (changed) { canvas.width = w; canvas.height = h; }
  canvas.getContext('2d').setTransform(w / width, 0, 0, h / height, 0, 0);
  return changed;
}
