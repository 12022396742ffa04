//! The worker's readings: each through its handlers, one by one or beside others that wait, the state threaded through each run,
//! the answers streamed so that the node sees progress.

use std::{
    io,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

use boa_engine::JsString;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate_actors::{ids::DeviceId, limits, reading::Channel, script::ParkReason};

use super::{
    chain::{Chain, Next, Threaded, go_on, handle},
    cpu::{CpuClock, process_cpu_us},
    engine::Engine,
    event_loop::CallId,
    fault::fault,
    flights::{Flight, Flights, Held},
    memory::Memory,
    task, testing,
};
use crate::frame::{self, Batch, Call, Fault, FromWorker, Outcome, Results, Run, ToWorker, WireVerdict};

/// Longest time for which finished answers wait for company.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// Bytes of answers that wait for company.
const FLUSH_BYTES: usize = 64 * 1024;
/// How often the node hears from a worker whose readings all wait.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// A call that came to its end is failed for its CPU time only beyond this many times [`limits::SCRIPT_CALL_CPU`]: near the limit,
/// whether a reading is kept must not depend on the machine's mood.
const CPU_FACTOR: u32 = 4;
/// For the same reason a call that waits is failed by its own clock first, and by the wall's only beyond this many times its limit.
const WALL_FACTOR: u32 = 2;
/// A call longer than this has its memory looked after at once.
const SLOW_CALL: Duration = Duration::from_millis(1);

/// The worker's state over batches.
pub(super) struct Work {
    engine: Engine,
    memory: Rc<Memory>,
    socket: UnixStream,
    buffer: Vec<u8>,
    results: Results,
    /// Bytes of the results that wait.
    waiting: usize,
    flushed: Instant,
    cpu: CpuClock,
    /// The readings that wait for a promise or a timer.
    flights: Flights,
    /// The node wants to know what runs.
    trace: bool,
    /// The engine panicked: this process is to end.
    unsound: bool,
    /// Too large: this process ends once nothing waits any more.
    retiring: bool,
}

/// How a reading stands.
enum Progress {
    Answered(Outcome),
    Waits(CallId, Instant),
}

impl Work {
    pub(super) fn new(engine: Engine, memory: Rc<Memory>, socket: UnixStream) -> Self {
        Self {
            engine,
            memory,
            socket,
            buffer: Vec::new(),
            results: Results::default(),
            waiting: 0,
            flushed: Instant::now(),
            cpu: CpuClock::new(),
            flights: Flights::default(),
            trace: false,
            unsound: false,
            retiring: false,
        }
    }

    /// Serves the node until it goes, or this process has come to its end.
    ///
    /// # Errors
    /// The socket's, or a frame that makes no sense.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let mut body = Vec::new();
        loop {
            if !self.flights.is_empty() {
                let is_readable = self.poll()?;
                if self.turn()? {
                    return Ok(());
                }
                if !is_readable {
                    continue;
                }
            }
            if !frame::receive(&mut self.socket, &mut body)? {
                return Ok(());
            }
            let ends = match frame::decode(&body)? {
                ToWorker::Batch(batch) => self.batch(&batch)?,
                ToWorker::Stop => {
                    self.engine.exit();
                    self.flush()?;
                    true
                }
                ToWorker::Answer(answer) => {
                    if let Some(id) = self.engine.answered(&answer) {
                        self.flights.look_at(id);
                    }
                    false
                }
                ToWorker::Test(file) => {
                    testing::run(&mut self.engine, &self.memory, &self.socket, &file)?;
                    true
                }
                ToWorker::Task(file) => {
                    task::run(&mut self.engine, &self.socket, &file)?;
                    true
                }
                ToWorker::TestAnswer(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "nothing was asked")),
                ToWorker::Start(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a second start")),
            };
            if ends {
                return Ok(());
            }
        }
    }

    /// The poll phase of all calls that wait: until a frame comes or the next of them may go on.
    fn poll(&mut self) -> io::Result<bool> {
        let pause = self.flights.pause(Instant::now()).min(HEARTBEAT);
        let timeout = Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() };
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        let is_readable = match poll(&mut sockets, Some(&timeout)) {
            Ok(ready) => ready > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        if self.flushed.elapsed() >= HEARTBEAT {
            self.flush()?;
        }
        Ok(is_readable)
    }

    /// Goes on with what may go on. `Ok(true)`: this process has come to its end.
    fn turn(&mut self) -> io::Result<bool> {
        self.go_on_due()?;
        if !self.results.outcomes.is_empty() || !self.results.logs.is_empty() {
            self.flush()?;
        }
        let ends = self.unsound || (self.retiring && self.flights.is_empty());
        if ends {
            self.say_done(true)?;
        }
        Ok(ends)
    }

    /// Works a batch as far as it goes without waiting. `Ok(true)`: this process has come to its end.
    fn batch(&mut self, batch: &Batch<'_>) -> io::Result<bool> {
        self.flushed = Instant::now();
        self.trace = batch.trace;
        for run in &batch.runs {
            self.run(run)?;
            if !self.flights.is_empty() {
                self.go_on_due()?;
            }
            if self.unsound {
                // The node gives the readings without an answer to another worker.
                break;
            }
        }
        self.flush()?;
        self.retiring = self.memory.is_spent();
        let ends = self.unsound || (self.retiring && self.flights.is_empty());
        if ends || !self.retiring {
            self.say_done(ends)?;
        }
        Ok(ends)
    }

    fn say_done(&mut self, retire: bool) -> io::Result<()> {
        if retire && !self.unsound {
            self.engine.exit();
            self.flush()?;
        }
        frame::send(&mut self.socket, &FromWorker::Done { retire }, &mut self.buffer)
    }

    fn run(&mut self, run: &Run<'_>) -> io::Result<()> {
        self.engine.host.device.replace(JsString::from(run.device));
        let mut threaded = Threaded::new(run);
        let mut topic = None;
        for (at, call) in run.calls.iter().enumerate() {
            if topic != Some(call.channel) {
                topic = Some(call.channel);
                self.engine.host.topic.replace(topic_of(call.channel, run.device));
            }
            let mut chain = self.begin(call);
            match self.advance(run.id, call, &mut threaded, &mut chain)? {
                Progress::Answered(outcome) => self.answer(run.id, outcome)?,
                Progress::Waits(id, wake) => {
                    let rest = run.calls[at + 1..].iter().map(Held::new).collect();
                    let device = run.device.into();
                    let flight = Flight { run: run.id, device, threaded, call: Held::new(call), chain, rest };
                    self.flights.put(id, wake, flight);
                    return Ok(());
                }
            }
            if self.unsound {
                break;
            }
        }
        Ok(())
    }

    /// Begins a reading.
    fn begin(&mut self, call: &Call<'_>) -> Chain {
        self.engine.host.begin_reading();
        self.engine.host.position.set(call.position);
        let mut chain = Chain::new(call.route);
        if call.channel == Channel::Timer as u8 {
            // Of the handlers with timers on this device, it is this one's.
            chain.keep_only(self.engine.number_of(&timer_of(call.payload)));
        }
        chain
    }

    /// A reading through the handlers that are left to it.
    fn advance(
        &mut self,
        run: u32,
        call: &Call<'_>,
        threaded: &mut Threaded,
        chain: &mut Chain,
    ) -> io::Result<Progress> {
        while let Some(script) = chain.script() {
            self.announce(run, script)?;
            self.engine.host.run.set(run);
            // What it takes to load a handler anew is not counted against its call.
            let prepared = self.engine.prepare(script);
            let next = self.guarded(script, chain, |engine, chain| {
                prepared?;
                handle(engine, script, call, chain, threaded)
            });
            self.send_asks()?;
            if let Some(progress) = self.conclude(script, next, threaded, chain) {
                return Ok(progress);
            }
        }
        Ok(Progress::Answered(chain.finished(call, threaded, &self.engine)))
    }

    /// What a handler's answer means for its reading; `None`: the next handler's turn.
    fn conclude(
        &mut self,
        script: u8,
        next: Result<Next, Fault>,
        threaded: &mut Threaded,
        chain: &mut Chain,
    ) -> Option<Progress> {
        if self.engine.is_lost(script) {
            self.flights.lose(script);
            threaded.forget_value(script);
            chain.forget_value(script);
        }
        match next {
            Ok(Next::Go) => {
                chain.next_script();
                None
            }
            Ok(Next::Waits(id, wake)) => Some(Progress::Waits(id, wake.min(chain.deadline(self.allowed_wall())))),
            Ok(Next::Drop) => Some(Progress::Answered(chain.dropped(script, threaded, &self.engine))),
            Err(fault) => {
                threaded.forget_values();
                let verdict = WireVerdict::Parked(script, fault);
                let (states, emits, commands) = (Vec::new(), Vec::new(), Vec::new());
                Some(Progress::Answered(Outcome {
                    run: 0,
                    verdict,
                    states,
                    emits,
                    commands,
                    waited_ms: chain.waited_ms,
                }))
            }
        }
    }

    /// Goes on with every reading whose time has come, and with those whose context was lost, from their beginning.
    fn go_on_due(&mut self) -> io::Result<()> {
        self.look_at_entered();
        for id in self.flights.due(Instant::now()) {
            if let Some(flight) = self.flights.take(id) {
                self.go_on(id, flight)?;
            }
            self.look_at_entered();
            if self.unsound {
                return Ok(());
            }
        }
        while let Some(flight) = self.flights.next_lost() {
            self.fly(flight, None)?;
            if self.unsound {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Another call may have settled what a call waits for.
    fn look_at_entered(&mut self) {
        for id in self.engine.take_entered() {
            self.flights.look_at(id);
        }
    }

    fn go_on(&mut self, id: CallId, mut flight: Flight) -> io::Result<()> {
        let Some(script) = flight.chain.script() else { return Ok(()) };
        self.announce(flight.run, script)?;
        let is_late = flight.chain.deadline(self.allowed_wall()) <= Instant::now();
        let wall = self.engine.async_wall;
        let Flight { run, call, chain, threaded, .. } = &mut flight;
        let next = self.guarded(script, chain, |engine, chain| {
            if is_late {
                engine.give_up(script, id);
                let message = format!(
                    "it waited {WALL_FACTOR} times the limit script_async_wall of {} ms (setting scripts.async_wall_ms)",
                    wall.as_millis()
                );
                return Err(fault(ParkReason::Deadline, message));
            }
            go_on(engine, id, script, chain)
        });
        self.send_asks()?;
        let progress = self.conclude(script, next, threaded, chain);
        let progress = match progress {
            Some(progress) => progress,
            None => self.advance(*run, &call.view(), threaded, chain)?,
        };
        self.fly(flight, Some(progress))
    }

    /// A run that waited, on through its readings until it waits again or is done. `None`: its reading begins anew.
    fn fly(&mut self, mut flight: Flight, progress: Option<Progress>) -> io::Result<()> {
        let mut progress = progress;
        loop {
            let stands = match progress.take() {
                Some(stands) => stands,
                None => {
                    let Flight { run, device, threaded, call, chain, .. } = &mut flight;
                    self.engine.host.device.replace(JsString::from(&**device));
                    self.engine.host.topic.replace(topic_of(call.channel, device));
                    let (call, since) = (call.view(), chain.since);
                    *chain = self.begin(&call);
                    chain.since = since;
                    self.advance(*run, &call, threaded, chain)?
                }
            };
            match stands {
                Progress::Waits(id, wake) => {
                    self.flights.put(id, wake, flight);
                    return Ok(());
                }
                Progress::Answered(outcome) => {
                    self.answer(flight.run, outcome)?;
                    let Some(next) = flight.rest.pop_front().filter(|_| !self.unsound) else { return Ok(()) };
                    flight.call = next;
                    flight.chain.since = None;
                }
            }
        }
    }

    fn allowed_wall(&self) -> Duration {
        self.engine.async_wall * WALL_FACTOR
    }

    fn announce(&mut self, run: u32, script: u8) -> io::Result<()> {
        if !self.trace {
            return Ok(());
        }
        frame::send(&mut self.socket, &FromWorker::Calling { run, script }, &mut self.buffer)
    }

    /// A piece of a handler's work, with the engine's panics caught, its time measured and its memory looked after.
    fn guarded(
        &mut self,
        script: u8,
        chain: &mut Chain,
        work: impl FnOnce(&mut Engine, &mut Chain) -> Result<Next, Fault>,
    ) -> Result<Next, Fault> {
        let started = Instant::now();
        let called = catch_unwind(AssertUnwindSafe(|| {
            let next = work(&mut self.engine, chain);
            if !matches!(next, Ok(Next::Waits(..))) {
                self.engine.end_call(script);
            }
            next
        }));
        let took = started.elapsed();
        chain.took += took;
        chain.spent += self.cpu.of_call(started, took);
        if !matches!(called, Ok(Ok(Next::Waits(..)))) {
            let nanos = u32::try_from(chain.took.as_nanos()).unwrap_or(u32::MAX);
            self.results.timings.push((script, nanos));
        }
        let result = match called {
            Ok(result) => result,
            Err(panic) => {
                self.unsound = true;
                let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                // Dropping what a panic left half done could panic again: this process ends soon anyway.
                std::mem::forget(panic);
                let reason = if text.contains("capacity overflow") { ParkReason::Memory } else { ParkReason::Crashed };
                return Err(fault(reason, format!("the engine panicked: {text}")));
            }
        };
        self.memory.on_call(took > SLOW_CALL);
        let allowed = limits::SCRIPT_CALL_CPU * CPU_FACTOR;
        if result.is_ok() && chain.spent > allowed {
            if let Ok(Next::Waits(id, _)) = result {
                self.engine.give_up(script, id);
            }
            let message = format!(
                "it took {} ms of CPU time, {CPU_FACTOR} times the limit script_call_cpu of {} ms or more",
                chain.spent.as_millis(),
                limits::SCRIPT_CALL_CPU.as_millis()
            );
            return Err(fault(ParkReason::Deadline, message));
        }
        result
    }

    /// Sends what calls have asked for, and what nobody waits for any more: before the outcome of the reading.
    fn send_asks(&mut self) -> io::Result<()> {
        for ask in self.engine.host.asks.take() {
            frame::send(&mut self.socket, &FromWorker::Ask(ask), &mut self.buffer)?;
        }
        let forgotten = self.engine.host.forgotten.take();
        if forgotten.is_empty() {
            return Ok(());
        }
        frame::send(&mut self.socket, &FromWorker::Forget(forgotten), &mut self.buffer)
    }

    fn answer(&mut self, run: u32, outcome: Outcome) -> io::Result<()> {
        let logs = self.engine.host.logs.take();
        self.waiting += 16 + outcome.bytes() + logs.iter().map(|line| line.text.len()).sum::<usize>();
        self.results.outcomes.push(Outcome { run, ..outcome });
        self.results.logs.extend(logs);
        if self.waiting > FLUSH_BYTES || self.flushed.elapsed() > FLUSH_AFTER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_asks()?;
        self.waiting = 0;
        self.flushed = Instant::now();
        let mut results = std::mem::take(&mut self.results);
        results.logs.extend(self.engine.host.logs.take());
        results.cpu_us = process_cpu_us();
        frame::send(&mut self.socket, &FromWorker::Results(results), &mut self.buffer)
    }
}

/// The handler whose timer it is.
fn timer_of(payload: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Tick {
        script: String,
    }
    serde_json::from_slice(payload).map(|tick: Tick| tick.script).unwrap_or_default()
}

fn topic_of(channel: u8, device: &str) -> JsString {
    // The node checked both: what it did not is simply not shown.
    let topic =
        Channel::from_number(channel).zip(DeviceId::new(device).ok()).map(|(channel, device)| channel.topic(&device));
    JsString::from(topic.unwrap_or_default())
}

impl Outcome {
    fn bytes(&self) -> usize {
        let kept = if let WireVerdict::Keep(json) = &self.verdict { json.len() } else { 64 };
        let states: usize = self.states.iter().map(|(_, json)| json.len()).sum();
        let emits: usize = self.emits.iter().map(|(name, json)| name.len() + json.len()).sum();
        let commands: usize = self.commands.iter().map(|command| command.name.len() + command.params.len()).sum();
        kept + states + emits + commands
    }
}
