//! How fast handlers run, from `try_submit` to the outcome, through real worker processes.
//!
//! `cargo run --release -p tidegate-scripts --example throughput [-- <workers> [<readings>]]`

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate_actors::{
    ids::{DeviceId, LoopId, Position},
    reading::{Channel, Reading},
    script::{OutcomeSink, ScriptCall, ScriptEngine, ScriptOutcome, ScriptRun},
};
use tidegate_scripts::{PoolConfig, WorkerPool};

const SMALL: &str = "export function onMetric(m) { return { t: m.temperature }; }";
const NOTHING: &str = "export function onMetric(m) {}";
const REALISTIC: &str = r#"
export function onMetric(metric, ctx) {
  const seen = (ctx.state.seen ?? 0) + 1;
  ctx.state.seen = seen;
  const before = ctx.previous;
  const delta = before === null ? 0 : metric.temperature - before.temperature;
  if (metric.vibration > 9) ctx.emit("vibration", { level: metric.vibration });
  return { ...metric, delta, seen, hot: metric.temperature > 80, label: `${ctx.deviceId}:${seen}` };
}"#;
const FIELDS: &str = r#"
export function onMetric(metric, ctx) {
  return { temperature: metric.temperature, f: metric.temperature * 1.8 + 32, hot: metric.temperature > 80, site: metric.site };
}"#;

/// What the comparison with other servers runs.
const PEERS: &str = include_str!("../../bench/peers/handler.js");

/// Runs into a limit of the engine each time: a new context for each reading.
const REBUILT: &str = "export function onMetric(m) { const f = () => f(); f(); }";

struct Sink(flume::Sender<usize>);

impl OutcomeSink for Sink {
    fn deliver(&self, _: LoopId, outcomes: Vec<ScriptOutcome>) {
        let _ = self.0.send(outcomes.len());
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some("script-worker") {
        return tidegate_scripts::worker_main();
    }
    let workers = first.and_then(|workers| workers.parse().ok()).unwrap_or(1);
    let readings = args.next().and_then(|readings| readings.parse().ok()).unwrap_or(200_000);
    for (name, script) in
        [("nothing", NOTHING), ("small", SMALL), ("fields", FIELDS), ("realistic", REALISTIC), ("peers", PEERS)]
    {
        measure(name, script, workers, readings);
    }
    measure("rebuilt", REBUILT, workers, readings / 200);
    ExitCode::SUCCESS
}

#[allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for the reader of its output")]
fn measure(name: &str, script: &str, workers: usize, readings: usize) {
    /// Readings of one run, as a loop collects them while the last run is under way.
    const RUN: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("10-handler.js"), script).unwrap();
    let mut config = PoolConfig::new(dir.path());
    config.workers = workers;
    config.limits.breaker_failures = u32::MAX;
    let (done, outcomes) = flume::unbounded();
    let begun = Instant::now();
    let pool = WorkerPool::start(config, Arc::new(Sink(done))).unwrap();
    let loaded = begun.elapsed();
    let started = Instant::now();
    let (mut sent, mut back) = (0, 0);
    let mut waiting: Vec<ScriptRun> = Vec::new();
    while back < readings {
        if waiting.is_empty() && sent < readings {
            waiting = (0..32).map(|run| one_run(&pool, sent + run * RUN, RUN)).collect();
            sent += 32 * RUN;
        }
        waiting = pool.try_submit(std::mem::take(&mut waiting)).err().unwrap_or_default();
        let patience = if waiting.is_empty() && sent < readings { Duration::ZERO } else { Duration::from_secs(10) };
        if let Ok(outcomes) = outcomes.recv_timeout(patience) {
            back += outcomes;
        }
    }
    let took = started.elapsed();
    let health = &pool.scripts()[0];
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = back as f64 / took.as_secs_f64();
    println!(
        "{name:10} {workers} worker(s): {rate:8.0} readings/s, {:5.2} µs a reading; in the worker p50 {:5.2} p99 {:6.2} µs; errors {}, rss {} MB, started in {} ms",
        1e6 / rate,
        health.p50_us,
        health.p99_us,
        health.errors,
        pool.workers()[0].rss_bytes / 1_000_000,
        loaded.as_millis(),
    );
    pool.stop();
}

#[allow(clippy::unwrap_used, reason = "a measurement")]
fn one_run(pool: &WorkerPool, first: usize, readings: usize) -> ScriptRun {
    let device = DeviceId::new(&format!("pump-{}", first % 5_000)).unwrap();
    let route = pool.route(&device, Channel::Metrics);
    let call = |at: usize| {
        let payload = format!(
            r#"{{"temperature":{}.5,"humidity":{},"vibration":{}.25,"site":"north","unit":"celsius","ok":true,"serial":"A-{at}","load":0.{},"pressure":101.{},"battery":88}}"#,
            at % 100,
            at % 60,
            at % 10,
            at % 97,
            at % 9
        );
        let received = i64::try_from(at).unwrap();
        let reading = Reading {
            device: device.clone(),
            channel: Channel::Metrics,
            device_time: None,
            received,
            payload: Bytes::from(payload),
            idempotency: None,
            retry_of: None,
        };
        ScriptCall { position: Position(at as u64 + 1), route, reading }
    };
    let calls = (first..first + readings).map(call).collect();
    let previous =
        Some((Bytes::from_static(br#"{"temperature":21.5,"humidity":40,"vibration":1.25,"site":"north"}"#), -1));
    ScriptRun {
        owner: LoopId(0),
        device: device.clone(),
        previous,
        script_state: vec![("10-handler.js".into(), Bytes::from_static(b"{\"seen\":7}"))],
        generation: pool.generation(),
        calls,
    }
}
