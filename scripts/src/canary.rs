//! A canary: a new set beside the running one on the readings of some devices, before it takes its place. Both work on the same
//! copies, each in a worker of its own; what the workers of the running set made of them is what counts.

use std::{
    collections::HashMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use flume::Receiver;
use tidegate_actors::{
    ids::Position,
    script::{ScriptOutcome, ScriptRun, Verdict},
};

use crate::{
    config::CanaryConfig,
    frame::clip,
    lane::{Lane, LaneError, LaneReport},
};

/// Runs that go through both sets in one go.
const RUNS: usize = 32;
/// Failures more than the running set's with which it is decided before the time.
const CLEARLY_MORE: u64 = 5;
/// Readings of each set that must have been measured for their cost to be judged.
const MEASURED: u64 = 50;
/// What a reading may cost more in any case, microseconds: below it the noise decides.
const CHEAP_US: f64 = 50.0;
/// Characters of a result in a report.
const CHARS: usize = 200;

/// What a canary saw.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryReport {
    /// Readings that both sets worked on.
    pub readings: u64,
    /// Those of which they made something else.
    pub different: u64,
    /// The first of those: device, position, and what each made of it.
    pub first_difference: Option<String>,
    /// The running set.
    pub old: LaneReport,
    /// The new one.
    pub new: LaneReport,
    /// Why the new one was not taken; `None`: nothing speaks against it.
    pub verdict: Option<String>,
}

/// Watches both sets until it can be decided. `tell` hears what was seen so far.
///
/// # Errors
/// The pool stops.
pub(crate) fn watch(
    runs: &Receiver<ScriptRun>,
    old: &mut Lane,
    new: &mut Lane,
    config: &CanaryConfig,
    stop: &Receiver<()>,
    tell: impl Fn(&CanaryReport),
) -> Result<CanaryReport, Stopped> {
    let deadline = Instant::now() + config.time;
    let mut report = CanaryReport::default();
    while report.readings < config.readings && report.new.failed < report.old.failed + CLEARLY_MORE {
        let left = deadline.saturating_duration_since(Instant::now());
        if stop.is_disconnected() {
            return Err(Stopped);
        }
        if left.is_zero() {
            break;
        }
        let Ok(first) = runs.recv_timeout(left.min(Duration::from_millis(100))) else { continue };
        let runs: Vec<_> = std::iter::once(first).chain(runs.try_iter()).take(RUNS).collect();
        let made = old.work(&runs, stop).and_then(|made| Ok((made, new.work(&runs, stop)?)));
        match made {
            Ok((made, remade)) => compare(&mut report, &made, &remade),
            Err(LaneError::Stopped) => return Err(Stopped),
            Err(LaneError::Broken(message)) => {
                report.verdict = Some(format!("a worker does not live: {message}"));
                return Ok(report);
            }
        }
        (report.old, report.new) = (old.report.clone(), new.report.clone());
        tell(&report);
    }
    report.verdict = judge(&report, config.cost_factor);
    Ok(report)
}

/// The pool stops.
pub(crate) struct Stopped;

type Outcomes = HashMap<Position, ScriptOutcome>;

fn compare(report: &mut CanaryReport, old: &Outcomes, new: &Outcomes) {
    report.readings += old.len() as u64;
    for (position, old) in old {
        let Some(new) = new.get(position).filter(|new| !is_same(old, new)) else { continue };
        report.different += 1;
        report.first_difference.get_or_insert_with(|| {
            format!("device {}, position {position}: {} is now {}", old.device, show(old), show(new))
        });
    }
}

/// Do both mean the same for the device and for everybody who watches?
fn is_same(old: &ScriptOutcome, new: &ScriptOutcome) -> bool {
    let verdict = match (&old.verdict, &new.verdict) {
        // Names and lines of scripts may have changed.
        (Verdict::Dropped { .. }, Verdict::Dropped { .. }) | (Verdict::Parked { .. }, Verdict::Parked { .. }) => true,
        (old, new) => old == new,
    };
    verdict && old.script_state == new.script_state && old.emits == new.emits && old.commands == new.commands
}

fn show(outcome: &ScriptOutcome) -> String {
    let text = |json: &[u8]| clip(&String::from_utf8_lossy(json), CHARS);
    let mut shown = match &outcome.verdict {
        Verdict::Unchanged => "unchanged".to_owned(),
        Verdict::Keep(json) => text(json),
        Verdict::Dropped { .. } => "dropped".to_owned(),
        Verdict::Parked { message, .. } => format!("parked: {}", clip(message, CHARS)),
    };
    for (script, json) in &outcome.script_state {
        let _ = write!(shown, ", ctx.state of {script}: {}", text(json));
    }
    for (name, json) in &outcome.emits {
        let _ = write!(shown, ", emits {name} {}", text(json));
    }
    for command in &outcome.commands {
        let _ = write!(shown, ", commands {} to {} {}", command.device, command.name, text(&command.params));
    }
    clip(&shown, 3 * CHARS)
}

/// What speaks against the new set.
fn judge(report: &CanaryReport, cost_factor: u32) -> Option<String> {
    let CanaryReport { old, new, readings, .. } = report;
    if new.failed > old.failed {
        let how = new.first_failure.as_deref().unwrap_or_default();
        return Some(format!(
            "of {readings} readings it fails on {}, the running one on {}; the first: {how}",
            new.failed, old.failed
        ));
    }
    let is_known = old.measured >= MEASURED && new.measured >= MEASURED && old.cpu_us > 0.0;
    if is_known && new.cpu_us > old.cpu_us * f64::from(cost_factor) && new.cpu_us > old.cpu_us + CHEAP_US {
        return Some(format!(
            "a reading takes {:.0} us of CPU time, with the running one {:.0}: more than {cost_factor} times as much (setting scripts.canary_cost_factor)",
            new.cpu_us, old.cpu_us
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(failed: u64, cpu_us: f64, measured: u64) -> LaneReport {
        let first_failure = (failed > 0).then(|| "a.js: no (a.js:1:2)".to_owned());
        LaneReport { failed, first_failure, cpu_us, measured }
    }

    #[test]
    fn more_failures_or_a_much_higher_cost_speak_against_it() {
        let judged = |old, new| judge(&CanaryReport { readings: 500, old, new, ..CanaryReport::default() }, 4);
        assert_eq!(judged(lane(0, 10.0, 400), lane(0, 12.0, 400)), None);
        assert_eq!(judged(lane(7, 10.0, 400), lane(7, 12.0, 400)), None, "as bad as before");
        let failing = judged(lane(0, 10.0, 400), lane(1, 10.0, 400)).expect("it fails more");
        assert!(failing.contains("a.js:1:2") && failing.contains("500"), "{failing}");
        let dear = judged(lane(0, 100.0, 400), lane(0, 401.0, 400)).expect("it costs more");
        assert!(dear.contains("401 us"), "{dear}");
        assert_eq!(judged(lane(0, 100.0, 400), lane(0, 399.0, 400)), None);
        assert_eq!(judged(lane(0, 4.0, 400), lane(0, 40.0, 400)), None, "cheap in any case");
        assert_eq!(judged(lane(0, 100.0, 9), lane(0, 900.0, 9)), None, "too few to know");
        assert_eq!(judged(lane(0, 0.0, 0), lane(0, 900.0, 400)), None, "nothing ran before");
    }
}
