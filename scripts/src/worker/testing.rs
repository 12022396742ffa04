//! A worker that runs a file of tests instead of readings: the file is loaded as a handler would be, and each of its tests is one call,
//! with the limits of a call but for its time, which is virtual. What a test sends goes to the node, which has other workers for the
//! handlers: a handler that costs its worker does not cost the test.

use std::{cell::Cell, io, os::unix::net::UnixStream, rc::Rc, time::Duration};

use boa_engine::{Context, JsArgs, JsNativeError, JsResult, JsString, JsValue};
use tidegate_actors::{limits, script::ParkReason};

use super::{
    engine::{Called, Engine},
    event_loop::Manner,
    fault::fault,
    host::Host,
    memory::Memory,
};
use crate::frame::{self, Fault, FromWorker, LogLine, TestFile, ToWorker};

/// A test may wait for as long as it likes, since nobody waits with it.
const WAIT: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Runs a file's tests, from the first that the node wants on, until the last or until one of them has cost the context.
///
/// # Errors
/// The socket's.
pub(super) fn run(engine: &mut Engine, memory: &Memory, socket: &UnixStream, file: &TestFile<'_>) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut tell = |message: &FromWorker| frame::send(&mut &*socket, message, &mut buffer);
    let asked = asker(socket.try_clone()?);
    engine.host.ask_node.replace(Some(Box::new(asked)));
    engine.manner = Manner { virtual_time: true, jobs: limits::SCRIPT_TEST_JOBS, asks: false, ..Manner::default() };
    engine.async_wall = WAIT;
    let clock = Cell::new(file.now);
    set_clock(&engine.host, clock.get());
    let names = engine.load_tests(file.path, file.filter);
    let count = names
        .as_ref()
        .map_or(0, |names| serde_json::from_str::<Vec<serde::de::IgnoredAny>>(names).map_or(0, |all| all.len()));
    tell(&FromWorker::Tests(names))?;
    let logs = engine.host.logs.take();
    if !logs.is_empty() {
        tell(&FromWorker::Tested(Ok(String::new()), logs))?;
    }
    for number in file.from..u32::try_from(count).unwrap_or(u32::MAX) {
        tell(&FromWorker::Testing(number))?;
        let (report, logs) = one(engine, &clock, number);
        memory.on_call(true);
        tell(&FromWorker::Tested(report, logs))?;
        if engine.is_lost(0) {
            break;
        }
    }
    tell(&FromWorker::Done { retire: true })
}

/// One test, to its report as JSON and what it printed.
fn one(engine: &mut Engine, clock: &Cell<i64>, number: u32) -> (Result<String, Fault>, Vec<LogLine>) {
    engine.host.begin_reading();
    engine.host.script.set(0);
    set_clock(&engine.host, clock.get());
    engine.host.random.set(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut called = engine.call(0, 0, JsValue::from(number));
    let report = loop {
        match called {
            Ok(Called::Done(value)) => {
                let report = value.as_string().map(|report| report.to_std_string_lossy());
                break report.ok_or_else(|| fault(ParkReason::Crashed, "the test came to no end"));
            }
            Ok(Called::Waits(id, _)) => called = engine.go_on(0, id),
            Err(fault) => break Err(fault),
        }
    };
    clock.set(clock.get().max(engine.host.now.get()));
    engine.end_call(0);
    (report, engine.host.logs.take())
}

fn set_clock(host: &Host, now: i64) {
    host.received.set(now);
    host.now.set(now);
}

/// What sends a question to the node and waits for its answer.
fn asker(mut socket: UnixStream) -> impl FnMut(String) -> io::Result<String> {
    let (mut body, mut buffer) = (Vec::new(), Vec::new());
    move |question| {
        frame::send(&mut socket, &FromWorker::TestAsks(question), &mut buffer)?;
        if !frame::receive(&mut socket, &mut body)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match frame::decode(&body)? {
            ToWorker::TestAnswer(answer) => Ok(answer.to_owned()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no answer")),
        }
    }
}

/// The native behind `device.send`: a question as JSON → the answer as JSON.
pub(super) fn ask(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let question = args.get_or_undefined(0).as_string().map(|text| text.to_std_string_lossy()).unwrap_or_default();
    let host: Rc<Host> = Host::of(context);
    let answer = host.ask_node.borrow_mut().as_mut().map(|ask| ask(question));
    match answer {
        Some(Ok(answer)) => Ok(JsString::from(answer.as_str()).into()),
        Some(Err(error)) => {
            Err(JsNativeError::error().with_message(format!("the node does not answer: {error}")).into())
        }
        None => Err(JsNativeError::error().with_message("there are tests in `tidegate script test` only").into()),
    }
}
