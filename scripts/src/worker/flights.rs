//! The runs of a worker that wait in a handler: what each needs to go on, and when the next of them may.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use hashbrown::HashMap;

use super::{
    chain::{Chain, Threaded},
    event_loop::CallId,
};
use crate::frame::Call;

/// A run of which a reading waits; its further readings wait behind it.
pub(super) struct Flight {
    pub(super) run: u32,
    pub(super) device: Box<str>,
    pub(super) threaded: Threaded,
    pub(super) call: Held,
    pub(super) chain: Chain,
    pub(super) rest: VecDeque<Held>,
}

/// A call that outlives its frame.
pub(super) struct Held {
    position: u64,
    route: u64,
    pub(super) channel: u8,
    device_time: Option<i64>,
    received: i64,
    payload: Box<[u8]>,
}

impl Held {
    pub(super) fn new(call: &Call<'_>) -> Self {
        let Call { position, route, channel, device_time, received, payload } = *call;
        Self { position, route, channel, device_time, received, payload: payload.into() }
    }

    pub(super) fn view(&self) -> Call<'_> {
        let Self { position, route, channel, device_time, received, ref payload } = *self;
        Call { position, route, channel, device_time, received, payload }
    }
}

/// All runs that wait, by the call that they wait for.
#[derive(Default)]
pub(super) struct Flights {
    waiting: HashMap<CallId, (Instant, Flight)>,
    wakes: BTreeSet<(Instant, CallId)>,
    /// The context of the handler under way is gone: their readings begin anew.
    lost: VecDeque<Flight>,
}

impl Flights {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lost.is_empty()
    }

    /// Puts a run aside until `wake`.
    pub(super) fn put(&mut self, id: CallId, wake: Instant, flight: Flight) {
        self.wakes.insert((wake, id));
        self.waiting.insert(id, (wake, flight));
    }

    /// Takes a run that is to go on.
    pub(super) fn take(&mut self, id: CallId) -> Option<Flight> {
        let (wake, flight) = self.waiting.remove(&id)?;
        self.wakes.remove(&(wake, id));
        Some(flight)
    }

    /// A call may have come to its end without its timers: it is looked at next.
    pub(super) fn look_at(&mut self, id: CallId) {
        if let Some((wake, _)) = self.waiting.get_mut(&id) {
            self.wakes.remove(&(*wake, id));
            *wake = (*wake).min(Instant::now());
            self.wakes.insert((*wake, id));
        }
    }

    /// The calls whose time has come, in the order of their times.
    pub(super) fn due(&self, now: Instant) -> Vec<CallId> {
        self.wakes.iter().take_while(|(wake, _)| *wake <= now).map(|(_, id)| *id).collect()
    }

    /// The time until the next may go on.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        if !self.lost.is_empty() {
            return Duration::ZERO;
        }
        self.wakes.first().map_or(Duration::MAX, |(wake, _)| wake.saturating_duration_since(now))
    }

    /// A handler's context is gone, and with it what its calls were in the midst of.
    pub(super) fn lose(&mut self, script: u8) {
        let is_of = |flight: &Flight| flight.chain.script() == Some(script);
        let of: Vec<CallId> = self.waiting.iter().filter(|(_, (_, flight))| is_of(flight)).map(|(id, _)| *id).collect();
        let lost: Vec<Flight> = of.into_iter().filter_map(|id| self.take(id)).collect();
        self.lost.extend(lost);
        for flight in self.waiting.values_mut().map(|(_, flight)| flight).chain(&mut self.lost) {
            flight.threaded.forget_value(script);
            flight.chain.forget_value(script);
        }
    }

    /// The next run whose context was lost.
    pub(super) fn next_lost(&mut self) -> Option<Flight> {
        self.lost.pop_front()
    }
}
