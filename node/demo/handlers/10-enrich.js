// The demo's handler: adds to each reading what a dashboard wants to see, and raises an alarm when a pump begins to vibrate.
// Without a `match` it gets every device's readings; the simulator's swarm is thermostats, meters and pumps.

const ALARM_MM_S = 4.5; // above: ISO 10816-1 calls it unsatisfactory
const CALM_MM_S = 4.0; // below: the alarm is over. The gap keeps it from fluttering.

export function onMetric(metric, ctx) {
  if ("setpoint" in metric) return thermostat(metric);
  if ("energy" in metric) return meter(metric, ctx);
  if ("vibration" in metric) return pump(metric, ctx);
  return undefined; // anything else is kept as it came
}

function thermostat(metric) {
  const off = metric.temperature - metric.setpoint;
  const comfort = off < -1 ? "cold" : off > 1.5 ? "warm" : metric.humidity > 65 ? "humid" : "good";
  return { ...metric, comfort, lowBattery: metric.battery < 15 };
}

function meter(metric, ctx) {
  const apparent = metric.voltage * metric.current;
  const powerFactor = apparent > 0 ? round(Math.min(1, metric.power / apparent), 3) : 1;
  // The mean power since the reading before, from the counter: a check on the power that the meter claims.
  const before = ctx.state;
  const hours = (metric.ts - before.ts) / 3_600_000;
  const meanPower = hours > 0 ? round(((metric.energy - before.energy) * 1000) / hours, 0) : null;
  ctx.state = { ts: metric.ts, energy: metric.energy };
  return { ...metric, powerFactor, meanPower };
}

function pump(metric, ctx) {
  const wasAlarm = ctx.state.alarm === true;
  const alarm = metric.vibration > (wasAlarm ? CALM_MM_S : ALARM_MM_S);
  if (alarm !== wasAlarm) {
    ctx.state.alarm = alarm;
    ctx.emit(alarm ? "vibration-alarm" : "vibration-calm", { vibration: metric.vibration, rpm: metric.rpm });
  }
  // Hydraulic power, kW: flow (m³/h) × pressure (bar) / 36.
  const hydraulicPower = round((metric.flow * metric.pressure) / 36, 2);
  return { ...metric, alarm, hydraulicPower };
}

function round(value, digits) {
  const scale = 10 ** digits;
  return Math.round(value * scale) / scale;
}
