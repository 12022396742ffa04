//! When a device reads: at a phase of its own, then at every interval, whatever became of the readings before (an open loop).
//! Pure: the beginning is handed in.

use std::time::Duration;

use tidegate_actors::clock::Millis;
use tokio::time::Instant;

use crate::{
    config::SwarmConfig,
    dice::{Dice, Stream},
};

/// When the swarm's readings begin: the same moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) at: Instant,
    pub(crate) wall: Millis,
}

/// The times of one device's readings.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    phase: Duration,
    interval: Duration,
    duration: Option<Duration>,
    readings: Option<u64>,
    taken: u64,
}

/// A reading's time on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) ts: Millis,
}

impl Schedule {
    pub(crate) fn new(config: &SwarmConfig, index: u64) -> Self {
        let phase = config.interval.mul_f64(Dice::of(config.seed, index, Stream::Phase).unit());
        let (interval, duration, readings) = (config.interval, config.duration, config.readings);
        Self { phase, interval, duration, readings, taken: 0 }
    }

    /// When the next reading is due; none when there will be none.
    pub(crate) fn next(&self, start: Start) -> Option<Due> {
        let after = self.offset(self.taken);
        let over =
            self.readings.is_some_and(|most| self.taken >= most) || self.duration.is_some_and(|most| after >= most);
        (!over).then(|| Due { at: start.at + after, ts: start.wall + after.as_millis() as i64 })
    }

    /// Whether all the readings that were asked for are taken; never where only a duration was asked for.
    pub(crate) fn is_complete(&self) -> bool {
        self.readings.is_some_and(|most| self.taken >= most)
    }

    /// The next reading is taken.
    pub(crate) fn advance(&mut self) {
        self.taken += 1;
    }

    /// Readings that were due by `now` and not taken.
    pub(crate) fn missed(&self, start: Start, now: Instant) -> u64 {
        let mut ahead = self.clone();
        while ahead.next(start).is_some_and(|due| due.at <= now) {
            ahead.advance();
        }
        ahead.taken - self.taken
    }

    fn offset(&self, n: u64) -> Duration {
        let nanos = self.interval.as_nanos().saturating_mul(u128::from(n));
        self.phase.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_spread_and_times_grow_by_the_interval() {
        let start = Start { at: Instant::now(), wall: 1_000_000 };
        let config = SwarmConfig { interval: Duration::from_secs(10), readings: Some(3), ..SwarmConfig::new(1) };
        let mut per_second = [0_u32; 10];
        for index in 0..10_000 {
            let mut schedule = Schedule::new(&config, index);
            let first = schedule.next(start).expect("three readings");
            per_second[(first.at - start.at).as_secs() as usize] += 1;
            schedule.advance();
            let second = schedule.next(start).expect("three readings");
            assert_eq!((second.at - first.at, second.ts - first.ts), (Duration::from_secs(10), 10_000));
            schedule.advance();
            schedule.advance();
            assert_eq!(schedule.next(start), None);
        }
        assert!(per_second.iter().all(|n| (850..1_150).contains(n)), "{per_second:?}");
    }

    #[test]
    fn the_duration_bounds_the_readings_and_missed_ones_are_counted() {
        let start = Start { at: Instant::now(), wall: 0 };
        let config = SwarmConfig {
            interval: Duration::from_secs(1),
            duration: Some(Duration::from_secs(60)),
            ..SwarmConfig::new(1)
        };
        let mut schedule = Schedule::new(&config, 0);
        assert_eq!(schedule.missed(start, start.at + Duration::from_secs(10)), 10);
        assert_eq!(schedule.missed(start, start.at + Duration::from_secs(600)), 60);
        for _ in 0..60 {
            assert!(schedule.next(start).is_some());
            schedule.advance();
        }
        assert_eq!((schedule.next(start), schedule.missed(start, start.at + Duration::from_secs(600))), (None, 0));
    }
}
