//! `tidegate-bench durable`: what a reading costs that is acknowledged only when it is on the disk.
//!
//! In rounds, on one disk: the node flat out, sled by batches, the node at a pace beside the disk's own `fdatasync` with writes as
//! large as the node's commits; then the journal alone in this process. Goals are judged by the medians of the rounds' ratios.

mod disk;
mod journal;
mod node;
mod report;
mod sled;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::disk::{beside, probe};
use self::journal::Cost;
use self::node::{Ingest, Node};
use self::report::Report;
use self::sled::{Rate, Sled, Way};
use crate::peers::say;
use crate::scenario::latencies;
use crate::server;

/// Paces, in readings a second, at which acknowledgements are timed.
const PACES: [u32; 2] = [5_000, 20_000];
/// Batches for sled and the journal, besides those that the node's own commits have.
const BATCHES: [usize; 2] = [100, 1_000];

/// What is measured, and where.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The node's binary.
    pub(crate) tidegate: PathBuf,
    /// A folder on the disk.
    pub(crate) dir: PathBuf,
    /// Devices that report.
    pub(crate) devices: usize,
    /// Connections that they report over.
    pub(crate) connections: usize,
    /// Rounds.
    pub(crate) rounds: usize,
    /// Time of each measurement of a round.
    pub(crate) window: Duration,
}

/// One round.
#[derive(Debug)]
struct Round {
    flat: Ingest,
    /// By the size of the batch: [`BATCHES`], then the node's.
    batches: Vec<Batches>,
    paced: Vec<Paced>,
}

/// Batches of one size, one after the other.
#[derive(Debug)]
struct Batches {
    size: usize,
    sled: Rate,
    /// The same, entry by entry.
    inserts: Rate,
    /// Readings a second of the journal.
    journal: f64,
}

/// The node at a pace, and the disk beside it.
#[derive(Debug)]
struct Paced {
    ingest: Ingest,
    /// `fdatasync` of writes of that size, in microseconds.
    sync_bytes: usize,
    sync_p50_us: f64,
    sync_p99_us: f64,
    /// The same while the node was at it.
    beside_p99_us: f64,
}

/// Measures all of it and gives the tables in Markdown.
///
/// # Errors
/// A node that does not start, refuses or loses anything; the disk's and sled's errors.
pub(crate) fn run(plan: &Plan) -> Result<String> {
    ensure!(plan.devices >= plan.connections, "more connections than devices");
    let folder = server::folder(&plan.dir)?;
    say("starting the node, filling sled");
    let node = Node::start(plan)?;
    let mut sled = Sled::open(&folder.path().join("sled"), plan.devices)?;
    let mut rate = node.warm_up()?;
    let mut rounds = Vec::with_capacity(plan.rounds);
    for number in 1..=plan.rounds {
        let round = round(plan, &node, &mut sled, folder.path(), rate)?;
        rate = round.flat.per_second;
        say(&format!("round {number} of {}: {}", plan.rounds, round.brief()));
        rounds.push(round);
    }
    drop((node, sled));
    say("the journal alone");
    let alone: Vec<(Option<u32>, Cost)> = [None, Some(PACES[1]), Some(PACES[0])]
        .into_iter()
        .map(|rate| {
            let dir = server::folder(folder.path())?;
            Ok((rate, journal::measure(dir.path(), rate, plan.window)?))
        })
        .collect::<Result<_>>()?;
    Ok(Report { plan, rounds: &rounds, alone: &alone }.markdown())
}

fn round(plan: &Plan, node: &Node, sled: &mut Sled, dir: &std::path::Path, rate: f64) -> Result<Round> {
    let flat = node.flat_out(rate, plan.window)?;
    let own = (flat.records_per_commit.round() as usize).max(1);
    let batches = BATCHES.into_iter().chain([own]).map(|size| {
        let folder = server::folder(dir)?;
        let inserts = sled.run(size, Way::Inserts, plan.window / 2)?;
        let sled = sled.run(size, Way::Batch, plan.window)?;
        Ok(Batches { size, sled, inserts, journal: journal::one_by_one(folder.path(), size, plan.window / 4)? })
    });
    let batches = batches.collect::<Result<_>>()?;
    let paced = PACES.into_iter().map(|pace| paced(plan, node, dir, pace)).collect::<Result<_>>()?;
    Ok(Round { flat, batches, paced })
}

/// The disk's figures are taken before and after the node's: a slow second of the disk is to hit both.
fn paced(plan: &Plan, node: &Node, dir: &std::path::Path, pace: u32) -> Result<Paced> {
    // How large its commits are is known only once it has made some.
    let short = node.paced(pace, plan.window / 4)?;
    let sync_bytes = short.bytes_per_commit.round() as usize;
    let mut sync_us = latencies()?;
    probe(dir, sync_bytes, plan.window / 2, &mut sync_us)?;
    let mut beside_us = latencies()?;
    let ingest = beside(dir, sync_bytes, &mut beside_us, || node.paced(pace, plan.window))?;
    probe(dir, sync_bytes, plan.window / 2, &mut sync_us)?;
    let at = |quantile| sync_us.value_at_quantile(quantile) as f64;
    let beside_p99_us = beside_us.value_at_quantile(0.99) as f64;
    Ok(Paced { ingest, sync_bytes, sync_p50_us: at(0.5), sync_p99_us: at(0.99), beside_p99_us })
}

impl Round {
    fn brief(&self) -> String {
        let sled: Vec<_> =
            self.batches.iter().map(|one| format!("{}: {:.0}/s", one.size, one.sled.per_second)).collect();
        let paced: Vec<_> = self
            .paced
            .iter()
            .map(|one| format!("ack p99 {:.1} ms, disk {:.1} ms", one.ingest.p99_us / 1e3, one.sync_p99_us / 1e3))
            .collect();
        format!("node {:.0}/s; sled {}; paced {}", self.flat.per_second, sled.join(", "), paced.join("; "))
    }
}
