//! How a round ends: at which crash point, or after what time. Drawn from the dice; it does nothing.

use std::time::Duration;

use tidegate_actors::crash_point::{CrashAt, CrashPoint};

use crate::dice::Dice;

/// How long a round waits for its crash point; then the node is killed all the same.
const POINT_PATIENCE: Duration = Duration::from_millis(600);
/// The latest random moment after the node is ready.
const LATEST_MS: f64 = 250.0;
/// The latest random moment of a start.
const LATEST_IN_START_MS: f64 = 80.0;
/// How often a random moment falls into the start.
const IN_START: f64 = 0.15;
/// Bytes that readings are filled up with: with the largest, segments fill up within a round.
const PADDING: [usize; 4] = [0, 0, 200, 4_000];

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At a crash point, or after [`POINT_PATIENCE`].
    Point(CrashAt),
    /// This long after the start of the process.
    InStart(Duration),
    /// This long after the node was ready.
    After(Duration),
}

/// A round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) end: End,
    pub(super) padding: usize,
}

impl Plan {
    /// Plans a round. Every other one aims at a crash point, each in its turn.
    pub(super) fn draw(round: u32, dice: &mut Dice) -> Self {
        let padding = PADDING[dice.below(PADDING.len() as u64) as usize];
        let end = if round.is_multiple_of(2) {
            let point = CrashPoint::ALL[(round / 2) as usize % CrashPoint::ALL.len()];
            let pass = 1 + dice.below(u64::from(passes(point))) as u32;
            End::Point(CrashAt { point, pass })
        } else if dice.chance(IN_START) {
            End::InStart(milliseconds(dice.range(0.0, LATEST_IN_START_MS)))
        } else {
            End::After(milliseconds(dice.range(1.0, LATEST_MS)))
        };
        Self { end, padding }
    }

    /// The crash point to arm.
    pub(super) fn crash(&self) -> Option<CrashAt> {
        match self.end {
            End::Point(crash) => Some(crash),
            End::InStart(_) | End::After(_) => None,
        }
    }

    /// The time after which the node is killed from outside: from the start of its process, and from when it was ready.
    pub(super) fn patience(&self) -> (Option<Duration>, Duration) {
        match self.end {
            End::Point(_) => (None, POINT_PATIENCE),
            End::InStart(after) => (Some(after), Duration::ZERO),
            End::After(after) => (None, after),
        }
    }
}

/// How many passes of a point there are in a round, about.
fn passes(point: CrashPoint) -> u32 {
    use CrashPoint as P;
    match point {
        P::JournalBeforeWrite
        | P::JournalAfterWrite
        | P::JournalBeforeSync
        | P::JournalAfterSync
        | P::AckBefore
        | P::AckAfter => 40,
        P::CheckpointBeforeWrite | P::CheckpointAfterWrite => 3,
        P::StoreBeforeSync | P::FoldedBeforeWrite | P::FoldedAfterWrite => 4,
        P::SegmentBeforeCreate | P::SegmentAfterCreate | P::SegmentAfterSync => 2,
        P::SegmentBeforeDelete | P::SegmentAfterDelete => 2,
        P::SnapshotBeforeWrite | P::SnapshotAfterWrite | P::SnapshotBeforeRename | P::SnapshotAfterRename => 2,
    }
}

fn milliseconds(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1_000.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::dice::Stream;

    #[test]
    fn every_crash_point_has_its_turn_and_a_seed_its_plan() {
        let plans = || {
            let mut dice = Dice::of(5, 0, Stream::Faults);
            (0..2 * CrashPoint::ALL.len() as u32).map(|round| Plan::draw(round, &mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(plans(), plans());
        let aimed: HashSet<&str> = plans().iter().filter_map(|plan| Some(plan.crash()?.point.name())).collect();
        assert_eq!(aimed.len(), CrashPoint::ALL.len());
    }
}
