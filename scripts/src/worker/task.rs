//! A worker that runs a task instead of readings: one file, once, in a context of its own with time that does not wait, until nothing
//! of it is left. What it says is kept until then. The node kills it when its time is over: in here only the engine's own limits hold,
//! but for that of a loop's rounds, since work that takes long is what a task is for.

use std::{
    io,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
};

use boa_engine::{
    Context, JsArgs, JsNativeError, JsResult, JsString, JsValue, native_function::NativeFunctionPointer,
    object::builtins::JsArray,
};
use tidegate_actors::limits;

use super::{
    engine::Engine,
    event_loop::Manner,
    globals::{bytes, cloned::pack_error},
    host::Host,
};
use crate::{
    frame::{self, FromWorker, TaskFile, TaskReport, TaskSaid},
    modules::place_of_file,
};

/// What a task is given, and what it has said so far.
pub(super) struct TaskSide {
    thread: u32,
    /// `workerData`, then the messages to it.
    values: Vec<Vec<u8>>,
    said: Vec<TaskSaid>,
    /// Bytes of what it has said.
    bytes: usize,
    socket: UnixStream,
}

/// Natives that every context has, and behind them those of a task.
const OF_CALLS: [(&str, NativeFunctionPointer); 1] = [("locate", locate)];
const OF_TASKS: [(&str, NativeFunctionPointer); 4] =
    [("locate", locate), ("task", given), ("say", say), ("leave", leave)];

/// What `tasks.js` and `loop.js` find in this context.
pub(super) fn natives(context: &Context) -> &'static [(&'static str, NativeFunctionPointer)] {
    if Host::of(context).task.borrow().is_some() { &OF_TASKS } else { &OF_CALLS }
}

/// Runs a task to its end.
///
/// # Errors
/// The socket's.
pub(super) fn run(engine: &mut Engine, socket: &UnixStream, file: &TaskFile<'_>) -> io::Result<()> {
    engine.manner = Manner { virtual_time: true, jobs: limits::SCRIPT_TASK_JOBS, loops: u64::MAX, asks: false };
    let host = std::rc::Rc::clone(&engine.host);
    host.received.set(file.now);
    host.now.set(file.now);
    host.random.set(file.seed);
    host.task.replace(Some(TaskSide {
        thread: file.thread,
        values: file.values.iter().map(|value| (*value).to_owned()).collect(),
        said: Vec::new(),
        bytes: 0,
        socket: socket.try_clone()?,
    }));
    let ended = catch_unwind(AssertUnwindSafe(|| engine.run_task(file.path))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        // Dropping what a panic left half done could panic again: this process ends soon anyway.
        std::mem::forget(panic);
        Err((pack_error(&format!("the engine panicked: {text}"), "ERR_TIDEGATE_BROKEN", ""), true))
    });
    report(&host, ended)
}

/// Tells the node how it ended.
fn report(host: &Host, ended: Result<i32, (Vec<u8>, bool)>) -> io::Result<()> {
    note_lines(host);
    let Some(side) = host.task.take() else { return Ok(()) };
    let (code, error) = match ended {
        Ok(code) => (code, None),
        Err(error) => (1, Some(error)),
    };
    let report = TaskReport { said: side.said, error, code };
    frame::send(&mut &side.socket, &FromWorker::Tasked(report), &mut Vec::new())
}

/// Puts the lines of the log behind what was said before them.
fn note_lines(host: &Host) {
    let lines = host.logs.take();
    if let Some(side) = &mut *host.task.borrow_mut() {
        side.said.extend(lines.into_iter().map(|line| TaskSaid::Line(line.level, line.text)));
    }
}

/// Path, path of the file that asks → where a task's file is: beside the one that asks, or below the handlers' directory.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn locate(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let text = |at: usize| args.get_or_undefined(at).as_string().map(|text| text.to_std_string_lossy());
    let (path, from) = (text(0).unwrap_or_default(), text(1).unwrap_or_default());
    let is_file = |path: &str| super::modules::has_file(path, context);
    let beside = place_of_file(&path, &from);
    let found = beside.clone().filter(|path| is_file(path));
    let found = found.or_else(|| place_of_file(&path, "").filter(|path| is_file(path)));
    // One that is not there is looked for by the task, which tells of it.
    let found = found.or(beside).unwrap_or(path);
    Ok(JsString::from(found.as_str()).into())
}

/// Its number, its data and the messages to it.
fn given(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let host = Host::of(context);
    let (thread, values) = match &mut *host.task.borrow_mut() {
        Some(side) => (side.thread, std::mem::take(&mut side.values)),
        None => return Ok(JsValue::undefined()),
    };
    let mut all = vec![thread.into()];
    for value in values {
        all.push(bytes::array(&value, context)?);
    }
    Ok(JsArray::from_iter(all, context).into())
}

/// A message to its call; a text: why not.
fn say(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (message, host) = (bytes::of(args.get_or_undefined(0), context)?, Host::of(context));
    note_lines(&host);
    if let Some(side) = &mut *host.task.borrow_mut() {
        let most = limits::SCRIPT_JOB_BYTES;
        side.bytes += message.len() + size_of::<TaskSaid>();
        if side.bytes > most {
            let why = format!("the messages of a task have more than {most} bytes (limit script_job_bytes)");
            return Ok(JsString::from(why.as_str()).into());
        }
        side.said.push(TaskSaid::Message(message));
    }
    Ok(JsValue::undefined())
}

/// `process.exit`: nothing of it runs any more.
fn leave(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let code = args.get_or_undefined(0).as_number().unwrap_or(0.0) as i32;
    match report(&Host::of(context), Ok(code)) {
        Ok(()) => std::process::exit(0),
        Err(error) => Err(JsNativeError::error().with_message(format!("the node does not hear: {error}")).into()),
    }
}
