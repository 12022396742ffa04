//! A batch in the worker: its readings one by one through their handlers, the state threaded through each run, the answers
//! streamed so that the node sees progress.

use std::{
    io,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

use boa_engine::{JsString, JsValue};
use rustix::time::{ClockId, clock_gettime};
use tidegate_actors::{ids::DeviceId, limits, reading::Channel, script::ParkReason};

use super::{engine::Engine, fault::fault, host::Lazy, memory::Memory};
use crate::{
    frame::{self, Batch, Call, Fault, FromWorker, LogLine, Outcome, Results, Run, WireVerdict},
    late::keeps,
};

/// Longest time for which finished answers wait for company.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// Bytes of answers that wait for company.
const FLUSH_BYTES: usize = 64 * 1024;
/// A call that came to its end is failed for its CPU time only beyond this many times [`limits::SCRIPT_CALL_CPU`]: near the limit,
/// whether a reading is kept must not depend on the machine's mood.
const CPU_FACTOR: u32 = 4;
/// Room that a result's JSON starts with, in bytes: most fit.
const JSON_BYTES: usize = 512;
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
    /// The engine panicked: this process is to end.
    unsound: bool,
}

/// A run's state as it goes through its readings.
struct Threaded {
    previous: Option<(Rc<[u8]>, i64)>,
    /// `ctx.state` by script: its JSON, and the value that a former call of the run left.
    states: Vec<(u8, ScriptState)>,
}

#[derive(Clone, Default)]
struct ScriptState {
    json: Option<Rc<[u8]>>,
    value: Option<JsValue>,
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
            unsound: false,
        }
    }

    /// Works a batch. `Ok(true)`: this process has come to its end.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn batch(&mut self, batch: &Batch<'_>) -> io::Result<bool> {
        self.flushed = Instant::now();
        for run in &batch.runs {
            self.run(run, batch.trace)?;
            if self.unsound {
                // The node gives the readings without an answer to another worker.
                break;
            }
        }
        self.flush()?;
        let retire = self.unsound || self.memory.is_spent();
        frame::send(&mut self.socket, &FromWorker::Done { retire }, &mut self.buffer)?;
        Ok(retire)
    }

    fn run(&mut self, run: &Run<'_>, trace: bool) -> io::Result<()> {
        let host = Rc::clone(&self.engine.host);
        *host.device.borrow_mut() = JsString::from(run.device);
        let mut threaded = Threaded {
            previous: run.previous.map(|(json, time)| (Rc::from(json), time)),
            states: run
                .states
                .iter()
                .map(|(script, json)| (*script, ScriptState { json: Some(Rc::from(*json)), value: None }))
                .collect(),
        };
        let mut topic = None;
        for call in &run.calls {
            if topic != Some(call.channel) {
                topic = Some(call.channel);
                *host.topic.borrow_mut() = topic_of(call.channel, run.device);
            }
            let outcome = self.reading(call, &mut threaded, trace)?;
            self.answer(outcome, host.logs.take())?;
            if self.unsound {
                break;
            }
        }
        Ok(())
    }

    /// One reading through its handlers.
    fn reading(&mut self, call: &Call<'_>, threaded: &mut Threaded, trace: bool) -> io::Result<Outcome> {
        let mut chain = Chain { call, kept: None, states: Vec::new() };
        self.engine.host.begin_reading();
        self.engine.host.position.set(call.position);
        let mut route = call.route;
        while route != 0 {
            #[expect(clippy::cast_possible_truncation, reason = "below 64")]
            let script = route.trailing_zeros() as u8;
            route &= route - 1;
            if trace {
                frame::send(&mut self.socket, &FromWorker::Calling(script), &mut self.buffer)?;
            }
            if self.engine.needs_load() {
                self.engine.load(|_| {});
                threaded.forget_values();
            }
            match self.guarded(script, &mut chain, threaded) {
                Ok(Next::Go) => {}
                Ok(Next::Drop) => return Ok(chain.dropped(script, threaded, &self.engine)),
                Err(fault) => {
                    threaded.forget_values();
                    return Ok(Outcome {
                        verdict: WireVerdict::Parked(script, fault),
                        states: Vec::new(),
                        emits: Vec::new(),
                        commands: Vec::new(),
                    });
                }
            }
        }
        Ok(chain.finished(threaded, &self.engine))
    }

    /// One handler, with the engine's panics caught, its time measured and its memory looked after.
    fn guarded(&mut self, script: u8, chain: &mut Chain<'_>, threaded: &mut Threaded) -> Result<Next, Fault> {
        let started = Instant::now();
        let called = catch_unwind(AssertUnwindSafe(|| handle(&mut self.engine, script, chain, threaded)));
        let took = started.elapsed();
        let nanos = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
        self.results.timings.push((script, nanos));
        let spent = self.cpu.of_call(started, took);
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
        if result.is_ok() && spent > allowed {
            let message = format!(
                "it took {} ms of CPU time, {CPU_FACTOR} times the limit script_call_cpu of {} ms or more",
                spent.as_millis(),
                limits::SCRIPT_CALL_CPU.as_millis()
            );
            return Err(fault(ParkReason::Deadline, message));
        }
        result
    }

    fn answer(&mut self, outcome: Outcome, logs: Vec<LogLine>) -> io::Result<()> {
        self.waiting += 16 + outcome.bytes() + logs.iter().map(|line| line.text.len()).sum::<usize>();
        self.results.outcomes.push(outcome);
        self.results.logs.extend(logs);
        if self.waiting > FLUSH_BYTES || self.flushed.elapsed() > FLUSH_AFTER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.waiting = 0;
        self.flushed = Instant::now();
        let mut results = std::mem::take(&mut self.results);
        results.cpu_us = process_cpu_us();
        frame::send(&mut self.socket, &FromWorker::Results(results), &mut self.buffer)
    }
}

/// What a handler said of a reading.
enum Next {
    Go,
    Drop,
}

/// A reading on its way through its handlers.
struct Chain<'a> {
    call: &'a Call<'a>,
    /// The last handler's result, if any gave one.
    kept: Option<Rc<[u8]>>,
    states: Vec<(u8, ScriptState)>,
}

impl Chain<'_> {
    fn effective_time(&self) -> i64 {
        self.call.device_time.unwrap_or(self.call.received)
    }

    /// Every handler had its turn: the state goes on by the late rule, `ctx.state` in any case.
    fn finished(self, threaded: &mut Threaded, engine: &Engine) -> Outcome {
        let time = self.effective_time();
        let kept = self.kept.clone();
        if keeps(threaded.previous.as_ref().map(|(_, time)| *time), time) {
            threaded.previous = Some((kept.clone().unwrap_or_else(|| Rc::from(self.call.payload)), time));
        }
        let verdict = kept.map_or(WireVerdict::Unchanged, |json| WireVerdict::Keep(json.to_vec()));
        self.outcome(verdict, threaded, engine)
    }

    fn dropped(self, script: u8, threaded: &mut Threaded, engine: &Engine) -> Outcome {
        self.outcome(WireVerdict::Dropped(script), threaded, engine)
    }

    fn outcome(self, verdict: WireVerdict, threaded: &mut Threaded, engine: &Engine) -> Outcome {
        let mut states = Vec::new();
        for (script, state) in self.states {
            let changed = threaded.json(script) != state.json;
            if changed && let Some(json) = &state.json {
                states.push((script, json.to_vec()));
            }
            threaded.set(script, state);
        }
        Outcome { verdict, states, emits: engine.host.emits.take(), commands: engine.host.commands.take() }
    }
}

impl Threaded {
    fn get(&self, script: u8) -> ScriptState {
        self.states.iter().find(|(of, _)| *of == script).map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn json(&self, script: u8) -> Option<Rc<[u8]>> {
        self.get(script).json
    }

    fn set(&mut self, script: u8, state: ScriptState) {
        match self.states.iter_mut().find(|(of, _)| *of == script) {
            Some((_, old)) => *old = state,
            None => self.states.push((script, state)),
        }
    }

    /// A failed call may have changed the values, or their context is gone: read them from JSON again.
    fn forget_values(&mut self) {
        for (_, state) in &mut self.states {
            state.value = None;
        }
    }
}

/// Calls one handler on the chain's reading and takes in what it returns.
fn handle(engine: &mut Engine, script: u8, chain: &mut Chain<'_>, threaded: &Threaded) -> Result<Next, Fault> {
    let call = chain.call;
    let host = Rc::clone(&engine.host);
    let ScriptState { json, value } = threaded.get(script);
    host.script.set(script);
    host.now.set(call.received);
    host.random.set(call.position.wrapping_mul(64).wrapping_add(u64::from(script)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    *host.previous.borrow_mut() =
        Lazy { json: threaded.previous.as_ref().map(|(json, _)| Rc::clone(json)), value: None };
    *host.state.borrow_mut() = Lazy { json: json.clone(), value };

    let time = chain.effective_time();
    let metric = engine.metric(chain.kept.as_deref().unwrap_or(call.payload), time)?;
    let result = engine.call(script, metric)?;

    let next = if result.is_undefined() {
        Next::Go
    } else if result.is_null() {
        Next::Drop
    } else {
        let mut out = Vec::with_capacity(JSON_BYTES);
        if !engine.json(&result, true, &mut out)? || out.first() != Some(&b'{') {
            return Err(fault(ParkReason::BadResult, format!("it returned {}, not an object", result.type_of())));
        }
        chain.kept = Some(out.into());
        Next::Go
    };
    // Only a state that the handler asked for can have changed.
    let touched = host.state.borrow_mut().value.take();
    if let Some(value) = touched {
        let mut out = Vec::with_capacity(JSON_BYTES);
        if !engine.json(&value, false, &mut out)? || out.first() != Some(&b'{') {
            return Err(fault(ParkReason::BadResult, "ctx.state is not an object"));
        }
        // A state that was never written is worth nothing until something is in it.
        let same = json.as_deref().unwrap_or(b"{}") == out.as_slice();
        let json = if same { json } else { Some(out.into()) };
        chain.states.push((script, ScriptState { json, value: Some(value) }));
    }
    Ok(next)
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

/// The CPU time of calls, without asking the kernel at each: only after one that was long on the wall.
struct CpuClock {
    sampled: Instant,
    cpu: Duration,
}

impl CpuClock {
    /// Calls shorter than this, on the wall, cannot be over their CPU limit.
    const SHORT: Duration = limits::SCRIPT_CALL_CPU;

    fn new() -> Self {
        Self { sampled: Instant::now(), cpu: thread_cpu() }
    }

    /// A lower bound of a call's CPU time: all since the last sample, less the wall time before the call began.
    fn of_call(&mut self, started: Instant, took: Duration) -> Duration {
        if took < Self::SHORT {
            return Duration::ZERO;
        }
        let cpu = thread_cpu();
        let before = started.saturating_duration_since(self.sampled);
        let spent = (cpu - self.cpu).saturating_sub(before).min(took);
        (self.sampled, self.cpu) = (Instant::now(), cpu);
        spent
    }
}

fn thread_cpu() -> Duration {
    since_zero(ClockId::ThreadCPUTime)
}

fn process_cpu_us() -> u64 {
    u64::try_from(since_zero(ClockId::ProcessCPUTime).as_micros()).unwrap_or(u64::MAX)
}

fn since_zero(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
