//! One reading on its way through its handlers, and what a run's readings hand on to each other.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use boa_engine::JsValue;
use tidegate_actors::{reading::Channel, script::ParkReason};

use super::{
    engine::{Called, ContextId, Engine},
    event_loop::CallId,
    fault::fault,
    host::Lazy,
};
use crate::{
    frame::{Call, Fault, Outcome, Run, WireVerdict},
    late::keeps,
};

/// Room that a result's JSON starts with, in bytes: most fit.
const JSON_BYTES: usize = 512;

/// A run's state as it goes through its readings.
pub(super) struct Threaded {
    previous: Option<(Rc<[u8]>, i64)>,
    /// `ctx.state` by script: its JSON, and the value that a former call of the run left, with the context that it belongs to.
    states: Vec<(u8, ScriptState)>,
}

#[derive(Clone, Default)]
struct ScriptState {
    json: Option<Rc<[u8]>>,
    value: Option<(ContextId, JsValue)>,
}

impl Threaded {
    pub(super) fn new(run: &Run<'_>) -> Self {
        let state = |(script, json): &(u8, &[u8])| (*script, ScriptState { json: Some(Rc::from(*json)), value: None });
        Self {
            previous: run.previous.map(|(json, time)| (Rc::from(json), time)),
            states: run.states.iter().map(state).collect(),
        }
    }

    fn get(&self, script: u8) -> ScriptState {
        self.states.iter().find(|(of, _)| *of == script).map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn json(&self, script: u8) -> Option<Rc<[u8]>> {
        self.get(script).json
    }

    fn set(&mut self, script: u8, state: ScriptState) {
        match self.states.iter_mut().find(|(of, _)| *of == script) {
            Some((_, old)) => *old = state,
            None => self.states.push((script, state)),
        }
    }

    /// A failed call may have changed the values: read them from JSON again.
    pub(super) fn forget_values(&mut self) {
        for (_, state) in &mut self.states {
            state.value = None;
        }
    }

    /// The context of this script is gone: what is left of it need not be kept alive.
    pub(super) fn forget_value(&mut self, script: u8) {
        forget_value(&mut self.states, script);
    }
}

fn forget_value(states: &mut [(u8, ScriptState)], script: u8) {
    for (_, state) in states.iter_mut().filter(|(of, _)| *of == script) {
        state.value = None;
    }
}

/// What a handler said of a reading.
pub(super) enum Next {
    Go,
    Drop,
    /// It waits, and this call may go on at this moment.
    Waits(CallId, Instant),
}

/// A reading on its way through its handlers.
#[derive(Default)]
pub(super) struct Chain {
    /// The handlers that are left, the one under way among them.
    route: u64,
    /// The last handler's result, if any gave one.
    kept: Option<Rc<[u8]>>,
    states: Vec<(u8, ScriptState)>,
    /// Time that the handler under way has run, and CPU time that it is sure to have used.
    pub(super) took: Duration,
    pub(super) spent: Duration,
    /// When the handler under way first waited.
    pub(super) since: Option<Instant>,
    /// How long handlers waited, by their clocks.
    pub(super) waited_ms: u64,
}

impl Chain {
    pub(super) fn new(route: u64) -> Self {
        Self { route, ..Self::default() }
    }

    /// Leaves only the handler of this number, or none.
    pub(super) fn keep_only(&mut self, script: Option<usize>) {
        self.route &= script.map_or(0, |script| 1 << script);
    }

    /// The handler whose turn it is.
    pub(super) fn script(&self) -> Option<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "below 64")]
        (self.route != 0).then(|| self.route.trailing_zeros() as u8)
    }

    /// The next handler's turn.
    pub(super) fn next_script(&mut self) {
        self.route &= self.route - 1;
        (self.took, self.spent, self.since) = (Duration::ZERO, Duration::ZERO, None);
    }

    /// As [`Threaded::forget_value`].
    pub(super) fn forget_value(&mut self, script: u8) {
        forget_value(&mut self.states, script);
    }

    /// Until when the handler under way may wait.
    pub(super) fn deadline(&mut self, allowed: Duration) -> Instant {
        *self.since.get_or_insert_with(Instant::now) + allowed
    }

    /// Every handler had its turn: the state goes on by the late rule, `ctx.state` in any case.
    pub(super) fn finished(&mut self, call: &Call<'_>, threaded: &mut Threaded, engine: &Engine) -> Outcome {
        let time = effective_time(call);
        let kept = self.kept.clone();
        let makes_state = kept.is_some() || !is_event(call);
        if makes_state && keeps(threaded.previous.as_ref().map(|(_, time)| *time), time) {
            threaded.previous = Some((kept.clone().unwrap_or_else(|| Rc::from(call.payload)), time));
        }
        let verdict = kept.map_or(WireVerdict::Unchanged, |json| WireVerdict::Keep(json.to_vec()));
        self.outcome(verdict, threaded, engine)
    }

    /// A handler dropped it.
    pub(super) fn dropped(&mut self, script: u8, threaded: &mut Threaded, engine: &Engine) -> Outcome {
        self.outcome(WireVerdict::Dropped(script), threaded, engine)
    }

    fn outcome(&mut self, verdict: WireVerdict, threaded: &mut Threaded, engine: &Engine) -> Outcome {
        let mut states = Vec::new();
        for (script, state) in self.states.drain(..) {
            let changed = threaded.json(script) != state.json;
            if changed && let Some(json) = &state.json {
                states.push((script, json.to_vec()));
            }
            threaded.set(script, state);
        }
        let (emits, commands) = (engine.host.emits.take(), engine.host.commands.take());
        Outcome { run: 0, verdict, states, emits, commands, waited_ms: self.waited_ms }
    }
}

/// Is it no report of the device? Then its handlers see what happened, and none of them the former's result.
pub(super) fn is_event(call: &Call<'_>) -> bool {
    Channel::from_number(call.channel).is_some_and(Channel::is_event)
}

fn effective_time(call: &Call<'_>) -> i64 {
    call.device_time.unwrap_or(call.received)
}

/// Calls one handler on the chain's reading and takes in what it returns.
///
/// # Errors
/// The handler's failure.
pub(super) fn handle(
    engine: &mut Engine,
    script: u8,
    call: &Call<'_>,
    chain: &mut Chain,
    threaded: &Threaded,
) -> Result<Next, Fault> {
    let host = Rc::clone(&engine.host);
    let ScriptState { json, value } = threaded.get(script);
    host.script.set(script);
    host.received.set(call.received);
    host.now.set(call.received);
    host.random.set(call.position.wrapping_mul(64).wrapping_add(u64::from(script)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    *host.previous.borrow_mut() =
        Lazy { json: threaded.previous.as_ref().map(|(json, _)| Rc::clone(json)), value: None };
    // A value of a context that has been lost since is none here: it is read from its JSON.
    let value = value.filter(|(context, _)| engine.context_of(script) == Some(*context)).map(|(_, value)| value);
    *host.state.borrow_mut() = Lazy { json, value };

    let input = chain.kept.as_deref().filter(|_| !is_event(call)).unwrap_or(call.payload);
    let metric = engine.metric(script, input, effective_time(call))?;
    let called = engine.call(script, call.channel, metric)?;
    take_in(engine, script, called, chain)
}

/// Goes on with a handler that waits, and takes in what it returns.
///
/// # Errors
/// The handler's failure.
pub(super) fn go_on(engine: &mut Engine, id: CallId, script: u8, chain: &mut Chain) -> Result<Next, Fault> {
    let called = engine.go_on(script, id)?;
    take_in(engine, script, called, chain)
}

fn take_in(engine: &mut Engine, script: u8, called: Called, chain: &mut Chain) -> Result<Next, Fault> {
    let result = match called {
        Called::Done(result) => result,
        Called::Waits(id, wake) => return Ok(Next::Waits(id, wake)),
    };
    let waited = engine.host.now.get().saturating_sub(engine.host.received.get());
    chain.waited_ms = chain.waited_ms.saturating_add(u64::try_from(waited).unwrap_or(0));
    let next = if result.is_undefined() {
        Next::Go
    } else if result.is_null() {
        Next::Drop
    } else {
        let mut out = Vec::with_capacity(JSON_BYTES);
        if !engine.json(script, &result, true, &mut out)? || out.first() != Some(&b'{') {
            return Err(fault(ParkReason::BadResult, format!("it returned {}, not an object", result.type_of())));
        }
        chain.kept = Some(out.into());
        Next::Go
    };
    // Only a state that the handler asked for can have changed.
    let touched = engine.host.state.borrow_mut().value.take();
    if let Some(value) = touched {
        let mut out = Vec::with_capacity(JSON_BYTES);
        if !engine.json(script, &value, false, &mut out)? || out.first() != Some(&b'{') {
            return Err(fault(ParkReason::BadResult, "ctx.state is not an object"));
        }
        // A state that was never written is worth nothing until something is in it.
        let json = engine.host.state.borrow_mut().json.take();
        let same = json.as_deref().unwrap_or(b"{}") == out.as_slice();
        let json = if same { json } else { Some(out.into()) };
        let value = engine.context_of(script).map(|context| (context, value));
        chain.states.push((script, ScriptState { json, value }));
    }
    Ok(next)
}
