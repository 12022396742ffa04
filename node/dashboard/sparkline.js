// Owns the drawing of small lines without axes. Draws only what it is given, when told.

import { fitCanvas } from './frame.js';

/** Draws `values` over the whole canvas; `fill` adds a soft area below the line. */
export function drawSparkline(canvas, width, height, values, colour, fill = false, fromZero = false) {
  fitCanvas(canvas, width, height);
  const c = canvas.getContext('2d');
  c.clearRect(0, 0, width, height);
  const n = values.length;
  if (n === 0) return;
  let low = fromZero ? 0 : Infinity;
  let high = fromZero ? 1e-9 : -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  const span = high - low;
  const pad = 2;
  const x = (i) => (n === 1 ? width - pad : pad + (i / (n - 1)) * (width - 2 * pad));
  const y = (v) => (span > 0 ? height - pad - ((v - low) / span) * (height - 2 * pad) : height / 2);
  c.beginPath();
  for (let i = 0; i < n; i += 1) c.lineTo(x(i), y(values[i]));
  c.lineJoin = 'round';
  c.lineWidth = 1.25;
  c.strokeStyle = colour;
  c.stroke();
  if (fill && n > 1) {
    c.lineTo(x(n - 1), height);
    c.lineTo(x(0), height);
    c.closePath();
    c.globalAlpha = 0.13;
    c.fillStyle = colour;
    c.fill();
    c.globalAlpha = 1;
  }
  c.beginPath();
  c.arc(x(n - 1), y(values[n - 1]), 1.7, 0, 7);
  c.fillStyle = colour;
  c.fill();
}
