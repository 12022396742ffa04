//! The breaker of one script: open after some failures in a row, half-open with one reading after a while.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_actors::{limits, script::ScriptStatus};

/// May a reading go to the script?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Yes.
    Yes,
    /// Yes, and on it depends whether the breaker closes.
    Probe,
    /// No.
    No,
}

/// What came of a reading that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The script worked.
    Well,
    /// It failed.
    Failed,
    /// It was not called after all.
    NotCalled,
}

/// The breaker of one script.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures_to_open: u32,
    open_for: Duration,
    max_restarts: u32,
    /// Restarts of workers that it caused lately.
    restarts: Mutex<VecDeque<Instant>>,
    /// Closed and no failure counted: nothing to lock for.
    well: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// `probing`: the one reading is under way.
    HalfOpen {
        probing: bool,
    },
}

impl Breaker {
    pub(crate) fn new(failures_to_open: u32, open_for: Duration, max_restarts: u32) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        let (restarts, well) = (Mutex::default(), AtomicBool::new(true));
        Self { failures_to_open, open_for, max_restarts, restarts, well, state }
    }

    /// Would a reading that comes now find it shut?
    pub(crate) fn refuses(&self, now: Instant) -> bool {
        if self.well.load(Ordering::Acquire) {
            return false;
        }
        match &*self.lock() {
            State::Closed { .. } => false,
            State::Open { until } => now < *until,
            State::HalfOpen { probing } => *probing,
        }
    }

    /// An operator closes it.
    pub(crate) fn rearm(&self) {
        self.restarts().clear();
        let mut state = self.lock();
        *state = State::Closed { failures: 0 };
        self.well.store(true, Ordering::Release);
    }

    /// The script was to blame for some restarts of workers. `true`: they were too many, and it is open now.
    pub(crate) fn restarted(&self, count: u32, now: Instant) -> bool {
        let mut restarts = self.restarts();
        let is_old = |restart: &Instant| now.saturating_duration_since(*restart) > limits::SCRIPT_RESTART_WINDOW;
        while restarts.front().is_some_and(is_old) {
            restarts.pop_front();
        }
        restarts.extend((0..count).map(|_| now));
        if restarts.len() < self.max_restarts as usize {
            return false;
        }
        restarts.clear();
        let mut state = self.lock();
        let opens = matches!(*state, State::Closed { .. });
        *state = State::Open { until: now + self.open_for };
        self.well.store(false, Ordering::Release);
        opens
    }

    fn restarts(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.restarts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks for one reading.
    pub(crate) fn admit(&self, now: Instant) -> Admission {
        if self.well.load(Ordering::Acquire) {
            return Admission::Yes;
        }
        let mut state = self.lock();
        match &mut *state {
            State::Closed { .. } => Admission::Yes,
            State::Open { until } if now < *until => Admission::No,
            State::Open { .. } => {
                *state = State::HalfOpen { probing: true };
                Admission::Probe
            }
            State::HalfOpen { probing: true } => Admission::No,
            State::HalfOpen { probing } => {
                *probing = true;
                Admission::Probe
            }
        }
    }

    /// Tells what came of an admitted reading; `probe`: it was the one. `true`: that opened it.
    pub(crate) fn tell(&self, finding: Finding, probe: bool, now: Instant) -> bool {
        if finding != Finding::Failed && !probe && self.well.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.lock();
        let was_open = matches!(*state, State::Open { .. });
        match (&mut *state, finding) {
            (State::Closed { failures }, Finding::Failed) => {
                *failures += 1;
                if *failures >= self.failures_to_open {
                    *state = State::Open { until: now + self.open_for };
                }
            }
            (State::Closed { failures }, Finding::Well) => *failures = 0,
            (State::HalfOpen { .. }, Finding::Well) if probe => *state = State::Closed { failures: 0 },
            (State::HalfOpen { .. }, Finding::Failed) if probe => *state = State::Open { until: now + self.open_for },
            (State::HalfOpen { probing }, Finding::NotCalled) if probe => *probing = false,
            // Answers of readings that were admitted before it opened.
            (State::Open { .. } | State::HalfOpen { .. } | State::Closed { .. }, _) => {}
        }
        self.well.store(matches!(*state, State::Closed { failures: 0 }), Ordering::Release);
        !was_open && matches!(*state, State::Open { .. })
    }

    /// The breaker as it is shown.
    pub(crate) fn status(&self, now: Instant) -> ScriptStatus {
        match &*self.lock() {
            State::Closed { .. } => ScriptStatus::Closed,
            State::Open { until } if now < *until => ScriptStatus::Open,
            State::Open { .. } | State::HalfOpen { .. } => ScriptStatus::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(60);

    #[test]
    fn failures_in_a_row_open_it_and_one_reading_closes_it() {
        let (breaker, start) = (Breaker::new(3, OPEN, 5), Instant::now());
        for finding in [Finding::Failed, Finding::Failed, Finding::Well, Finding::Failed, Finding::Failed] {
            assert_eq!(breaker.admit(start), Admission::Yes);
            breaker.tell(finding, false, start);
        }
        assert_eq!(breaker.status(start), ScriptStatus::Closed);
        breaker.tell(Finding::Failed, false, start);
        assert_eq!((breaker.status(start), breaker.admit(start)), (ScriptStatus::Open, Admission::No));
        // A late good answer of an earlier reading does not close it.
        breaker.tell(Finding::Well, false, start);
        assert_eq!(breaker.admit(start), Admission::No);

        let later = start + OPEN;
        assert_eq!(breaker.status(later), ScriptStatus::HalfOpen);
        assert_eq!((breaker.admit(later), breaker.admit(later)), (Admission::Probe, Admission::No));
        breaker.tell(Finding::NotCalled, true, later);
        assert_eq!(breaker.admit(later), Admission::Probe, "the probe was not used");
        breaker.tell(Finding::Failed, true, later);
        assert_eq!(breaker.admit(later), Admission::No);
        let later = later + OPEN;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.tell(Finding::Well, true, later);
        assert_eq!((breaker.status(later), breaker.admit(later)), (ScriptStatus::Closed, Admission::Yes));
    }

    #[test]
    fn too_many_restarts_open_it_although_readings_go_well_between_them() {
        let (breaker, start) = (Breaker::new(3, OPEN, 5), Instant::now());
        for restart in 0..4 {
            assert!(!breaker.restarted(1, start + OPEN * restart / 10));
            breaker.tell(Finding::Well, false, start);
        }
        // The first one has left the window by now.
        let later = start + limits::SCRIPT_RESTART_WINDOW + Duration::from_secs(1);
        assert!(!breaker.restarted(1, later) && !breaker.refuses(later));
        assert!(breaker.restarted(1, later) && breaker.refuses(later));
        assert_eq!(breaker.status(later), ScriptStatus::Open);
        breaker.rearm();
        assert_eq!((breaker.status(later), breaker.refuses(later)), (ScriptStatus::Closed, false));
        assert!(!breaker.restarted(4, later), "counted anew");
    }

    #[test]
    fn a_reading_at_the_door_is_refused_unless_it_would_be_the_probe() {
        let (breaker, start) = (Breaker::new(1, OPEN, 5), Instant::now());
        assert!(breaker.tell(Finding::Failed, false, start) && breaker.refuses(start));
        let later = start + OPEN;
        assert!(!breaker.refuses(later) && breaker.admit(later) == Admission::Probe);
        assert!(breaker.refuses(later), "one is being tried");
    }
}
