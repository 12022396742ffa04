//! One thread for each worker: takes runs from the shared queue, has them worked, and when the worker dies finds the reading
//! that killed it.
//!
//! States: idle (waits for runs), busy (a batch is under way), down (the worker is dead and waits to be started again).
//! Inbox: the pool's bounded queue, shared by all workers, so that a hung one holds up nobody else's runs. Exits: the stop channel
//! closes (at once), or the leave channel does (when the runs that it has are done).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flume::{Receiver, RecvTimeoutError};
use tidegate_actors::script::{OutcomeSink, ParkReason, ScriptRun};

use crate::{
    batch::Batch,
    config::{ScriptLimits, WorkerCommand},
    frame::FromWorker,
    process::{Death, Failure, Process, broken},
    queue::{LOOK_AGAIN, Listener, RunReceiver},
    restarts::Restarts,
    set::Set,
    slow::{Desk, SlowWork},
    tap::Tap,
};

/// A little more than the wall deadline: for the frame's way.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_millis(50);
/// A reading whose worker was killed from outside is tried this often before it is parked.
const OUTSIDE_KILLS: u32 = 3;
/// How long a frame under way may go on once the pool stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What all workers of a pool share, whatever their set.
pub(crate) struct Shared {
    pub(crate) command: WorkerCommand,
    pub(crate) limits: ScriptLimits,
    pub(crate) workers: usize,
    pub(crate) sink: Arc<dyn OutcomeSink>,
    pub(crate) tap: Tap,
    pub(crate) slow: Arc<SlowWork>,
}

/// What is shown of one worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerGauge {
    pub(crate) pid: AtomicU32,
    pub(crate) restarts: AtomicU64,
    pub(crate) busy: AtomicBool,
}

impl WorkerGauge {
    /// The gauge of a worker that takes the place of another one.
    pub(crate) fn after(former: Option<&Self>) -> Self {
        let restarts = former.map_or(0, |former| former.restarts.load(Ordering::Relaxed));
        Self { restarts: AtomicU64::new(restarts), ..Self::default() }
    }
}

/// The thread of one worker.
pub(crate) struct Supervisor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) set: Arc<Set>,
    pub(crate) gauge: Arc<WorkerGauge>,
    pub(crate) queue: RunReceiver,
    /// Nothing ever comes; it closes when the pool stops.
    pub(crate) stop: Receiver<()>,
    /// Nothing ever comes; it closes when this set takes over.
    pub(crate) begin: Receiver<()>,
    /// Nothing ever comes; it closes when another set takes over.
    pub(crate) leave: Receiver<()>,
    /// A worker that is loaded already.
    pub(crate) process: Option<Process>,
    /// It has had a worker: the next one is a restart.
    pub(crate) has_started: bool,
    pub(crate) restarts: Restarts,
}

/// Nothing is to be started any more: the pool stops, or there is nothing left to be done for this set.
struct Stopped;

impl Supervisor {
    /// The life of the thread.
    pub(crate) fn run(mut self) {
        let is_ready = !self.set.runs() || self.ensure_process().is_ok();
        // It waits until the channel closes.
        let _ = self.begin.recv();
        // One that a canary had was a shadow until now.
        if let Some(process) = &mut self.process {
            attach(process, &self.shared, &self.set, true);
        }
        if is_ready {
            let _ = self.work_until_stopped();
        }
        self.gauge.pid.store(0, Ordering::Relaxed);
        if let Some(process) = self.process.take() {
            let last = process.retire(Duration::from_secs(1));
            self.set.logs.log(last, &self.set.scripts, Instant::now());
        }
    }

    fn work_until_stopped(&mut self) -> Result<(), Stopped> {
        let mut batch = Batch::new(Arc::clone(&self.set.scripts), self.set.routes);
        while !self.is_leaving() {
            // Started before there is work, so that the first reading does not wait for it.
            if self.set.runs() {
                self.ensure_process()?;
            }
            let run = self.queue.recv(&self.stop, &self.leave).map_err(|_| Stopped)?;
            self.take(&mut batch, run);
            self.gauge.busy.store(true, Ordering::Relaxed);
            let worked = self.work(&mut batch);
            self.gauge.busy.store(false, Ordering::Relaxed);
            worked?;
        }
        Ok(())
    }

    /// Another set has taken over, and takes the runs that come.
    fn is_leaving(&self) -> bool {
        self.leave.is_disconnected()
    }

    fn take(&self, batch: &mut Batch, run: ScriptRun) {
        self.shared.tap.show(&run);
        batch.take(run);
    }

    /// Takes this worker's share of the runs that are there.
    fn take_share(&self, batch: &mut Batch) {
        let (mut runs, mut readings) = (0, 0);
        let share = self.queue.len().div_ceil(self.shared.workers);
        while !self.is_leaving()
            && runs < share
            && readings < self.shared.limits.batch
            && let Some(run) = self.queue.try_recv()
        {
            runs += 1;
            readings += run.calls.len();
            self.take(batch, run);
        }
    }

    /// Works until every run has its outcomes, whatever happens to the worker, and takes in further runs meanwhile.
    fn work(&mut self, batch: &mut Batch) -> Result<(), Stopped> {
        let shared = Arc::clone(&self.shared);
        let (mut outside_kills, mut deaths) = (0, 0);
        let mut talk = Talk::default();
        self.take_share(batch);
        while !batch.is_done() {
            // What has no outcome yet is in the journal, and is handled when the node starts again.
            if self.stop.is_disconnected() {
                return Err(Stopped);
            }
            if !self.set.runs() {
                // No script of the set wants them.
                let _ = batch.next_frame(shared.limits.batch, false, Instant::now());
                batch.deliver(&*shared.sink);
                continue;
            }
            self.ensure_process()?;
            // After a death: one reading a frame, until all that were under way have their outcomes.
            let careful = batch.has_suspects();
            let worked = self.talk(batch, &mut talk, careful);
            batch.deliver(&*shared.sink);
            match worked {
                Ok(false) => {}
                Ok(true) => {
                    self.recycle();
                    talk = Talk::default();
                    batch.redecide(false, Instant::now());
                }
                Err(Failure::Stopped) => {
                    self.bury(&Failure::Stopped);
                    return Err(Stopped);
                }
                Err(failure) => {
                    let death = self.bury(&failure);
                    if death.from_outside {
                        outside_kills += 1;
                    } else {
                        deaths += 1;
                    }
                    if careful && (!death.from_outside || outside_kills >= OUTSIDE_KILLS) {
                        let (reason, message) = blame(&failure, &death, &shared.limits);
                        batch.park(talk.calling, reason, &message, deaths, Instant::now());
                        deaths = 0;
                        batch.deliver(&*shared.sink);
                        outside_kills = 0;
                    }
                    talk = Talk::default();
                    batch.redecide(true, Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Gives the worker frames and takes its answers, until all is answered (or all that was under way at the last death, if this
    /// is done with care). `Ok(true)`: the worker ends now, by its own wish.
    fn talk(&mut self, batch: &mut Batch, talk: &mut Talk, careful: bool) -> Result<bool, Failure> {
        let shared = Arc::clone(&self.shared);
        let patience = shared.limits.call_wall + DEADLINE_GRACE;
        let mut listener: Option<Listener<'_>> = None;
        while talk.is_asked || (!batch.is_done() && careful == batch.has_suspects()) {
            if !talk.is_asked {
                if batch.has_room() {
                    self.take_share(batch);
                }
                let readings = if careful { 1 } else { shared.limits.batch };
                if let (Some(frame), Some(process)) =
                    (batch.next_frame(readings, careful, Instant::now()), &mut self.process)
                {
                    process.ask(frame)?;
                    talk.is_asked = true;
                    talk.heard = Instant::now();
                }
                batch.deliver(&*shared.sink);
                if batch.is_done() {
                    return Ok(false);
                }
            }
            if self.stop.is_disconnected()
                && (!talk.is_asked || talk.stopping.get_or_insert_with(Instant::now).elapsed() > STOP_GRACE)
            {
                return Err(Failure::Stopped);
            }
            // All that is there waits: runs that come now may go along.
            let may_take = !talk.is_asked && batch.has_room() && !self.is_leaving();
            if self.is_leaving()
                && let Some(listener) = listener.take()
            {
                // It may have rung for this thread, which takes no more.
                listener.pass_on();
            }
            if may_take && listener.is_none() {
                listener = Some(self.queue.listen());
                if !self.queue.is_empty() {
                    continue;
                }
            }
            let bell = listener.as_ref().filter(|_| may_take);
            let Some(process) = &mut self.process else { return Ok(false) };
            let Some(message) = process.hear_or(bell.map(Listener::bell), talk.heard, patience)? else {
                if let Some(listener) = &listener {
                    listener.heard();
                }
                continue;
            };
            talk.heard = Instant::now();
            if let Some(retire) = take_message(message, batch, talk, &shared, &self.set)? {
                return Ok(retire);
            }
        }
        Ok(false)
    }

    /// Starts a worker if there is none that lives.
    fn ensure_process(&mut self) -> Result<(), Stopped> {
        loop {
            if let Some(process) = &mut self.process {
                if process.is_alive() {
                    self.gauge.pid.store(process.pid(), Ordering::Relaxed);
                    return Ok(());
                }
                let idle = Failure::Broken(std::io::ErrorKind::UnexpectedEof.into());
                self.bury(&idle);
            }
            self.wait_to_restart()?;
            match start(&self.shared, &self.set, true) {
                Ok(process) => {
                    if std::mem::replace(&mut self.has_started, true) {
                        self.gauge.restarts.fetch_add(1, Ordering::Relaxed);
                    }
                    self.process = Some(process);
                }
                Err(message) => tracing::error!(error = message, "a script worker does not start"),
            }
        }
    }

    /// A few restarts come at once; then they come ever more slowly, and no more than so many a window. One that another set
    /// replaces hardly waits: it has only the runs that it took, and the next reload waits for it.
    fn wait_to_restart(&mut self) -> Result<(), Stopped> {
        let until = Instant::now() + self.restarts.delay(Instant::now());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.stop.recv_timeout(left.min(LOOK_AGAIN)) == Err(RecvTimeoutError::Disconnected) {
                return Err(Stopped);
            }
            if left <= LOOK_AGAIN || self.is_leaving() {
                break;
            }
        }
        self.restarts.note(Instant::now());
        Ok(())
    }

    fn bury(&mut self, failure: &Failure) -> Death {
        self.gauge.pid.store(0, Ordering::Relaxed);
        let Some(process) = self.process.take() else {
            return Death { memory: false, from_outside: false, message: String::new() };
        };
        let pid = process.pid();
        let death = process.bury(failure);
        tracing::warn!(worker = pid, reason = death.message, "a script worker died");
        death
    }

    /// A worker that asked to end: not a death, and its restart is not counted against it.
    fn recycle(&mut self) {
        if let Some(process) = self.process.take() {
            tracing::info!(worker = process.pid(), "a script worker retires");
            let last = process.retire(Duration::from_millis(500));
            self.set.logs.log(last, &self.set.scripts, Instant::now());
        }
        if let Ok(process) = start(&self.shared, &self.set, true) {
            self.gauge.restarts.fetch_add(1, Ordering::Relaxed);
            self.process = Some(process);
        }
    }
}

/// Starts a worker and loads what loaded before. `has_effects`: it is no shadow.
pub(crate) fn start(shared: &Shared, set: &Set, has_effects: bool) -> Result<Process, String> {
    let mut process = Process::spawn(&shared.command).map_err(|error| error.to_string())?;
    match process.load(&set.sources, &set.skip, &shared.limits) {
        Ok(_) => {
            attach(&mut process, shared, set, has_effects);
            Ok(process)
        }
        Err((_, failure)) => Err(process.bury(&failure).message),
    }
}

/// Gives a worker a desk for its slow work.
pub(crate) fn attach(process: &mut Process, shared: &Shared, set: &Set, has_effects: bool) {
    match Desk::new(&shared.slow, &set.sources, has_effects) {
        Ok(desk) => process.attach(desk),
        // Its first ask ends it, and the next worker may have more luck.
        Err(error) => tracing::error!(%error, "a script worker has no desk for slow work"),
    }
}

/// What was said between the node and one worker.
struct Talk {
    /// A frame is under way that is not through.
    is_asked: bool,
    /// It has answered something.
    has_answered: bool,
    /// What it said last that it runs: run and script.
    calling: Option<(u32, u8)>,
    heard: Instant,
    stopping: Option<Instant>,
}

impl Default for Talk {
    fn default() -> Self {
        Self { is_asked: false, has_answered: false, calling: None, heard: Instant::now(), stopping: None }
    }
}

/// Takes in what a worker says. `Some(true)`: it ends now.
fn take_message(
    message: FromWorker,
    batch: &mut Batch,
    talk: &mut Talk,
    shared: &Shared,
    set: &Set,
) -> Result<Option<bool>, Failure> {
    match message {
        FromWorker::Calling { run, script } => talk.calling = Some((run, script)),
        FromWorker::Results(results) => {
            let now = Instant::now();
            for (script, nanos) in results.timings {
                if let Some(script) = set.scripts.get(script.into()) {
                    script.stats.called(nanos);
                }
            }
            set.logs.log(results.logs, &set.scripts, now);
            talk.has_answered |= !results.outcomes.is_empty();
            for outcome in results.outcomes {
                batch.answer(outcome, now).map_err(broken)?;
            }
            batch.deliver(&*shared.sink);
        }
        FromWorker::Done { retire: false } => talk.is_asked = false,
        // One that retires may leave answers out, but not all of them: that would never end.
        FromWorker::Done { retire: true } if talk.has_answered => return Ok(Some(true)),
        FromWorker::Done { .. } => return Err(broken("answers are missing")),
        _ => return Err(broken("an answer out of place")),
    }
    Ok(None)
}

/// What a death says of the reading that the worker died of.
pub(crate) fn blame(failure: &Failure, death: &Death, limits: &ScriptLimits) -> (ParkReason, String) {
    match failure {
        Failure::Silent => {
            let wall = limits.call_wall.as_millis();
            (
                ParkReason::Deadline,
                format!(
                    "it ran longer than {wall} ms (limit script_call_wall, setting scripts.call_wall_ms) and was killed"
                ),
            )
        }
        Failure::Broken(_) if death.memory => {
            let heap = limits.heap_bytes / (1024 * 1024);
            (
                ParkReason::Memory,
                format!("it needed more memory than {heap} MB (limit script_heap_bytes, setting scripts.heap_bytes)"),
            )
        }
        Failure::Broken(_) | Failure::Stopped => (ParkReason::Crashed, death.message.clone()),
    }
}
