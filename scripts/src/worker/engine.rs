//! One Boa context with the handlers loaded in it, and one call of one handler.
//!
//! After any error of the engine itself (a limit, a caught panic) the context is not trusted any more: it is dropped and built
//! anew, with the handlers loaded again, before the next call.

use std::rc::Rc;

use boa_engine::{
    Context, JsObject, JsResult, JsValue, Module,
    builtins::promise::PromiseState,
    object::builtins::{JsFunction, JsPromise},
    vm::RuntimeLimits,
};
use hashbrown::HashMap;
use tidegate_actors::script::ParkReason;

use super::{
    fault::{self, fault},
    hooks::{Hooks, JOBS, Jobs},
    host::{Bridge, Host, ScriptClock, ctx_object},
    json_out,
    loader::{Loader, entry},
    memory::Memory,
};
use crate::frame::{Fault, Loaded};

/// Times that one loop may go round in one call: some tens of milliseconds of an empty loop.
pub(super) const LOOP_ITERATIONS: u64 = 1_000_000;
/// Calls within calls.
const RECURSION: usize = 512;
/// Slots of the engine's stack.
const STACK_SLOTS: usize = 1_000_000;
/// Lines of a recorded stack trace.
const BACKTRACE: usize = 10;
/// One `ArrayBuffer` may have this part of the heap.
const BUFFER_PART: u64 = 4;

/// The handlers' sources.
pub(super) struct Sources {
    /// Handler files in name order, and whether to load them.
    pub(super) scripts: Vec<(String, bool)>,
    /// All files by path.
    pub(super) files: Rc<HashMap<String, String>>,
}

/// A context with its handlers.
pub(super) struct Engine {
    sources: Sources,
    memory: Rc<Memory>,
    heap_bytes: u64,
    pub(super) host: Rc<Host>,
    live: Option<Live>,
}

/// What lives and dies with a context.
struct Live {
    // Dropped before the context that they belong to.
    handlers: Vec<Result<JsFunction, Fault>>,
    ctx: JsValue,
    bridge: Bridge,
    jobs: Rc<Jobs>,
    context: Context,
}

impl Engine {
    pub(super) fn new(sources: Sources, memory: Rc<Memory>, heap_bytes: u64) -> Self {
        Self { sources, memory, heap_bytes, host: Rc::default(), live: None }
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
            match live.load_one(name, &self.host) {
                Ok((handler, matching)) => {
                    live.handlers.push(Ok(handler));
                    reports.push(Loaded::Ready(matching));
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

    /// Calls a handler and waits until its promise, if it returns one, is settled.
    ///
    /// # Errors
    /// The handler's failure; after one of the engine's, the context is gone.
    pub(super) fn call(&mut self, script: u8, metric: JsValue) -> Result<JsValue, Fault> {
        let live = self.live.as_mut().ok_or_else(not_loaded)?;
        match live.call(script, metric, &self.host) {
            Ok(value) => Ok(value),
            Err(Failure::Script(fault)) => Err(fault),
            Err(Failure::Engine(fault)) => {
                self.drop_context();
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
        let jobs = Rc::new(Jobs::default());
        let hooks = Hooks { memory: Rc::clone(&self.memory), buffer_bytes: self.heap_bytes / BUFFER_PART };
        let mut context = Context::builder()
            .host_hooks(Rc::new(hooks))
            .job_executor(Rc::clone(&jobs))
            .module_loader(Rc::new(Loader::new(Rc::clone(&self.sources.files))))
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
        Ok(Live { handlers: Vec::new(), ctx, bridge, jobs, context })
    }
}

/// Who failed: the script (the context is well), or the engine (it is not).
enum Failure {
    Script(Fault),
    Engine(Fault),
}

impl Live {
    /// Loads one handler file: its function, and its `match` as JSON.
    fn load_one(&mut self, name: &str, host: &Rc<Host>) -> Result<(JsFunction, Option<Vec<u8>>), Fault> {
        host.begin_reading();
        self.jobs.reset();
        let context = &mut self.context;
        let loader = context.downcast_module_loader::<Loader>().ok_or_else(not_loaded)?;
        let broken = |error: &boa_engine::JsError, stack_of: &JsFunction, context: &mut Context| {
            with_syntax_place(fault::engine(error, stack_of, context), name)
        };
        let module = loader.module(name, context).map_err(|error| broken(&error, &self.bridge.stack_of, context))?;
        match evaluate(&module, context).map_err(|error| broken(&error, &self.bridge.stack_of, context))? {
            PromiseState::Fulfilled(_) => {}
            PromiseState::Rejected(reason) => {
                let thrown = fault::thrown(&reason, &self.bridge.stack_of, context);
                return Err(with_syntax_place(thrown, name));
            }
            PromiseState::Pending => return Err(fault(ParkReason::Deadline, "it does not finish loading")),
        }
        // A name that is not exported fails the entry's linking: then it is tried without.
        let mut exports = Vec::new();
        for names in ["onMetric, match", "onMetric"] {
            let entry =
                entry(name, names, context).map_err(|error| fault::engine(&error, &self.bridge.stack_of, context))?;
            if let Ok(PromiseState::Fulfilled(_)) = evaluate(&entry, context) {
                exports = host.take_exports();
                break;
            }
        }
        let handler = exports.first().and_then(JsValue::as_function);
        let handler = handler.ok_or_else(|| fault(ParkReason::Threw, "it does not export a function onMetric"))?;
        let matching = exports.get(1).cloned().unwrap_or_default();
        let mut json = Vec::new();
        let written = json_out::write(&matching, host, context, &mut json)
            .map_err(|error| fault(ParkReason::BadResult, format!("its export match: {error}")))?;
        Ok((handler, written.then_some(json)))
    }

    fn call(&mut self, script: u8, metric: JsValue, host: &Host) -> Result<JsValue, Failure> {
        let Self { handlers, ctx, bridge, jobs, context } = self;
        let handler = match handlers.get(usize::from(script)) {
            Some(Ok(handler)) => handler.clone(),
            Some(Err(broken)) => return Err(Failure::Script(broken.clone())),
            None => return Err(Failure::Script(not_loaded())),
        };
        let failed = |error: &boa_engine::JsError, context: &mut Context| {
            Failure::Engine(fault::engine(error, &bridge.stack_of, context))
        };
        let arguments = [handler.into(), metric, ctx.clone()];
        let mut value =
            bridge.call.call(&JsValue::undefined(), &arguments, context).map_err(|error| failed(&error, context))?;
        if let Some(thrown) = host.thrown.borrow_mut().take() {
            jobs.reset();
            return Err(Failure::Script(fault::thrown(&thrown, &bridge.stack_of, context)));
        }
        if !jobs.is_idle() {
            let ran = context.run_jobs();
            let ran_away = jobs.ran_away();
            jobs.reset();
            ran.map_err(|error| failed(&error, context))?;
            if ran_away {
                let message = format!("it queued more than {JOBS} promise jobs in one call");
                return Err(Failure::Engine(fault(ParkReason::Deadline, message)));
            }
        }
        if let Some(promise) =
            value.as_object().filter(is_promise).and_then(|object| JsPromise::from_object(object).ok())
        {
            value = match promise.state() {
                PromiseState::Fulfilled(value) => value,
                PromiseState::Rejected(reason) => {
                    return Err(Failure::Script(fault::thrown(&reason, &bridge.stack_of, context)));
                }
                PromiseState::Pending => {
                    let message =
                        "its promise never settles: nothing is left to settle it, or a limit ended what would have";
                    return Err(Failure::Engine(fault(ParkReason::Deadline, message)));
                }
            };
        }
        if let Some(message) = host.broken_limit.borrow_mut().take() {
            return Err(Failure::Script(fault(ParkReason::Threw, message)));
        }
        Ok(value)
    }
}

/// Loads, links and evaluates a module, as far as that goes without waiting.
fn evaluate(module: &Module, context: &mut Context) -> JsResult<PromiseState> {
    let promise = module.load_link_evaluate(context);
    context.run_jobs()?;
    Ok(promise.state())
}

fn is_promise(object: &JsObject) -> bool {
    object.is::<boa_engine::builtins::promise::Promise>()
}

fn not_loaded() -> Fault {
    fault(ParkReason::Crashed, "the handlers are not loaded")
}

/// A parser's message ends with `at line 3, col 9 in a.js`: make it a place. A fault without any place is in the handler's file.
fn with_syntax_place(mut fault: Fault, file: &str) -> Fault {
    if fault.line == 0
        && let Some((message, line, column, file)) = syntax_place(&fault.message)
    {
        fault = Fault { message: message.to_owned(), line, column, file: Some(file.to_owned()), ..fault };
    }
    fault.file.get_or_insert_with(|| file.to_owned());
    fault
}

/// Message, line, column and file.
fn syntax_place(message: &str) -> Option<(&str, u32, u32, &str)> {
    let (rest, file) = message.rsplit_once(" in ")?;
    let (rest, place) = rest.rsplit_once("at line ")?;
    let (line, column) = place.split_once(", col ")?;
    Some((rest.trim_end_matches([' ', ',']), line.parse().ok()?, column.parse().ok()?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_message_gives_its_place() {
        let message = "expected token ';', got 'foo' in expression statement at line 3, col 9 in lib/a.js";
        let place = ("expected token ';', got 'foo' in expression statement", 3, 9, "lib/a.js");
        assert_eq!(syntax_place(message), Some(place));
        assert_eq!(syntax_place("no place in a.js"), None);
    }
}
