//! What goes over the socket between the node and a worker process: length-prefixed frames of bincode, with a limit on both.
//!
//! The node asks ([`ToWorker`], borrowed on the worker's side), the worker answers ([`FromWorker`]). A run's answers come in the order
//! of its calls and name the run: those of other runs may come between them, since a run that waits lets others pass. For slow work
//! it is the worker that asks ([`FromWorker::Ask`]), and the node that answers ([`ToWorker::Answer`]), whenever it is done.

use std::io::{self, Read, Write};

use bincode::{BorrowDecode, Decode, Encode, config};

use crate::operation::Operation;

/// Longest frame, in bytes: what a decoder may allocate. One reading with the largest state of every script fits.
const FRAME_BYTES: usize = 80 * 1024 * 1024;
/// A frame's length: four bytes, little-endian.
const HEADER_BYTES: usize = 4;

fn codec() -> impl config::Config {
    config::standard().with_limit::<FRAME_BYTES>()
}

/// From the node to a worker.
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) enum ToWorker<'a> {
    /// The first frame, once.
    Start(Start<'a>),
    /// Readings to work on.
    Batch(Batch<'a>),
    /// The worker is not needed any more: it tells its scripts, and ends.
    Stop,
    /// What came of a piece of slow work.
    Answer(Answer<'a>),
    /// A file of tests to run, in place of readings.
    Test(TestFile<'a>),
    /// The answer to [`FromWorker::TestAsks`], as JSON.
    TestAnswer(&'a str),
    /// A task to run, in place of readings.
    Task(TaskFile<'a>),
}

/// What came of a [`FromWorker::Ask`].
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) struct Answer<'a> {
    pub(crate) id: u64,
    /// It failed: `about` has a message and a code.
    pub(crate) failed: bool,
    /// JSON.
    pub(crate) about: &'a str,
    pub(crate) bytes: &'a [u8],
}

/// What a worker works with.
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) struct Start<'a> {
    /// Bytes of memory beyond what the process has when it starts.
    pub(crate) heap_bytes: u64,
    /// How long a call may wait for its promise, in milliseconds.
    pub(crate) async_wall_ms: u64,
    /// Timers do not wait: when everything waits for them, their time has come.
    pub(crate) virtual_time: bool,
    /// The handler files by name order; `false`: known to be broken, do not load.
    pub(crate) scripts: Vec<(&'a str, bool)>,
    /// Every file that may be imported, the handlers among them: path below the handlers' directory, and source.
    pub(crate) files: Vec<(&'a str, &'a str)>,
}

/// A file of tests.
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) struct TestFile<'a> {
    /// Its path below the handlers' directory.
    pub(crate) path: &'a str,
    /// Only tests whose name has this in it.
    pub(crate) filter: &'a str,
    /// The first test to run: those before it cost other workers.
    pub(crate) from: u32,
    /// What its clock shows when it begins.
    pub(crate) now: i64,
}

/// A task: a file that runs once.
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) struct TaskFile<'a> {
    /// Its path below the handlers' directory.
    pub(crate) path: &'a str,
    /// `threadId`: its number among those of its call.
    pub(crate) thread: u32,
    /// What its clock shows when it begins: the time of its call.
    pub(crate) now: i64,
    /// What its random numbers begin with.
    pub(crate) seed: u64,
    /// `workerData`, then the messages that were posted to it, as `worker/globals/cloned/` packs them.
    pub(crate) values: Vec<&'a [u8]>,
}

/// Some runs.
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) struct Batch<'a> {
    /// Say which script is about to be called ([`FromWorker::Calling`]): the node is looking for one that kills its worker.
    pub(crate) trace: bool,
    /// The runs, at most one a device.
    pub(crate) runs: Vec<Run<'a>>,
}

/// Readings of one device.
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) struct Run<'a> {
    /// What its answers are named by.
    pub(crate) id: u32,
    pub(crate) device: &'a str,
    /// The state before, as JSON, and its effective time.
    pub(crate) previous: Option<(&'a [u8], i64)>,
    /// `ctx.state` by script number.
    pub(crate) states: Vec<(u8, &'a [u8])>,
    pub(crate) calls: Vec<Call<'a>>,
}

/// One reading.
#[derive(Debug, Encode, BorrowDecode)]
pub(crate) struct Call<'a> {
    pub(crate) position: u64,
    pub(crate) route: u64,
    pub(crate) channel: u8,
    pub(crate) device_time: Option<i64>,
    pub(crate) received: i64,
    pub(crate) payload: &'a [u8],
}

/// From a worker to the node.
#[derive(Debug, Encode, Decode)]
pub(crate) enum FromWorker {
    /// It starts to load this script.
    Loading(u8),
    /// Everything is loaded, or known to be broken.
    Loaded(Vec<Loaded>),
    /// It is about to run this script for this run (only when asked to trace).
    Calling { run: u32, script: u8 },
    /// Answers, for each run in the order of its calls. Empty: a sign of life.
    Results(Results),
    /// The batch is through: what has no answer yet waits, and there is room for another. `retire`: the worker has grown too large
    /// or is no longer sound, and ends by itself.
    Done { retire: bool },
    /// A call asks for slow work. It waits for the [`Answer`].
    Ask(Ask),
    /// Nobody waits for these any more: what has not begun need not begin.
    Forget(Vec<u64>),
    /// The names of a file's tests as JSON, or why it does not load.
    Tests(Result<String, Fault>),
    /// It is about to run this test.
    Testing(u32),
    /// How the test did: its report as JSON, or what ended it; and what it printed.
    Tested(Result<String, Fault>, Vec<LogLine>),
    /// A test asks the node for something, as JSON, and waits for [`ToWorker::TestAnswer`].
    TestAsks(String),
    /// The task is over.
    Tasked(TaskReport),
}

/// How a task ended.
#[derive(Debug, Default, Encode, Decode)]
pub(crate) struct TaskReport {
    /// What it said, in order.
    pub(crate) said: Vec<TaskSaid>,
    /// What nobody in it caught, packed, and whether that was a limit or the engine rather than the script.
    pub(crate) error: Option<(Vec<u8>, bool)>,
    /// Its exit code.
    pub(crate) code: i32,
}

/// What a task said.
#[derive(Debug, Encode, Decode)]
pub(crate) enum TaskSaid {
    /// To its call, packed.
    Message(Vec<u8>),
    /// To the log.
    Line(LogLevel, String),
}

/// Slow work that a call asks for.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Ask {
    /// What its answer is named by: never used twice by a worker.
    pub(crate) id: u64,
    pub(crate) run: u32,
    pub(crate) script: u8,
    pub(crate) operation: Operation,
    /// JSON.
    pub(crate) arguments: String,
    pub(crate) bytes: Vec<Vec<u8>>,
}

/// How one script loaded.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) enum Loaded {
    /// It did.
    Ready(Exports),
    /// It did not.
    Broken(Fault),
    /// It was not to be loaded.
    Skipped,
}

/// What a handler that loaded exports, besides functions as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Exports {
    /// By the number of a channel: does it have a function for that?
    pub(crate) channels: u8,
    /// `match`.
    pub(crate) matching: Option<Vec<u8>>,
    /// `timers`.
    pub(crate) timers: Option<Vec<u8>>,
    /// `priority`.
    pub(crate) priority: Option<Vec<u8>>,
}

/// Some answers, and what came with them.
#[derive(Debug, Default, Encode, Decode)]
pub(crate) struct Results {
    pub(crate) outcomes: Vec<Outcome>,
    /// Script number and nanoseconds of every call.
    pub(crate) timings: Vec<(u8, u32)>,
    pub(crate) logs: Vec<LogLine>,
    /// CPU time of the worker so far, microseconds: tells a busy worker from a starved one.
    pub(crate) cpu_us: u64,
}

/// What came of one call.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Outcome {
    /// The run of the call.
    pub(crate) run: u32,
    pub(crate) verdict: WireVerdict,
    /// `ctx.state` that changed, by script number, as JSON.
    pub(crate) states: Vec<(u8, Vec<u8>)>,
    pub(crate) emits: Vec<(String, Vec<u8>)>,
    pub(crate) commands: Vec<Command>,
    /// How long its handlers waited, by their clocks, in milliseconds.
    pub(crate) waited_ms: u64,
}

impl Outcome {
    /// The reading is kept as it came.
    pub(crate) fn unchanged() -> Self {
        let (states, emits, commands) = (Vec::new(), Vec::new(), Vec::new());
        Self { run: 0, verdict: WireVerdict::Unchanged, states, emits, commands, waited_ms: 0 }
    }
}

/// A `ctx.command`: a checked device id, a name and the parameters as JSON.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Command {
    pub(crate) device: String,
    pub(crate) name: String,
    pub(crate) params: Vec<u8>,
}

/// A verdict, with scripts by number.
#[derive(Debug, Encode, Decode)]
pub(crate) enum WireVerdict {
    Unchanged,
    Keep(Vec<u8>),
    Dropped(u8),
    Parked(u8, Fault),
}

/// A failure with its place; line 0: unknown.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Fault {
    /// The number of a [`tidegate_actors::script::ParkReason`].
    pub(crate) reason: u8,
    pub(crate) message: String,
    pub(crate) file: Option<String>,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// One line of `console` or `ctx.log`.
#[derive(Debug, Encode, Decode)]
pub(crate) struct LogLine {
    pub(crate) level: LogLevel,
    pub(crate) script: u8,
    pub(crate) device: String,
    pub(crate) text: String,
}

/// How loud a script's line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes one frame, in one write.
///
/// # Errors
/// The socket's, and `InvalidData` for a frame beyond [`FRAME_BYTES`].
pub(crate) fn send(to: &mut impl Write, message: &impl Encode, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    bincode::encode_into_std_write(message, buffer, codec()).map_err(invalid)?;
    let length = buffer.len() - HEADER_BYTES;
    if length > FRAME_BYTES {
        return Err(invalid(format!("a frame of {length} bytes (limit frame_bytes is {FRAME_BYTES})")));
    }
    let header = u32::try_from(length).map_err(invalid)?.to_le_bytes();
    buffer[..HEADER_BYTES].copy_from_slice(&header);
    to.write_all(buffer)?;
    // One large frame must not hold its memory for good.
    buffer.shrink_to(1024 * 1024);
    Ok(())
}

/// Reads one frame's body into `buffer`. `Ok(false)`: the other side has closed between two frames.
///
/// # Errors
/// The socket's; `InvalidData` for a frame beyond [`FRAME_BYTES`]; `UnexpectedEof` within a frame.
pub(crate) fn receive(from: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    let mut have = 0;
    while have < HEADER_BYTES {
        match from.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes(header) as usize;
    if length > FRAME_BYTES {
        return Err(invalid(format!("a frame of {length} bytes (limit frame_bytes is {FRAME_BYTES})")));
    }
    buffer.clear();
    buffer.shrink_to(1024 * 1024);
    buffer.resize(length, 0);
    from.read_exact(buffer)?;
    Ok(true)
}

/// Reads a frame's body as a message, all of it.
///
/// # Errors
/// `InvalidData` when it is none.
pub(crate) fn decode<'a, T: BorrowDecode<'a, ()>>(body: &'a [u8]) -> io::Result<T> {
    let (message, read) = bincode::borrow_decode_from_slice(body, codec()).map_err(invalid)?;
    if read == body.len() { Ok(message) } else { Err(invalid("bytes after a frame's message")) }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The first `chars` characters of a text, on one line.
pub(crate) fn clip(text: &str, chars: usize) -> String {
    let mut clipped: String = text.chars().take(chars).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(chars).is_some() {
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let call = Call { position: 7, route: 1, channel: 0, device_time: None, received: -3, payload: b"{}" };
        let run =
            Run { id: 3, device: "d1", previous: Some((b"{\"a\":1}", 5)), states: vec![(0, b"{}")], calls: vec![call] };
        let (mut wire, mut buffer) = (Vec::new(), Vec::new());
        let sent = ToWorker::Batch(Batch { trace: true, runs: vec![run] });
        send(&mut wire, &sent, &mut buffer).expect("a small frame");
        let mut wire = wire.as_slice();
        assert!(receive(&mut wire, &mut buffer).expect("a frame"));
        let back: ToWorker<'_> = decode(&buffer).expect("the same message");
        assert_eq!(format!("{back:?}"), format!("{sent:?}"));
        assert!(!receive(&mut wire, &mut buffer).expect("the end"));
    }

    #[test]
    fn a_hostile_length_is_refused_before_anything_is_allocated() {
        let mut buffer = Vec::new();
        assert!(receive(&mut [0xff_u8; 8].as_slice(), &mut buffer).is_err());
        // A batch that claims 2^60 runs.
        let body = [1, 0, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert!(decode::<ToWorker<'_>>(&body).is_err());
        assert!(decode::<FromWorker>(&[4, 0, 9]).is_err(), "trailing bytes");
    }

    #[test]
    fn clipping_keeps_one_line() {
        assert_eq!(clip("a\nb", 9), "a b");
        assert_eq!(clip("äöü", 2), "äö…");
    }
}
