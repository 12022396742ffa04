//! What a proof came to: for people by `Display`, for machines as JSON.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::Serialize;

/// Problems that are told in full; the rest is counted.
const TOLD: usize = 20;

/// What a proof came to.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProofReport {
    /// Did everything hold that is promised?
    pub held: bool,
    /// Whether the power was cut in each round, too.
    pub power_loss: bool,
    /// The seed that draws the same rounds again.
    pub seed: u64,
    /// Rounds that were asked for.
    pub asked: u32,
    /// Rounds that were done: the node was killed, started again on what was left, and checked.
    pub rounds: u32,
    /// Rounds with a handler that counts.
    pub with_handler: u32,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Seconds that it took.
    pub seconds: f64,
    /// Readings that were sent.
    pub sent: u64,
    /// Readings that were acknowledged.
    pub acked: u64,
    /// Acknowledged readings that were not there afterwards.
    pub lost: u64,
    /// Devices whose state was never sent, or whose count of readings was wrong.
    pub wrong: u64,
    /// Starts that did not come to serve.
    pub not_opened: u64,
    /// Starts that found damage and set it aside.
    pub quarantined: u64,
    /// Lines that a node logged as errors, those of the quarantines included.
    pub errors: u64,
    /// Starts after which the ledger did not balance.
    pub unbalanced: u64,
    /// Rounds that were ended at a random moment.
    pub at_random: u32,
    /// Rounds that were meant for a crash point that was not reached in time: they were killed then.
    pub not_reached: u32,
    /// How often each crash point ended a round.
    pub points: BTreeMap<&'static str, u32>,
    /// From the start of the process to its ready line.
    pub recovery_ms: Spread,
    /// What was found, the first of it.
    pub problems: Vec<Problem>,
    /// Where it was left for you to look at, if it was left.
    pub kept_in: Option<PathBuf>,
}

/// Something that must not be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The round in which it was seen, from 1; one more than there are for the last check.
    pub round: u32,
    /// What, in a sentence.
    pub what: String,
}

/// How times are spread, milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Spread {
    /// Of these times.
    pub(super) fn of(times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).map_or(0.0, |time| (time.as_secs_f64() * 10_000.0).round() / 10.0)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl ProofReport {
    /// Notes a problem.
    pub(super) fn problem(&mut self, round: u32, what: String) {
        if self.problems.len() < TOLD {
            self.problems.push(Problem { round, what });
        }
    }

    /// Is there nothing that must not be?
    pub(super) fn is_clean(&self) -> bool {
        self.lost + self.wrong + self.not_opened + self.quarantined + self.errors + self.unbalanced == 0
            && self.problems.is_empty()
    }

    /// The text for stdout.
    #[must_use]
    pub fn render(&self, json: bool) -> String {
        if json {
            // A report has nothing in it that JSON cannot say.
            serde_json::to_string_pretty(self).map_or_else(|error| error.to_string(), |json| json + "\n")
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for ProofReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.power_loss { "killed and its power cut" } else { "killed" };
        let stopped = if self.interrupted { ", then stopped" } else { "" };
        writeln!(f, "{} of {} rounds in {:.1} s{stopped}: the node was {how}", self.rounds, self.asked, self.seconds)?;
        writeln!(f, "  seed              {}", self.seed)?;
        writeln!(f, "  readings          {} sent, {} acknowledged", self.sent, self.acked)?;
        writeln!(f, "  lost              {} acknowledged readings", self.lost)?;
        writeln!(f, "  wrong             {} states or counts", self.wrong)?;
        writeln!(f, "  did not open      {} starts", self.not_opened)?;
        writeln!(f, "  quarantines       {} starts that set damage aside", self.quarantined)?;
        writeln!(f, "  errors            {} lines in the node's log", self.errors)?;
        writeln!(f, "  ledger            {} times not balanced", self.unbalanced)?;
        let Spread { p50, p99, max } = self.recovery_ms;
        writeln!(f, "  start to ready    p50 {p50} ms, p99 {p99} ms, max {max} ms")?;
        writeln!(f, "  with a handler    {} rounds", self.with_handler)?;
        writeln!(
            f,
            "  killed at random  {} rounds, and {} whose crash point was not reached",
            self.at_random, self.not_reached
        )?;
        writeln!(f, "  killed at")?;
        for (point, times) in &self.points {
            writeln!(f, "    {point:<24} {times:>4}")?;
        }
        for problem in &self.problems {
            writeln!(f, "round {}: {}", problem.round, problem.what)?;
        }
        if let Some(dir) = &self.kept_in {
            writeln!(f, "left for you to look at: {}", dir.display())?;
        }
        writeln!(f, "{}", if self.held { "every promise was kept" } else { "NOT every promise was kept" })
    }
}
