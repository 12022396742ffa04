//! The loads: what the generator sends, and what it demands back.
//!
//! Every load connects first and runs later, so that only the run is measured, and every load ends when the last message
//! is accounted for. Anything missing, refused or out of order is an error, never a smaller figure.

use std::time::Duration;

use hdrhistogram::Histogram;

pub(crate) mod fanout;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod mqtt;
pub(crate) mod mqtt_fanout;
#[cfg(test)]
mod stub;

/// A run in which nothing moves for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A paced run that takes more than this many times its plan says nothing about the pace.
pub(crate) const LATE_FACTOR: f64 = 1.5;

/// How often the loops look up when no socket is ready.
pub(crate) const LOOK_UP: Duration = Duration::from_millis(100);

/// What a run did.
pub(crate) struct Run {
    /// Readings that were sent and accounted for.
    pub(crate) sent: u64,
    /// What the server's work is divided by: readings, or deliveries in the fan-out.
    pub(crate) messages: u64,
    /// From the first message to the last confirmation.
    pub(crate) elapsed: Duration,
    /// From a message to its confirmation or delivery, in microseconds, where there is one.
    pub(crate) latency_us: Option<Histogram<u64>>,
    /// Messages that a server may leave out by its promise (conflated updates of the fan-out).
    pub(crate) left_out: u64,
}

/// A histogram of microseconds up to a minute, with two digits.
pub(crate) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 2)?)
}

/// Adds a duration to a histogram of microseconds.
pub(crate) fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
}

/// # Errors
/// When a paced run took so long that its pace was not kept.
pub(crate) fn check_pace(messages: u64, rate: u32, elapsed: Duration) -> anyhow::Result<()> {
    let planned_s = messages as f64 / f64::from(rate);
    anyhow::ensure!(
        elapsed.as_secs_f64() < planned_s * LATE_FACTOR + 0.5,
        "{messages} messages at {rate}/s took {elapsed:?}: the pace was not kept"
    );
    Ok(())
}
