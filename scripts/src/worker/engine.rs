//! One Boa context with the handlers loaded in it, and one call of one handler.
//!
//! After any error of the engine itself (a limit, a caught panic) the context is not trusted any more: as soon as no call waits in
//! it, it is dropped and built anew, with the handlers loaded again, before the next call.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use boa_engine::{Context, JsObject, JsResult, JsValue, vm::RuntimeLimits};
use tidegate_actors::{limits, script::ParkReason};

use super::{
    event_loop::{CallId, EventLoop, Failed, Manner, Standing},
    fault::{self, fault},
    hooks::Hooks,
    host::{Bridge, Host, ScriptClock, ctx_object},
    json_out,
    memory::Memory,
    modules::Loader,
    plugin::{self, Loading, Plugin},
};
use crate::{
    frame::{Answer, Exports, Fault, Loaded, LogLevel, LogLine},
    modules::Tree,
};

/// Times that one loop may go round in one call: some tens of milliseconds of an empty loop.
pub(super) const LOOP_ITERATIONS: u64 = 1_000_000;
/// Calls within calls.
const RECURSION: usize = 512;
/// Slots of the engine's stack.
const STACK_SLOTS: usize = 1_000_000;
/// Lines of a recorded stack trace.
const BACKTRACE: usize = 10;
/// Errors of the engine in one context, beyond which it is dropped although calls wait in it. (Each leaves some of the engine's
/// stack behind; a few hundred would fill it.)
const ERRORS: u32 = 8;
/// What `dispose` and the listeners of `beforeExit` may wait for.
const EXIT_WAIT: Duration = Duration::from_millis(200);
/// One `ArrayBuffer` may have this part of the heap.
const BUFFER_PART: u64 = 4;

/// The handlers' sources.
pub(super) struct Sources {
    /// Handlers in name order, and whether to load them.
    pub(super) scripts: Vec<(String, bool)>,
    /// All files.
    pub(super) tree: Rc<Tree>,
}

/// A context with its handlers.
pub(super) struct Engine {
    sources: Sources,
    memory: Rc<Memory>,
    heap_bytes: u64,
    /// How long a call may wait for its promise.
    pub(super) async_wall: Duration,
    pub(super) host: Rc<Host>,
    /// What calls may do.
    pub(super) manner: Manner,
    live: Option<Live>,
}

/// How far a call has come.
pub(super) enum Called {
    Done(JsValue),
    /// It may go on at this moment.
    Waits(CallId, Instant),
}

/// What lives and dies with a context.
struct Live {
    // Dropped before the context that they belong to.
    handlers: Vec<Result<Plugin, Fault>>,
    ctx: JsValue,
    bridge: Bridge,
    events: Rc<EventLoop>,
    /// Errors of the engine so far; each may have left something behind in it.
    errors: u32,
    context: Context,
}

impl Engine {
    pub(super) fn new(sources: Sources, memory: Rc<Memory>, heap_bytes: u64, async_wall: Duration) -> Self {
        Self { sources, memory, heap_bytes, async_wall, host: Rc::default(), manner: Manner::default(), live: None }
    }

    /// Loads every script in a new context; `loading` is told before each.
    pub(super) fn load(&mut self, mut loading: impl FnMut(u8)) -> Vec<Loaded> {
        self.drop_context();
        let mut reports = Vec::new();
        let mut live = match self.new_context() {
            Ok(live) => live,
            Err(error) => {
                let broken = fault(ParkReason::Crashed, format!("the engine does not start: {error}"));
                return self.sources.scripts.iter().map(|_| Loaded::Broken(broken.clone())).collect();
            }
        };
        for (number, (name, wanted)) in (0_u8..).zip(&self.sources.scripts) {
            if !wanted {
                live.handlers.push(Err(fault(ParkReason::Crashed, "the handler is broken")));
                reports.push(Loaded::Skipped);
                continue;
            }
            loading(number);
            self.host.script.set(number);
            match live.load_one(name, &self.sources.tree, &self.host) {
                Ok((handler, exports)) => {
                    live.handlers.push(Ok(handler));
                    reports.push(Loaded::Ready(exports));
                }
                Err(broken) => {
                    live.handlers.push(Err(broken.clone()));
                    reports.push(Loaded::Broken(broken));
                }
            }
        }
        self.live = Some(live);
        reports
    }

    /// The number of the handler of this name.
    pub(super) fn number_of(&self, name: &str) -> Option<usize> {
        self.sources.scripts.iter().position(|(known, _)| known == name)
    }

    /// Loads a file of tests in a new context: the names of its tests as JSON. [`Engine::call`] then runs the test of a number.
    ///
    /// # Errors
    /// Why it does not load.
    pub(super) fn load_tests(&mut self, path: &str, filter: &str) -> Result<String, Fault> {
        self.drop_context();
        let mut live = self
            .new_context()
            .map_err(|error| fault(ParkReason::Crashed, format!("the engine does not start: {error}")))?;
        let (names, step) = live.load_tests(path, filter, &self.sources.tree, &self.host)?;
        live.handlers.push(Ok(step));
        self.live = Some(live);
        Ok(names)
    }

    /// Drops the context and everything in it.
    pub(super) fn drop_context(&mut self) {
        if self.live.take().is_some() {
            self.host.forget_context();
            boa_gc::force_collect();
        }
    }

    /// Has a context been lost since the last load?
    pub(super) fn needs_load(&self) -> bool {
        self.live.is_none()
    }

    /// The metric of a reading, as a value.
    ///
    /// # Errors
    /// The payload does not read as JSON here.
    pub(super) fn metric(&mut self, json: &[u8], ts: i64) -> Result<JsValue, Fault> {
        let live = self.live.as_mut().ok_or_else(not_loaded)?;
        self.host
            .metric(json, ts, &mut live.context)
            .map_err(|error| fault(ParkReason::Threw, format!("the metric does not read: {error}")))
    }

    /// Calls a handler's function for this channel and lets it run as far as it goes without waiting.
    ///
    /// # Errors
    /// The handler's failure; after one of the engine's, the context is gone as soon as no other call waits in it.
    pub(super) fn call(&mut self, script: u8, channel: u8, metric: JsValue) -> Result<Called, Fault> {
        let live = self.live.as_mut().ok_or_else(not_loaded)?;
        let called = live.call((script, channel), metric, &self.host, self.async_wall);
        self.judge(called)
    }

    /// Goes on with a call that waits.
    ///
    /// # Errors
    /// As [`Engine::call`].
    pub(super) fn go_on(&mut self, id: CallId) -> Result<Called, Fault> {
        let live = self.live.as_mut().ok_or_else(not_loaded)?;
        let called = live.go_on(id, &self.host, self.async_wall);
        self.judge(called)
    }

    /// Ends a call that waits.
    pub(super) fn give_up(&mut self, id: CallId) {
        if let Some(live) = &self.live {
            live.events.enter(id);
        }
        self.end_call();
    }

    /// The call under way is over and its result has been taken in.
    pub(super) fn end_call(&mut self) {
        let Some(live) = &mut self.live else { return };
        live.events.end();
        if live.events.has_left() && live.events.sweep(&mut live.context).is_err() {
            live.errors += 1;
        }
        if live.errors > 0 && (live.errors >= ERRORS || !live.events.has_waiting()) {
            self.drop_context();
        }
    }

    /// Tells the scripts that their context goes.
    pub(super) fn exit(&mut self) {
        let Some(live) = &mut self.live else { return };
        let count = u8::try_from(live.handlers.len()).unwrap_or(u8::MAX);
        // The last that came goes first: it may use what the others hold.
        for script in (0..count).rev() {
            self.host.begin_reading();
            self.host.script.set(script);
            if let Err(fault) = live.dispose(script) {
                let text = format!("dispose: {}", fault.message);
                let line = LogLine { level: LogLevel::Error, script, device: String::new(), text };
                self.host.logs.borrow_mut().push(line);
            }
        }
        for script in 0..count {
            self.host.begin_reading();
            self.host.script.set(script);
            if live.events.exit(EXIT_WAIT, &mut live.context).is_err() {
                // An error of the engine: the context goes anyway.
                live.events.end();
                return;
            }
        }
    }

    /// Takes an answer in. The call that waits for it, if it still does.
    pub(super) fn answered(&self, answer: &Answer<'_>) -> Option<CallId> {
        self.live.as_ref().and_then(|live| live.events.answered(answer))
    }

    /// The calls that callbacks ran for, beside the one that was asked for.
    pub(super) fn take_entered(&self) -> Vec<CallId> {
        self.live.as_ref().map(|live| live.events.take_entered()).unwrap_or_default()
    }

    fn judge(&mut self, called: Result<Called, Failure>) -> Result<Called, Fault> {
        match called {
            Ok(called) => Ok(called),
            Err(Failure::Script(fault)) => Err(fault),
            Err(Failure::Engine(fault)) => {
                if let Some(live) = &mut self.live {
                    let broken = fault.reason == ParkReason::Crashed as u8;
                    live.errors += if broken { ERRORS } else { 1 };
                }
                self.end_call();
                Err(fault)
            }
        }
    }

    /// Writes a value's JSON, without `deviceId` and `ts` at the top when it is to be kept. `Ok(false)`: it has none.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn json(&mut self, value: &JsValue, kept: bool, out: &mut Vec<u8>) -> Result<bool, Fault> {
        let live = self.live.as_mut().ok_or_else(not_loaded)?;
        let write = if kept { json_out::write_kept } else { json_out::write };
        let written = write(value, &self.host, &mut live.context, out);
        written.map_err(|error| match (&error, self.host.thrown.borrow_mut().take()) {
            (json_out::JsonError::Threw, Some(thrown)) => {
                fault::thrown(&thrown, &live.bridge.stack_of, &mut live.context)
            }
            _ => fault(ParkReason::BadResult, format!("the result cannot be kept: {error}")),
        })
    }

    /// JSON → JavaScript → JSON, for tests.
    #[cfg(test)]
    pub(super) fn round_trip(&mut self, json: &[u8]) -> Result<String, String> {
        let context = &mut self.live.as_mut().ok_or("no context")?.context;
        let value = self.host.parse_text(json, context)?;
        let mut out = Vec::new();
        json_out::write(&value, &self.host, context, &mut out).map_err(|error| error.to_string())?;
        String::from_utf8(out).map_err(|error| error.to_string())
    }

    /// The JSON of a metric, for tests.
    #[cfg(test)]
    pub(super) fn metric_text(&mut self, json: &[u8], ts: i64) -> Result<String, Fault> {
        let metric = self.metric(json, ts)?;
        let mut out = Vec::new();
        self.json(&metric, false, &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn new_context(&self) -> JsResult<Live> {
        let events = Rc::new(EventLoop::new(Rc::clone(&self.host), self.manner));
        let hooks = Hooks {
            memory: Rc::clone(&self.memory),
            host: Rc::clone(&self.host),
            events: Rc::clone(&events),
            buffer_bytes: self.heap_bytes / BUFFER_PART,
        };
        let mut context = Context::builder()
            .host_hooks(Rc::new(hooks))
            .job_executor(Rc::clone(&events))
            .module_loader(Rc::new(Loader::new(Rc::clone(&self.sources.tree))))
            .clock(Rc::new(ScriptClock(Rc::clone(&self.host))))
            .build()?;
        let mut limits = RuntimeLimits::default();
        limits.set_loop_iteration_limit(LOOP_ITERATIONS);
        limits.set_recursion_limit(RECURSION);
        limits.set_stack_size_limit(STACK_SLOTS);
        limits.set_backtrace_limit(BACKTRACE);
        context.set_runtime_limits(limits);
        self.host.install(&mut context)?;
        let ctx = ctx_object(&mut context)?.into();
        let bridge = self.host.bridge();
        Ok(Live { handlers: Vec::new(), ctx, bridge, events, errors: 0, context })
    }
}

/// Who failed: the script (the context is well), or the engine (it is not).
enum Failure {
    Script(Fault),
    Engine(Fault),
}

impl Live {
    /// Loads one handler: its functions, and its other exports.
    fn load_one(&mut self, name: &str, tree: &Tree, host: &Rc<Host>) -> Result<(Plugin, Exports), Fault> {
        host.begin_reading();
        self.events.begin();
        let Self { events, bridge, context, .. } = self;
        let loaded = Loading { name, tree, host, events, bridge, context }.load();
        self.events.end();
        loaded
    }

    fn load_tests(
        &mut self,
        path: &str,
        filter: &str,
        tree: &Tree,
        host: &Rc<Host>,
    ) -> Result<(String, Plugin), Fault> {
        host.begin_reading();
        self.events.begin();
        let Self { events, bridge, context, .. } = self;
        let loaded = Loading { name: path, tree, host, events, bridge, context }.load_tests(filter);
        self.events.end();
        loaded
    }

    /// Tells a plugin that its context goes.
    fn dispose(&mut self, script: u8) -> Result<(), Fault> {
        let Self { handlers, bridge, events, context, .. } = self;
        let Some(Ok(Plugin { dispose: Some(dispose), .. })) = handlers.get(usize::from(script)) else { return Ok(()) };
        let host = Host::of(context);
        events.begin();
        let disposed = plugin::run(dispose, &[], EXIT_WAIT, &host, events, bridge, context);
        events.end();
        disposed
    }

    fn call(
        &mut self,
        (script, channel): (u8, u8),
        metric: JsValue,
        host: &Host,
        allowed: Duration,
    ) -> Result<Called, Failure> {
        let Self { handlers, ctx, bridge, events, context, .. } = self;
        let handler = match handlers.get(usize::from(script)) {
            Some(Ok(plugin)) => match plugin.function(channel) {
                Some(function) => function.clone(),
                // The node asks for what the handler exports; what it does not has nothing to say.
                None => return Ok(Called::Done(JsValue::undefined())),
            },
            Some(Err(broken)) => return Err(Failure::Script(broken.clone())),
            None => return Err(Failure::Script(not_loaded())),
        };
        events.begin();
        host.may_ask.set(true);
        let arguments = [handler.into(), metric, ctx.clone()];
        let value = bridge.call.call(&JsValue::undefined(), &arguments, context);
        let value = value.map_err(|error| Failure::Engine(fault::engine(&error, &bridge.stack_of, context)))?;
        if let Some(thrown) = host.thrown.borrow_mut().take() {
            return Err(Failure::Script(fault::thrown(&thrown, &bridge.stack_of, context)));
        }
        if events.is_untouched() && !value.as_object().is_some_and(|object| is_promise(&object)) {
            return finished(value, host);
        }
        let stands = events.returned(value, allowed, context);
        self.conclude(stands, host, allowed)
    }

    fn go_on(&mut self, id: CallId, host: &Host, allowed: Duration) -> Result<Called, Failure> {
        let stands = self.events.go_on(id, allowed, &mut self.context);
        self.conclude(stands, host, allowed)
    }

    /// What a call's standing means.
    fn conclude(&mut self, stands: JsResult<Standing>, host: &Host, allowed: Duration) -> Result<Called, Failure> {
        let Self { bridge, events, context, .. } = self;
        let stands = stands.map_err(|error| Failure::Engine(fault::engine(&error, &bridge.stack_of, context)))?;
        match stands {
            Standing::Done(value) => finished(value, host),
            Standing::Waits(at) => Ok(Called::Waits(events.put_aside(), at)),
            Standing::Rejected(reason) | Standing::Failed(Failed::Threw(reason)) => {
                Err(Failure::Script(fault::thrown(&reason, &bridge.stack_of, context)))
            }
            Standing::Failed(Failed::RanAway) => {
                let most = events.manner().jobs;
                let limit = if most == limits::SCRIPT_JOBS { "script_jobs" } else { "script_test_jobs" };
                let message = format!("it queued more than {most} jobs in one call (limit {limit})");
                Err(Failure::Script(fault(ParkReason::Deadline, message)))
            }
            Standing::TooLong(operation) => {
                let on = operation.map(|operation| format!(" for {}", operation.name())).unwrap_or_default();
                let message = format!(
                    "it waits{on} for longer than {} ms (limit script_async_wall, setting scripts.async_wall_ms)",
                    allowed.as_millis()
                );
                Err(Failure::Script(fault(ParkReason::Deadline, message)))
            }
            Standing::Stuck => {
                let message =
                    "its promise never settles: nothing is left to settle it, or a limit ended what would have";
                Err(Failure::Engine(fault(ParkReason::Deadline, message)))
            }
        }
    }
}

/// A call that ended, if it broke no limit on the way.
fn finished(value: JsValue, host: &Host) -> Result<Called, Failure> {
    match host.broken_limit.borrow_mut().take() {
        Some(message) => Err(Failure::Script(fault(ParkReason::Threw, message))),
        None => Ok(Called::Done(value)),
    }
}

pub(super) fn is_promise(object: &JsObject) -> bool {
    object.is::<boa_engine::builtins::promise::Promise>()
}

pub(super) fn not_loaded() -> Fault {
    fault(ParkReason::Crashed, "the handlers are not loaded")
}
