//! The checkpoint thread: takes the loops' changed states and kept pairs, keeps the latest of each, and writes them to the store every
//! interval. It also writes the snapshot files that let the journal free its segments.
//!
//! **The invariant that recovery stands on.** A loop says `folded_through = p` only when every reading of its devices at or
//! before `p` is folded, handlers' outcomes included, and every state that this changed is in this batch or in an earlier one, and so
//! is every kept pair whose record is at or before `p`.
//! The store's folded position is the least of the loops', so what follows it in the journal is all that a replay needs.
//! A loop without readings says so too: at least one batch an interval, else it holds the others back. With nothing in
//! flight it may report the journal's `committed` position, read *before* it made sure that none of its batches waits for
//! its commit; with something in flight, the position before the first reading that is not folded, or the last one that
//! it may have reported before, whichever is less.
//!
//! It is the only writer of the store, and never waits for a loop.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use flume::RecvTimeoutError;

use crate::{
    background,
    blocking::message,
    crash_point::CrashPoint,
    dirty::DirtyStates,
    ids::{LoopId, Position},
    journal::{Journal, Retention, disk},
    kept::{KeptChange, KeptChanges},
    limits,
    lock::{lock, read, write},
    snapshot::{self, SnapshotError},
    state::DeviceState,
    store::{ParkedChanges, StateStore, StoreError},
};

/// Time between two attempts to write a snapshot: each reads the whole store.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(30);

/// What can be set about the checkpoints.
#[derive(Debug, Clone)]
pub struct CheckpointConfig {
    /// Time between two checkpoints.
    pub interval: Duration,
    /// Where snapshot files go.
    pub snapshot_dir: PathBuf,
    /// What is kept of the journal although snapshots cover it. A snapshot is written at every half of either bound.
    pub retention: Retention,
    /// How many loops hand in batches.
    pub loops: usize,
}

impl CheckpointConfig {
    /// What is kept of the journal by default.
    pub const RETENTION: Retention = Retention { bytes: 512 * 1024 * 1024, age: None };

    /// The defaults, for this directory and this many loops.
    #[must_use]
    pub fn new(snapshot_dir: PathBuf, loops: usize) -> Self {
        Self { interval: limits::CHECKPOINT_INTERVAL, snapshot_dir, retention: Self::RETENTION, loops }
    }
}

/// What a loop hands in: its changed states, and how far it has come.
#[derive(Debug, Clone)]
pub struct CheckpointBatch {
    /// The loop.
    pub owner: LoopId,
    /// States that changed since its last batch (the latest of each device is enough).
    pub states: Vec<DeviceState>,
    /// Readings that were parked since its last batch.
    pub parked: ParkedChanges,
    /// Pairs that changed since its last batch (the latest change of each is enough).
    pub kept: Vec<KeptChange>,
    /// Every reading of this loop's devices at or before this is folded, and its state is in this batch or an earlier one; so are
    /// the kept pairs whose records are at or before this.
    pub folded_through: Position,
}

/// How the checkpoints fare.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// Everything up to here is in the store, durably.
    pub folded: Position,
    /// Checkpoints that were written since start.
    pub written: u64,
    /// Time of the last one, milliseconds.
    pub last_ms: f64,
    /// The position of the last snapshot that was written since start; 0: none.
    pub snapshot: Position,
    /// Did the last attempt succeed? When not, acknowledgements go on, because the journal has it all.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// The checkpoint thread, as the loops see it.
#[derive(Debug)]
pub struct Checkpointer {
    queue: RwLock<Option<flume::Sender<CheckpointBatch>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

#[derive(Debug)]
struct Shared {
    /// For each loop, how many of its batches are in the store.
    written_through: Vec<AtomicU64>,
    status: Mutex<CheckpointStatus>,
}

impl Checkpointer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, when it gives no thread or the snapshot directory cannot be made.
    pub fn start(
        store: Arc<dyn StateStore>,
        journal: Arc<dyn Journal>,
        config: CheckpointConfig,
    ) -> std::io::Result<Arc<Self>> {
        disk::make_dir(&config.snapshot_dir)?;
        let shared = Arc::new(Shared {
            written_through: (0..config.loops).map(|_| AtomicU64::new(0)).collect(),
            status: Mutex::new(CheckpointStatus {
                folded: store.folded(),
                written: 0,
                last_ms: 0.0,
                snapshot: Position(0),
                healthy: true,
                reason: None,
            }),
        });
        let (queue, batches) = flume::bounded(limits::CHECKPOINT_QUEUE);
        let worker = Worker::new(store, journal, config, shared.clone());
        let told = shared.clone();
        let work = move || {
            background::yield_to_others();
            match catch_unwind(AssertUnwindSafe(|| worker.run(&batches))) {
                Ok(result) => result,
                Err(panic) => {
                    let reason = format!("the checkpoint thread panicked: {}", message(&*panic));
                    tracing::error!(reason, "there are no checkpoints any more; the journal keeps it all");
                    let mut status = lock(&told.status);
                    (status.healthy, status.reason) = (false, Some(reason));
                    Ok(())
                }
            }
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(work)?;
        Ok(Arc::new(Self { queue: RwLock::new(Some(queue)), shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Hands a batch in. Never blocks. The n-th batch that a loop handed in has the number n, from 1.
    ///
    /// # Errors
    /// Gives the batch back when the queue ([`limits::CHECKPOINT_QUEUE`]) is full or the thread was stopped: keep the states
    /// as changed, and try again later.
    pub fn try_submit(&self, batch: CheckpointBatch) -> Result<(), CheckpointBatch> {
        match &*read(&self.queue) {
            Some(queue) => queue.try_send(batch).map_err(flume::TrySendError::into_inner),
            None => Err(batch),
        }
    }

    /// The number of the loop's last batch whose states are in the store, durably: a device that has not changed since
    /// that batch may be passivated.
    #[must_use]
    pub fn written_through(&self, owner: LoopId) -> u64 {
        self.shared.written_through.get(owner.index()).map_or(0, |written| written.load(Ordering::Acquire))
    }

    /// How the checkpoints fare.
    #[must_use]
    pub fn status(&self) -> CheckpointStatus {
        lock(&self.shared.status).clone()
    }

    /// Writes what was handed in, durably, and ends. Blocks; never call it on a loop. Loops have stopped handing in, and
    /// the journal is still open or already closed: it is all the same. A second call does nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the last checkpoint could not be written; then the next start replays more of the journal.
    pub fn stop(&self) -> Result<(), StoreError> {
        drop(write(&self.queue).take());
        let thread = lock(&self.thread).take().inspect(|thread| thread.thread().unpark());
        match thread.map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // A panic is caught inside the thread, and told in the status.
            Some(Err(_)) | None => Ok(()),
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "cannot write the last checkpoint");
        }
    }
}

/// How far a loop has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    batches: u64,
    folded_through: Position,
}

/// The thread.
struct Worker {
    store: Arc<dyn StateStore>,
    journal: Arc<dyn Journal>,
    config: CheckpointConfig,
    shared: Arc<Shared>,
    loops: Vec<Progress>,
    states: DirtyStates,
    parked: ParkedChanges,
    kept: KeptChanges,
    /// `appended_bytes` of the journal at the last snapshot.
    snapshot_at: u64,
    /// After a snapshot that failed or could not be read: not before this.
    not_before: Option<Instant>,
}

impl Worker {
    fn new(
        store: Arc<dyn StateStore>,
        journal: Arc<dyn Journal>,
        config: CheckpointConfig,
        shared: Arc<Shared>,
    ) -> Self {
        let start = Progress { batches: 0, folded_through: store.folded() };
        let loops = vec![start; config.loops];
        Self {
            store,
            journal,
            config,
            shared,
            loops,
            states: DirtyStates::default(),
            parked: ParkedChanges::default(),
            kept: KeptChanges::default(),
            snapshot_at: 0,
            not_before: None,
        }
    }

    fn run(mut self, batches: &flume::Receiver<CheckpointBatch>) -> Result<(), StoreError> {
        let mut due = Instant::now() + self.config.interval;
        loop {
            let full = self.states.is_full() || self.parked.is_full() || self.kept.is_full();
            // Batches that keep coming must not keep a checkpoint from being written.
            let now = full || Instant::now() >= due;
            match if now { Err(RecvTimeoutError::Timeout) } else { batches.recv_deadline(due) } {
                Ok(batch) => self.take(batch),
                Err(RecvTimeoutError::Disconnected) => return self.checkpoint(),
                Err(RecvTimeoutError::Timeout) => {
                    let written = self.checkpoint();
                    if written.is_err() && batches.is_disconnected() {
                        batches.drain().for_each(|batch| self.take(batch));
                        return self.checkpoint();
                    }
                    if written.is_err() && full {
                        // Nothing more is taken until it is written: the loops keep their states.
                        std::thread::park_timeout(self.config.interval);
                    }
                    due = Instant::now() + self.config.interval;
                }
            }
        }
    }

    fn take(&mut self, batch: CheckpointBatch) {
        batch.states.into_iter().for_each(|state| self.states.insert(state));
        self.parked.append(batch.parked);
        batch.kept.into_iter().for_each(|change| self.kept.insert(change));
        match self.loops.get_mut(batch.owner.index()) {
            Some(progress) => {
                progress.batches += 1;
                progress.folded_through = progress.folded_through.max(batch.folded_through);
            }
            None => tracing::error!(owner = batch.owner.0, "a checkpoint batch of an unknown loop"),
        }
    }

    /// Writes what changed, if anything did; then a snapshot, if the journal has grown enough.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let folded = self.loops.iter().map(|progress| progress.folded_through).min().unwrap_or_default();
        let folded = folded.max(self.store.folded());
        let nothing = self.states.is_empty() && self.parked.is_empty() && self.kept.is_empty();
        if nothing && folded == self.store.folded() {
            self.publish(folded, None);
            self.keep_house();
            return Ok(());
        }
        let started = Instant::now();
        CrashPoint::CheckpointBeforeWrite.pass();
        let changes = self.parked.with(self.states.to_vec(), self.kept.to_vec());
        let written = self.store.write(&changes, folded);
        CrashPoint::CheckpointAfterWrite.pass();
        if let Err(error) = written {
            let mut status = lock(&self.shared.status);
            if status.healthy {
                tracing::error!(%error, "cannot write a checkpoint; the journal keeps it all meanwhile");
            }
            status.healthy = false;
            status.reason = Some(error.to_string());
            return Err(error);
        }
        self.states.clear();
        self.parked.clear();
        self.kept.clear();
        self.publish(folded, Some(started.elapsed()));
        self.keep_house();
        Ok(())
    }

    /// Tells the loops what is in the store.
    fn publish(&self, folded: Position, took: Option<Duration>) {
        for (written, progress) in self.shared.written_through.iter().zip(&self.loops) {
            written.store(progress.batches, Ordering::Release);
        }
        let mut status = lock(&self.shared.status);
        status.folded = folded;
        if let Some(took) = took {
            status.written += 1;
            status.last_ms = took.as_secs_f64() * 1_000.0;
        }
        if !std::mem::replace(&mut status.healthy, true) {
            tracing::info!("checkpoints are written again");
        }
        status.reason = None;
    }

    /// Writes a snapshot if it is time, and frees what the journal need not keep.
    fn keep_house(&mut self) {
        if self.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return;
        }
        self.not_before = None;
        let kept = (|| {
            let written = self.snapshot_if_due()?;
            self.free()?;
            if written { snapshot::prune(&self.config.snapshot_dir) } else { Ok(()) }
        })();
        if let Err(error) = kept {
            self.not_before = Some(Instant::now() + SNAPSHOT_RETRY);
            tracing::error!(%error, "cannot write or read a snapshot; the journal keeps its segments");
        }
    }

    /// A snapshot is due at every half of the retention: of its bytes, or of its age.
    fn snapshot_if_due(&mut self) -> Result<bool, SnapshotError> {
        let appended = self.journal.status().appended_bytes;
        let by_bytes = appended.saturating_sub(self.snapshot_at) >= self.config.retention.bytes / 2;
        let half_age = self.config.retention.half_age();
        let old = half_age.map_or(Position(0), |half| self.journal.beyond(&half, self.store.folded()));
        if !by_bytes && old == Position(0) {
            return Ok(false);
        }
        let dir = &self.config.snapshot_dir;
        let newest = snapshot::list(dir)?.into_iter().next().map_or(Position(0), |newest| newest.position);
        if newest >= self.store.folded() || (!by_bytes && newest >= old) {
            return Ok(false);
        }
        let started = Instant::now();
        let written = snapshot::write(&*self.store, dir)?;
        let (position, path, took_ms) = (written.position, written.path.display(), started.elapsed().as_millis());
        tracing::info!(%position, %path, took_ms, "wrote a snapshot");
        lock(&self.shared.status).snapshot = position;
        self.snapshot_at = appended;
        Ok(true)
    }

    /// Frees the segments that are beyond the retention, as far as the snapshot *before* the newest covers them: should the
    /// newest turn out damaged, the older one and the journal after it are still there.
    fn free(&self) -> Result<(), SnapshotError> {
        let retention = self.config.retention;
        let dir = &self.config.snapshot_dir;
        if self.journal.beyond(&retention, self.store.folded()) == Position(0) {
            return Ok(());
        }
        for older in snapshot::list(dir)?.into_iter().skip(1) {
            let free = self.journal.beyond(&retention, older.position);
            if free == Position(0) {
                break;
            }
            match snapshot::verify(&older) {
                Ok(()) => {
                    self.journal.release(free);
                    break;
                }
                Err(error @ SnapshotError::Damaged { .. }) => {
                    tracing::error!(%error, "it gives no right to free the journal");
                    snapshot::set_aside(&older)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
