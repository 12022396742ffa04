// Owns the live chart: series over a sliding window of time, one lane a series or all on one axis,
// with gaps on silence and a crosshair. Reads series; decides nothing about the data.

import { h, reconcile, setText } from './dom.js';
import { clockTime, number } from './format.js';
import { fitCanvas, nextFrame, reducedMotion } from './frame.js';
import { tickLabel, timeStep, valueAxis } from './scale.js';
import { colours } from './theme.js';

const LEFT = 58;
const RIGHT = 14;
const TOP = 8;
const BOTTOM = 24;
const LANE_GAP = 20;
const SLIDE_MS = 50; // The window slides this often; a data point is painted in the next frame.

export class Chart {
  /** `now()` is the node's time in milliseconds. */
  constructor(now) {
    this.now = now;
    this.series = [];
    this.windowMs = 60000;
    this.lanes = true;
    this.pointer = null; // Horizontal place of the crosshair in CSS pixels.
    this.canvas = h('canvas', { tabindex: '0', role: 'img', 'data-testid': 'chart' });
    this.tipTime = h('div.tip-time');
    this.tipRows = h('div.tip-rows');
    this.tip = h('div.tip', { hidden: true }, this.tipTime, this.tipRows);
    this.note = h('p.chart-note', { hidden: true });
    this.element = h('div.chart', null, this.canvas, this.tip, this.note);
    this.paint = () => this.draw();
    this.listen();
  }

  start() {
    this.dirty();
    this.timer = setInterval(() => this.dirty(), reducedMotion() ? 1000 : SLIDE_MS);
    this.sizes = new ResizeObserver(() => this.dirty());
    this.sizes.observe(this.element);
  }

  stop() {
    clearInterval(this.timer);
    this.sizes?.disconnect();
  }

  dirty() { nextFrame(this.paint); }

  listen() {
    const { canvas } = this;
    const at = (event) => { this.pointer = event.clientX - canvas.getBoundingClientRect().left; this.dirty(); };
    const off = () => { this.pointer = null; this.dirty(); };
    canvas.addEventListener('pointermove', at);
    canvas.addEventListener('pointerdown', at);
    canvas.addEventListener('pointerleave', off);
    canvas.addEventListener('blur', off);
    canvas.addEventListener('keydown', (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      const width = canvas.clientWidth;
      this.pointer = Math.max(LEFT, Math.min(width - RIGHT, (this.pointer ?? width - RIGHT) + by * (event.shiftKey ? 40 : 8)));
      this.dirty();
    });
  }

  draw() {
    const width = this.canvas.clientWidth;
    const height = this.canvas.clientHeight;
    if (!width || !height) return;
    fitCanvas(this.canvas, width, height);
    const c = this.canvas.getContext('2d');
    c.clearRect(0, 0, width, height);
    const shown = this.series.filter((s) => s.shown);
    const newest = shown.reduce((t, s) => Math.max(t, s.times[s.times.length - 1] ?? 0), 0);
    const end = Math.max(this.now(), newest);
    const view = { c, width, height, begin: end - this.windowMs, end, plotWidth: width - LEFT - RIGHT, hues: colours() };
    view.x = (t) => LEFT + ((t - view.begin) / this.windowMs) * view.plotWidth;
    c.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
    this.drawTimes(view);
    const groups = this.lanes ? shown.map((s) => [s]) : shown.length ? [shown] : [];
    const room = (height - TOP - BOTTOM - LANE_GAP * Math.max(0, groups.length - 1)) / Math.max(1, groups.length);
    groups.forEach((group, i) => this.drawLane(view, group, TOP + i * (room + LANE_GAP), room));
    this.drawCrosshair(view, groups);
    this.describe(shown, view);
  }

  drawTimes(v) {
    const step = timeStep(this.windowMs, v.plotWidth);
    // Steps count from local midnight, so that a label falls on the full minute of the reader's clock.
    const zone = new Date(v.end).getTimezoneOffset() * 60000;
    v.c.textAlign = 'center';
    v.c.textBaseline = 'alphabetic';
    for (let t = Math.ceil((v.begin - zone) / step) * step + zone; t <= v.end; t += step) {
      const x = Math.round(v.x(t)) + 0.5;
      v.c.strokeStyle = v.hues.grid;
      line(v.c, x, TOP, x, v.height - BOTTOM);
      v.c.fillStyle = v.hues.muted;
      const label = step < 60000 ? clockTime(t) : clockTime(t).slice(0, 5);
      if (x > LEFT + 6 && x < v.width - 24) v.c.fillText(label, x, v.height - 7);
    }
  }

  drawLane(v, group, top, room) {
    const ranges = group.map((s) => s.range(v.begin)).filter(Boolean);
    const { c } = v;
    const y0 = top + room;
    if (ranges.length) {
      const axis = valueAxis(Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1])), Math.max(1, Math.min(6, Math.floor(room / 34))));
      const y = (value) => y0 - ((value - axis.low) / (axis.high - axis.low)) * room;
      c.textAlign = 'right';
      c.textBaseline = 'middle';
      const ticks = Math.round((axis.high - axis.low) / axis.step);
      const every = Math.max(1, Math.ceil(ticks / Math.max(1, Math.floor(room / 18))));
      for (let i = 0; i <= ticks; i += every) {
        const value = axis.low + i * axis.step;
        const at = Math.round(y(value)) + 0.5;
        c.strokeStyle = i === 0 ? v.hues.line : v.hues.grid;
        line(c, LEFT, at, v.width - RIGHT, at);
        c.fillStyle = v.hues.muted;
        c.fillText(tickLabel(value, axis), LEFT - 8, at);
      }
      c.save();
      c.beginPath();
      c.rect(LEFT, top - 3, v.plotWidth + RIGHT, room + 6);
      c.clip();
      for (const s of group) drawLine(v, s, y, y0, group.length === 1);
      c.restore();
      group.y = y;
    } else {
      c.strokeStyle = v.hues.line;
      line(c, LEFT, Math.round(y0) + 0.5, v.width - RIGHT, Math.round(y0) + 0.5);
    }
    if (this.lanes) {
      c.textAlign = 'left';
      c.textBaseline = 'top';
      c.fillStyle = v.hues.series[group[0].colour];
      const name = group[0].key.length > 48 ? `${group[0].key.slice(0, 47)}…` : group[0].key;
      // A halo in the panel's colour keeps the name readable where the line runs behind it.
      c.strokeStyle = v.hues.panel;
      c.lineWidth = 4;
      c.strokeText(name, LEFT + 6, top + 2);
      c.lineWidth = 1;
      c.fillText(name, LEFT + 6, top + 2);
    }
  }

  drawCrosshair(v, groups) {
    const inside = this.pointer !== null && this.pointer >= LEFT && this.pointer <= v.width - RIGHT;
    const rows = [];
    if (inside) {
      const time = v.begin + ((this.pointer - LEFT) / v.plotWidth) * this.windowMs;
      let snapped = null;
      for (const group of groups) {
        for (const s of group) {
          const i = s.nearest(time);
          if (i < 0 || s.times[i] < v.begin || Math.abs(s.times[i] - time) > Math.max(s.gapMs(), this.windowMs / 40)) continue;
          snapped ??= s.times[i];
          rows.push({ key: s.key, colour: v.hues.series[s.colour], text: number(s.values[i]), x: v.x(s.times[i]), y: group.y(s.values[i]) });
        }
      }
      const x = Math.round(rows[0]?.x ?? this.pointer) + 0.5;
      v.c.strokeStyle = v.hues.muted;
      v.c.setLineDash([3, 3]);
      line(v.c, x, TOP, x, v.height - BOTTOM);
      v.c.setLineDash([]);
      for (const row of rows) dot(v.c, row.x, row.y, 3.5, row.colour, v.hues.panel);
      setText(this.tipTime, clockTime(snapped ?? time, true));
      reconcile(this.tipRows, rows, (row) => row.key, makeTipRow, fillTipRow);
      this.tip.hidden = false;
      const left = x + 14 + this.tip.offsetWidth > v.width ? x - 14 - this.tip.offsetWidth : x + 14;
      this.tip.style.transform = `translate(${Math.max(0, left)}px, ${TOP + 4}px)`;
    } else this.tip.hidden = true;
  }

  /** What a screen reader and a test can read off the picture. */
  describe(shown, v) {
    const points = this.series.reduce((n, s) => n + s.length, 0);
    this.canvas.dataset.points = points;
    this.canvas.dataset.series = this.series.length;
    if (this.describedAt > v.end - 5000) return;
    this.describedAt = v.end;
    const says = shown.map((s) => `${s.key} ${number(s.last)}`).join(', ');
    this.canvas.setAttribute('aria-label', `Live chart of the last ${this.windowMs / 60000} minutes: ${says || 'no numeric field yet'}`);
  }
}

/** One line with its gaps; many points a pixel are drawn as the pixel's least and greatest. */
function drawLine(v, s, y, base, filled) {
  const { c } = v;
  const from = Math.max(s.start, s.indexAt(v.begin) - 1);
  const to = s.times.length;
  const gap = s.gapMs();
  const colour = v.hues.series[s.colour];
  const perPixel = (to - from) / v.plotWidth;
  const runs = [];
  let run = null;
  for (let i = from; i < to; i += 1) {
    if (!run || s.times[i] - s.times[i - 1] > gap) runs.push(run = []);
    const x = v.x(s.times[i]);
    const value = s.values[i];
    if (perPixel < 2) { run.push(x, y(value)); continue; }
    const column = Math.floor(x);
    let low = value;
    let high = value;
    while (i + 1 < to && Math.floor(v.x(s.times[i + 1])) === column) { i += 1; low = Math.min(low, s.values[i]); high = Math.max(high, s.values[i]); }
    run.push(x, y(low), x, y(high));
  }
  c.lineJoin = 'round';
  c.lineCap = 'round';
  for (const points of runs) {
    const end = points.length;
    if (end === 2) { dot(c, points[0], points[1], 1.8, colour); continue; }
    c.beginPath();
    for (let i = 0; i < end; i += 2) c.lineTo(points[i], points[i + 1]);
    c.lineWidth = 1.5;
    c.strokeStyle = colour;
    c.stroke();
    c.lineWidth = 1;
    if (!filled) continue;
    c.lineTo(points[end - 2], base);
    c.lineTo(points[0], base);
    c.closePath();
    c.globalAlpha = 0.09;
    c.fillStyle = colour;
    c.fill();
    c.globalAlpha = 1;
  }
  if (to > from) dot(c, v.x(s.times[to - 1]), y(s.values[to - 1]), 2.6, colour, v.hues.panel);
}

function line(c, x1, y1, x2, y2) { c.beginPath(); c.moveTo(x1, y1); c.lineTo(x2, y2); c.stroke(); }

function dot(c, x, y, radius, colour, ring) {
  c.beginPath();
  c.arc(x, y, radius, 0, 7);
  c.fillStyle = colour;
  if (ring) { c.lineWidth = 2; c.strokeStyle = ring; c.stroke(); c.lineWidth = 1; }
  c.fill();
}

function makeTipRow() {
  const swatch = h('i.swatch');
  const key = h('span.tip-key');
  const text = h('span.tip-value');
  const row = h('div.tip-row', null, swatch, key, text);
  row.parts = { swatch, key, text };
  return row;
}

function fillTipRow(row, item) {
  row.parts.swatch.style.background = item.colour;
  setText(row.parts.key, item.key.length > 28 ? `${item.key.slice(0, 27)}…` : item.key);
  setText(row.parts.text, item.text);
}
