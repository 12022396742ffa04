//! The timers and immediates of one call, in the call's own time: milliseconds since it began. Pure: no clock is read here, so a
//! reading that is handled again sees the same order and the same times.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

/// When a timer is due, and its place among those that are due with it.
type Due = (u64, u32);

/// What waits for its time or its turn in one call.
pub(super) struct Timers<T> {
    now: u64,
    /// Timers and immediates so far: names them, and orders timers that are due together.
    made: u32,
    queue: BTreeMap<Due, Timer<T>>,
    dues: HashMap<u32, Due>,
    immediates: VecDeque<(u32, bool, T)>,
    /// The repeating timer whose callback runs, until that clears it.
    running: Option<u32>,
}

struct Timer<T> {
    id: u32,
    every: Option<u64>,
    /// It keeps a call going that has returned no promise.
    holds: bool,
    task: T,
}

/// What the next turn of the loop waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the turn may come at once.
    Now,
    /// This time.
    At(u64),
    /// There will be none.
    Never,
}

/// What has come in from outside when a turn begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    Nothing,
    /// Pure work is done: it takes a millisecond.
    Pure,
    /// Other work is done, so long after the call began.
    At(u64),
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            now: 0,
            made: 0,
            queue: BTreeMap::new(),
            dues: HashMap::new(),
            immediates: VecDeque::new(),
            running: None,
        }
    }
}

impl<T: Clone> Timers<T> {
    /// The time since the call began.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// How many timers and immediates wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.immediates.len()
    }

    /// Does anything wait that keeps a call going?
    pub(super) fn hold(&self) -> bool {
        self.immediates.iter().any(|(_, holds, _)| *holds) || self.queue.values().any(|timer| timer.holds)
    }

    /// A new number for a timer or an immediate.
    pub(super) fn name(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    /// Has `task` run in `ms`, and from then on every `ms` if it repeats.
    pub(super) fn start(&mut self, id: u32, ms: u64, repeats: bool, holds: bool, task: T) {
        self.clear(id);
        let every = repeats.then_some(ms);
        self.insert(Timer { id, every, holds, task }, ms);
    }

    /// Has `task` run in the next check phase.
    pub(super) fn immediate(&mut self, id: u32, task: T) {
        self.immediates.push_back((id, true, task));
    }

    /// Takes a timer or an immediate away.
    pub(super) fn clear(&mut self, id: u32) {
        if let Some(due) = self.dues.remove(&id) {
            self.queue.remove(&due);
        }
        if self.running == Some(id) {
            self.running = None;
        }
        self.immediates.retain(|(of, _, _)| *of != id);
    }

    /// Says whether a timer or an immediate keeps a call going (`ref`, `unref`).
    pub(super) fn set_holds(&mut self, id: u32, holds: bool) {
        if let Some(timer) = self.dues.get(&id).and_then(|due| self.queue.get_mut(due)) {
            timer.holds = holds;
        }
        for (of, kept, _) in &mut self.immediates {
            if *of == id {
                *kept = holds;
            }
        }
    }

    /// When the next turn may come. A turn takes a millisecond, so that a timer's turn comes even where immediates make immediates.
    pub(super) fn next(&self) -> Next {
        let due = self.queue.keys().next().map(|(due, _)| *due);
        match due {
            _ if self.immediates.is_empty() => due.map_or(Next::Never, Next::At),
            Some(due) if due <= self.now + 1 => Next::At(due),
            _ => Next::Now,
        }
    }

    /// Begins a turn: the time moves on to the next timer, or by a millisecond if an immediate waits. What arrived moves it, too,
    /// but not beyond a timer that is due before.
    pub(super) fn begin_turn(&mut self, arrived: Arrived) {
        let due = self.queue.keys().next().map(|(due, _)| *due);
        let next = match arrived {
            Arrived::Nothing if self.immediates.is_empty() => due.unwrap_or(0),
            Arrived::Nothing | Arrived::Pure => 0,
            Arrived::At(time) => time.min(due.unwrap_or(u64::MAX)),
        };
        self.now = next.max(self.now + 1);
    }

    /// The next timer that is due in this turn. Its callback is to run before [`Timers::fired`].
    pub(super) fn due(&mut self) -> Option<(u32, Option<u64>, bool, T)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now)?;
        let Timer { id, every, holds, task } = entry.remove();
        self.dues.remove(&id);
        self.running = every.map(|_| id);
        Some((id, every, holds, task))
    }

    /// The callback of a timer has run: one that repeats and was not cleared is started again.
    pub(super) fn fired(&mut self, id: u32, every: Option<u64>, holds: bool, task: T) {
        if let (Some(ms), Some(running)) = (every, self.running.take())
            && running == id
        {
            self.insert(Timer { id, every, holds, task }, ms);
        }
    }

    /// Begins the check phase: the last of its immediates. Those that they make come in the next turn.
    pub(super) fn last_immediate(&self) -> u32 {
        self.immediates.back().map_or(0, |(id, _, _)| *id)
    }

    /// The next immediate, up to that one.
    pub(super) fn next_immediate(&mut self, last: u32) -> Option<T> {
        self.immediates.front().filter(|(id, _, _)| *id <= last)?;
        self.immediates.pop_front().map(|(_, _, task)| task)
    }

    fn insert(&mut self, timer: Timer<T>, ms: u64) {
        // The same number would do for the order, but a timer that is started again comes after those that wait.
        self.made += 1;
        let due = (self.now + ms, self.made);
        self.dues.insert(timer.id, due);
        self.queue.insert(due, timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(timers: &mut Timers<&'static str>) -> Vec<&'static str> {
        let mut fired = Vec::new();
        timers.begin_turn(Arrived::Nothing);
        while let Some((id, every, holds, task)) = timers.due() {
            fired.push(task);
            timers.fired(id, every, holds, task);
        }
        let last = timers.last_immediate();
        while let Some(task) = timers.next_immediate(last) {
            fired.push(task);
        }
        fired
    }

    #[test]
    fn timers_come_in_the_order_of_their_times_then_of_their_making() {
        let mut timers = Timers::default();
        for (ms, task) in [(20, "c"), (5, "a"), (5, "b"), (1, "first")] {
            let id = timers.name();
            timers.start(id, ms, false, true, task);
        }
        assert_eq!(timers.next(), Next::At(1));
        assert_eq!(fire(&mut timers), ["first"]);
        assert_eq!((fire(&mut timers), timers.now()), (vec!["a", "b"], 5));
        assert_eq!((fire(&mut timers), timers.now()), (vec!["c"], 20));
        assert_eq!(timers.next(), Next::Never);
    }

    #[test]
    fn a_timer_that_is_due_waits_for_no_immediates_and_they_for_no_timer_that_is_not() {
        let mut timers = Timers::default();
        let id = timers.name();
        timers.start(id, 3, false, true, "timer");
        let mut order = Vec::new();
        for _ in 0..4 {
            let id = timers.name();
            timers.immediate(id, "immediate");
            order.push(timers.next());
            order.truncate(4);
            let fired = fire(&mut timers);
            assert!(fired.contains(&"immediate"));
        }
        assert_eq!(order, [Next::Now, Next::Now, Next::At(3), Next::Now]);
    }

    #[test]
    fn an_answer_moves_the_time_but_not_beyond_the_next_timer() {
        let mut timers = Timers::default();
        let id = timers.name();
        timers.start(id, 50, false, true, "timer");
        timers.begin_turn(Arrived::Pure);
        assert_eq!((timers.now(), timers.due().is_some()), (1, false));
        timers.begin_turn(Arrived::At(20));
        assert_eq!((timers.now(), timers.due().is_some()), (20, false));
        timers.begin_turn(Arrived::At(20));
        assert_eq!((timers.now(), timers.due().is_some()), (21, false));
        timers.begin_turn(Arrived::At(200));
        assert_eq!((timers.now(), timers.due().is_some()), (50, true));
        timers.begin_turn(Arrived::At(200));
        assert_eq!(timers.now(), 200);
    }

    #[test]
    fn an_interval_repeats_until_it_is_cleared() {
        let mut timers = Timers::default();
        let id = timers.name();
        timers.start(id, 10, true, true, "tick");
        assert_eq!((fire(&mut timers), fire(&mut timers), timers.now()), (vec!["tick"], vec!["tick"], 20));
        timers.set_holds(id, false);
        assert!(!timers.hold() && timers.len() == 1);
        timers.begin_turn(Arrived::Nothing);
        let (_, every, holds, task) = timers.due().expect("it is due");
        timers.clear(id);
        timers.fired(id, every, holds, task);
        assert_eq!((timers.next(), timers.len()), (Next::Never, 0));
    }
}
