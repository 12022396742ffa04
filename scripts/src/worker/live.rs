//! One context with its handler, and the calls in it.

use std::{rc::Rc, time::Duration};

use boa_engine::{Context, JsResult, JsValue, vm::RuntimeLimits};
use tidegate_actors::{limits, script::ParkReason};

use super::{
    engine::{Called, ContextId},
    event_loop::{CallId, EventLoop, Failed, Manner, Standing},
    fault::{self, fault},
    hooks::Hooks,
    host::{Host, ScriptClock, ctx_object},
    local::Local,
    memory::Memory,
    modules::Loader,
    plugin::{self, Loading, Plugin, is_promise, not_loaded},
};
use crate::{
    frame::{Exports, Fault},
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
/// What `dispose` and the listeners of `beforeExit` may wait for.
const EXIT_WAIT: Duration = Duration::from_millis(200);
/// One `ArrayBuffer` may have this part of the heap.
const BUFFER_PART: u64 = 4;

/// What a new context needs.
pub(super) struct Setup<'a> {
    pub(super) script: u8,
    pub(super) id: ContextId,
    pub(super) host: &'a Rc<Host>,
    pub(super) manner: Manner,
    pub(super) memory: &'a Rc<Memory>,
    pub(super) heap_bytes: u64,
    pub(super) tree: &'a Rc<Tree>,
}

/// A context, and what lives and dies with it.
pub(super) struct Live {
    pub(super) script: u8,
    pub(super) id: ContextId,
    /// Errors of the engine so far; each may have left something behind in it.
    pub(super) errors: u32,
    // These are dropped before the context that they belong to.
    handler: Option<Plugin>,
    ctx: JsValue,
    pub(super) local: Rc<Local>,
    pub(super) events: Rc<EventLoop>,
    pub(super) context: Context,
}

/// Who failed: the script (the context is well), or the engine (it is not).
pub(super) enum Failure {
    Script(Fault),
    Engine(Fault),
}

impl Live {
    /// A context without a handler.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn new(setup: &Setup<'_>) -> JsResult<Self> {
        let Setup { script, id, host, manner, memory, heap_bytes, tree } = *setup;
        let local = Rc::new(Local::default());
        let events = Rc::new(EventLoop::new(script, Rc::clone(host), Rc::clone(&local), manner));
        let hooks = Hooks {
            memory: Rc::clone(memory),
            local: Rc::clone(&local),
            events: Rc::clone(&events),
            buffer_bytes: heap_bytes / BUFFER_PART,
        };
        let mut context = Context::builder()
            .host_hooks(Rc::new(hooks))
            .job_executor(Rc::clone(&events))
            .module_loader(Rc::new(Loader::new(Rc::clone(tree))))
            .clock(Rc::new(ScriptClock(Rc::clone(host))))
            .build()?;
        let mut limits = RuntimeLimits::default();
        limits.set_loop_iteration_limit(manner.loops);
        limits.set_recursion_limit(RECURSION);
        limits.set_stack_size_limit(STACK_SLOTS);
        limits.set_backtrace_limit(BACKTRACE);
        context.set_runtime_limits(limits);
        context.insert_data(Rc::clone(host));
        local.install(&mut context)?;
        let ctx = ctx_object(&mut context)?.into();
        Ok(Self { script, id, errors: 0, handler: None, ctx, local, events, context })
    }

    /// Loads its handler: its functions are kept, its other exports handed on.
    ///
    /// # Errors
    /// Why it does not load.
    pub(super) fn load(&mut self, name: &str, tree: &Tree, host: &Rc<Host>) -> Result<Exports, Fault> {
        let (handler, exports) = self.loading(name, tree, host, |loading| loading.load())?;
        self.handler = Some(handler);
        Ok(exports)
    }

    /// Loads a file of tests: their names.
    ///
    /// # Errors
    /// Why it does not load.
    pub(super) fn load_tests(
        &mut self,
        path: &str,
        filter: &str,
        tree: &Tree,
        host: &Rc<Host>,
    ) -> Result<String, Fault> {
        let (names, step) = self.loading(path, tree, host, |loading| loading.load_tests(filter))?;
        self.handler = Some(step);
        Ok(names)
    }

    /// Runs a file as a task, until nothing of it is left: its exit code.
    ///
    /// # Errors
    /// What nobody in it caught, packed, and whether that was a limit or the engine.
    pub(super) fn run_task(&mut self, path: &str, tree: &Tree, host: &Rc<Host>) -> Result<i32, (Vec<u8>, bool)> {
        self.loading(path, tree, host, |loading| loading.run_task())
    }

    fn loading<T>(&mut self, name: &str, tree: &Tree, host: &Rc<Host>, load: impl FnOnce(Loading<'_>) -> T) -> T {
        host.begin_reading();
        self.events.begin();
        let Self { events, local, context, .. } = self;
        let loaded = load(Loading { name, tree, host, events, local, context });
        self.events.end();
        loaded
    }

    /// Tells the plugin that its context goes.
    ///
    /// # Errors
    /// It threw, or is not done in time.
    pub(super) fn dispose(&mut self) -> Result<(), Fault> {
        let Self { handler, local, events, context, .. } = self;
        let Some(Plugin { dispose: Some(dispose), .. }) = handler else { return Ok(()) };
        events.begin();
        let disposed = plugin::run(dispose, &[], EXIT_WAIT, events, local, context);
        events.end();
        disposed
    }

    /// Tells the listeners of `beforeExit` and `exit`.
    pub(super) fn exit(&mut self) {
        if self.events.exit(EXIT_WAIT, &mut self.context).is_err() {
            // An error of the engine: the context goes anyway.
            self.events.end();
        }
    }

    /// Calls the handler's function for a channel.
    ///
    /// # Errors
    /// Who failed, and how.
    pub(super) fn call(
        &mut self,
        channel: u8,
        metric: JsValue,
        host: &Host,
        allowed: Duration,
    ) -> Result<Called, Failure> {
        let Self { handler, ctx, local, events, context, .. } = self;
        let handler = handler.as_ref().ok_or_else(|| Failure::Script(not_loaded()))?;
        // The node asks for what the handler exports; what it does not has nothing to say.
        let Some(function) = handler.function(channel) else { return Ok(Called::Done(JsValue::undefined())) };
        events.begin();
        host.may_ask.set(events.manner().asks);
        let (bridge, arguments) = (local.bridge(), [function.clone().into(), metric, ctx.clone()]);
        let value = bridge.call.call(&JsValue::undefined(), &arguments, context);
        let value = value.map_err(|error| Failure::Engine(fault::engine(&error, &bridge.stack_of, context)))?;
        if let Some(thrown) = local.thrown.borrow_mut().take() {
            return Err(Failure::Script(fault::thrown(&thrown, &bridge.stack_of, context)));
        }
        if events.is_untouched() && !value.as_object().is_some_and(|object| is_promise(&object)) {
            return finished(value, host);
        }
        let stands = events.returned(value, allowed, context);
        self.conclude(stands, host, allowed)
    }

    /// Goes on with a call that waits.
    ///
    /// # Errors
    /// As [`Live::call`].
    pub(super) fn go_on(&mut self, id: CallId, host: &Host, allowed: Duration) -> Result<Called, Failure> {
        let stands = self.events.go_on(id, allowed, &mut self.context);
        self.conclude(stands, host, allowed)
    }

    /// The call under way is over: takes away what it left.
    pub(super) fn end_call(&mut self) {
        self.events.end();
        if self.events.has_left() && self.events.sweep(&mut self.context).is_err() {
            self.errors += 1;
        }
    }

    /// What a call's standing means.
    fn conclude(&mut self, stands: JsResult<Standing>, host: &Host, allowed: Duration) -> Result<Called, Failure> {
        let Self { local, events, context, .. } = self;
        let bridge = local.bridge();
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
