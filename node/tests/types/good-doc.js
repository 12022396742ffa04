// @ts-check
/** @type {import("./tidegate").Match} */
export const match = { devices: ["pump-*"] };

/** @type {import("./tidegate").Handler<{ pressure: number }>["onMetric"]} */
export function onMetric(metric, ctx) {
  if (metric.pressure > 9) ctx.emit("high", { pressure: metric.pressure });
  return { ...metric, high: metric.pressure > 9 };
}
