//! What handlers cost: runs of 64 readings through a worker process and back, as the runtime sends them.
//!
//! The time of a run has both processes in it and the wake-ups between them. What the worker alone spends, by the kernel's
//! account, is printed behind each bench, and what the way there and back costs in full batches. This binary is its own
//! worker: it is started again with `script-worker`.

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
/// Rounds of all devices at once, for the cost of the way to the worker and back.
const ROUNDS: usize = 200;
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
    fleet.report_way(name);
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
        let run = self.next_run(number);
        assert!(self.pool.try_submit(vec![run]).is_ok(), "the queue is empty");
        let mut missing = READINGS;
        while missing > 0 {
            for outcome in self.outcomes.recv().expect("a pool") {
                missing -= 1;
                self.keep(number, outcome);
            }
        }
    }

    fn next_run(&mut self, number: usize) -> ScriptRun {
        let device = setup::device(number);
        let route = self.pool.route(&device, Channel::Metrics);
        let call = |variant| {
            self.position += 1;
            ScriptCall { position: Position(self.position), route, reading: setup::reading(number, variant) }
        };
        let calls: Vec<_> = (0..READINGS).map(call).collect();
        let Device { previous, script_state } = self.devices[number].clone();
        ScriptRun { owner: LoopId(0), device, previous, script_state, generation: self.pool.generation(), calls }
    }

    /// What the way to the worker and back costs when the node has more waiting than a batch holds: the processor time of
    /// the worker and of the node's thread for it, less the time of the calls themselves (a call's JSON is part of it).
    fn report_way(&mut self, name: &str) {
        let mut spent = [0.0; 3];
        for _ in 0..ROUNDS {
            // Made before the clocks are read, and thrown away after: the readings and outcomes are the runtime's.
            let runs: Vec<_> = (0..DEVICES).map(|number| self.next_run(number)).collect();
            let before = self.clocks();
            assert!(self.pool.try_submit(runs).is_ok(), "the queue is empty");
            let mut outcomes = Vec::with_capacity(DEVICES);
            let mut missing = DEVICES * READINGS;
            while missing > 0 {
                outcomes.push(self.outcomes.recv().expect("a pool"));
                missing -= outcomes.last().map_or(0, Vec::len);
            }
            for (sum, (after, before)) in spent.iter_mut().zip(self.clocks().into_iter().zip(before)) {
                *sum += after - before;
            }
        }
        let [worker, supervisor, calls] = spent.map(|seconds| seconds * 1e6 / (ROUNDS * DEVICES * READINGS) as f64);
        eprintln!(
            "script/{name}: in full batches the way there and back costs {:.2} µs a reading: {:.2} in the worker beside the call's {calls:.2}, {supervisor:.2} in the node\n",
            worker - calls + supervisor,
            worker - calls,
        );
    }

    /// Seconds so far: the worker's processor time, the supervising threads', the calls'.
    fn clocks(&self) -> [f64; 3] {
        let supervisors = nanos_of(std::process::id(), |name| name.starts_with("scripts-"));
        [cpu_nanos(self.pool) as f64 / 1e9, supervisors as f64 / 1e9, self.pool.scripts()[0].busy_seconds]
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
    nanos_of(pool.workers()[0].pid, |_| true)
}

/// The processor time so far of a process' threads with such names.
fn nanos_of(pid: u32, named: impl Fn(&str) -> bool) -> u64 {
    let tasks = format!("/proc/{pid}/task");
    let of_task = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if !named(&name) {
            return 0;
        }
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
