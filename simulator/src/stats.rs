//! What the swarm counts while it runs. Shared by all devices; a count is one atomic, a latency one short lock.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Reasons that are told apart; further ones are counted as `other`, so that a chatty peer cannot fill the memory.
const REASONS: usize = 32;

/// The longest time that is measured, in microseconds: an hour. Longer ones count as an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// A count that any device may raise.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn less_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by reason.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<BTreeMap<String, u64>>);

impl Reasons {
    pub(crate) fn add(&self, reason: &str, n: u64) {
        if n == 0 {
            return;
        }
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reasons.contains_key(reason) || reasons.len() < REASONS;
        *reasons.entry(if known { reason } else { "other" }.to_owned()).or_default() += n;
    }

    pub(crate) fn get(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A histogram of times, in microseconds, with three significant digits.
#[derive(Debug)]
pub(crate) struct Latency(Mutex<Histogram<u64>>);

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are within a histogram's");
        Self(Mutex::new(histogram))
    }
}

impl Latency {
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| histogram.value_at_quantile(quantile);
        Percentiles {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max(),
        }
    }
}

/// Percentiles of a latency, in microseconds; all 0 when nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Everything that the swarm counts. `made = sent + missed`, and at the end `sent = acked + failed` (where acks are asked for).
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Readings that went out for the first time.
    pub(crate) sent: Count,
    /// Readings that were acknowledged (QoS 0: never).
    pub(crate) acked: Count,
    /// Readings that were sent and refused or never answered.
    pub(crate) failed: Reasons,
    /// Readings whose time came but that could not be sent before the end.
    pub(crate) missed: Count,
    /// Readings that went out well after their time.
    pub(crate) behind: Count,
    /// Readings that were sent again after a lost connection.
    pub(crate) resent: Count,
    /// Injected: sent twice.
    pub(crate) duplicates: Count,
    /// Injected: sent after newer ones.
    pub(crate) late: Count,
    /// Injected: cut connections.
    pub(crate) cut: Count,
    /// Injected: garbage sent, refused, acknowledged all the same, and unanswered (connection closed, QoS 0).
    pub(crate) garbage: Count,
    pub(crate) garbage_refused: Count,
    pub(crate) garbage_acked: Count,
    /// Connections that are open now.
    pub(crate) connected: Count,
    /// First connections, and later ones.
    pub(crate) connects: Count,
    pub(crate) reconnects: Count,
    /// Attempts that failed, and connections that were lost.
    pub(crate) connect_failures: Reasons,
    pub(crate) lost: Reasons,
    /// From the send call to the ack.
    pub(crate) ack: Latency,
    /// From the time at which the reading was due to the ack: free of coordinated omission.
    pub(crate) due_to_ack: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded() {
        let reasons = Reasons::default();
        for n in 0..100 {
            reasons.add(&format!("reason {n}"), 1);
        }
        reasons.add("reason 3", 4);
        reasons.add("never", 0);
        let counts = reasons.get();
        assert_eq!(counts.len(), REASONS + 1);
        assert_eq!((counts["reason 3"], counts["other"]), (5, 100 - REASONS as u64));
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let latency = Latency::default();
        assert_eq!(latency.percentiles(), Percentiles::default());
        for ms in 1..=1_000 {
            latency.record(Duration::from_millis(ms));
        }
        let p = latency.percentiles();
        let near =
            |value: u64, expected: u64| assert!(value.abs_diff(expected) <= expected / 500, "{value} {expected}");
        assert_eq!(p.count, 1_000);
        near(p.p50_us, 500_000);
        near(p.p99_us, 990_000);
        near(p.max_us, 1_000_000);
    }
}
