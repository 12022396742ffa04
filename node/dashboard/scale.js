// Owns axes: round steps for values and for times. Pure.

/** A value axis that holds `low`..`high` in about `wanted` round steps: `{low, high, step, decimals}`. */
export function valueAxis(low, high, wanted) {
  if (low === high) { const pad = Math.abs(low) * 0.05 || 1; low -= pad; high += pad; }
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((s) => s * power >= rough * 0.999) * power;
  const bottom = Math.floor(low / step + 1e-9) * step;
  const top = Math.ceil(high / step - 1e-9) * step;
  const exponent = Math.floor(Math.log10(step) + 1e-9);
  const quarter = Math.abs(step / 10 ** exponent - 2.5) < 1e-6 ? 1 : 0;
  return { low: bottom, high: top, step, decimals: Math.min(8, Math.max(0, quarter - exponent)) };
}

/** A tick's label, short for large values. */
export function tickLabel(v, axis) {
  if (Math.abs(v) < axis.step / 1e6) v = 0;
  const size = Math.max(Math.abs(axis.low), Math.abs(axis.high));
  if (size >= 1e6 && axis.step >= 1e4) return `${Number((v / 1e6).toFixed(2))}M`;
  if (size >= 1e5 && axis.step >= 100) return `${Number((v / 1e3).toFixed(1))}k`;
  return size >= 1e9 || (size < 1e-4 && size > 0) ? v.toExponential(1) : v.toFixed(axis.decimals);
}

const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600].map((s) => s * 1000);

/** The step between time labels so that they do not touch. */
export const timeStep = (windowMs, width) => TIME_STEPS.find((step) => (step / windowMs) * width >= 104) ?? 600000;
