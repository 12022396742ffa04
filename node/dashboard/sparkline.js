// Owns the drawing of small lines without axes. Draws only what it is given, when told.

import { fitCanvas } from './frame.js';

/** Fills a canvas with one line over a soft area, counted from zero. */
export function drawArea(canvas, width, height, values, colour) {
  const c = fitCanvas(canvas, width, height);
  c.clearRect(0, 0, width, height);
  strokeLine(c, 0, 0, width, height, values, colour, true);
}

/** Draws one line into a box of a canvas; with `area`, from zero and filled. */
export function strokeLine(c, left, top, width, height, values, colour, area = false) {
  const n = values.length;
  if (n === 0) return;
  let low = area ? 0 : Infinity;
  let high = area ? 1e-9 : -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  const span = high - low;
  const pad = 2;
  const x = (i) => left + (n === 1 ? width - pad : pad + (i / (n - 1)) * (width - 2 * pad));
  const y = (v) => top + (span > 0 ? height - pad - ((v - low) / span) * (height - 2 * pad) : height / 2);
  c.beginPath();
  for (let i = 0; i < n; i += 1) c.lineTo(x(i), y(values[i]));
  c.lineJoin = 'round';
  c.lineWidth = 1.25;
  c.strokeStyle = c.fillStyle = colour;
  c.stroke();
  if (area && n > 1) {
    c.lineTo(x(n - 1), top + height);
    c.lineTo(x(0), top + height);
    c.closePath();
    c.globalAlpha = 0.13;
    c.fill();
    c.globalAlpha = 1;
  }
  c.beginPath();
  c.arc(x(n - 1), y(values[n - 1]), 1.7, 0, 7);
  c.fill();
}
