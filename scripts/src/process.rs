//! One worker process as the node holds it: started, asked, watched, ended.

use std::{
    io::{self, BufRead, BufReader, Read, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendFlags, send},
    process::{Pid, Signal, setpriority_process},
};
use smallvec::{SmallVec, smallvec};
use tidegate_actors::limits::SCRIPTS;

use crate::{
    config::{ScriptLimits, WorkerCommand},
    frame::{self, Answer, FromWorker, Loaded, LogLine, Start, ToWorker, clip},
    slow::{Desk, LOOK},
    source::SourceSet,
};

/// Most of a worker's standard error that is logged, in lines and in characters of a line; the rest is read and dropped.
const STDERR_LINES: usize = 50;
const STDERR_CHARS: usize = 500;
/// Once a frame has begun, its rest must come within this.
const FRAME_REST: Duration = Duration::from_secs(5);
/// How often a starved worker's deadline is put off, each time by as much again.
const STARVED_ROUNDS: u32 = 4;

/// A running worker.
pub(crate) struct Process {
    child: Child,
    socket: UnixStream,
    stderr: Option<JoinHandle<()>>,
    said: Arc<Mutex<String>>,
    body: Vec<u8>,
    buffer: Vec<u8>,
    /// Frames that the worker has not taken yet: it may be writing to us meanwhile, so a write must never wait for it.
    outgoing: Vec<u8>,
    /// Bytes of them that are sent.
    sent: usize,
    /// Where its asks for slow work go.
    desk: Option<Desk>,
    /// CPU time of the worker when it last said so, microseconds.
    cpu_us: u64,
}

/// Why a worker is of no more use.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It gave no answer in time.
    Silent,
    /// Its socket is closed or broken, or what it says makes no sense.
    Broken(io::Error),
    /// Nothing is wrong with it: the pool stops and does not wait for the rest of its batch.
    Stopped,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// How a worker ended.
#[derive(Debug, Clone)]
pub(crate) struct Death {
    /// It ran out of memory.
    pub(crate) memory: bool,
    /// Somebody else killed it: nothing that a script does sends this signal.
    pub(crate) from_outside: bool,
    /// For the operator.
    pub(crate) message: String,
}

impl Process {
    /// Starts a worker. It waits for its start frame: [`Process::load`].
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn spawn(command: &WorkerCommand) -> io::Result<Self> {
        // Both ends are close-on-exec; the child's becomes its standard input, which is not.
        let (socket, theirs) = UnixStream::pair()?;
        let mut child = Command::new(&command.program)
            .arg0("tidegate-script-worker")
            .args(&command.args)
            .env_clear()
            // One allocator arena: each further one takes 64 MB of the address space that is limited.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            // A signal from the terminal is for the node, which stops its workers itself.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command.program.display())))?;
        socket.set_read_timeout(Some(FRAME_REST))?;
        socket.set_write_timeout(Some(FRAME_REST))?;
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().map(|stderr| {
            let (said, pid) = (Arc::clone(&said), child.id());
            thread::Builder::new().name("script-stderr".to_owned()).spawn(move || listen(stderr, pid, &said))
        });
        let stderr = stderr.transpose()?;
        Ok(Self {
            child,
            socket,
            stderr,
            said,
            body: Vec::new(),
            buffer: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            desk: None,
            cpu_us: 0,
        })
    }

    /// Gives its asks for slow work a desk. What it asked for at another one is of no use any more.
    pub(crate) fn attach(&mut self, desk: Desk) {
        self.desk = Some(desk);
    }

    /// Its desk.
    pub(crate) fn desk(&mut self) -> Option<&mut Desk> {
        self.desk.as_mut()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets others go first where the processors are busy. Only right after its start: each thread has its own, and hands it on to those
    /// that it starts.
    pub(crate) fn yield_to_others(&self, nice: i32) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Without it the task is as any other process.
        let _ = setpriority_process(pid, nice);
    }

    /// The CPU time that it has used, as far as it has said so.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_micros(self.cpu_us)
    }

    /// Has it not ended by itself?
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives it the sources and waits until they are loaded. The error names the script that was loading.
    ///
    /// # Errors
    /// It failed while loading that script (or before the first).
    pub(crate) fn load(
        &mut self,
        sources: &SourceSet,
        skip: &[bool],
        limits: &ScriptLimits,
    ) -> Result<Vec<Loaded>, (Option<u8>, Failure)> {
        let loadable = sources.handlers.iter().zip(skip).take(SCRIPTS);
        let scripts: Vec<_> = loadable.map(|(handler, skip)| (handler.name.as_str(), !skip)).collect();
        let files = sources.files.iter().map(|(path, source)| (path.as_str(), source.as_str())).collect();
        let expected = scripts.len();
        let async_wall_ms = u64::try_from(limits.async_wall.as_millis()).unwrap_or(u64::MAX);
        let (heap_bytes, virtual_time) = (limits.heap_bytes, limits.virtual_time);
        let start = ToWorker::Start(Start { heap_bytes, async_wall_ms, virtual_time, scripts, files });
        frame::send(&mut self.socket, &start, &mut self.buffer).map_err(|error| (None, error.into()))?;
        let mut loading = None;
        loop {
            match self.hear(limits.load_wall) {
                Ok(FromWorker::Loading(script)) => loading = Some(script),
                Ok(FromWorker::Loaded(loaded)) if loaded.len() == expected => return Ok(loaded),
                Ok(_) => return Err((loading, nonsense("an answer out of place").into())),
                Err(failure) => return Err((loading, failure)),
            }
        }
    }

    /// Asks it to work a batch.
    ///
    /// # Errors
    /// It is dead or does not read.
    pub(crate) fn ask(&mut self, batch: frame::Batch<'_>) -> Result<(), Failure> {
        frame::send(&mut self.outgoing, &ToWorker::Batch(batch), &mut self.buffer)?;
        Ok(self.pump()?)
    }

    /// Sends what the worker takes without waiting for it.
    fn pump(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match send(&self.socket, &self.outgoing[self.sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.outgoing.clear();
        // One large frame must not hold its memory for good.
        self.outgoing.shrink_to(1024 * 1024);
        self.sent = 0;
        Ok(())
    }

    /// Sends the answers that its desk has.
    fn answer(&mut self) -> io::Result<()> {
        let answers = self.desk.as_mut().map(Desk::take_answers).unwrap_or_default();
        for (id, failed, about, bytes) in answers {
            let answer = ToWorker::Answer(Answer { id, failed, about: &about, bytes: &bytes });
            frame::send(&mut self.outgoing, &answer, &mut self.buffer)?;
        }
        self.pump()
    }

    /// Gives it a file of tests, or the answer to what a test asked.
    ///
    /// # Errors
    /// It is dead or does not read.
    pub(crate) fn tell(&mut self, message: &ToWorker<'_>) -> Result<(), Failure> {
        Ok(frame::send(&mut self.socket, message, &mut self.buffer)?)
    }

    /// Waits for the next frame. A worker that got no CPU time is given more patience than one that used it.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn hear(&mut self, patience: Duration) -> Result<FromWorker, Failure> {
        loop {
            if let Some(message) = self.hear_or(None, Instant::now(), patience)? {
                return Ok(message);
            }
        }
    }

    /// As [`Process::hear`], as long as somebody wants to know. `None`: nobody does.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn hear_while(
        &mut self,
        patience: Duration,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Option<FromWorker>, Failure> {
        self.hear_until(None, Instant::now(), patience, Some(is_wanted))
    }

    /// As [`Process::hear`], since a moment and with an ear for a bell. `None`: it rang.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn hear_or(
        &mut self,
        bell: Option<BorrowedFd<'_>>,
        since: Instant,
        patience: Duration,
    ) -> Result<Option<FromWorker>, Failure> {
        self.hear_until(bell, since, patience, None)
    }

    fn hear_until(
        &mut self,
        bell: Option<BorrowedFd<'_>>,
        since: Instant,
        patience: Duration,
        is_wanted: Option<&dyn Fn() -> bool>,
    ) -> Result<Option<FromWorker>, Failure> {
        let (mut since, mut round) = (since, 1);
        loop {
            if is_wanted.is_some_and(|is_wanted| !is_wanted()) {
                return Ok(None);
            }
            let left = (patience * round).saturating_sub(since.elapsed());
            let left = if is_wanted.is_some() { left.min(LOOK) } else { left };
            match self.wait(bell, left)? {
                Woken::Frame => {
                    let Some(message) = self.receive()? else {
                        (since, round) = (Instant::now(), 1);
                        continue;
                    };
                    return Ok(Some(message));
                }
                Woken::Room => {
                    self.pump()?;
                    continue;
                }
                Woken::Answers => {
                    self.answer()?;
                    continue;
                }
                Woken::Bell => return Ok(None),
                Woken::Late if since.elapsed() < patience * round => continue,
                Woken::Late => {}
            }
            let used = cpu_time(self.child.id()).saturating_sub(Duration::from_micros(self.cpu_us));
            if round >= STARVED_ROUNDS || used > patience / 2 {
                return Err(Failure::Silent);
            }
            round += 1;
        }
    }

    /// Reads a frame. `None`: it was for the desk.
    fn receive(&mut self) -> Result<Option<FromWorker>, Failure> {
        if !frame::receive(&mut self.socket, &mut self.body)? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match (frame::decode(&self.body)?, &mut self.desk) {
            (FromWorker::Ask(ask), Some(desk)) => {
                desk.ask(ask);
                Ok(None)
            }
            (FromWorker::Forget(ids), Some(desk)) => {
                desk.forget(&ids);
                Ok(None)
            }
            (message, _) => {
                if let FromWorker::Results(results) = &message {
                    self.cpu_us = results.cpu_us;
                }
                Ok(Some(message))
            }
        }
    }

    /// Kills it, if it still runs, and says how it ended.
    pub(crate) fn bury(mut self, failure: &Failure) -> Death {
        let ended = if let Failure::Broken(_) = failure { self.ended_by_itself() } else { None };
        let status = ended.or_else(|| {
            // The child may be gone already; then there is nothing to kill.
            let _ = self.child.kill();
            self.child.wait().ok()
        });
        if let Some(stderr) = self.stderr.take() {
            let _ = stderr.join();
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        describe(failure, ended, status, &said)
    }

    /// Tells it to stop and waits for it to end; kills it if it does not. Gives what its scripts printed at last.
    pub(crate) fn retire(self, patience: Duration) -> Vec<LogLine> {
        let deadline = Instant::now() + patience;
        let Self { mut child, mut socket, stderr, mut body, mut buffer, outgoing, sent, .. } = self;
        let mut logs = Vec::new();
        // One that has ended already neither reads nor says anything.
        let _ = socket.set_read_timeout(Some(patience));
        let is_told =
            socket.write_all(&outgoing[sent..]).and_then(|()| frame::send(&mut socket, &ToWorker::Stop, &mut buffer));
        if is_told.is_ok() {
            while Instant::now() < deadline && matches!(frame::receive(&mut socket, &mut body), Ok(true)) {
                if let Ok(FromWorker::Results(results)) = frame::decode(&body) {
                    logs.extend(results.logs);
                }
            }
        }
        drop(socket);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        let _ = child.wait();
        if let Some(stderr) = stderr {
            let _ = stderr.join();
        }
        logs
    }

    /// Its socket closes a moment before the process is gone.
    fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + Duration::from_millis(500);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                _ => return None,
            }
        }
    }

    fn wait(&self, bell: Option<BorrowedFd<'_>>, patience: Duration) -> io::Result<Woken> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let socket = self.socket.as_fd();
        let wanted = if self.outgoing.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let desk = self.desk.as_ref().map(Desk::bell);
        let mut ears: SmallVec<[PollFd<'_>; 3]> = smallvec![PollFd::from_borrowed_fd(socket, wanted)];
        ears.extend(desk.into_iter().chain(bell).map(|ear| PollFd::from_borrowed_fd(ear, PollFlags::IN)));
        match poll(&mut ears, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Woken::Late),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let rang = |at: usize| ears.get(at).is_some_and(|ear| !ear.revents().is_empty());
        Ok(match ears[0].revents() {
            PollFlags::OUT => Woken::Room,
            heard if !heard.is_empty() => Woken::Frame,
            _ if desk.is_some() && rang(1) => Woken::Answers,
            _ => Woken::Bell,
        })
    }
}

/// What a wait ended with.
enum Woken {
    Frame,
    /// The worker takes more of what is for it.
    Room,
    /// Slow work is done.
    Answers,
    Bell,
    Late,
}

/// The resident memory of a process, in bytes; 0 if it is gone.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// The CPU time of a process; 0 if it is gone.
fn cpu_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): fields 14 and 15; counted behind the name's bracket, which may hold anything.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Logs what a worker says on its standard error, and keeps it to tell how it ended.
fn listen(stderr: ChildStderr, pid: u32, said: &Mutex<String>) {
    let mut reader = BufReader::new(stderr);
    let mut lines = 0;
    loop {
        let mut line = Vec::new();
        // A line without an end must not grow without bound.
        match reader.by_ref().take(4 * 1024).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        lines += 1;
        if lines > STDERR_LINES {
            continue;
        }
        let line = clip(String::from_utf8_lossy(&line).trim(), STDERR_CHARS);
        if !line.is_empty() {
            tracing::warn!(worker = pid, line, "script worker");
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(&line);
            said.push('\n');
        }
    }
}

fn describe(failure: &Failure, ended: Option<ExitStatus>, status: Option<ExitStatus>, said: &str) -> Death {
    /// `SIGHUP`, `SIGINT`, `SIGQUIT`, `SIGKILL`, `SIGTERM`: no engine sends them to itself.
    const OUTSIDE: [i32; 5] = [1, 2, 3, 9, 15];
    /// What the kernel ends a process with that runs into its walls (`worker/walls.rs`).
    const FORBIDDEN: i32 = Signal::SYS.as_raw();
    let signal = status.and_then(|status| status.signal());
    let out_of_memory = said.lines().any(|line| line.contains("memory allocation of") && line.contains("failed"));
    let overflowed = said.contains("overflowed its stack");
    let message = match (failure, ended) {
        (Failure::Silent, _) => "no answer in time".to_owned(),
        (Failure::Stopped, _) => "the pool stops".to_owned(),
        _ if out_of_memory => "out of memory".to_owned(),
        _ if overflowed => "the engine's stack overflowed".to_owned(),
        (_, Some(_)) if signal == Some(FORBIDDEN) => "the worker made a forbidden system call".to_owned(),
        (_, Some(status)) => format!("the worker ended: {status}"),
        (Failure::Broken(error), None) => format!("the worker does not answer as it should: {error}"),
    };
    let from_outside = ended.is_some() && signal.is_some_and(|signal| OUTSIDE.contains(&signal));
    Death { memory: out_of_memory, from_outside, message }
}

fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What an answer that makes no sense is as a failure.
pub(crate) fn broken(what: &'static str) -> Failure {
    nonsense(what).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_by_its_cause() {
        const OVERFLOW: &str = "thread 'scripts' has overflowed its stack\n";
        for (signal, said, message, from_outside) in [
            (Signal::SYS, "", "the worker made a forbidden system call", false),
            (Signal::ABORT, "memory allocation of 9 bytes failed\n", "out of memory", false),
            (Signal::ABORT, OVERFLOW, "the engine's stack overflowed", false),
            (Signal::SEGV, "", "the worker ended: signal: 11 (SIGSEGV)", false),
            (Signal::KILL, "", "the worker ended: signal: 9 (SIGKILL)", true),
        ] {
            let status = Some(ExitStatus::from_raw(signal.as_raw()));
            let failure = Failure::Broken(io::ErrorKind::UnexpectedEof.into());
            let death = describe(&failure, status, status, said);
            assert_eq!((death.message.as_str(), death.from_outside), (message, from_outside), "{signal:?}");
        }
    }
}
