//! The tables of `stored`.

use std::fmt::Write;
use std::time::Duration;

use super::counts::Counts;
use super::messages;
use super::tally::Tally;
use crate::table::number;

/// One kind of what was stored: how long it took to make and to check, and what came back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(crate) made: Duration,
    pub(crate) checked: Duration,
    pub(crate) tally: Tally,
}

/// What the node takes at a moment, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) rss: u64,
    /// The blocks of its data directory.
    pub(crate) disk: u64,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) wanted: Counts,
    /// The sessions, what waited in them, and the retained messages.
    pub(super) parts: [Part; 3],
    /// From the last acknowledgement until the node was gone.
    pub(super) killed_after: Duration,
    /// From the start of the process to the ready line.
    pub(super) start: Duration,
    /// The same after a second kill, when checkpoints had come up with the journal.
    pub(super) start_at_rest: Duration,
    /// The empty node; with sessions and what waits in them; at the kill; started again; after the checks, at rest; started at rest.
    pub(super) sizes: [Size; 6],
    /// The most memory until the ready line.
    pub(super) rss_peak: u64,
    /// Started again; after the checks; started at rest.
    pub(super) counts: [Counts; 3],
}

impl Report {
    /// Did everything come back, once and as it was, and does the node count the same?
    pub(crate) fn complete(&self) -> bool {
        let whole = |(part, wanted): (&Part, u64)| part.tally.complete(wanted);
        self.parts.iter().zip(self.counted()).all(whole) && self.counts.iter().all(|counts| *counts == self.wanted)
    }

    /// How many there must be of each part.
    fn counted(&self) -> [u64; 3] {
        [self.wanted.sessions, self.wanted.sessions, self.wanted.retained]
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let [sessions, _, retained] = self.counted();
        let _ = writeln!(
            out,
            "{sessions} stored sessions with a message in each, {retained} retained messages (topic {} bytes, payload {}), all \
             with QoS 1; killed with SIGKILL, gone {:.0} ms after the last acknowledgement.\n",
            messages::retained_topic(0).len(),
            messages::retained(retained as usize / 2).len(),
            self.killed_after.as_secs_f64() * 1e3
        );
        let _ = writeln!(out, "| | stored | came back | missing | wrong | too many | stored in, s | checked in, s |");
        let _ = writeln!(out, "|---|---:|---:|---:|---:|---:|---:|---:|");
        let names = ["sessions", "messages that waited in them", "retained messages"];
        for ((name, part), stored) in names.iter().zip(&self.parts).zip(self.counted()) {
            let Tally { right, missing, wrong, extra } = part.tally;
            let (made, checked) = (part.made.as_secs_f64(), part.checked.as_secs_f64());
            let _ = writeln!(
                out,
                "| {name} | {stored} | {right} | {missing} | {wrong} | {extra} | {made:.1} | {checked:.1} |"
            );
        }
        self.starting(&mut out);
        self.sizing(&mut out);
        self.counting(&mut out);
        out
    }

    fn starting(&self, out: &mut String) {
        let seconds = self.start.as_secs_f64();
        let killed = self.sizes[2];
        let all: u64 = self.counted().iter().sum();
        let _ = writeln!(
            out,
            "\n**Ready {seconds:.2} s after its start**: {} things a second, {} MiB of data directory a second; at most {} MiB of \
             memory meanwhile. Killed once more at rest, with all of it checkpointed: **ready after {:.2} s**.\n",
            number(all as f64 / seconds),
            number(mib(killed.disk) / seconds),
            number(mib(self.rss_peak)),
            self.start_at_rest.as_secs_f64()
        );
    }

    fn sizing(&self, out: &mut String) {
        let _ = writeln!(out, "| | RSS, MiB | data directory, MiB |");
        let _ = writeln!(out, "|---|---:|---:|");
        let names = [
            "empty",
            "with the sessions and their messages",
            "killed",
            "started again",
            "after the checks, at rest",
            "killed and started at rest",
        ];
        for (name, Size { rss, disk }) in names.iter().zip(&self.sizes) {
            let _ = writeln!(out, "| {name} | {} | {} |", number(mib(*rss)), number(mib(*disk)));
        }
        let [_, before, killed, .., at_rest] = self.sizes;
        let retained = self.wanted.retained as f64;
        let each = |after: u64, before: u64| number((after as f64 - before as f64) / retained);
        let _ = writeln!(
            out,
            "| bytes per retained message that came, until the kill | {} | {} |",
            each(killed.rss, before.rss),
            each(killed.disk, before.disk)
        );
        let _ = writeln!(
            out,
            "| bytes per retained message, started at rest, everything else counted in | {} | {} |",
            number(at_rest.rss as f64 / retained),
            number(at_rest.disk as f64 / retained)
        );
    }

    fn counting(&self, out: &mut String) {
        let agree = self.counts.iter().all(|counts| *counts == self.wanted);
        let verdict = if agree { "agree" } else { "DO NOT AGREE" };
        let _ = writeln!(
            out,
            "\nThe node's own counts (`/metrics`, `$SYS`) **{verdict}**, after both starts and after the checks: {} sessions stored and \
             {} disconnected, {} subscriptions, {} and {} retained messages, {} messages dropped or not retained.",
            self.all(|counts| counts.sessions),
            self.all(|counts| counts.sys_disconnected),
            self.all(|counts| counts.subscriptions),
            self.all(|counts| counts.retained),
            self.all(|counts| counts.sys_retained),
            self.all(|counts| counts.dropped),
        );
    }

    /// A count when it was started, after the checks and when it was started at rest, or once if it is the same.
    fn all(&self, count: impl Fn(&Counts) -> u64) -> String {
        let mut counts: Vec<_> = self.counts.iter().map(|counts| count(counts).to_string()).collect();
        if counts.iter().all(|count| *count == counts[0]) {
            counts.truncate(1);
        }
        counts.join(" → ")
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::*;

    fn report() -> Report {
        let plan = Plan { tidegate: "tidegate".into(), dir: "target".into(), sessions: 5_000, retained: 100_000 };
        let wanted = Counts::wanted(&plan);
        let part = |right| Part {
            made: Duration::from_secs(4),
            checked: Duration::from_secs(8),
            tally: Tally { right, ..Tally::default() },
        };
        let size = |rss: u64, disk: u64| Size { rss: rss << 20, disk: disk << 20 };
        Report {
            parts: [part(5_000), part(5_000), part(100_000)],
            killed_after: Duration::from_millis(12),
            start: Duration::from_millis(500),
            start_at_rest: Duration::from_millis(250),
            sizes: [size(30, 1), size(50, 11), size(80, 41), size(70, 41), size(90, 45), size(75, 30)],
            rss_peak: 100 << 20,
            counts: [wanted.clone(), wanted.clone(), wanted.clone()],
            wanted,
        }
    }

    #[test]
    fn the_tables_have_what_came_back_and_what_it_takes() {
        let report = report();
        assert!(report.complete());
        let text = report.markdown();
        for row in [
            "| retained messages | 100000 | 100000 | 0 | 0 | 0 | 4.0 | 8.0 |",
            "**Ready 0.50 s after its start**: 220000 things a second, 82.0 MiB",
            "at rest, with all of it checkpointed: **ready after 0.25 s**",
            "| bytes per retained message that came, until the kill | 315 | 315 |",
            "started at rest, everything else counted in | 786 | 315 |",
            "**agree**, after both starts and after the checks: 5000 sessions stored",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
    }

    #[test]
    fn one_that_is_missing_or_miscounted_makes_it_incomplete() {
        let mut missing = report();
        missing.parts[1].tally = Tally { right: 4_999, missing: 1, ..Tally::default() };
        assert!(!missing.complete());
        let mut miscounted = report();
        miscounted.counts[1].subscriptions += 1;
        assert!(!miscounted.complete());
        assert!(miscounted.markdown().contains("**DO NOT AGREE**"));
        assert!(miscounted.markdown().contains("5000 → 5001 → 5000 subscriptions"));
    }
}
