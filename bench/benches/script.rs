//! What handlers cost: runs of 64 readings through a worker process and back, as the runtime sends them.
//!
//! The time of a run has both processes in it and the wake-ups between them. What the worker alone spends, by the kernel's
//! account, is printed behind each bench. This binary is its own worker: it is started again with `script-worker`.

use std::{
    fs,
    process::ExitCode,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use tidegate_actors::{
    clock::Millis,
    ids::{LoopId, Position},
    reading::Channel,
    script::{OutcomeSink, ScriptCall, ScriptEngine, ScriptOutcome, ScriptRun, Verdict},
};
use tidegate_scripts::{PoolConfig, WorkerPool};

mod setup;

/// Readings of one run.
const READINGS: usize = 64;
/// Devices that take turns.
const DEVICES: usize = 16;
/// The handlers by name.
const HANDLERS: [(&str, &str); 3] = [
    ("nothing", "export function onMetric() {}"),
    ("small", "export function onMetric(metric) { return { ...metric, hot: metric.temperature > 80 }; }"),
    ("realistic", include_str!("../peers/handler.js")),
];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "script-worker") {
        return tidegate_scripts::worker_main();
    }
    let mut criterion = setup::criterion();
    for (name, source) in HANDLERS {
        handler(&mut criterion, name, source);
    }
    criterion.final_summary();
    ExitCode::SUCCESS
}

fn handler(criterion: &mut Criterion, name: &str, source: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("handler.js"), source).expect("a handler");
    let (told, outcomes) = mpsc::channel();
    let config = PoolConfig { workers: 1, ..PoolConfig::new(dir.path()) };
    let pool = WorkerPool::start(config, Arc::new(Sink(told))).expect("a worker");
    let mut fleet = Fleet::new(&pool, outcomes);
    let mut group = criterion.benchmark_group("script");
    group.throughput(Throughput::Elements(READINGS as u64));
    group.bench_function(name, |bencher| bencher.iter(|| fleet.run()));
    group.finish();
    fleet.report(name);
    pool.stop();
}

/// Some devices and what the runtime would keep of them.
struct Fleet<'a> {
    pool: &'a WorkerPool,
    outcomes: mpsc::Receiver<Vec<ScriptOutcome>>,
    devices: Vec<Device>,
    next: usize,
    position: u64,
    /// The worker's time before its first reading, nanoseconds.
    idle: u64,
}

#[derive(Default, Clone)]
struct Device {
    previous: Option<(Bytes, Millis)>,
    script_state: Vec<(Box<str>, Bytes)>,
}

impl<'a> Fleet<'a> {
    fn new(pool: &'a WorkerPool, outcomes: mpsc::Receiver<Vec<ScriptOutcome>>) -> Self {
        Self { pool, outcomes, devices: vec![Device::default(); DEVICES], next: 0, position: 0, idle: cpu_nanos(pool) }
    }

    /// Sends the next device's run, waits for its outcomes, and keeps its state for its next run.
    fn run(&mut self) {
        let number = self.next;
        self.next = (number + 1) % DEVICES;
        let device = setup::device(number);
        let route = self.pool.route(&device, Channel::Metrics);
        let call = |variant| {
            self.position += 1;
            ScriptCall { position: Position(self.position), route, reading: setup::reading(number, variant) }
        };
        let calls: Vec<_> = (0..READINGS).map(call).collect();
        let Device { previous, script_state } = self.devices[number].clone();
        let run =
            ScriptRun { owner: LoopId(0), device, previous, script_state, generation: self.pool.generation(), calls };
        assert!(self.pool.try_submit(vec![run]).is_ok(), "the queue is empty");
        let mut missing = READINGS;
        while missing > 0 {
            for outcome in self.outcomes.recv().expect("a pool") {
                missing -= 1;
                self.keep(number, outcome);
            }
        }
    }

    fn keep(&mut self, number: usize, outcome: ScriptOutcome) {
        let device = &mut self.devices[number];
        match outcome.verdict {
            Verdict::Keep(state) => device.previous = Some((state, 1_700_000_000_000)),
            Verdict::Unchanged => {}
            Verdict::Dropped { .. } | Verdict::Parked { .. } => panic!("the handler failed: {:?}", outcome.verdict),
        }
        for (script, state) in outcome.script_state {
            device.script_state.retain(|(of, _)| *of != script);
            device.script_state.push((script, state));
        }
    }

    fn report(&self, name: &str) {
        if self.position == 0 {
            return;
        }
        let spent = (cpu_nanos(self.pool) - self.idle) / self.position;
        let health = &self.pool.scripts()[0];
        eprintln!(
            "script/{name}: the worker spends {:.2} µs a reading, its call takes {:.1} µs (median), over {} readings\n",
            spent as f64 / 1e3,
            health.p50_us,
            self.position
        );
    }
}

/// The processor time of the worker's threads so far.
fn cpu_nanos(pool: &WorkerPool) -> u64 {
    let tasks = format!("/proc/{}/task", pool.workers()[0].pid);
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0)
    };
    fs::read_dir(tasks).into_iter().flatten().flatten().map(of_task).sum()
}

struct Sink(mpsc::Sender<Vec<ScriptOutcome>>);

impl OutcomeSink for Sink {
    fn deliver(&self, _: LoopId, outcomes: Vec<ScriptOutcome>) {
        // Nobody listens any more when the pool stops.
        let _ = self.0.send(outcomes);
    }
}
