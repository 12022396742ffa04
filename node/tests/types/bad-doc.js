// @ts-check
/** @type {import("./tidegate").OnMetric<{ pressure: number }>} */
export function onMetric(metric, ctx) {
  ctx.emit(metric.pressure); // TS2345
  return metric.presure; // TS2551
}
