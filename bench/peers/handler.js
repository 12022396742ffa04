// The one handler that both servers run in the comparison: Tidegate from its handlers folder, the Node.js reference
// by `--handler`. It does what operators' handlers do: convert units, compare with thresholds, keep a rolling average.

export const match = { devices: ["*"] };

const LIMITS = { temperature: 80, vibration: 0.5, battery: 15 };
const WINDOW = 16;

export function onMetric(metric, ctx) {
  const temperatureF = Math.round((metric.temperature * 9 / 5 + 32) * 100) / 100;
  const pressurePsi = Math.round(metric.pressure * 0.0145037738 * 1000) / 1000;

  const recent = ctx.state.recent ?? (ctx.state.recent = []);
  recent.push(metric.temperature);
  if (recent.length > WINDOW) recent.shift();
  let sum = 0;
  for (const value of recent) sum += value;
  const temperatureAverage = Math.round(sum / recent.length * 100) / 100;

  const alarms = [];
  if (metric.temperature > LIMITS.temperature) alarms.push("temperature high");
  if (metric.vibration > LIMITS.vibration) alarms.push("vibration high");
  if (metric.battery < LIMITS.battery) alarms.push("battery low");

  return { ...metric, temperatureF, pressurePsi, temperatureAverage, alarms, alarm: alarms.length > 0 };
}
