//! A console: JavaScript for a person at a prompt. One Boa context, in the process of who types; no node runs it.
//!
//! `source` makes an input evaluable, `jobs` is what waits, `inspect.js` is how values look. What an input can reach beyond the
//! language is a prelude's and its host's ([`ConsoleHost`]): the prelude asks for operations by name, the host answers them in JSON.
//!
//! An input is run a slice at a time, so that an interrupt ends it between two; what hangs inside of the engine (a hopeless
//! regular expression) can be ended only with the process. It needs a large stack: run it on a thread with [`STACK_BYTES`].

mod jobs;
mod source;

use std::{
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use boa_engine::{
    Context, JsArgs, JsError, JsNativeError, JsResult, JsString, JsValue, NativeFunction, Script, Source,
    builtins::promise::PromiseState,
    context::HostHooks,
    error::{EngineError, RuntimeLimitError},
    js_string,
    object::{
        ObjectInitializer,
        builtins::{JsArray, JsFunction, JsPromise},
    },
    vm::RuntimeLimits,
};

use self::{
    jobs::{Jobs, OPERATIONS},
    source::{NAME, PLACES, Refused},
};
use crate::worker::json_in::{self, Keys};

/// The stack that a console's thread needs, in bytes: the parser recurses. Only what is used is resident.
pub const STACK_BYTES: usize = 256 * 1024 * 1024;
/// Times that one loop may go round where it cannot be interrupted: some seconds.
const LOOP_ITERATIONS: u64 = 100_000_000;
/// Calls within calls.
const RECURSION: usize = 2_048;
/// Slots of the engine's stack.
const STACK_SLOTS: usize = 1_000_000;
/// Lines of a recorded stack trace.
const BACKTRACE: usize = 20;
/// Largest `ArrayBuffer`, in bytes.
const BUFFER_BYTES: u64 = 256 * 1024 * 1024;
/// Engine steps between two looks for an interrupt.
const SLICE: u32 = 20_000;
/// Longest pause.
const PAUSE: Duration = Duration::from_secs(24 * 3_600);
/// The global function that makes globals of an input's declarations.
const DEFINE: &str = "__define__";

/// What a console's inputs can reach.
pub trait ConsoleHost {
    /// Begins an operation. Its answer comes out of [`ConsoleHost::wait`] under this number.
    ///
    /// # Errors
    /// Why it cannot begin, in words for who typed.
    fn begin(&mut self, number: u64, operation: &str, argument: &serde_json::Value) -> Result<(), String>;
    /// Waits for an answer, an interrupt, or the time.
    fn wait(&mut self, until: Option<Instant>) -> Waited;
    /// Has the person asked to end the input under way?
    fn is_interrupted(&self) -> bool;
    /// The input is over: no answer to its operations is wanted any more.
    fn forget(&mut self);
    /// Shows a text.
    fn print(&mut self, text: &str, is_error: bool);
}

/// What a console waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// An operation's answer, as JSON: what its promise is fulfilled with.
    Answer(u64, String),
    /// The time has come.
    Time,
    /// The person does not want to wait.
    Interrupted,
}

/// What came of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluated {
    /// It goes on: there should be more lines.
    Incomplete,
    /// Its value, if it ends in an expression.
    Value(Option<String>),
    /// What went wrong, and where.
    Failed(String),
    /// It was ended.
    Interrupted,
}

/// A console.
pub struct Console {
    jobs: Rc<Jobs>,
    inputs: u32,
    helpers: Helpers,
    // Last: the functions above are of this context.
    context: Context,
}

/// The functions of `inspect.js`.
struct Helpers {
    inspect: JsFunction,
    failed: JsFunction,
    keep: JsFunction,
    members: JsFunction,
}

struct Hooks;

impl HostHooks for Hooks {
    fn max_buffer_size(&self, _: &mut Context) -> u64 {
        BUFFER_BYTES
    }
}

impl Console {
    /// A console with the globals that `prelude` makes: a script whose value is a function. That is called with
    /// `{ ask(operation, argument), sleep(ms), print(text, isError), inspect(value) }`.
    ///
    /// # Errors
    /// The engine or the prelude fails, in words.
    pub fn new(host: Box<dyn ConsoleHost>, prelude: &str, colors: bool) -> Result<Self, String> {
        Self::build(host, prelude, colors).map_err(|error| format!("the console does not start: {error}"))
    }

    fn build(host: Box<dyn ConsoleHost>, prelude: &str, colors: bool) -> JsResult<Self> {
        let jobs = Rc::new(Jobs::new(host));
        let mut context = Context::builder().host_hooks(Rc::new(Hooks)).job_executor(Rc::clone(&jobs)).build()?;
        let mut limits = RuntimeLimits::default();
        limits.set_loop_iteration_limit(LOOP_ITERATIONS);
        limits.set_recursion_limit(RECURSION);
        limits.set_stack_size_limit(STACK_SLOTS);
        limits.set_backtrace_limit(BACKTRACE);
        context.set_runtime_limits(limits);

        let make = context.eval(Source::from_bytes(include_str!("inspect.js")))?;
        let typed = function(NativeFunction::from_fn_ptr(typed), &context);
        let settings = [typed, colors.into(), JsString::from(DEFINE).into()];
        let helpers = callable(&make)?.call(&JsValue::undefined(), &settings, &mut context)?;
        let helpers =
            helpers.as_object().ok_or_else(|| JsNativeError::typ().with_message("inspect.js gives no object"))?;
        let mut get = |name: &str| callable(&helpers.get(JsString::from(name), &mut context)?);
        let (inspect, failed, keep, members) = (get("inspect")?, get("failed")?, get("keep")?, get("members")?);

        let mut natives = ObjectInitializer::new(&mut context);
        natives.function(NativeFunction::from_fn_ptr(ask), js_string!("ask"), 2);
        natives.function(NativeFunction::from_fn_ptr(sleep), js_string!("sleep"), 1);
        natives.function(NativeFunction::from_fn_ptr(print), js_string!("print"), 2);
        let natives = natives.build();
        natives.set(js_string!("inspect"), inspect.clone(), true, &mut context)?;
        let make = context.eval(Source::from_bytes(prelude))?;
        callable(&make)?.call(&JsValue::undefined(), &[natives.into()], &mut context)?;
        let helpers = Helpers { inspect, failed, keep, members };
        Ok(Self { jobs, inputs: 0, helpers, context })
    }

    /// Is this a whole input, if perhaps a wrong one?
    #[must_use]
    pub fn is_complete(typed: &str) -> bool {
        !matches!(source::prepare(typed, DEFINE), Err(Refused::Incomplete))
    }

    /// Evaluates an input, and waits for what comes of it.
    pub fn evaluate(&mut self, typed: &str) -> Evaluated {
        let prepared = match source::prepare(typed, DEFINE) {
            Ok(prepared) => prepared,
            Err(Refused::Incomplete) => return Evaluated::Incomplete,
            Err(Refused::Wrong { message, line, column }) => {
                self.inputs += 1;
                return Evaluated::Failed(syntax_error(typed, self.inputs, &message, line, column));
            }
        };
        self.inputs += 1;
        {
            let places = &mut *self.jobs.places.borrow_mut();
            places.insert(self.inputs, prepared.places);
            if let Some(old) = self.inputs.checked_sub(u32::try_from(PLACES).unwrap_or(u32::MAX)) {
                places.remove(&old);
            }
        }
        let ran = self.run(&prepared.text);
        self.jobs.forget();
        self.jobs.host.borrow_mut().forget();
        match ran {
            Ok(Settled::Fulfilled(value)) if prepared.has_value => {
                let value = self.helpers.keep.call(&JsValue::undefined(), &[value], &mut self.context);
                match value
                    .and_then(|value| self.helpers.inspect.call(&JsValue::undefined(), &[value], &mut self.context))
                {
                    Ok(text) => Evaluated::Value(Some(words(&text))),
                    Err(error) => Evaluated::Failed(format!("the value cannot be shown: {}", of_engine(&error))),
                }
            }
            Ok(Settled::Fulfilled(_)) => Evaluated::Value(None),
            Ok(Settled::Rejected(reason)) => {
                let shown = self.helpers.failed.call(&JsValue::undefined(), &[reason], &mut self.context);
                Evaluated::Failed(shown.map_or_else(|error| of_engine(&error), |text| words(&text)))
            }
            Ok(Settled::Never) => Evaluated::Failed(
                "Uncaught: this waits for a promise that nothing will settle: no request and no sleep() is under way"
                    .to_owned(),
            ),
            Ok(Settled::Interrupted) => Evaluated::Interrupted,
            Err(error) => Evaluated::Failed(format!("Uncaught {}", of_engine(&error))),
        }
    }

    /// The names that a global, or what a path of names leads to from one, has. Getters are not called.
    pub fn members(&mut self, path: &[&str]) -> Vec<String> {
        let path = JsArray::from_iter(path.iter().map(|name| JsString::from(*name).into()), &mut self.context);
        let names = self.helpers.members.call(&JsValue::undefined(), &[path.into()], &mut self.context);
        let names = names.ok().and_then(|names| names.as_string()).map(|names| names.to_std_string_lossy());
        names.unwrap_or_default().split('\n').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn run(&mut self, text: &str) -> JsResult<Settled> {
        let name = format!("{NAME}{}", self.inputs);
        let script = Script::parse(Source::from_bytes(text).with_path(name.as_ref()), None, &mut self.context)?;
        let value = {
            let mut running = pin!(script.evaluate_async_with_budget(&mut self.context, SLICE));
            let mut task = std::task::Context::from_waker(Waker::noop());
            loop {
                if let Poll::Ready(value) = running.as_mut().poll(&mut task) {
                    break value?;
                }
                if self.jobs.host.borrow().is_interrupted() {
                    return Ok(Settled::Interrupted);
                }
            }
        };
        let promise = value.as_object().ok_or_else(|| JsNativeError::typ().with_message("an input gives a promise"))?;
        let promise = JsPromise::from_object(promise)?;
        loop {
            while self.jobs.run_one(&mut self.context)? {
                if self.jobs.host.borrow().is_interrupted() {
                    return Ok(Settled::Interrupted);
                }
            }
            match promise.state() {
                PromiseState::Fulfilled(value) => return Ok(Settled::Fulfilled(value)),
                PromiseState::Rejected(reason) => return Ok(Settled::Rejected(reason)),
                PromiseState::Pending => {}
            }
            if self.jobs.under_way() == 0 {
                return Ok(Settled::Never);
            }
            let waited = self.jobs.host.borrow_mut().wait(self.jobs.next_pause());
            match waited {
                Waited::Interrupted => return Ok(Settled::Interrupted),
                Waited::Time => {}
                Waited::Answer(number, json) => {
                    if let Some(settle) = self.jobs.answered(number) {
                        let value = json_in::parse(json.as_bytes(), &mut Keys::default(), &mut self.context);
                        let value = value.map_err(|error| JsNativeError::syntax().with_message(error.to_string()))?;
                        Jobs::settle(&settle, value, &mut self.context)?;
                    }
                }
            }
            while let Some(settle) = self.jobs.over(Instant::now()) {
                Jobs::settle(&settle, JsValue::undefined(), &mut self.context)?;
            }
        }
    }
}

enum Settled {
    Fulfilled(JsValue),
    Rejected(JsValue),
    Never,
    Interrupted,
}

/// `ask(operation, argument)` → a promise of the host's answer.
fn ask(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let jobs = room(context)?;
    let operation = args.get_or_undefined(0).to_string(context)?.to_std_string_lossy();
    let argument = args.get_or_undefined(1).to_json(context)?.unwrap_or(serde_json::Value::Null);
    let number = jobs.number();
    let begun = jobs.host.borrow_mut().begin(number, &operation, &argument);
    begun.map_err(|words| JsNativeError::error().with_message(words))?;
    let (promise, settle) = JsPromise::new_pending(context);
    jobs.add_operation(number, settle);
    Ok(promise.into())
}

/// `sleep(ms)` → a promise.
fn sleep(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let jobs = room(context)?;
    let ms = args.get_or_undefined(0).to_number(context)?;
    let pause = Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default().min(PAUSE);
    let (promise, settle) = JsPromise::new_pending(context);
    jobs.add_pause(Instant::now() + pause, settle);
    Ok(promise.into())
}

fn room(context: &Context) -> JsResult<Rc<Jobs>> {
    let jobs = Jobs::of(context);
    if jobs.under_way() >= OPERATIONS {
        let message =
            format!("{OPERATIONS} requests are under way (limit console_operations): await some of them first");
        return Err(JsNativeError::range().with_message(message).into());
    }
    Ok(jobs)
}

/// `print(text, isError)`.
fn print(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let text = args.get_or_undefined(0).to_string(context)?.to_std_string_lossy();
    Jobs::of(context).host.borrow_mut().print(&text, args.get_or_undefined(1).to_boolean());
    Ok(JsValue::undefined())
}

/// `typed(input, line, column)` → `:line:column` as typed; null: nobody typed that.
fn typed(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let mut number = |at: usize| args.get_or_undefined(at).to_u32(context);
    let (input, line, column) = (number(0)?, number(1)?, number(2)?);
    let places = Jobs::of(context).places.borrow().get(&input).copied();
    let place = match places.map_or(Some((line, None)), |places| places.typed(line, column)) {
        None => return Ok(JsValue::null()),
        Some((line, Some(column))) => format!(":{line}:{column}"),
        Some((line, None)) => format!(":{line}"),
    };
    Ok(JsString::from(place).into())
}

/// An error of the engine itself, which no script sees.
fn of_engine(error: &JsError) -> String {
    match error.as_engine() {
        Some(EngineError::RuntimeLimit(RuntimeLimitError::LoopIteration)) => {
            format!("RangeError: a loop went round more than {LOOP_ITERATIONS} times")
        }
        Some(EngineError::RuntimeLimit(RuntimeLimitError::Recursion)) => {
            format!("RangeError: more than {RECURSION} calls within calls")
        }
        Some(other) => other.to_string(),
        None => error.as_native().map_or_else(|| "an error that cannot be shown".to_owned(), ToString::to_string),
    }
}

/// A syntax error as Node.js shows it: the line, the place, the words.
fn syntax_error(typed: &str, input: u32, message: &str, line: u32, column: u32) -> String {
    let text =
        usize::try_from(line).ok().and_then(|line| typed.lines().nth(line.saturating_sub(1))).unwrap_or_default();
    let text: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let caret = " ".repeat(usize::try_from(column.saturating_sub(1)).unwrap_or(0).min(text.chars().count()));
    format!("{NAME}{input}:{line}:{column}\n{text}\n{caret}^\nUncaught SyntaxError: {message}")
}

fn words(text: &JsValue) -> String {
    text.as_string().map(|text| text.to_std_string_lossy()).unwrap_or_default()
}

fn function(native: NativeFunction, context: &Context) -> JsValue {
    native.to_js_function(context.realm()).into()
}

fn callable(value: &JsValue) -> JsResult<JsFunction> {
    let function = value.as_object().and_then(JsFunction::from_object);
    function.ok_or_else(|| JsNativeError::typ().with_message("not a function").into())
}

#[cfg(test)]
mod tests;
