//! What is counted of each script: calls, failures, and how long calls take, in a histogram of fixed size.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tidegate_actors::script::ScriptError;

/// Buckets a doubling: a percentile is within 9 % of the truth.
const PER_OCTAVE: u32 = 4;
/// Doublings from 1 ns to over an hour.
const OCTAVES: u32 = 42;
const BUCKETS: usize = (PER_OCTAVE * OCTAVES) as usize;

/// The counts of one script.
#[derive(Debug)]
pub(crate) struct ScriptStats {
    pub(crate) calls: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) parked: AtomicU64,
    times: [AtomicU64; BUCKETS],
    last_error: Mutex<Option<ScriptError>>,
}

impl Default for ScriptStats {
    fn default() -> Self {
        Self {
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            times: [const { AtomicU64::new(0) }; BUCKETS],
            last_error: Mutex::new(None),
        }
    }
}

impl ScriptStats {
    /// Counts a call and its time.
    pub(crate) fn called(&self, nanos: u32) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.times[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, error: ScriptError) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.parked.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The last failure.
    pub(crate) fn last_error(&self) -> Option<ScriptError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        assert_eq!(stats.calls.load(Ordering::Relaxed), 10_000);
        stats.called(0);
        stats.called(u32::MAX);
    }
}
