//! How soon a worker is started again: a few times at once, then ever more slowly.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Restarts within [`WINDOW`] that come at once; each further one waits twice as long as the one before.
const PROMPT_RESTARTS: usize = 6;
/// Restarts within [`WINDOW`]; then the worker stays down until the window has moved on.
const MOST_RESTARTS: usize = 30;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The restarts of one worker within the window.
#[derive(Debug, Default)]
pub(crate) struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// How long the next one has to wait.
    pub(crate) fn delay(&mut self, now: Instant) -> Duration {
        while self.0.front().is_some_and(|restart| now.duration_since(*restart) > WINDOW) {
            self.0.pop_front();
        }
        if self.0.len() >= MOST_RESTARTS {
            return self.0.front().map_or(WINDOW, |oldest| (*oldest + WINDOW).saturating_duration_since(now));
        }
        restart_delay(self.0.len())
    }

    pub(crate) fn note(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

fn restart_delay(restarts: usize) -> Duration {
    let Some(slow) = restarts.checked_sub(PROMPT_RESTARTS) else { return Duration::ZERO };
    FIRST_DELAY.saturating_mul(1 << slow.min(16)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down() {
        let delays: Vec<_> =
            [0, 5, 6, 7, 8, 100].map(restart_delay).into_iter().map(|delay| delay.as_millis()).collect();
        assert_eq!(delays, [0, 0, 100, 200, 400, 5_000]);
    }
}
