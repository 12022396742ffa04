//! The built node on a folder of its own, QoS 1 over MQTT into it, and what it spent where.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use crate::meter::Measure;
use crate::process;
use crate::scenario::mqtt::{MqttLoad, Swarm};
use crate::server::Server;
use crate::status::JournalStatus;

/// Readings that activate every device and fill every cache, at least.
const WARM_UP: u64 = 200_000;
/// Messages in one write of a gateway, and its unacknowledged ones, flat out: enough to keep every part of the node busy.
const BURST: usize = 16;
const WINDOW: usize = 64;

/// Time between two looks at the journal's thread.
const LOOK: Duration = Duration::from_millis(3);

/// A running node.
pub(crate) struct Node {
    server: Server,
    load: MqttLoad,
}

/// A run into the node. Times and figures of one reading.
#[derive(Debug)]
pub(crate) struct Ingest {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Processor time of the node by its threads' names, in microseconds.
    pub(crate) thread_us: BTreeMap<String, f64>,
    /// Processors that the node used.
    pub(crate) node_cores: f64,
    pub(crate) generator_cores: f64,
    pub(crate) records_per_commit: f64,
    pub(crate) bytes_per_commit: f64,
    pub(crate) commits_per_second: f64,
    /// The part of the time in which the journal's thread waited for the disk.
    pub(crate) disk_wait: f64,
    pub(crate) commit_p50_ms: f64,
    pub(crate) commit_p99_ms: f64,
}

impl Node {
    pub(crate) fn start(plan: &Plan) -> Result<Self> {
        let load = MqttLoad {
            publishers: plan.connections,
            devices: plan.devices,
            with_ack: true,
            subscriber: false,
            rate: None,
            burst: BURST,
            window: WINDOW,
        };
        Ok(Self { server: Server::node(&plan.tidegate, &plan.dir, &[])?, load })
    }

    /// Returns the rate of the warm-up.
    pub(crate) fn warm_up(&self) -> Result<f64> {
        Ok(self.ingest(self.load, WARM_UP)?.per_second)
    }

    /// As fast as it acknowledges, for about `time` if it does `rate` again.
    pub(crate) fn flat_out(&self, rate: f64, time: Duration) -> Result<Ingest> {
        self.ingest(self.load, (rate * time.as_secs_f64()) as u64)
    }

    /// Evenly spread, each message its own write.
    pub(crate) fn paced(&self, pace: u32, time: Duration) -> Result<Ingest> {
        let load = MqttLoad { rate: Some(pace), burst: 1, ..self.load };
        self.ingest(load, (f64::from(pace) * time.as_secs_f64()) as u64)
    }

    fn ingest(&self, load: MqttLoad, messages: u64) -> Result<Ingest> {
        self.try_ingest(load, messages).map_err(|error| self.server.explain(error))
    }

    fn try_ingest(&self, load: MqttLoad, messages: u64) -> Result<Ingest> {
        let http = self.server.http.context("it speaks no HTTP")?;
        let mut swarm = Swarm::connect(self.server.mqtt.context("it speaks no MQTT")?, load)?;
        let mut spent = None;
        let sample = self.server.meter().around(|| {
            let before = (JournalStatus::of(http)?, process::threads(self.server.pid())?);
            let (run, waited) = while_watching(self.server.pid(), || swarm.run(messages))?;
            let after = (JournalStatus::of(http)?, process::threads(self.server.pid())?);
            spent = Some((before, after, run.sent as f64, run.elapsed.as_secs_f64(), waited));
            Ok(run)
        })?;
        let (before, after, sent, seconds, disk_wait) = spent.context("no run")?;
        let since = |name: &String, ns: u64| ns.saturating_sub(before.1.get(name).copied().unwrap_or(0)) as f64 / 1e3;
        let spent_us: BTreeMap<_, _> = after.1.iter().map(|(name, &ns)| (name.clone(), since(name, ns))).collect();
        let commits = (after.0.commits - before.0.commits).max(1) as f64;
        let figure = |measure| sample.get(&measure).copied().unwrap_or(f64::NAN);
        Ok(Ingest {
            per_second: sent / seconds,
            p50_us: figure(Measure::P50Us),
            p99_us: figure(Measure::P99Us),
            node_cores: spent_us.values().sum::<f64>() / 1e6 / seconds,
            thread_us: spent_us.into_iter().map(|(name, us)| (name, us / sent)).collect(),
            generator_cores: figure(Measure::GeneratorCores),
            records_per_commit: (after.0.records - before.0.records) as f64 / commits,
            bytes_per_commit: (after.0.appended_bytes - before.0.appended_bytes) as f64 / commits,
            commits_per_second: commits / seconds,
            disk_wait,
            commit_p50_ms: after.0.commit_p50_ms,
            commit_p99_ms: after.0.commit_p99_ms,
        })
    }
}

/// Looks meanwhile, again and again, whether the journal's thread of process `pid` waits for the disk, and gives the part of the
/// looks in which it did.
fn while_watching<T>(pid: u32, run: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let journal = process::thread_named(pid, "journal").context("the node has no journal's thread")?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut looks, mut waits) = (0_u32, 0_u32);
            while !over.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
                looks += 1;
                waits += u32::from(process::waits_for_disk(&journal));
            }
            f64::from(waits) / f64::from(looks.max(1))
        });
        let done = run();
        over.store(true, Ordering::Relaxed);
        let waited = watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        Ok((done?, waited))
    })
}

/// How many processors there are.
pub(crate) fn cores() -> f64 {
    thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}
