//! How long a round of work waits for company: the one decision of group commit and of the loops' gathering, without a clock and
//! without a disk.
//!
//! A commit costs the same for one record as for a hundred; a wake-up does for one socket as for ten. When work comes in fast
//! anyway, a round that begins a gap after the one before takes all of it along. Nobody is to wait for nothing:
//!
//! - little work, no wait: a sender that waits for each answer before it sends the next keeps the disk's own latency;
//! - a wait that brings less than was to be expected shows that the senders themselves wait for their answers. Then nobody waits for a
//!   while, twice as long each time;
//! - senders whom the waits themselves hold up look like slow ones. So all threads of the node stop waiting at the same moments, for a
//!   fortieth of the time: if much more comes then, see above.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

/// Time without waits after waits that were in vain, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(16));
/// What remains of the former rounds' weight with each new one.
const DECAY: f64 = 0.9;
/// What must have been hoped for of waits before they are judged.
const JUDGED: f64 = 8.0;
/// Of so many ticks, nobody waits in the first ones; the very first of them still has what had been held up.
const TRIAL: (u128, std::ops::RangeInclusive<u128>) = (128, 1..=2);

/// What the last rounds say about the next one.
#[derive(Debug)]
pub(crate) struct Company {
    /// Time between two ticks. Rounds that wait begin at ticks.
    gap: Duration,
    /// How long after the common ticks the ticks of these rounds come.
    after: Duration,
    /// What must be expected within a gap for a wait to pay.
    worth: f64,
    /// When the last round began.
    last: Option<Instant>,
    /// What the last rounds had, and the gaps that they took.
    rounds: Ratio,
    /// What came during the last waits, and what had been expected of them.
    waits: Ratio,
    /// The same of the trial without waits that is on.
    trial: Ratio,
    /// Nobody waits until then, and how long after the next wait in vain.
    rest: (Option<Instant>, Duration),
}

/// Two sums.
#[derive(Debug, Default)]
struct Ratio {
    of: f64,
    to: f64,
}

impl Ratio {
    /// Adds to both, which forget alike.
    fn add(&mut self, of: f64, to: f64) {
        self.of = self.of * DECAY + of;
        self.to = self.to * DECAY + to;
    }

    /// Is the first so much less than the second that it is not by chance?
    fn falls_short(&self) -> bool {
        self.to >= JUDGED && self.of < 0.8 * self.to - 3.0 * self.to.sqrt()
    }

    /// Is the first so much more than the second that it is not by chance?
    fn exceeds(&self) -> bool {
        self.of > 1.2 * self.to + 4.0 * self.to.sqrt()
    }
}

impl Company {
    /// Rounds that wait begin `after` each tick, which comes every `gap`. They wait if `worth` pieces of work (records, reads of a
    /// socket) are expected within a gap.
    pub(crate) fn new(gap: Duration, after: Duration, worth: f64) -> Self {
        let (rounds, waits, trial) = (Ratio::default(), Ratio::default(), Ratio::default());
        Self { gap, after, worth, last: None, rounds, waits, trial, rest: (None, REST.0) }
    }

    /// How long a round that could begin now waits.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last?);
        let rests = self.rest.0.is_some_and(|end| now < end);
        if rests || since >= self.gap || self.expected() < self.worth {
            return None;
        }
        let (tick, wait) = next_tick(now, self.gap, self.after);
        (tick % TRIAL.0 > *TRIAL.1.end()).then_some(wait)
    }

    /// A round with `pieces` of work begins. `waited`: how long it waited, and how many of them came meanwhile.
    #[expect(clippy::cast_precision_loss, reason = "a round has few pieces")]
    pub(crate) fn begins(&mut self, now: Instant, pieces: usize, waited: Option<(Duration, usize)>) {
        let Some(last) = self.last.replace(now) else { return };
        // A long pause says no more than that it was long.
        let gaps = self.gaps(now.saturating_duration_since(last).min(self.gap * 10));
        if let Some((wait, came)) = waited {
            self.waits.add(came as f64, self.expected() * self.gaps(wait));
            if self.waits.falls_short() {
                self.rest_from(now);
            }
        }
        let (tick, _) = next_tick(now, self.gap, self.after);
        if TRIAL.1.contains(&(tick % TRIAL.0)) {
            self.trial.of += pieces as f64;
            self.trial.to += self.expected() * gaps;
            return;
        }
        let trial = std::mem::take(&mut self.trial);
        if self.waits.to > 0.0 && trial.to > 0.0 {
            if trial.exceeds() {
                self.rest_from(now);
            } else {
                self.rest.1 = REST.0;
            }
        }
        self.rounds.add(pieces as f64, gaps);
    }

    fn rest_from(&mut self, now: Instant) {
        self.rest = (Some(now + self.rest.1), (self.rest.1 * 2).min(REST.1));
        self.waits = Ratio::default();
    }

    /// What is expected to come within a gap.
    fn expected(&self) -> f64 {
        self.rounds.of / self.rounds.to.max(f64::MIN_POSITIVE)
    }

    /// A time in gaps.
    fn gaps(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.gap.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// The number of the next tick, and how long it is to it. They come every `gap` at all threads alike, so that one commit serves all
/// loops.
pub(crate) fn next_tick(now: Instant, gap: Duration, after: Duration) -> (u128, Duration) {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let gap = gap.as_nanos().max(1);
    // One gap more than that, so that a tick that comes after the common one has its number.
    let since = (now.saturating_duration_since(*FIRST).as_nanos() + gap).saturating_sub(after.as_nanos());
    (since / gap, Duration::from_nanos(u64::try_from(gap - since % gap).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Duration = Duration::from_micros(100);
    const GAP: Duration = Duration::from_micros(500);
    const WORTH: f64 = 3.0;

    /// Runs commits for a second of simulated time. `arrived(from, to, waiting)` says how many batches come between two moments, in
    /// microseconds, while a commit waits or else. Returns the commits, and the longest wait.
    fn run(mut arrived: impl FnMut(u64, u64, bool) -> usize) -> (usize, Duration) {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let mut company = Company::new(GAP, Duration::ZERO, WORTH);
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
        assert!((1_900..2_600).contains(&commits), "{commits} commits");
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
    fn senders_that_the_waits_hold_up_are_found_out() {
        // Slow ones at first, so that waits pay; then 32 of which each sends again 20 to 113 µs after its answer.
        let mut sends = [0; 32];
        let mut under_way = Vec::new();
        let (commits, _) = run(|from, to, waiting| {
            if to < 100_000 {
                return usize::try_from(to / 150 - from / 150).unwrap();
            }
            if !waiting {
                under_way.drain(..).for_each(|sender| sends[sender] = to + 20 + 3 * sender as u64);
            }
            let before = under_way.len();
            under_way.extend((0..32).filter(|sender| sends[*sender] <= to));
            under_way[before..].iter().for_each(|sender| sends[*sender] = u64::MAX);
            under_way.len() - before
        });
        assert!(commits > 5_000, "{commits} commits, of some 2,000 if each waited");
    }

    #[test]
    fn without_a_gap_nobody_waits() {
        let mut company = Company::new(Duration::ZERO, Duration::ZERO, WORTH);
        let now = Instant::now();
        for _ in 0..1_000 {
            company.begins(now, 50, None);
            assert_eq!(company.wait(now), None);
        }
    }
}
