//! Another set of handlers takes the place of the one that runs: read, load in a worker of its own, try on a share of the devices,
//! switch. At each step but the last, the old set goes on as if nothing had happened.

use std::{
    fs, io,
    sync::{Arc, MutexGuard, TryLockError},
    time::Duration,
};

use tidegate_actors::script::ScriptError;

use crate::{
    canary::{self, CanaryReport},
    check::ScriptReport,
    lane::Lane,
    load::{FirstLoad, LoadError, excerpt_of, first_load},
    pool::{WorkerPool, lock},
    process::Process,
    set::{Set, digest},
    source::SourceSet,
    supervisor::Shared,
};

/// A set that runs now.
#[derive(Debug, Clone, PartialEq)]
pub enum Reloaded {
    /// The directory holds what runs already.
    Unchanged {
        /// The number of the set.
        generation: u64,
    },
    /// A new one has taken over.
    Switched {
        /// Its number.
        generation: u64,
        /// How it was tried; `None`: it was not.
        canary: Option<CanaryReport>,
    },
}

/// Why the set that ran goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Another change is under way.
    #[error("another reload or rollback is under way")]
    Busy,
    /// The node stops.
    #[error("the node is stopping")]
    Stopped,
    /// Nothing could be loaded at all.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// These handlers do not load.
    #[error("{} of the handlers do not load", .0.len())]
    Broken(Vec<ScriptReport>),
    /// The canary speaks against it.
    #[error("rolled back by the canary: {}", .0.verdict.as_deref().unwrap_or_default())]
    RolledBack(Box<CanaryReport>),
    /// No other set is kept.
    #[error("no other set of handlers is kept")]
    NothingKept,
    /// The kept sets cannot be read or written.
    #[error("the kept handlers: {0}")]
    Kept(io::Error),
    /// There are no threads.
    #[error("the workers do not start: {0}")]
    Start(io::Error),
}

impl WorkerPool {
    /// Reads the directory again and lets it take over, if it loads and, with `try_first`, if nothing speaks against it once it has
    /// been tried. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`ReloadError`]: what ran goes on.
    pub fn reload(&self, try_first: bool) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn()?;
        let current = self.current();
        // One that is not there (a mount that is missing) would be read as one without handlers.
        let gone = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.handlers_dir.display()));
        if !current.sources.handlers.is_empty() {
            fs::metadata(&self.handlers_dir).map_err(|error| LoadError::Read(gone(error)))?;
        }
        let sources = SourceSet::read(&self.handlers_dir).map_err(LoadError::Read)?;
        let name = digest(&sources);
        if name == current.digest && !current.skip.contains(&true) {
            return Ok(Reloaded::Unchanged { generation: current.generation });
        }
        let result = self.replace(&current, sources, try_first);
        match &result {
            Ok(_) => {}
            Err(error @ (ReloadError::Broken(_) | ReloadError::RolledBack(_))) => {
                tracing::error!(
                    generation = current.generation,
                    "the new handlers are not taken: {error}; the old ones go on"
                );
                self.trials.goes(current.generation + 1, why(error));
                if let Err(error) = lock(&self.kept).refuse(&name) {
                    tracing::error!(%error, "it cannot be written down that the new handlers were refused: a restart takes them up");
                }
            }
            Err(error) => tracing::error!("the handlers cannot be reloaded: {error}; the old ones go on"),
        }
        result
    }

    /// Goes back to the set that ran before this one, and keeps to it, also after a restart, until the directory holds something else.
    ///
    /// # Errors
    /// [`ReloadError`]: what ran goes on.
    pub fn rollback(&self) -> Result<u64, ReloadError> {
        let _turn = self.turn()?;
        let current = self.current();
        let former = lock(&self.kept).former(&current.digest).map_err(ReloadError::Kept)?;
        let sources = former.ok_or(ReloadError::NothingKept)?;
        let Loaded { set, process } = self.load(&current, sources)?;
        // Whatever happens from here on, a start does not take up again what is taken back now.
        lock(&self.kept).take_back(&current.digest).map_err(ReloadError::Kept)?;
        let generation = set.generation;
        self.take_over(&set, process)?;
        self.trials.goes(
            current.generation,
            format!("an operator went back to the former handlers, now version {generation}"),
        );
        tracing::warn!(generation, "rolled back: the former handlers run");
        Ok(generation)
    }

    fn turn(&self) -> Result<MutexGuard<'_, ()>, ReloadError> {
        match self.reloading.try_lock() {
            Ok(turn) => Ok(turn),
            Err(TryLockError::Poisoned(turn)) => Ok(turn.into_inner()),
            Err(TryLockError::WouldBlock) => Err(ReloadError::Busy),
        }
    }

    fn replace(&self, current: &Arc<Set>, sources: SourceSet, try_first: bool) -> Result<Reloaded, ReloadError> {
        // A number for the time of the canary, before that of the set, so that they grow.
        let canary_routes = self.next_routes();
        let Loaded { set, process } = self.load(current, sources)?;
        let (mut process, mut canary) = (process, None);
        if try_first && self.canary.share > 0 && set.runs() {
            let (report, tried) = self.try_out(current, &set, process, canary_routes)?;
            if report.verdict.is_some() {
                return Err(ReloadError::RolledBack(Box::new(report)));
            }
            (process, canary) = (tried, Some(report));
        }
        let (generation, scripts) = (set.generation, set.sources.handlers.len());
        self.take_over(&set, process)?;
        tracing::info!(generation, scripts, "new handlers run");
        Ok(Reloaded::Switched { generation, canary })
    }

    /// Loads a set in a worker of its own.
    fn load(&self, current: &Set, sources: SourceSet) -> Result<Loaded, ReloadError> {
        let Shared { command, limits, .. } = &*self.shared;
        let FirstLoad { scripts, process } = first_load(&sources, command, limits)?;
        if scripts.iter().any(|(_, result)| result.is_err()) {
            if let Some(process) = process {
                process.retire(Duration::from_millis(500));
            }
            let broken = scripts.into_iter().filter_map(|(name, result)| Some((name, result.err()?)));
            let report = |(name, error)| ScriptReport {
                name,
                excerpt: excerpt_of(&sources, &self.handlers_dir, &error),
                error: Some(error),
            };
            return Err(ReloadError::Broken(broken.map(report).collect()));
        }
        let counts = |name: &str| current.scripts.named(name).map(|script| Arc::clone(&script.stats.counts));
        let (generation, routes) = (current.generation + 1, self.next_routes());
        let set = Arc::new(Set::new(generation, routes, sources, scripts, limits, counts));
        self.apply_switches(&set);
        Ok(Loaded { set, process })
    }

    /// Runs both sets on the readings of a share of the devices. Gives the worker back in which the new one is loaded.
    fn try_out(
        &self,
        current: &Arc<Set>,
        set: &Arc<Set>,
        process: Option<Process>,
        routes: u64,
    ) -> Result<(CanaryReport, Option<Process>), ReloadError> {
        let Shared { tap, .. } = &*self.shared;
        let (share, generation) = (self.canary.share, set.generation);
        tracing::info!(generation, share, "new handlers are tried beside the running ones");
        let (mut old, mut new) = (Lane::new(&self.shared, current, None), Lane::new(&self.shared, set, process));
        let runs = tap.open(share, Arc::clone(&set.scripts));
        // Readings that only the new set wants come, too, as long as it is tried.
        self.set_routes(routes);
        self.trials.begins(generation, share, self.canary.readings);
        let tell = |report: &CanaryReport| self.trials.sees(report);
        let seen = canary::watch(&runs, &mut old, &mut new, &self.canary, &self.stopped, tell);
        self.trials.ends();
        tap.close();
        self.set_routes(current.routes);
        old.end();
        match seen {
            Ok(report) if report.verdict.is_none() => Ok((report, new.into_process())),
            Ok(report) => {
                new.end();
                Ok((report, None))
            }
            Err(canary::Stopped) => {
                new.end();
                Err(ReloadError::Stopped)
            }
        }
    }

    fn take_over(&self, set: &Arc<Set>, process: Option<Process>) -> Result<(), ReloadError> {
        self.switch(Arc::clone(set), process).map_err(ReloadError::Start)?;
        // An operator may have switched something meanwhile.
        self.apply_switches(set);
        let generation = set.generation;
        if let Err(error) = lock(&self.kept).runs(generation, &set.sources, true) {
            tracing::error!(%error, generation, "the handlers run but cannot be kept: there is no rollback to them");
        }
        Ok(())
    }

    fn apply_switches(&self, set: &Set) {
        let kept = lock(&self.kept);
        set.scripts.iter().for_each(|script| script.enable(!kept.is_disabled(&script.name)));
    }
}

/// Why a set was not taken, with the place of the first handler that does not load.
fn why(error: &ReloadError) -> String {
    let ReloadError::Broken(reports) = error else { return error.to_string() };
    let first = reports.first().and_then(|report| report.error.as_ref());
    let place = |error: &ScriptError| {
        let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("; {}{line}: {}", error.file, error.message)
    };
    format!("{error}{}", first.map(place).unwrap_or_default())
}

/// A set that could run, and a worker in which it is loaded.
struct Loaded {
    set: Arc<Set>,
    process: Option<Process>,
}
