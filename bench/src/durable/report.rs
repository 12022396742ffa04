//! The tables of `durable`.

use std::fmt::Write;

use super::journal::Cost;
use super::node::{Ingest, cores};
use super::{Paced, Plan, Round};
use crate::table::{judged, number, spread};

/// The node's rate over that of sled by batches, at least.
const RATIO_GOAL: f64 = 5.0;
/// The acknowledgement's p99 over that of `fdatasync`, at most.
const ACK_GOAL: f64 = 5.0;
/// Microseconds of the journal's thread a reading, at most.
const THREAD_GOAL_US: f64 = 2.0;

/// Everything that was measured.
pub(crate) struct Report<'a> {
    pub(super) plan: &'a Plan,
    pub(super) rounds: &'a [Round],
    pub(super) alone: &'a [(Option<u32>, Cost)],
}

impl Report<'_> {
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let Plan { devices, connections, window, .. } = self.plan;
        let _ = writeln!(
            out,
            "{} rounds of {:.1} s each, {devices} devices over {connections} connections, {} cores; medians (min–max of the rounds).\n",
            self.rounds.len(),
            window.as_secs_f64(),
            cores(),
        );
        self.rates(&mut out);
        self.bound(&mut out);
        self.latencies(&mut out);
        self.costs(&mut out);
        out
    }

    /// Of every round.
    fn over(&self, figure: impl Fn(&Round) -> f64) -> String {
        spread(self.rounds.iter().map(figure).collect()).map_or_else(String::new, |spread| spread.to_string())
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        spread(self.rounds.iter().map(figure).collect()).map_or(f64::NAN, |spread| spread.median)
    }

    fn rates(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "| durable, flat out | readings/s | CPU µs a reading | node ÷ sled | goal | journal alone, same batches | journal ÷ sled | sled by single sorted inserts | node ÷ that |"
        );
        let _ = writeln!(out, "|---|---:|---:|---:|---|---:|---:|---:|---:|");
        let (rate, cpu) = (self.over(|r| r.flat.per_second), self.over(|r| r.flat.thread_us.values().sum()));
        let _ = writeln!(out, "| the node, MQTT QoS 1 | {rate} | {cpu} | | | | | | |");
        let sizes = self.rounds.first().map_or(0, |round| round.batches.len());
        for index in 0..sizes {
            let size = self.median(|r| r.batches[index].size as f64);
            let name = if index + 1 == sizes { "as the node's commits, " } else { "" };
            let (rate, cpu) =
                (self.over(|r| r.batches[index].sled.per_second), self.over(|r| r.batches[index].sled.cpu_us));
            let node = |r: &Round| r.flat.per_second / r.batches[index].sled.per_second;
            let journal = |r: &Round| r.batches[index].journal / r.batches[index].sled.per_second;
            let inserts = self.over(|r| r.batches[index].inserts.per_second);
            let by_inserts = self.over(|r| r.flat.per_second / r.batches[index].inserts.per_second);
            let goal = judged(self.median(node) >= RATIO_GOAL, &format!("≥ {RATIO_GOAL}"));
            let (node, journal, alone) = (self.over(node), self.over(journal), self.over(|r| r.batches[index].journal));
            let _ = writeln!(
                out,
                "| sled alone, batches of {name}{size:.0} | {rate} | {cpu} | {node} | {goal} | {alone} | {journal} | {inserts} | {by_inserts} |"
            );
        }
        let _ = writeln!(out);
    }

    fn bound(&self, out: &mut String) {
        let median = |figure: fn(&Ingest) -> f64| self.median(|r| figure(&r.flat));
        let (node, generator, disk) =
            (median(|i| i.node_cores), median(|i| i.generator_cores), median(|i| i.disk_wait));
        let bound = match () {
            () if generator > 0.9 => "the generator",
            () if node + generator > 0.85 * cores() => "the processors",
            () if disk > 0.7 => "the disk",
            () => "none of the three alone: the processors are shared with other work, or everybody waits for somebody",
        };
        let _ = writeln!(
            out,
            "The bound, flat out: **{bound}** (node {} cores, generator {}, the journal's thread waits for the disk {:.0} % of the time; commits of {} \
             readings, {} KiB, p50 {} ms, p99 {} ms, {} a second; ack p50 {} ms, p99 {} ms).\n",
            number(node),
            number(generator),
            disk * 100.0,
            number(median(|i| i.records_per_commit)),
            number(median(|i| i.bytes_per_commit / 1024.0)),
            number(median(|i| i.commit_p50_ms)),
            number(median(|i| i.commit_p99_ms)),
            number(median(|i| i.commits_per_second)),
            number(median(|i| i.p50_us / 1e3)),
            number(median(|i| i.p99_us / 1e3)),
        );
    }

    fn latencies(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "| paced | ack p50, ms | ack p99, ms | disk's fdatasync p50, ms | p99, ms (writes of) | ack p99 ÷ that | goal | fdatasync p99 beside the node, ms | ack p99 ÷ that | goal |"
        );
        let _ = writeln!(out, "|---|---:|---:|---:|---:|---:|---|---:|---:|---|");
        for (index, pace) in super::PACES.iter().enumerate() {
            let over = |figure: fn(&Paced) -> f64| self.over(|r| figure(&r.paced[index]));
            let ratio = |r: &Round| r.paced[index].ingest.p99_us / r.paced[index].sync_p99_us;
            let beside = |r: &Round| r.paced[index].ingest.p99_us / r.paced[index].beside_p99_us;
            let goal = |ratio: f64| judged(ratio <= ACK_GOAL, &format!("≤ {ACK_GOAL}"));
            let _ = writeln!(
                out,
                "| {pace}/s | {} | {} | {} | {} ({} B) | {} | {} | {} | {} | {} |",
                over(|p| p.ingest.p50_us / 1e3),
                over(|p| p.ingest.p99_us / 1e3),
                over(|p| p.sync_p50_us / 1e3),
                over(|p| p.sync_p99_us / 1e3),
                number(self.median(|r| r.paced[index].sync_bytes as f64)),
                self.over(ratio),
                goal(self.median(ratio)),
                over(|p| p.beside_p99_us / 1e3),
                self.over(beside),
                goal(self.median(beside)),
            );
        }
        let _ = writeln!(out);
    }

    fn costs(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "| CPU µs a reading | readings/s | readings a commit | journal's thread | goal | loops (alone: encode only) | checkpoint and sled |"
        );
        let _ = writeln!(out, "|---|---:|---:|---:|---|---:|---:|");
        let goal = |us: f64| judged(us <= THREAD_GOAL_US, &format!("≤ {THREAD_GOAL_US}"));
        let mut row = |name: &str, pick: &dyn Fn(&Round) -> &Ingest| {
            let threads = |names: &'static [&'static str]| {
                move |r: &Round| {
                    let matching =
                        pick(r).thread_us.iter().filter(|(name, _)| names.iter().any(|n| name.starts_with(n)));
                    matching.map(|(_, us)| us).sum::<f64>()
                }
            };
            let journal = threads(&["journal"]);
            let _ = writeln!(
                out,
                "| the node, {name} | {} | {} | {} | {} | {} | {} |",
                self.over(|r| pick(r).per_second),
                self.over(|r| pick(r).records_per_commit),
                self.over(journal),
                goal(self.median(journal)),
                self.over(threads(&["actix-rt"])),
                self.over(threads(&["checkpoint", "sled-io", "log flusher"])),
            );
        };
        row("flat out", &|r| &r.flat);
        for (index, pace) in super::PACES.iter().enumerate().rev() {
            row(&format!("{pace}/s"), &move |r| &r.paced[index].ingest);
        }
        for (rate, cost) in self.alone {
            let name = rate.map_or_else(|| "flat out".to_owned(), |rate| format!("{rate}/s"));
            let _ = writeln!(
                out,
                "| the journal alone, {name} | {} | {} | {} | {} | {} | |",
                number(cost.per_second),
                number(cost.readings_per_commit),
                number(cost.thread_us),
                goal(cost.thread_us),
                number(cost.encode_us),
            );
        }
    }
}
