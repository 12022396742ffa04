//! What a run cost: the server's processor time and memory around it, and Tidegate's own ledger of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::scenario::Run;
use crate::{http, process};

/// What still runs after the last confirmation (a journal's checkpoint, a collection of garbage) is charged to the
/// run for so long. The same for every server.
const TAIL: Duration = Duration::from_millis(1_200);

/// The same before a run: what connecting has set off is not the run's work.
const LEAD: Duration = Duration::from_millis(300);

/// How long readings may stay in flight after the last confirmation.
const DRAIN: Duration = Duration::from_secs(30);

/// A figure of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// The server's processor time for a message, in microseconds.
    CpuPerMessageUs,
    /// Messages a second, until the last is confirmed and worked off.
    PerSecond,
    /// The median latency in microseconds.
    P50Us,
    /// The latency that one message in a hundred exceeds, in microseconds.
    P99Us,
    /// Resident bytes of the server that each idle connection added.
    BytesPerConnection,
    /// Resident memory of the server at the end, in mebibytes.
    RssMib,
    /// Messages that a server left out by its promise.
    LeftOut,
    /// Processor cores that the load generator used: near 1, it was the bottleneck and throughput says little.
    GeneratorCores,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CpuPerMessageUs => "CPU µs per message",
            Self::PerSecond => "messages/s",
            Self::P50Us => "latency p50, µs",
            Self::P99Us => "latency p99, µs",
            Self::BytesPerConnection => "RSS bytes per connection",
            Self::RssMib => "RSS, MiB",
            Self::LeftOut => "conflated messages",
            Self::GeneratorCores => "generator's cores",
        })
    }
}

/// The figures of one round.
pub(crate) type Sample = BTreeMap<Measure, f64>;

/// Where to read the costs of a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// The server's process; without one only the client's side is measured.
    pub(crate) pid: Option<u32>,
    /// The address of Tidegate's `/ledger`.
    pub(crate) ledger: Option<SocketAddr>,
    /// The address of a peer's `/count` of the readings that its handler has seen.
    pub(crate) count: Option<SocketAddr>,
}

impl Meter {
    /// Measures around `run`.
    ///
    /// # Errors
    /// Those of `run`; a server that ended; a ledger that does not account for every reading of the run.
    pub(crate) fn around(&self, run: impl FnOnce() -> Result<Run>) -> Result<Sample> {
        if self.pid.is_some() {
            std::thread::sleep(LEAD);
        }
        let ledger = self.ledger.map(|address| Ledger::settled(address, 0)).transpose()?;
        let count = self.count.map(|address| counted(address, 0)).transpose()?;
        let before = self.usage()?;
        let own_before_us = process::own_cpu_us()?;
        let run = run()?;
        let own_us = process::own_cpu_us()? - own_before_us;
        let drain_from = Instant::now();
        let mut left_out = run.left_out;
        if let (Some(address), Some(before)) = (self.ledger, ledger) {
            left_out += Ledger::settled(address, before.received + run.sent)?.check_since(&before, run.sent)?;
        }
        if let (Some(address), Some(before)) = (self.count, count) {
            let seen = counted(address, before + run.sent)? - before;
            ensure!(seen == run.sent, "the handler saw {seen} readings of {}", run.sent);
        }
        let elapsed = run.elapsed
            + if self.ledger.is_some() || self.count.is_some() { drain_from.elapsed() } else { Duration::ZERO };
        if self.pid.is_some() {
            std::thread::sleep(TAIL);
        }
        let after = self.usage()?;

        let messages = run.messages as f64;
        let mut sample = Sample::new();
        sample.insert(Measure::PerSecond, messages / elapsed.as_secs_f64());
        sample.insert(Measure::GeneratorCores, own_us as f64 / 1e6 / run.elapsed.as_secs_f64());
        sample.insert(Measure::LeftOut, left_out as f64);
        if let (Some(before), Some(after)) = (before, after) {
            sample.insert(Measure::CpuPerMessageUs, after.cpu_us_since(&before) as f64 / messages);
            sample.insert(Measure::RssMib, after.rss_bytes as f64 / f64::from(1 << 20));
        }
        if let Some(latency_us) = run.latency_us {
            sample.insert(Measure::P50Us, latency_us.value_at_quantile(0.5) as f64);
            sample.insert(Measure::P99Us, latency_us.value_at_quantile(0.99) as f64);
        }
        Ok(sample)
    }

    /// What the server has used so far, when its process is known.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn usage(&self) -> Result<Option<process::Usage>> {
        self.pid.map(process::usage).transpose()
    }
}

/// Waits until a peer's handler has seen `least` readings: how many it has.
fn counted(address: SocketAddr, least: u64) -> Result<u64> {
    let start = Instant::now();
    loop {
        let body = String::from_utf8(http::get(address, "/count")?)?;
        let count = body.trim().parse().with_context(|| format!("GET /count: {body:?}"))?;
        if count >= least {
            return Ok(count);
        }
        ensure!(start.elapsed() < DRAIN, "after {DRAIN:?} the handler has seen {count} readings of {least}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tidegate's `GET /ledger`.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ledger {
    received: u64,
    committed: u64,
    conflated: BTreeMap<String, u64>,
    rejected: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    parked: BTreeMap<String, u64>,
    in_flight: u64,
}

impl Ledger {
    /// Waits until nothing is in flight and `received` readings have been counted: loops may report late.
    fn settled(address: SocketAddr, received: u64) -> Result<Self> {
        let start = Instant::now();
        loop {
            let body = http::get(address, "/ledger")?;
            let ledger: Self = serde_json::from_slice(&body).context("reading the ledger")?;
            if ledger.in_flight == 0 && ledger.received >= received {
                return Ok(ledger);
            }
            if start.elapsed() > DRAIN {
                bail!("after {DRAIN:?} the ledger wants {received} received and none in flight, but is {ledger:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Demands that `sent` readings were received since `before` and none of them failed. Returns the conflated ones.
    fn check_since(&self, before: &Self, sent: u64) -> Result<u64> {
        let received = self.received - before.received;
        ensure!(received == sent, "the ledger received {received} readings of {sent}");
        for (what, now, then) in [
            ("rejected", &self.rejected, &before.rejected),
            ("dropped", &self.dropped, &before.dropped),
            ("parked", &self.parked, &before.parked),
        ] {
            ensure!(now.values().sum::<u64>() == then.values().sum::<u64>(), "readings were {what}: {now:?}");
        }
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let conflated = sum(&self.conflated) - sum(&before.conflated);
        let committed = self.committed - before.committed;
        ensure!(committed + conflated == sent, "{committed} committed and {conflated} conflated of {sent} readings");
        Ok(conflated)
    }
}
