//! A pace: at most so many records a second, without a burst after a pause. It sleeps; only for threads that may.

use std::time::{Duration, Instant};

/// A pace.
#[derive(Debug)]
pub(crate) struct Pace {
    each: Option<Duration>,
    next: Instant,
}

impl Pace {
    /// `None`: as fast as it goes.
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        let each = per_second.map(|rate| Duration::from_secs(1) / rate.max(1));
        Self { each, next: Instant::now() }
    }

    /// Waits until `records` more are due.
    pub(crate) fn wait(&mut self, records: u32) {
        let Some(each) = self.each else { return };
        let now = Instant::now();
        let wait = self.next.saturating_duration_since(now);
        // Less is not worth a call; it is made up for with the next one.
        if wait >= Duration::from_millis(5) {
            std::thread::sleep(wait);
        }
        self.next = self.next.max(now) + each * records;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_holds_back_and_none_does_not() {
        let started = Instant::now();
        let mut pace = Pace::new(Some(1_000));
        (0..51).for_each(|_| pace.wait(1));
        assert!(started.elapsed() >= Duration::from_millis(45), "{:?}", started.elapsed());
        let mut pace = Pace::new(None);
        pace.wait(u32::MAX);
    }
}
