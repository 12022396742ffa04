//! How far the replay has come, said every few seconds: in percent of the bytes, with an estimate of what is left.

use std::time::{Duration, Instant};

use crate::journal::ScanProgress;

/// Time between two words about the progress.
const EVERY: Duration = Duration::from_secs(3);

/// Says how far a replay has come.
pub(super) struct Speaker {
    started: Instant,
    spoken: Instant,
}

impl Speaker {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { started: now, spoken: now }
    }

    pub(super) fn at(&mut self, progress: ScanProgress) {
        if self.spoken.elapsed() >= EVERY {
            self.spoken = Instant::now();
            let (percent, seconds_left) = estimate(progress, self.started.elapsed());
            let megabytes = progress.total / 1_000_000;
            tracing::info!(percent, seconds_left, megabytes, "replaying the journal");
        }
    }
}

/// Percent that are done, and seconds that are left if it goes on like this.
fn estimate(progress: ScanProgress, took: Duration) -> (u64, u64) {
    let ScanProgress { done, total } = progress;
    let share = done as f64 / total.max(1) as f64;
    let left = if done == 0 { 0.0 } else { took.as_secs_f64() * (1.0 - share) / share };
    ((share * 100.0) as u64, left.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_in_proportion() {
        let check = |done, total, seconds, expected| {
            assert_eq!(estimate(ScanProgress { done, total }, Duration::from_secs(seconds)), expected);
        };
        check(0, 1_000, 9, (0, 0));
        check(250, 1_000, 3, (25, 9));
        check(999, 1_000, 10, (99, 1));
        check(1_000, 1_000, 10, (100, 0));
        check(0, 0, 0, (0, 0));
    }
}
