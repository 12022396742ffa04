//! How long an urgent commit waits for company: the one decision of group commit, without a clock and without a disk.
//!
//! A commit costs the same for one record as for a hundred, and so do the wake-ups around it. When batches come in fast
//! anyway, a commit that begins a gap after the one before takes all of them with it. Nobody is to wait for nothing:
//!
//! - few batches, no wait: a sender that waits for each answer before it sends the next keeps the disk's own latency;
//! - a wait that brought less than was to be expected shows that the senders themselves wait for their answers. Then it is not tried
//!   again for a while, twice as long each time.

use std::time::{Duration, Instant};

/// Batches that must be expected within a gap for a wait to pay.
const WORTH: f64 = 3.0;
/// Commits without a wait after one that was in vain, at first and at most.
const PATIENCE: (u32, u32) = (64, 4_096);
/// How much the newest commit weighs in the rate.
const WEIGHT: f64 = 0.1;

/// What the last commits say about the next one.
#[derive(Debug)]
pub(super) struct Company {
    /// Time from one commit's beginning to the next one's, if the next one waits.
    gap: Duration,
    /// When the last commit began.
    last: Option<Instant>,
    /// Batches expected within a gap, by the last commits.
    expected: f64,
    /// Commits that do not wait, whatever is expected.
    skip: u32,
    patience: u32,
}

impl Company {
    /// A commit begins at most `gap` after the one before because of a wait.
    pub(super) fn new(gap: Duration) -> Self {
        Self { gap, last: None, expected: 0.0, skip: 0, patience: PATIENCE.0 }
    }

    /// How long an urgent commit that could begin now waits.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let since = now.saturating_duration_since(self.last?);
        (self.expected >= WORTH && since < self.gap).then(|| self.gap - since)
    }

    /// A commit of `batches` begins. `waited`: how long it waited, and how many of them came meanwhile.
    #[expect(clippy::cast_precision_loss, reason = "a group has few batches")]
    pub(super) fn begins(&mut self, now: Instant, batches: usize, waited: Option<(Duration, usize)>) {
        let batches = batches as f64;
        if let Some((wait, came)) = waited {
            let expected = self.expected * wait.as_secs_f64() / self.gap.as_secs_f64();
            if came as f64 * 2.0 < expected {
                self.skip = self.patience;
                self.patience = (self.patience * 2).min(PATIENCE.1);
            } else {
                self.patience = PATIENCE.0;
            }
        }
        if let Some(last) = self.last {
            let since = now.saturating_duration_since(last).max(Duration::from_micros(1));
            let within_gap = batches * self.gap.as_secs_f64() / since.as_secs_f64();
            self.expected += WEIGHT * (within_gap.min(1_000.0) - self.expected);
        }
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Duration = Duration::from_micros(100);
    const GAP: Duration = Duration::from_micros(500);

    /// Runs commits for a second of simulated time. `arrived(from, to, waiting)` says how many batches come between two moments, in
    /// microseconds, while a commit waits or else. Returns the commits, and the longest wait.
    fn run(mut arrived: impl FnMut(u64, u64, bool) -> usize) -> (usize, Duration) {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let mut company = Company::new(GAP);
        let (mut now, mut taken, mut commits, mut longest) = (0, 0, 0, Duration::ZERO);
        while now < 1_000_000 {
            let mut batches = arrived(taken, now, false);
            taken = now;
            if batches == 0 {
                now += 10;
                continue;
            }
            let wait = company.wait(at(now));
            let waited = wait.map(|wait| {
                longest = longest.max(wait);
                now += u64::try_from(wait.as_micros()).unwrap();
                let came = arrived(taken, now, true);
                taken = now;
                (wait, came)
            });
            batches += waited.map_or(0, |(_, came)| came);
            company.begins(at(now), batches, waited);
            commits += 1;
            now += u64::try_from(DISK.as_micros()).unwrap();
        }
        (commits, longest)
    }

    #[test]
    fn many_senders_share_commits() {
        // A batch every 50 µs.
        let (commits, longest) = run(|from, to, _| usize::try_from(to / 50 - from / 50).unwrap());
        assert!((1_900..2_300).contains(&commits), "{commits} commits");
        assert!(longest <= GAP);
    }

    #[test]
    fn a_slow_trickle_is_not_held_up() {
        // One every 400 µs.
        let (commits, longest) = run(|from, to, _| usize::try_from(to / 400 - from / 400).unwrap());
        assert_eq!(longest, Duration::ZERO);
        assert!(commits >= 2_400, "{commits} commits");
    }

    #[test]
    fn senders_that_wait_for_their_answers_keep_the_disks_pace() {
        // The next batch of each of the two comes only after the last commit: 10 µs after it was answered.
        let (commits, _) = run(|from, to, waiting| if to > from && !waiting { 2 } else { 0 });
        assert!(commits > 8_000, "{commits} commits, of 9,000 that the disk could do");
    }

    #[test]
    fn without_a_gap_nobody_waits() {
        let mut company = Company::new(Duration::ZERO);
        let now = Instant::now();
        for _ in 0..1_000 {
            company.begins(now, 50, None);
            assert_eq!(company.wait(now), None);
        }
    }
}
