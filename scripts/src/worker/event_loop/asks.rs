//! The slow work that a call waits for, in the call's own time.
//!
//! Pure work (hashes, compression) takes a millisecond of it, and the call's clock stands until it is there: so what the call sees
//! is the same each time, however long it took. Other work takes as long as it took, and timers that are due before come before it.

use boa_engine::{
    Context, JsArgs, JsNativeError, JsResult, JsValue,
    object::builtins::{JsArray, JsFunction},
};
use serde_json::{Value, json};
use tidegate_actors::limits;

use super::{
    super::{globals::bytes, host::Host},
    EventLoop, Task,
    natives::text,
};
use crate::{
    frame::{Answer, Ask},
    operation::Operation,
};

/// The number of a piece of slow work. Never used twice in a process.
pub(in super::super) type AskId = u64;

/// What one call waits for, in the order in which it asked.
#[derive(Default)]
pub(super) struct Asks(Vec<Asked>);

struct Asked {
    id: AskId,
    operation: Operation,
    callback: JsFunction,
    answer: Option<Given>,
}

/// An answer that its call has not taken in.
pub(super) struct Given {
    failed: bool,
    about: String,
    bytes: Vec<u8>,
}

impl From<&Answer<'_>> for Given {
    fn from(answer: &Answer<'_>) -> Self {
        Self { failed: answer.failed, about: answer.about.to_owned(), bytes: answer.bytes.to_owned() }
    }
}

/// How a call's slow work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// There is none.
    Nothing,
    /// Pure work is under way: the clock stands.
    Pure,
    /// All of the pure work that was under way is done.
    PureDone,
    /// Other work is done.
    Done,
    /// Other work is under way.
    Out(Operation),
}

impl Asks {
    pub(super) fn stand(&self) -> Stand {
        let is_done = |asked: &&Asked| asked.answer.is_some();
        let pure = || self.0.iter().filter(|asked| asked.operation.is_pure());
        if pure().any(|asked| asked.answer.is_none()) {
            Stand::Pure
        } else if pure().next().is_some() {
            Stand::PureDone
        } else if self.0.iter().any(|asked| is_done(&asked)) {
            Stand::Done
        } else {
            self.0.first().map_or(Stand::Nothing, |asked| Stand::Out(asked.operation))
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn add(&mut self, id: AskId, operation: Operation, callback: JsFunction) {
        self.0.push(Asked { id, operation, callback, answer: None });
    }

    pub(super) fn answer(&mut self, id: AskId, given: Given) {
        let Some(at) = self.0.iter().position(|asked| asked.id == id) else { return };
        let Asked { operation, callback, .. } = self.0.remove(at);
        let parts = if operation == Operation::Task { given.parts() } else { vec![given] };
        let part = |given| Asked { id, operation, callback: callback.clone(), answer: Some(given) };
        let parts: Vec<_> = parts.into_iter().map(part).collect();
        self.0.splice(at..at, parts);
    }

    fn forget(&mut self, id: AskId) {
        self.0.retain(|asked| asked.id != id);
    }

    /// All that is under way, or done and not taken in.
    pub(super) fn ids(&self) -> impl Iterator<Item = AskId> {
        self.0.iter().map(|asked| asked.id)
    }

    /// The next answer that is there: of pure work first.
    pub(super) fn next(&mut self) -> Option<(JsFunction, Given)> {
        let done = |asked: &Asked| asked.answer.is_some();
        let at = self.0.iter().position(|asked| asked.operation.is_pure() && done(asked));
        let at = at.or_else(|| self.0.iter().position(done))?;
        let Asked { callback, answer, .. } = self.0.remove(at);
        answer.map(|answer| (callback, answer))
    }
}

impl Given {
    /// What came of a task, piece by piece: each message is a callback of its own, and so is its end.
    fn parts(self) -> Vec<Self> {
        if self.failed {
            let end =
                Self { failed: false, about: json!({ "kind": "exit", "code": 1 }).to_string(), bytes: Vec::new() };
            return vec![self, end];
        }
        let mut rest = self.bytes.as_slice();
        let part = |about: &Value| {
            let size = about["bytes"].as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
            let (bytes, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
            rest = after;
            Self { failed: false, about: about.to_string(), bytes: bytes.to_owned() }
        };
        serde_json::from_str::<Vec<Value>>(&self.about).unwrap_or_default().iter().map(part).collect()
    }

    /// The callback with what it is called with: did it fail, JSON, bytes.
    pub(super) fn task(self, callback: JsFunction, context: &mut Context) -> Task {
        let Self { failed, about, bytes } = self;
        let args = match bytes::array(&bytes, context) {
            Ok(array) => vec![failed.into(), text(&about), array],
            Err(_) => {
                let about = r#"{"code":"ERR_BUFFER_TOO_LARGE","message":"the answer does not fit into a buffer"}"#;
                vec![true.into(), text(about), JsValue::undefined()]
            }
        };
        Task { callback, this: JsValue::undefined(), args }
    }
}

/// Operation, JSON, array of `Uint8Array`s, callback → a number; a text: why it is not done.
pub(super) fn ask(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (events, host) = (EventLoop::of(context), Host::of(context));
    let word = |at: usize| args.get_or_undefined(at).as_string().map(|text| text.to_std_string_lossy());
    let operation = word(0).and_then(|name| Operation::named(&name));
    let operation = operation.ok_or_else(|| JsNativeError::typ().with_message("there is no such operation"))?;
    let callback = args.get_or_undefined(3).as_function();
    let callback = callback.ok_or_else(|| JsNativeError::typ().with_message("the callback is not a function"))?;
    if !host.may_ask.get() {
        let why = if host.task.borrow().is_some() {
            "a task asks for no slow work: it is one itself"
        } else {
            "slow work is for a reading's handler: what a file does while it loads, in initialize or in dispose must be the same in every worker"
        };
        return Ok(text(why));
    }
    if events.own.borrow().asks.len() >= limits::SCRIPT_CALL_JOBS {
        let most = limits::SCRIPT_CALL_JOBS;
        return Ok(text(&format!("{most} pieces of slow work of this call are under way (limit script_call_jobs)")));
    }
    if host.open_asks.borrow().len() >= limits::SCRIPT_WORKER_JOBS {
        let most = limits::SCRIPT_WORKER_JOBS;
        return Ok(text(&format!("{most} pieces of slow work of one worker are under way (limit script_worker_jobs)")));
    }
    let mut parts = Vec::new();
    if let Some(list) = args.get_or_undefined(2).as_object() {
        let list = JsArray::from_object(list)?;
        for at in 0..list.length(context)? {
            let part = list.at(i64::try_from(at).unwrap_or(i64::MAX), context)?;
            parts.push(bytes::of(&part, context)?);
        }
    }
    let arguments = word(1).unwrap_or_default();
    let size = arguments.len() + parts.iter().map(Vec::len).sum::<usize>();
    if let Some(why) = too_large(size) {
        return Ok(why);
    }
    let id = host.next_ask();
    events.touched.set(true);
    events.own.borrow_mut().asks.add(id, operation, callback);
    let (run, script) = (host.run.get(), events.script);
    host.open_asks.borrow_mut().insert(id, (events.script, events.current.get()));
    host.asks.borrow_mut().push(Ask { id, run, script, operation, arguments, bytes: parts });
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    Ok(JsValue::new(id as f64))
}

/// A number: nobody waits for it any more.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
pub(super) fn forget(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (events, host) = (EventLoop::of(context), Host::of(context));
    let id = id_of(args);
    // Of its own call only.
    events.own.borrow_mut().asks.forget(id);
    if host.open_asks.borrow().get(&id) == Some(&(events.script, events.current.get())) {
        host.forget_ask(id);
    }
    Ok(JsValue::undefined())
}

/// A number, `Uint8Array` → true: it goes along with what was asked for; false: that has been sent; a text: why not.
pub(super) fn post(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (part, host) = (bytes::of(args.get_or_undefined(1), context)?, Host::of(context));
    let id = id_of(args);
    let mut asks = host.asks.borrow_mut();
    let Some(ask) = asks.iter_mut().find(|ask| ask.id == id) else { return Ok(false.into()) };
    let size = ask.arguments.len() + ask.bytes.iter().map(Vec::len).sum::<usize>() + part.len();
    if let Some(why) = too_large(size) {
        return Ok(why);
    }
    ask.bytes.push(part);
    Ok(true.into())
}

/// A number for a task of the call under way: the same each time that the call is made.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
pub(super) fn number(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let events = EventLoop::of(context);
    events.touched.set(true);
    let own = &mut *events.own.borrow_mut();
    own.tasks += 1;
    Ok(own.tasks.into())
}

fn id_of(args: &[JsValue]) -> AskId {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was given out above")]
    let id = args.get_or_undefined(0).as_number().unwrap_or(0.0) as AskId;
    id
}

fn too_large(size: usize) -> Option<JsValue> {
    let most = limits::SCRIPT_JOB_BYTES;
    let message = || format!("{size} bytes for one piece of slow work: {most} at most (limit script_job_bytes)");
    (size > most).then(|| text(&message()))
}
