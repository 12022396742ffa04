//! The pool of script workers: the [`ScriptEngine`] that the runtime is given. Which set of handlers it runs changes in [`crate::reload`].

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flume::{Receiver, Sender};
use tidegate_actors::{
    ids::DeviceId,
    limits,
    reading::Channel,
    script::{OpenPolicy, OutcomeSink, Route, ScriptEngine, ScriptHealth, ScriptRun, ScriptTimer, WorkerHealth},
};

use crate::{
    config::{CanaryConfig, PoolConfig},
    crew::Crew,
    kept::Kept,
    kept_sets::KeptSets,
    load::{LoadError, excerpt_of, first_load},
    process::{Process, resident_bytes},
    queue::{RunReceiver, RunSender, queue},
    set::{Set, digest},
    slow::{SlowStatus, SlowWork},
    source::SourceSet,
    supervisor::{Shared, WorkerGauge},
    tap::Tap,
    trials::{SetStatus, Trials},
};

/// The bit of a reading that only a canary wants; no script has it unless there are as many as there may be.
const CANARY_ROUTE: Route = Route(1 << (limits::SCRIPTS - 1));

/// Worker processes that run the handlers of one directory.
pub struct WorkerPool {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handlers_dir: PathBuf,
    pub(crate) canary: CanaryConfig,
    queue: RunSender,
    runs: RunReceiver,
    /// Dropped to stop the workers.
    stop: Mutex<Option<Sender<()>>>,
    pub(crate) stopped: Receiver<()>,
    current: RwLock<Arc<Set>>,
    /// What the present routes are known by. Changes within `current`'s lock when the set does.
    routes: AtomicU64,
    /// The last number that routes were given.
    last_routes: AtomicU64,
    crews: Mutex<Crews>,
    pub(crate) kept: Mutex<Kept>,
    /// Held by who changes the set.
    pub(crate) reloading: Mutex<()>,
    /// What became of sets, for who watches.
    pub(crate) trials: Trials,
}

#[derive(Default)]
struct Crews {
    present: Option<Crew>,
    /// It finishes its last runs.
    former: Option<Crew>,
}

impl WorkerPool {
    /// Reads the handlers, loads them in a first worker, and starts the others. Blocks until the routes are known.
    ///
    /// A broken handler is logged with its place and left out of the routes. Without a single good one, no process runs. If the
    /// directory still holds what was refused or rolled back, the last good set runs instead.
    ///
    /// # Errors
    /// [`LoadError`]: the directory cannot be read, or no worker can be started.
    pub fn start(config: PoolConfig, sink: Arc<dyn OutcomeSink>) -> Result<Arc<Self>, LoadError> {
        let PoolConfig { handlers_dir, workers, command, limits, kept_dir, canary, slow } = config;
        let slow = SlowWork::new(slow, &command, &limits).map_err(|error| LoadError::Worker(error.to_string()))?;
        let mut kept = Kept::open(kept_dir.as_deref()).map_err(LoadError::Read)?;
        let sources = sources_to_start_with(SourceSet::read(&handlers_dir).map_err(LoadError::Read)?, &kept);
        let loaded = first_load(&sources, &command, &limits)?;
        for (name, result) in &loaded.scripts {
            match result {
                Ok(_) => tracing::info!(script = &**name, "script loaded"),
                Err(error) => {
                    let excerpt = excerpt_of(&sources, &handlers_dir, error).unwrap_or_default();
                    let (file, line, column) = (&*error.file, error.line, error.column);
                    let error = &*error.message;
                    tracing::error!(script = &**name, file, line, column, "script is broken: {error}\n{excerpt}");
                }
            }
        }
        let (queue, runs) = queue(limits.queue.max(1)).map_err(|error| LoadError::Worker(error.to_string()))?;
        let (stop, stopped) = flume::bounded(0);
        let generation = kept.generation_of(&digest(&sources));
        let set = Arc::new(Set::new(generation, 1, sources, loaded.scripts, &limits, |_| None));
        set.scripts.iter().for_each(|script| script.enable(!kept.is_disabled(&script.name)));
        let is_good = set.runs() && !set.skip.contains(&true);
        if let Err(error) = kept.runs(generation, &set.sources, is_good) {
            tracing::error!(%error, "the handlers cannot be kept: a later version cannot be rolled back to them");
        }
        let shared = Arc::new(Shared {
            command,
            limits,
            workers: workers.max(1),
            sink,
            tap: Tap::default(),
            slow: Arc::new(slow),
        });
        let crew = Crew::new(&shared, &set, &runs, &stopped, loaded.process, &[]);
        let mut crew = crew.map_err(|error| LoadError::Worker(error.to_string()))?;
        crew.begin();
        let trials = Trials::default();
        trials.runs();
        Ok(Arc::new(Self {
            shared,
            handlers_dir,
            canary,
            queue,
            runs,
            stop: Mutex::new(Some(stop)),
            stopped,
            routes: AtomicU64::new(set.routes),
            last_routes: AtomicU64::new(set.routes),
            current: RwLock::new(set),
            crews: Mutex::new(Crews { present: Some(crew), former: None }),
            kept: Mutex::new(kept),
            reloading: Mutex::default(),
            trials,
        }))
    }

    /// The set that runs.
    pub(crate) fn current(&self) -> Arc<Set> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of the set that runs: 1 for a node's first, one more for each that takes over.
    pub fn set_generation(&self) -> u64 {
        self.current().generation
    }

    /// A number for routes that nothing has had.
    pub(crate) fn next_routes(&self) -> u64 {
        self.last_routes.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Routes have changed, although the set has not.
    pub(crate) fn set_routes(&self, routes: u64) {
        self.routes.store(routes, Ordering::SeqCst);
    }

    /// Lets a set take over. Runs that a worker has already are finished by the old one; the others go to the new one.
    ///
    /// # Errors
    /// There are no threads; nothing has changed.
    pub(crate) fn switch(&self, set: Arc<Set>, first: Option<Process>) -> io::Result<()> {
        // There are never more than two crews: what one of them waits for is bounded.
        let former = lock(&self.crews).former.take();
        if let Some(former) = former {
            former.join();
        }
        let gauges = self.gauges();
        // It stands ready, but takes nothing yet: no device goes to the new set and back to the old one.
        let mut next = Crew::new(&self.shared, &set, &self.runs, &self.stopped, first, &gauges)?;
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            self.routes.store(set.routes, Ordering::SeqCst);
            *current = set;
        }
        let mut crews = lock(&self.crews);
        crews.former = crews.present.take();
        if let Some(former) = &mut crews.former {
            former.leave();
        }
        next.begin();
        self.trials.runs();
        crews.present = Some(next);
        Ok(())
    }

    fn gauges(&self) -> Vec<Arc<WorkerGauge>> {
        lock(&self.crews).present.as_ref().map(|crew| crew.gauges().to_vec()).unwrap_or_default()
    }

    /// Closes a script's breaker. `false`: there is no such script.
    pub fn rearm(&self, name: &str) -> bool {
        let set = self.current();
        let script = set.scripts.named(name);
        script.inspect(|script| script.breaker.rearm()).is_some()
    }

    /// Switches a script off (readings go on without it) or on, also for the next start. `Ok(false)`: there is no such script.
    ///
    /// # Errors
    /// The disk's: nothing has changed.
    pub fn enable(&self, name: &str, enabled: bool) -> io::Result<bool> {
        // The kept sets are locked first, as a switch does.
        let mut kept = lock(&self.kept);
        let set = self.current();
        let Some(script) = set.scripts.named(name) else { return Ok(false) };
        kept.enable(name, enabled)?;
        script.enable(enabled);
        Ok(true)
    }

    /// The sets of handlers that are kept, for a backup.
    ///
    /// # Errors
    /// The disk's, or a set is not what it was.
    pub fn kept_sets(&self) -> io::Result<KeptSets> {
        lock(&self.kept).all()
    }

    /// The set that runs, one that is tried beside it, and the last that had to go.
    pub fn set_status(&self) -> SetStatus {
        let set = self.current();
        self.trials.status(set.generation, set.sources.handlers.len())
    }

    /// The slow work of scripts: what is under way, and what came of it.
    pub fn slow_work(&self) -> SlowStatus {
        self.shared.slow.status()
    }

    /// How long a breaker stays open.
    pub fn breaker_open_for(&self) -> Duration {
        self.shared.limits.breaker_open
    }
}

/// The sources of the directory, unless they are what was refused or rolled back.
fn sources_to_start_with(sources: SourceSet, kept: &Kept) -> SourceSet {
    let digest = digest(&sources);
    if !kept.is_refused(&digest) {
        return sources;
    }
    match kept.former(&digest) {
        Ok(Some(former)) => {
            tracing::error!(
                "the handlers' directory holds what was refused or rolled back: the last good handlers run; change the files, or take them all the same with `tidegate script reload --no-canary`"
            );
            former
        }
        Ok(None) => sources,
        Err(error) => {
            tracing::error!(%error, "the last good handlers cannot be read: those of the handlers' directory run");
            sources
        }
    }
}

impl ScriptEngine for WorkerPool {
    fn route(&self, device: &DeviceId, channel: Channel) -> Route {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let route = current.scripts.route(device, channel);
        if route.is_empty() && self.shared.tap.wants(device, channel) { CANARY_ROUTE } else { route }
    }

    fn generation(&self) -> u64 {
        self.routes.load(Ordering::SeqCst)
    }

    fn timers(&self) -> Vec<ScriptTimer> {
        self.current().scripts.timers()
    }

    fn refuses(&self, route: Route, generation: u64) -> bool {
        if self.shared.limits.breaker_policy != OpenPolicy::Reject || generation != self.generation() {
            return false;
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.scripts.refuses(route, Instant::now())
    }

    /// Takes as many runs as fit, and gives back the others, in order. Gives all back once the pool is stopped.
    fn try_submit(&self, runs: Vec<ScriptRun>) -> Result<(), Vec<ScriptRun>> {
        if self.stopped.is_disconnected() {
            return Err(runs);
        }
        let set = self.current();
        let mut refused = Vec::new();
        for run in runs {
            let is_urgent = run.calls.iter().any(|call| set.scripts.is_urgent(call.route.0));
            // Of one kind there may be room, and of the other not.
            if let Err(run) = self.queue.try_send(run, is_urgent) {
                refused.push(run);
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    fn scripts(&self) -> Vec<ScriptHealth> {
        let set = self.current();
        set.scripts.health(set.generation, Instant::now())
    }

    fn workers(&self) -> Vec<WorkerHealth> {
        let of = |gauge: &Arc<WorkerGauge>| {
            let pid = gauge.pid.load(Ordering::Relaxed);
            WorkerHealth {
                pid,
                restarts: gauge.restarts.load(Ordering::Relaxed),
                rss_bytes: if pid == 0 { 0 } else { resident_bytes(pid) },
                busy: gauge.busy.load(Ordering::Relaxed),
            }
        };
        self.gauges().iter().map(of).collect()
    }

    fn stop(&self) {
        drop(lock(&self.stop).take());
        let Crews { present, former } = std::mem::take(&mut *lock(&self.crews));
        for crew in [former, present].into_iter().flatten() {
            crew.join();
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
