//! The table of `export`.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::command::Answer;
use super::compare::Compared;
use super::load::Window;
use super::{PACE, PART, PUBLISHERS, Phase, Plan};
use crate::table::{judged, number, spread};

/// The p99 of acknowledgements during an export over that before, at most.
const GOAL: f64 = 2.0;

/// Everything that was measured.
pub(crate) struct Report<'a> {
    pub(super) plan: &'a Plan,
    pub(super) phases: &'a [Phase],
    pub(super) windows: &'a [Window],
    pub(super) imported: &'a Answer,
    pub(super) compared: &'a Compared,
}

/// The acknowledgements of a phase, in milliseconds.
#[derive(Clone, Copy)]
struct Acks {
    p50: f64,
    p99: f64,
    /// The p99 of a second: the median, which one stall of the machine does not move, and the worst.
    median: f64,
    worst: f64,
}

impl Report<'_> {
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let Plan { devices, .. } = self.plan;
        let _ = writeln!(
            out,
            "{devices} devices; {PACE} readings/s with QoS 1 of {} of them over {PUBLISHERS} connections.\n",
            devices / PART
        );
        let _ = writeln!(
            out,
            "| | s | ack p50, ms | ack p99, ms | a second's p99, ms: median, worst | p99 ÷ before | goal | records/s | MiB | node's RSS, MiB: before → peak | growth ÷ export | goal |"
        );
        let _ = writeln!(out, "|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|---|");
        let before = self.phases.first().and_then(|phase| self.acks(phase));
        for phase in self.phases {
            self.row(&mut out, phase, before);
        }
        let Answer { imported, seconds, .. } = self.imported;
        let rate = number(*imported as f64 / seconds);
        let _ = writeln!(out, "\nImport into a fresh node: {imported} records in {seconds:.1} s, {rate} a second.");
        let Compared { devices, with_scripts, with_ledger, different, first } = self.compared;
        let verdict = if first.is_none() { "identical" } else { "DIFFERENT" };
        let _ = writeln!(
            out,
            "States of both nodes: **{verdict}** ({devices} compared, {with_scripts} of them with handlers' states, {with_ledger} with a ledger; {different} lines differ)."
        );
        if let Some(first) = first {
            let _ = writeln!(out, "\nThe first that differs:\n\n```\n{first}\n```");
        }
        out
    }

    fn row(&self, out: &mut String, phase: &Phase, before: Option<Acks>) {
        let Phase { name, from, to, rss_before, rss_peak, export } = phase;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let seconds = export.as_ref().map_or((*to - *from).as_secs_f64(), |export| export.seconds);
        let Some(acks) = self.acks(phase) else { return };
        let ratio = before.map_or(f64::NAN, |before| acks.p99 / before.p99);
        let (judged_ratio, exported) = match export {
            Some(export) => {
                let share = mib(rss_peak - rss_before) / mib(export.bytes);
                let cells = [
                    number(export.devices as f64 / export.seconds),
                    number(mib(export.bytes)),
                    format!("{:.0} → {:.0}", mib(*rss_before), mib(*rss_peak)),
                    format!("{share:.2}"),
                    judged(share < 1.0, "< 1"),
                ];
                (judged(ratio <= GOAL, &format!("≤ {GOAL}")), cells.join(" | "))
            }
            None => (String::new(), format!("| | {:.0} → {:.0} | |", mib(*rss_before), mib(*rss_peak))),
        };
        let _ = writeln!(
            out,
            "| {name} | {seconds:.1} | {} | {} | {}, {} | {ratio:.2} | {judged_ratio} | {exported} |",
            number(acks.p50),
            number(acks.p99),
            number(acks.median),
            number(acks.worst)
        );
    }

    /// Of an export every second that touches it, of a quiet phase those that are wholly in it.
    fn acks(&self, phase: &Phase) -> Option<Acks> {
        let counts = |window: &&Window| match phase.export {
            Some(_) => window.to > phase.from && window.from < phase.to,
            None => window.from >= phase.from && window.to <= phase.to,
        };
        let ms = |latency_us: &Histogram<u64>, quantile| latency_us.value_at_quantile(quantile) as f64 / 1e3;
        let windows: Vec<_> = self.windows.iter().filter(counts).collect();
        let seconds = spread(windows.iter().map(|window| ms(&window.latency_us, 0.99)).collect())?;
        let (first, rest) = windows.split_first()?;
        let mut all = first.latency_us.clone();
        rest.iter().try_for_each(|window| all.add(&window.latency_us)).ok()?;
        Some(Acks { p50: ms(&all, 0.5), p99: ms(&all, 0.99), median: seconds.median, worst: seconds.max })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::scenario::latencies;

    #[test]
    fn seconds_that_touch_an_export_are_judged_by_those_before() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        // A second of 3 ms each, and from the fifth on of 9 ms.
        let windows: Vec<_> = (0..10)
            .map(|second| {
                let mut latency_us = latencies().expect("bounds");
                latency_us.record_n(if second < 5 { 3_000 } else { 9_000 }, 100).expect("in bounds");
                Window { from: at(second), to: at(second + 1), latency_us }
            })
            .collect();
        let phase = |from, to, export| Phase {
            name: "a phase".to_owned(),
            from: at(from),
            to: at(to),
            rss_before: 100 << 20,
            rss_peak: 120 << 20,
            export,
        };
        let export = Answer { devices: 50_000, bytes: 10 << 20, seconds: 2.0, ..Answer::default() };
        let phases = [phase(0, 4, None), phase(6, 8, Some(export))];
        let plan = Plan {
            tidegate: "tidegate".into(),
            dir: "target".into(),
            devices: 50_000,
            quiet: Duration::from_secs(4),
            rate: None,
        };
        let (imported, compared) = (Answer::default(), Compared::default());
        let report =
            Report { plan: &plan, phases: &phases, windows: &windows, imported: &imported, compared: &compared };
        let text = report.markdown();
        assert!(text.contains("| 3.00 | ≤ 2 MISSED | 25000 | 10.0 | 100 → 120 | 2.00 | < 1 MISSED |"), "{text}");
    }
}
