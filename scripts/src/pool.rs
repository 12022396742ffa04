//! The pool of script workers: the [`ScriptEngine`] that the runtime is given.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Instant,
};

use flume::Sender;
use tidegate_actors::{
    ids::DeviceId,
    reading::Channel,
    script::{OutcomeSink, Route, ScriptEngine, ScriptHealth, ScriptRun, WorkerHealth},
};

use crate::{
    config::PoolConfig,
    load::{LoadError, excerpt_of, first_load},
    logs::Logs,
    process::resident_bytes,
    queue::{RunSender, queue},
    scripts::Scripts,
    source::SourceSet,
    supervisor::{Shared, Supervisor, WorkerGauge},
};

/// Worker processes that run the handlers of one directory.
///
/// The handlers are read and loaded once, when the pool starts; [`ScriptEngine::generation`] stays 1.
pub struct WorkerPool {
    scripts: Arc<Scripts>,
    queue: RunSender,
    /// Dropped to stop the workers.
    stop: Mutex<Option<Sender<()>>>,
    gauges: Vec<Arc<WorkerGauge>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl WorkerPool {
    /// Reads the handlers, loads them in a first worker, and starts the others. Blocks until the routes are known.
    ///
    /// A broken handler is logged with its place and left out of the routes. Without a single good one, no process runs.
    ///
    /// # Errors
    /// [`LoadError`]: the directory cannot be read, or no worker can be started.
    pub fn start(config: PoolConfig, sink: Arc<dyn OutcomeSink>) -> Result<Arc<Self>, LoadError> {
        let PoolConfig { handlers_dir, workers, command, limits } = config;
        let sources = SourceSet::read(&handlers_dir).map_err(LoadError::Read)?;
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
        let skip = loaded.scripts.iter().map(|(_, result)| result.is_err()).collect();
        let workers = if loaded.process.is_some() { workers.max(1) } else { 0 };
        let scripts = Arc::new(Scripts::new(loaded.scripts, &limits));
        let (queue, runs) = queue(limits.queue.max(1)).map_err(|error| LoadError::Worker(error.to_string()))?;
        let (stop, stopped) = flume::bounded(0);
        let logs = Logs::new(sources.handlers.len());
        let shared =
            Arc::new(Shared { command, limits, workers, sources, skip, scripts: Arc::clone(&scripts), logs, sink });
        let mut first = loaded.process;
        let mut pool =
            Self { scripts, queue, stop: Mutex::new(Some(stop)), gauges: Vec::new(), threads: Mutex::default() };
        for number in 0..workers {
            let gauge = Arc::new(WorkerGauge::default());
            pool.gauges.push(Arc::clone(&gauge));
            let process = first.take();
            let supervisor = Supervisor {
                shared: Arc::clone(&shared),
                gauge,
                queue: runs.clone(),
                stop: stopped.clone(),
                has_started: process.is_some(),
                process,
                restarts: VecDeque::new(),
            };
            let thread = thread::Builder::new()
                .name(format!("scripts-{number}"))
                .spawn(move || supervisor.run())
                .map_err(|error| LoadError::Worker(error.to_string()))?;
            pool.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(Arc::new(pool))
    }
}

impl ScriptEngine for WorkerPool {
    fn route(&self, device: &DeviceId, channel: Channel) -> Route {
        self.scripts.route(device, channel)
    }

    fn generation(&self) -> u64 {
        1
    }

    /// Takes as many runs as fit, in order, and gives back the others. Gives all back once the pool is stopped.
    fn try_submit(&self, runs: Vec<ScriptRun>) -> Result<(), Vec<ScriptRun>> {
        let mut runs = runs.into_iter();
        while let Some(run) = runs.next() {
            if let Err(run) = self.queue.try_send(run) {
                return Err(std::iter::once(run).chain(runs).collect());
            }
        }
        Ok(())
    }

    fn scripts(&self) -> Vec<ScriptHealth> {
        self.scripts.health(Instant::now())
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
        self.gauges.iter().map(of).collect()
    }

    fn stop(&self) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has nothing more to stop.
            let _ = thread.join();
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.stop();
    }
}
