// @ts-check
/** @type {import("./tidegate").Match} */
export const match = { devices: ["pump-*"] };

/** @type {import("./tidegate").OnMetric<{ pressure: number }>} */
export function onMetric(metric, ctx) {
  if (metric.pressure > 9) ctx.emit("high", { pressure: metric.pressure });
  return { ...metric, high: metric.pressure > 9 };
}
