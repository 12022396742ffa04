//! Time, injected: the core never reads a clock by itself, so that a run can be replayed.
//!
//! There are two. The *time of day* is what is stored and shown; somebody may set it, a year ahead or back. The *uptime* never
//! jumps, and everything that lasts is measured with it: a type of its own keeps the two apart.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The time of day: milliseconds since the Unix epoch, UTC.
pub type Millis = i64;

/// A moment on a clock that nobody sets, in milliseconds since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub u64);

impl Uptime {
    /// The time that has passed since `earlier`; none if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment so much later, in whole milliseconds.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Where the runtime reads the time.
pub trait Clock: Send + Sync + 'static {
    /// The time of day. It may jump, both ways: nothing is measured with it.
    fn now(&self) -> Millis;

    /// The time for durations: it only goes on.
    fn uptime(&self) -> Uptime;
}

/// The clocks of the machine. The uptime begins when it is first asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn uptime(&self) -> Uptime {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        let begin = BEGIN.get_or_init(Instant::now);
        Uptime(u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Clocks that stand still until they are set: for tests and for replay.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
    uptime: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Millis) -> Self {
        Self { now: AtomicI64::new(now), uptime: AtomicU64::new(0) }
    }

    /// Sets the time of day, as an operator or a time server does: no time passes.
    pub fn set(&self, now: Millis) {
        self.now.store(now, Ordering::SeqCst);
    }

    /// Lets time pass, on both clocks.
    pub fn advance(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.uptime.fetch_add(millis, Ordering::SeqCst);
        self.now.fetch_add(i64::try_from(millis).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        self.now.load(Ordering::SeqCst)
    }

    fn uptime(&self) -> Uptime {
        Uptime(self.uptime.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_time_of_day_takes_no_time() {
        let clock = ManualClock::at(1_000);
        let begin = clock.uptime();
        clock.set(-5);
        assert_eq!((clock.now(), clock.uptime().since(begin)), (-5, Duration::ZERO));
        clock.advance(Duration::from_millis(20));
        assert_eq!((clock.now(), clock.uptime().since(begin)), (15, Duration::from_millis(20)));
        assert_eq!(begin.since(clock.uptime()), Duration::ZERO);
    }
}
