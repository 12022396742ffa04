//! What is counted of each script: calls, failures, and how long calls take, in a histogram of fixed size.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_actors::script::{ScriptError, ScriptInput};

/// Buckets a doubling: a percentile is within 9 % of the truth.
const PER_OCTAVE: u32 = 4;
/// Doublings from 1 ns to over an hour.
const OCTAVES: u32 = 42;
const BUCKETS: usize = (PER_OCTAVE * OCTAVES) as usize;

/// The share of a core is measured over this time and up to as much again.
const SHARE_WINDOW: Duration = Duration::from_secs(10);

/// What is counted of a script by its name: it goes on when the script is replaced.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) parked: AtomicU64,
    busy_nanos: AtomicU64,
}

/// The counts of one script.
#[derive(Debug)]
pub(crate) struct ScriptStats {
    pub(crate) counts: Arc<Counts>,
    times: [AtomicU64; BUCKETS],
    share: Mutex<[(Instant, u64); 2]>,
    last_failure: Mutex<Option<(ScriptError, ScriptInput)>>,
}

impl Default for ScriptStats {
    fn default() -> Self {
        Self::of(Arc::default())
    }
}

impl ScriptStats {
    /// Those of a script that takes the place of the one with these counts.
    pub(crate) fn of(counts: Arc<Counts>) -> Self {
        let busy = counts.busy_nanos.load(Ordering::Relaxed);
        Self {
            counts,
            times: [const { AtomicU64::new(0) }; BUCKETS],
            share: Mutex::new([(Instant::now(), busy); 2]),
            last_failure: Mutex::new(None),
        }
    }

    /// Counts a call and its time.
    pub(crate) fn called(&self, nanos: u32) {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.times[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.counts.busy_nanos.fetch_add(nanos.into(), Ordering::Relaxed);
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, error: ScriptError, input: ScriptInput) {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        self.counts.parked.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_failure) = Some((error, input));
    }

    /// The last failure, and what it failed on.
    pub(crate) fn last_failure(&self) -> Option<(ScriptError, ScriptInput)> {
        lock(&self.last_failure).clone()
    }

    /// The time of all calls, in seconds.
    pub(crate) fn busy_seconds(&self) -> f64 {
        Duration::from_nanos(self.counts.busy_nanos.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// The part of one core that its calls took lately.
    pub(crate) fn cpu_share(&self, now: Instant) -> f64 {
        let busy = self.counts.busy_nanos.load(Ordering::Relaxed);
        let mut marks = lock(&self.share);
        if now.saturating_duration_since(marks[1].0) >= SHARE_WINDOW {
            *marks = [marks[1], (now, busy)];
        }
        let (since, before) = marks[0];
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        let spent = Duration::from_nanos(busy.saturating_sub(before)).as_secs_f64();
        if elapsed > 0.0 { spent / elapsed } else { 0.0 }
    }

    /// The time, in microseconds, that this part of all calls stayed below; 0 without calls.
    pub(crate) fn percentile_us(&self, part: f64) -> f64 {
        let counts: Vec<u64> = self.times.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        let wanted = (all as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in (0_u32..).zip(counts) {
            seen += count;
            if count > 0 && seen >= wanted {
                return middle_us(bucket);
            }
        }
        0.0
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bucket(nanos: u32) -> usize {
    let nanos = nanos.max(1);
    let octave = nanos.ilog2();
    // The two bits below the leading one.
    let part = if octave >= 2 { (nanos >> (octave - 2)) & 3 } else { (nanos << (2 - octave)) & 3 };
    (octave * PER_OCTAVE + part) as usize
}

fn middle_us(bucket: u32) -> f64 {
    let (octave, part) = (bucket / PER_OCTAVE, bucket % PER_OCTAVE);
    let low = f64::from(octave).exp2() * (1.0 + f64::from(part) / f64::from(PER_OCTAVE));
    let width = f64::from(octave).exp2() / f64::from(PER_OCTAVE);
    (low + width / 2.0) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near_the_truth() {
        let stats = ScriptStats::default();
        assert!(stats.percentile_us(0.5).abs() < f64::EPSILON);
        for nanos in 1..=10_000_u32 {
            stats.called(nanos * 100);
        }
        for (part, truth) in [(0.5, 500.0), (0.99, 990.0), (0.01, 10.0)] {
            let found = stats.percentile_us(part);
            assert!((found / truth - 1.0).abs() < 0.13, "{part}: {found} for {truth}");
        }
        assert_eq!(stats.counts.calls.load(Ordering::Relaxed), 10_000);
        stats.called(0);
        stats.called(u32::MAX);
    }

    #[test]
    fn the_time_of_all_calls_goes_on_when_a_script_is_replaced() {
        let old = ScriptStats::default();
        old.called(1_500_000_000);
        let new = ScriptStats::of(Arc::clone(&old.counts));
        assert!(new.cpu_share(Instant::now() + Duration::from_secs(1)) < 0.001, "the old one's time is not its own");
        new.called(500_000_000);
        assert!((new.busy_seconds() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_share_of_a_core_is_that_of_the_last_seconds() {
        let (stats, start) = (ScriptStats::default(), Instant::now());
        (0..500).for_each(|_| stats.called(1_000_000));
        let share = stats.cpu_share(start + Duration::from_secs(1));
        assert!((share - 0.5).abs() < 0.01, "{share}");
        for second in 1..60 {
            stats.cpu_share(start + Duration::from_secs(second));
        }
        assert!(stats.cpu_share(start + Duration::from_secs(60)) < 0.001, "it has been idle for long");
    }
}
