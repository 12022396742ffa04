//! The natives of the event loop, as `loop.js` finds them.

use boa_engine::{
    Context, JsArgs, JsNativeError, JsResult, JsString, JsValue,
    job::{GenericJob, Job},
    native_function::NativeFunctionPointer,
    object::builtins::JsArray,
};
use tidegate_actors::limits;

use super::{super::host::Host, EventLoop, Task, asks};

/// By the names that `loop.js` has for them.
pub(in super::super) const NATIVES: [(&str, NativeFunctionPointer); 14] = [
    ("tick", tick),
    ("microtask", microtask),
    ("start", start),
    ("immediate", immediate),
    ("clear", clear),
    ("hold", hold),
    ("call", call),
    ("elapsed", elapsed),
    ("origin", origin),
    ("listen", listen),
    ("ask", asks::ask),
    ("forget", asks::forget),
    ("post", asks::post),
    ("number", asks::number),
];

/// A text of the host as a value.
pub(super) fn text(text: &str) -> JsValue {
    JsString::from(text).into()
}

/// Callback, `this`, array of arguments → a task.
fn task(args: &[JsValue], at: usize, context: &mut Context) -> JsResult<Task> {
    let callback = args.get_or_undefined(at).as_function().ok_or_else(not_callable)?;
    let values = args.get_or_undefined(at + 2).as_object().map(JsArray::from_object).transpose()?;
    let mut given = Vec::new();
    if let Some(values) = values {
        for index in 0..values.length(context)? {
            given.push(values.at(i64::try_from(index).unwrap_or(i64::MAX), context)?);
        }
    }
    Ok(Task { callback, this: args.get_or_undefined(at + 1).clone(), args: given })
}

fn not_callable() -> JsNativeError {
    JsNativeError::typ().with_message("the callback is not a function")
}

fn number(args: &[JsValue], at: usize) -> u32 {
    let number = args.get_or_undefined(at).as_number().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    {
        number as u32
    }
}

/// `process.nextTick`.
fn tick(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let events = EventLoop::of(context);
    let task = task(args, 0, context)?;
    events.touched.set(true);
    let full = events.ticks.borrow().len() >= limits::SCRIPT_JOBS;
    if full {
        return Err(refuse(context, format!("more than {} jobs wait (limit script_jobs)", limits::SCRIPT_JOBS)));
    }
    events.ticks.borrow_mut().push_back((events.current.get(), task));
    Ok(JsValue::undefined())
}

/// `queueMicrotask`.
fn microtask(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let events = EventLoop::of(context);
    let task = task(args, 0, context)?;
    let call = events.current.get();
    let run = move |context: &mut Context| {
        let events = EventLoop::of(context);
        if events.enter(call) {
            events.run(&task, context)?;
        }
        Ok(JsValue::undefined())
    };
    let job = GenericJob::new(run, context.realm().clone());
    events.touched.set(true);
    events.microtasks.borrow_mut().push_back(Job::GenericJob(job));
    Ok(JsValue::undefined())
}

/// Id (0: a new one), milliseconds, does it repeat, does it hold, callback, `this`, arguments → the id.
fn start(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let events = EventLoop::of(context);
    let task = task(args, 4, context)?;
    room(&events, context)?;
    let own = &mut *events.own.borrow_mut();
    events.touched.set(true);
    let id = match number(args, 0) {
        0 => own.timers.name(),
        id => id,
    };
    let (repeats, holds) = (args.get_or_undefined(2).to_boolean(), args.get_or_undefined(3).to_boolean());
    own.timers.start(id, number(args, 1).into(), repeats, holds, task);
    Ok(id.into())
}

/// Callback, `this`, arguments → the id.
fn immediate(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let events = EventLoop::of(context);
    let task = task(args, 0, context)?;
    room(&events, context)?;
    let own = &mut *events.own.borrow_mut();
    events.touched.set(true);
    let id = own.timers.name();
    own.timers.immediate(id, task);
    Ok(id.into())
}

#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn clear(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    EventLoop::of(context).own.borrow_mut().timers.clear(number(args, 0));
    Ok(JsValue::undefined())
}

#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn hold(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let holds = args.get_or_undefined(1).to_boolean();
    EventLoop::of(context).own.borrow_mut().timers.set_holds(number(args, 0), holds);
    Ok(JsValue::undefined())
}

/// The call under way, which a timer belongs to: not to be shown to a script, since it differs from run to run.
#[expect(clippy::unnecessary_wraps, clippy::cast_precision_loss, reason = "the engine's signature; far below 2^53")]
fn call(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    Ok(JsValue::new(EventLoop::of(context).current.get() as f64))
}

/// Milliseconds since the call began, by its own clock.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn elapsed(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let host = Host::of(context);
    Ok(JsValue::new(host.now.get().saturating_sub(host.received.get())))
}

/// When the call began, by its own clock.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn origin(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    Ok(JsValue::new(Host::of(context).received.get()))
}

/// Takes the function that emits an event of `process`.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn listen(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    EventLoop::of(context).emit.replace(args.get_or_undefined(0).as_function());
    Ok(JsValue::undefined())
}

/// Is there room for one more timer in the call?
fn room(events: &EventLoop, context: &mut Context) -> JsResult<()> {
    if events.own.borrow().timers.len() < limits::SCRIPT_TIMERS {
        return Ok(());
    }
    let most = limits::SCRIPT_TIMERS;
    Err(refuse(context, format!("more than {most} timers wait in one call (limit script_timers)")))
}

/// A limit was met: the call fails, whatever the script makes of the exception.
fn refuse(context: &mut Context, message: String) -> boa_engine::JsError {
    *Host::of(context).broken_limit.borrow_mut() = Some(message.clone());
    JsNativeError::range().with_message(message).into()
}
