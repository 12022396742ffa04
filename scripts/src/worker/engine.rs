//! The handlers of a worker, each in a Boa context of its own, and one call of one of them.
//!
//! After any error of the engine itself (a limit, a caught panic) the context that it happened in is not trusted any more: as soon as
//! no call waits in it, it is dropped and built anew, with its handler loaded again, before that handler's next call. The others go
//! on as if nothing had been. No value goes from one context to another: handlers hand on JSON.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use boa_engine::JsValue;
use tidegate_actors::script::ParkReason;

use super::{
    event_loop::{CallId, Manner, Saved},
    fault::{self, fault},
    globals::cloned::pack_error,
    host::Host,
    json_out,
    live::{Failure, Live, Setup},
    memory::Memory,
    plugin::not_loaded,
};
use crate::{
    frame::{Answer, Exports, Fault, Loaded, LogLevel, LogLine},
    modules::Tree,
};

/// Errors of the engine in one context, beyond which it is dropped although calls wait in it. (Each leaves some of the engine's
/// stack behind; a few hundred would fill it.)
const ERRORS: u32 = 8;

/// The handlers' sources.
pub(super) struct Sources {
    /// Handlers in name order, and whether to load them.
    pub(super) scripts: Vec<(String, bool)>,
    /// All files.
    pub(super) tree: Rc<Tree>,
}

/// The handlers with their contexts.
pub(super) struct Engine {
    sources: Sources,
    memory: Rc<Memory>,
    heap_bytes: u64,
    /// How long a call may wait for its promise.
    pub(super) async_wall: Duration,
    pub(super) host: Rc<Host>,
    /// What calls may do.
    pub(super) manner: Manner,
    /// By the handlers' numbers.
    slots: Vec<Slot>,
    /// Contexts so far.
    made: u64,
}

/// A handler's place.
enum Slot {
    Live(Box<Live>),
    /// Its context was lost: it is loaded again before its next call.
    Lost,
    /// It did not load when the worker began, or was not to be loaded.
    Broken(Fault),
}

/// How far a call has come.
pub(super) enum Called {
    Done(JsValue),
    /// It may go on at this moment.
    Waits(CallId, Instant),
}

/// Names a context among all that a worker has had: a value of one is worth nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContextId(u64);

impl Engine {
    pub(super) fn new(sources: Sources, memory: Rc<Memory>, heap_bytes: u64, async_wall: Duration) -> Self {
        let (host, manner) = (Rc::default(), Manner::default());
        Self { sources, memory, heap_bytes, async_wall, host, manner, slots: Vec::new(), made: 0 }
    }

    /// Loads every script in a new context; `loading` is told before each.
    pub(super) fn load(&mut self, mut loading: impl FnMut(u8)) -> Vec<Loaded> {
        self.drop_all();
        let mut reports = Vec::new();
        for script in 0..u8::try_from(self.sources.scripts.len()).unwrap_or(u8::MAX) {
            if !self.sources.scripts[usize::from(script)].1 {
                self.slots.push(Slot::Broken(fault(ParkReason::Crashed, "the handler is broken")));
                reports.push(Loaded::Skipped);
                continue;
            }
            loading(script);
            match self.load_one(script) {
                Ok((live, exports)) => {
                    self.slots.push(Slot::Live(live));
                    reports.push(Loaded::Ready(exports));
                }
                Err(broken) => {
                    self.slots.push(Slot::Broken(broken.clone()));
                    reports.push(Loaded::Broken(broken));
                }
            }
        }
        self.memory.leave_room();
        reports
    }

    /// Loads a handler in a new context. What it finds there is the same each time, whenever that is: no reading's device, its clock
    /// at 0, its random numbers from its place.
    fn load_one(&mut self, script: u8) -> Result<(Box<Live>, Exports), Fault> {
        let saved = Saved::take(&self.host);
        Saved::default().put(&self.host);
        self.host.script.set(script);
        self.host.random.set(u64::from(script));
        let loaded = self.new_context(script).and_then(|mut live| {
            let (name, _) = &self.sources.scripts[usize::from(script)];
            let exports = live.load(name, &self.sources.tree, &self.host)?;
            Ok((live, exports))
        });
        if loaded.is_err() {
            self.host.forget_context(script);
        }
        saved.put(&self.host);
        loaded
    }

    fn new_context(&mut self, script: u8) -> Result<Box<Live>, Fault> {
        self.made += 1;
        let Self { host, manner, memory, heap_bytes, sources, .. } = self;
        let setup = Setup {
            script,
            id: ContextId(self.made),
            host,
            manner: *manner,
            memory,
            heap_bytes: *heap_bytes,
            tree: &sources.tree,
        };
        let live = Live::new(&setup);
        live.map(Box::new).map_err(|error| fault(ParkReason::Crashed, format!("the engine does not start: {error}")))
    }

    /// The number of the handler of this name.
    pub(super) fn number_of(&self, name: &str) -> Option<usize> {
        self.sources.scripts.iter().position(|(known, _)| known == name)
    }

    /// Loads a file of tests as script 0: the names of its tests as JSON. [`Engine::call`] then runs the test of a number.
    ///
    /// # Errors
    /// Why it does not load.
    pub(super) fn load_tests(&mut self, path: &str, filter: &str) -> Result<String, Fault> {
        self.drop_all();
        let mut live = self.new_context(0)?;
        let names = live.load_tests(path, filter, &self.sources.tree, &self.host)?;
        self.slots.push(Slot::Live(live));
        Ok(names)
    }

    /// Runs a file as a task, in a context of its own: its exit code.
    ///
    /// # Errors
    /// What nobody in it caught, packed, and whether that was a limit or the engine.
    pub(super) fn run_task(&mut self, path: &str) -> Result<i32, (Vec<u8>, bool)> {
        self.drop_all();
        let mut live = self.new_context(0).map_err(|fault| (pack_error(&fault.message, "", ""), true))?;
        let ended = live.run_task(path, &self.sources.tree, &self.host);
        // The process ends here: what is left of the context need not be dropped.
        std::mem::forget(live);
        ended
    }

    fn drop_all(&mut self) {
        for script in 0..u8::try_from(self.slots.len()).unwrap_or(u8::MAX) {
            self.drop_context(script);
        }
        self.slots.clear();
    }

    /// Drops a handler's context and everything in it.
    fn drop_context(&mut self, script: u8) {
        if let Some(slot @ Slot::Live(_)) = self.slots.get_mut(usize::from(script)) {
            *slot = Slot::Lost;
            self.host.forget_context(script);
            boa_gc::force_collect();
        }
    }

    /// Has the handler's context been lost, and not been built anew?
    pub(super) fn is_lost(&self, script: u8) -> bool {
        matches!(self.slots.get(usize::from(script)), Some(Slot::Lost))
    }

    /// Makes sure that a handler is loaded if it was once. One that does not load again is tried again before its next call.
    ///
    /// # Errors
    /// Why it does not load.
    pub(super) fn prepare(&mut self, script: u8) -> Result<(), Fault> {
        if self.is_lost(script) {
            let (live, _) = self.load_one(script)?;
            self.slots[usize::from(script)] = Slot::Live(live);
        }
        Ok(())
    }

    /// Names the context that a handler has now.
    pub(super) fn context_of(&self, script: u8) -> Option<ContextId> {
        match self.slots.get(usize::from(script)) {
            Some(Slot::Live(live)) => Some(live.id),
            _ => None,
        }
    }

    fn live(&mut self, script: u8) -> Result<&mut Live, Fault> {
        match self.slots.get_mut(usize::from(script)) {
            Some(Slot::Live(live)) => Ok(live),
            Some(Slot::Broken(broken)) => Err(broken.clone()),
            Some(Slot::Lost) | None => Err(not_loaded()),
        }
    }

    /// The metric of a reading, as a value for a handler.
    ///
    /// # Errors
    /// The payload does not read as JSON here.
    pub(super) fn metric(&mut self, script: u8, json: &[u8], ts: i64) -> Result<JsValue, Fault> {
        let host = Rc::clone(&self.host);
        host.metric(json, ts, &mut self.live(script)?.context)
            .map_err(|error| fault(ParkReason::Threw, format!("the metric does not read: {error}")))
    }

    /// Calls a handler's function for this channel and lets it run as far as it goes without waiting.
    ///
    /// # Errors
    /// The handler's failure; after one of the engine's, the context is gone as soon as no other call waits in it.
    pub(super) fn call(&mut self, script: u8, channel: u8, metric: JsValue) -> Result<Called, Fault> {
        let (host, allowed) = (Rc::clone(&self.host), self.async_wall);
        let called = self.live(script)?.call(channel, metric, &host, allowed);
        self.judge(script, called)
    }

    /// Goes on with a call that waits.
    ///
    /// # Errors
    /// As [`Engine::call`].
    pub(super) fn go_on(&mut self, script: u8, id: CallId) -> Result<Called, Fault> {
        let (host, allowed) = (Rc::clone(&self.host), self.async_wall);
        let called = self.live(script)?.go_on(id, &host, allowed);
        self.judge(script, called)
    }

    /// Ends a call that waits.
    pub(super) fn give_up(&mut self, script: u8, id: CallId) {
        if let Ok(live) = self.live(script) {
            live.events.enter(id);
        }
        self.end_call(script);
    }

    /// The handler's call under way is over and its result has been taken in.
    pub(super) fn end_call(&mut self, script: u8) {
        let Ok(live) = self.live(script) else { return };
        live.end_call();
        if live.errors > 0 && (live.errors >= ERRORS || !live.events.has_waiting()) {
            self.drop_context(script);
        }
    }

    fn judge(&mut self, script: u8, called: Result<Called, Failure>) -> Result<Called, Fault> {
        match called {
            Ok(called) => Ok(called),
            Err(Failure::Script(fault)) => Err(fault),
            Err(Failure::Engine(fault)) => {
                if let Ok(live) = self.live(script) {
                    let broken = fault.reason == ParkReason::Crashed as u8;
                    live.errors += if broken { ERRORS } else { 1 };
                }
                self.end_call(script);
                Err(fault)
            }
        }
    }

    /// Tells the scripts that their contexts go.
    pub(super) fn exit(&mut self) {
        let host = Rc::clone(&self.host);
        host.forget_values();
        let mut all: Vec<&mut Live> = self
            .slots
            .iter_mut()
            .filter_map(|slot| if let Slot::Live(live) = slot { Some(&mut **live) } else { None })
            .collect();
        // The last that came goes first, as its plugins expect it.
        for live in all.iter_mut().rev() {
            host.begin_reading();
            host.script.set(live.script);
            if let Err(fault) = live.dispose() {
                let text = format!("dispose: {}", fault.message);
                let line = LogLine { level: LogLevel::Error, script: live.script, device: String::new(), text };
                host.logs.borrow_mut().push(line);
            }
        }
        for live in all {
            host.begin_reading();
            host.script.set(live.script);
            live.exit();
        }
    }

    /// Takes an answer in. The call that waits for it, if it still does.
    pub(super) fn answered(&mut self, answer: &Answer<'_>) -> Option<CallId> {
        let (script, call) = self.host.open_asks.borrow_mut().remove(&answer.id)?;
        self.live(script).ok()?.events.answered(call, answer)
    }

    /// The calls that callbacks ran for, beside the one that was asked for.
    pub(super) fn take_entered(&self) -> Vec<CallId> {
        self.host.entered.take()
    }

    /// Writes the JSON of a value of a handler, without `deviceId` and `ts` at the top when it is to be kept. `Ok(false)`: it has none.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn json(&mut self, script: u8, value: &JsValue, kept: bool, out: &mut Vec<u8>) -> Result<bool, Fault> {
        let Live { local, context, .. } = self.live(script)?;
        let write = if kept { json_out::write_kept } else { json_out::write };
        let written = write(value, local, context, out);
        written.map_err(|error| match (&error, local.thrown.borrow_mut().take()) {
            (json_out::JsonError::Threw, Some(thrown)) => fault::thrown(&thrown, &local.bridge().stack_of, context),
            _ => fault(ParkReason::BadResult, format!("the result cannot be kept: {error}")),
        })
    }

    /// JSON → JavaScript → JSON, for tests.
    #[cfg(test)]
    pub(super) fn round_trip(&mut self, json: &[u8]) -> Result<String, String> {
        let host = Rc::clone(&self.host);
        let Live { local, context, .. } = self.live(0).map_err(|fault| fault.message)?;
        let value = host.parse_text(json, context)?;
        let mut out = Vec::new();
        json_out::write(&value, local, context, &mut out).map_err(|error| error.to_string())?;
        String::from_utf8(out).map_err(|error| error.to_string())
    }

    /// The JSON of a metric, for tests.
    #[cfg(test)]
    pub(super) fn metric_text(&mut self, json: &[u8], ts: i64) -> Result<String, Fault> {
        let metric = self.metric(0, json, ts)?;
        let mut out = Vec::new();
        self.json(0, &metric, false, &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}
