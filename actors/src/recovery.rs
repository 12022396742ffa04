//! What happens before the node serves: lock the data directory, open or rebuild the store, and fold what the journal has
//! beyond it.
//!
//! Recovery does not know how a reading folds: the caller gives the same pure function that the running node uses.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::{self, Read, Seek, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    ids::{DeviceId, Position},
    journal::{self, OutcomeRecord, Record, ScanError, ScanReport},
    reading::Reading,
    script::{ParkReason, Verdict},
    snapshot::{self, Entry, Snapshot, SnapshotError},
    state::{DeviceState, ParkedReading},
    store::{SledConfig, SledStore, StateStore, StoreError},
};

/// How a reading folds: the state before, its position, the reading, the verdict, and the states that scripts changed. `None`: the
/// state stays as it was.
pub type Fold<'a> =
    dyn FnMut(Option<&DeviceState>, Position, &Reading, &Verdict, &[(Box<str>, Bytes)]) -> Option<DeviceState> + 'a;

/// States that are kept in memory before they go to the store.
const DIRTY_STATES: usize = 50_000;
/// Time between two words about the progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// The places in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The data directory at this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The journal's segments.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// The store.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The snapshot files.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("LOCK")
    }
}

/// The data directory is ours while this lives.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held for its lock, which closing it gives up")] File);

/// What a recovery leaves to go on with.
#[derive(Debug)]
pub struct Recovered {
    /// The store, with everything folded that can be.
    pub store: Arc<SledStore>,
    /// The position at which the journal goes on.
    pub next: Position,
    /// Readings that are still to be folded, by position: see [`Unfinished`].
    pub unfinished: Vec<Unfinished>,
    /// What was found.
    pub report: RecoveryReport,
    /// The places.
    pub data: DataDir,
    /// The lock of the directory: keep it until the node has stopped.
    pub lock: DirectoryLock,
}

/// A reading that the journal has, and that is not folded: its handlers' outcome was not stored, or it stands behind such a
/// reading of the same device. It was acknowledged: run it again, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its position.
    pub position: Position,
    /// The reading.
    pub reading: Reading,
    /// Is it for the handlers? If not, it folds unchanged, after those of its device that stand before it.
    pub routed: bool,
}

/// What a recovery found and did.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryReport {
    /// The position after which the journal was replayed.
    pub replayed_after: Position,
    /// What the journal's scan found.
    pub journal: ScanReport,
    /// Readings that were folded.
    pub folded: u64,
    /// Readings that are to be run again.
    pub unfinished: u64,
    /// Readings whose outcome was lost in a damaged place: they are parked.
    pub orphaned: u64,
    /// Where the damaged store was moved to, and why.
    pub store_quarantined: Option<(PathBuf, String)>,
    /// Snapshots that were found damaged, with the reason.
    pub snapshots_damaged: Vec<String>,
    /// The snapshot that the store was rebuilt from.
    pub snapshot_used: Option<Position>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl RecoveryReport {
    /// Was everything as a stop leaves it, orderly or not? A torn tail is no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.journal.quarantined_places == 0
            && self.journal.missing.is_empty()
            && self.store_quarantined.is_none()
            && self.snapshots_damaged.is_empty()
            && self.orphaned == 0
    }
}

/// Why a node cannot start from its data directory.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Another process has it.
    #[error("data directory {dir} is in use by process {pid}: stop that node, or give this one another --data-dir", dir = dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process, as far as the lock file says.
        pid: String,
    },
    /// It cannot be used as a directory.
    #[error("cannot use the data directory {dir}: {reason}", dir = dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ScanError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshots cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Recovers a data directory (made when it does not exist).
///
/// # Errors
/// [`RecoveryError`], naming the path and what to do. Damage is no error: it is in the report.
pub fn recover(data_dir: &Path, fold: &mut Fold<'_>) -> Result<Recovered, RecoveryError> {
    recover_with(data_dir, SledConfig::default(), fold)
}

/// As [`recover`], with settings for the store.
///
/// # Errors
/// As [`recover`].
pub fn recover_with(data_dir: &Path, config: SledConfig, fold: &mut Fold<'_>) -> Result<Recovered, RecoveryError> {
    let started = Instant::now();
    let data = DataDir::new(data_dir);
    let lock = take_lock(&data)?;
    let mut report = RecoveryReport::default();
    let store = open_store(&data, config, &mut report)?;
    report.replayed_after = store.folded();
    let mut replay = Replay::new(&store, fold);
    let mut failed = None;
    report.journal = journal::scan(&data.journal(), store.folded().plus(1), |position, record| {
        match replay.record(position, record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let unfinished = replay.finish(&mut report)?;
    // Also beyond what the store has seen, should the journal have lost its end: a position is never used twice.
    let next = report.journal.last.max(store.newest()).max(store.folded()).plus(1);
    report.seconds = started.elapsed().as_secs_f64();
    tell(&report);
    Ok(Recovered { store: Arc::new(store), next, unfinished, report, data, lock })
}

/// Makes the directory, and takes its lock.
fn take_lock(data: &DataDir) -> Result<DirectoryLock, RecoveryError> {
    let unusable = |reason: String| RecoveryError::Unusable { dir: data.path().to_owned(), reason };
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => unusable(format!(
            "{error}; make it readable and writable for the user that runs tidegate, or choose another --data-dir"
        )),
        io::ErrorKind::NotADirectory => {
            unusable("a part of its path is a file, not a directory; choose another --data-dir".to_owned())
        }
        io::ErrorKind::StorageFull => unusable(format!("{error}; free some space on its disk")),
        _ => unusable(error.to_string()),
    };
    match fs::metadata(data.path()) {
        Ok(found) if !found.is_dir() => {
            return Err(unusable("it is not a directory; choose another --data-dir, or move the file away".to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(data.path()).map_err(refused)?;
        }
        Err(error) => return Err(refused(error)),
    }
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(data.lock()).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Its holder may be about to write it; it is for the message only.
            let _ = file.take(20).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(RecoveryError::InUse { dir: data.path().to_owned(), pid });
        }
        Err(fs::TryLockError::Error(error)) => return Err(refused(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(refused)?;
    Ok(DirectoryLock(file))
}

/// Opens the store; one that cannot be trusted is moved away and rebuilt from the newest whole snapshot.
fn open_store(data: &DataDir, config: SledConfig, report: &mut RecoveryReport) -> Result<SledStore, RecoveryError> {
    let snapshots = snapshot::list(&data.snapshots())?;
    let newest = snapshots.first().map_or(Position(0), |snapshot| snapshot.position);
    let reason = match SledStore::open(&data.state(), config) {
        Ok(store) if store.folded() >= newest => return Ok(store),
        // A new one: somebody removed it, or it never was.
        Ok(store) if store.count() == 0 => {
            restore(&store, snapshots, report)?;
            return Ok(store);
        }
        Ok(store) => format!("it is folded up to {}, and a snapshot up to {newest}", store.folded()),
        Err(StoreError::Damaged { reason, .. }) => reason,
        Err(error) => return Err(error.into()),
    };
    let moved = move_away(data).map_err(|source| StoreError::Io { what: "move away", path: data.state(), source })?;
    tracing::error!(reason, moved = %moved.display(), "the state store is damaged: it is rebuilt from the journal");
    report.store_quarantined = Some((moved, reason));
    let store = SledStore::open(&data.state(), config)?;
    restore(&store, snapshots, report)?;
    Ok(store)
}

/// Moves the store to `state.quarantined-<n>`, its side file first: half of this is found to be damaged again.
fn move_away(data: &DataDir) -> io::Result<PathBuf> {
    let free = |n: &u32| !data.path().join(format!("state.quarantined-{n}")).exists();
    let name = format!("state.quarantined-{}", (1..).find(free).expect("one of four billion is free"));
    let side = data.path().join("state.folded");
    match fs::rename(&side, data.path().join(format!("{name}.folded"))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let moved = data.path().join(name);
    fs::rename(data.state(), &moved)?;
    Ok(moved)
}

/// Fills an empty store from the newest whole snapshot, if there is one.
fn restore(store: &SledStore, snapshots: Vec<Snapshot>, report: &mut RecoveryReport) -> Result<(), RecoveryError> {
    for found in snapshots {
        match snapshot::verify(&found) {
            Ok(()) => {
                fill(store, &found)?;
                report.snapshot_used = Some(found.position);
                return Ok(());
            }
            Err(error @ SnapshotError::Damaged { .. }) => {
                tracing::error!(%error, "an older one is used, if there is one");
                report.snapshots_damaged.push(error.to_string());
                snapshot::set_aside(&found)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Puts a snapshot into the store, in pieces; only the last one says how far it is folded.
fn fill(store: &SledStore, found: &Snapshot) -> Result<(), SnapshotError> {
    let (mut states, mut parked) = (Vec::new(), Vec::new());
    snapshot::load(found, &mut |entry| {
        match entry {
            Entry::State(state) => states.push(state),
            Entry::Parked(reading) => parked.push(reading),
        }
        if states.len() + parked.len() >= DIRTY_STATES {
            store.write(&states, &parked, Position(0))?;
            states.clear();
            parked.clear();
        }
        Ok(())
    })?;
    Ok(store.write(&states, &parked, found.position)?)
}

/// The journal's records on their way into the store.
struct Replay<'a, 'f> {
    store: &'a SledStore,
    fold: &'a mut Fold<'f>,
    states: HashMap<DeviceId, DeviceState>,
    parked: Vec<ParkedReading>,
    /// Readings that wait for an outcome, and those of the same device behind them: what the loops had in flight.
    waiting: HashMap<DeviceId, VecDeque<Unfinished>>,
    /// The last position that was seen.
    seen: Position,
    folded: u64,
    orphaned: u64,
    records: u64,
    spoken: Instant,
}

impl<'a, 'f> Replay<'a, 'f> {
    fn new(store: &'a SledStore, fold: &'a mut Fold<'f>) -> Self {
        Self {
            store,
            fold,
            states: HashMap::new(),
            parked: Vec::new(),
            waiting: HashMap::new(),
            seen: store.folded(),
            folded: 0,
            orphaned: 0,
            records: 0,
            spoken: Instant::now(),
        }
    }

    fn record(&mut self, position: Position, record: Record) -> Result<(), StoreError> {
        self.records += 1;
        match record {
            Record::Reading { reading, routed } => self.reading(Unfinished { position, reading, routed })?,
            Record::Outcome(outcome) => self.outcome(&outcome)?,
        }
        self.seen = position;
        if self.states.len() >= DIRTY_STATES {
            self.write()?;
        }
        if self.records.is_multiple_of(10_000) && self.spoken.elapsed() >= PROGRESS {
            self.spoken = Instant::now();
            tracing::info!(records = self.records, %position, "replaying the journal");
        }
        Ok(())
    }

    /// Readings of one device fold in their order: one that follows a reading without an outcome waits behind it.
    fn reading(&mut self, new: Unfinished) -> Result<(), StoreError> {
        if let Some(queue) = self.waiting.get_mut(&new.reading.device) {
            queue.push_back(new);
        } else if new.routed {
            self.waiting.insert(new.reading.device.clone(), VecDeque::from([new]));
        } else {
            self.apply(&new, &Verdict::Unchanged, &[])?;
        }
        Ok(())
    }

    fn outcome(&mut self, outcome: &OutcomeRecord) -> Result<(), StoreError> {
        // None waits when the reading is before the replay's start: then it is folded, or the start would be before it.
        let Some(mut queue) = self.waiting.remove(&outcome.device) else { return Ok(()) };
        if queue.iter().any(|waiting| waiting.routed && waiting.position == outcome.reading) {
            while let Some(first) = queue.pop_front() {
                if first.position == outcome.reading {
                    self.apply(&first, &outcome.verdict, &outcome.script_state)?;
                    break;
                }
                self.pass_over(&first)?;
            }
            while queue.front().is_some_and(|next| !next.routed) {
                if let Some(next) = queue.pop_front() {
                    self.apply(&next, &Verdict::Unchanged, &[])?;
                }
            }
        }
        if !queue.is_empty() {
            self.waiting.insert(outcome.device.clone(), queue);
        }
        Ok(())
    }

    /// A later reading of the device has its outcome, and this one has none: outcomes come in order, so this one's was lost in
    /// a damaged place. It is parked, for an operator to see.
    fn pass_over(&mut self, waiting: &Unfinished) -> Result<(), StoreError> {
        if !waiting.routed {
            return self.apply(waiting, &Verdict::Unchanged, &[]);
        }
        self.orphaned += 1;
        let verdict = Verdict::Parked {
            script: "".into(),
            reason: ParkReason::Crashed,
            message: "what the handlers made of it was lost in a damaged place of the journal".into(),
        };
        self.apply(waiting, &verdict, &[])
    }

    fn apply(
        &mut self,
        what: &Unfinished,
        verdict: &Verdict,
        script_state: &[(Box<str>, Bytes)],
    ) -> Result<(), StoreError> {
        let Unfinished { position, reading, .. } = what;
        if let Verdict::Parked { script, reason, message } = verdict {
            self.parked.push(ParkedReading {
                position: *position,
                reading: reading.clone(),
                script: script.clone(),
                reason: *reason,
                message: message.clone(),
            });
        }
        let previous = match self.states.get(&reading.device) {
            Some(state) => Some(state.clone()),
            None => self.store.get(reading.device.as_str())?,
        };
        // The store may be ahead of its own folded position, device by device.
        if previous.as_ref().is_some_and(|state| state.position >= *position) {
            return Ok(());
        }
        self.folded += 1;
        if let Some(state) = (self.fold)(previous.as_ref(), *position, reading, verdict, script_state) {
            self.states.insert(reading.device.clone(), state);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let first_waiting = self.waiting.values().flatten().map(|waiting| waiting.position.0).min();
        let folded = first_waiting.map_or(self.seen, |first| Position(first - 1)).max(self.store.folded());
        if self.states.is_empty() && self.parked.is_empty() && folded == self.store.folded() {
            return Ok(());
        }
        let states = self.states.drain().map(|(_, state)| state).collect::<Vec<_>>();
        self.store.write(&states, &self.parked, folded)?;
        self.parked.clear();
        Ok(())
    }

    fn finish(mut self, report: &mut RecoveryReport) -> Result<Vec<Unfinished>, StoreError> {
        self.write()?;
        let mut unfinished = self.waiting.into_values().flatten().collect::<Vec<_>>();
        unfinished.sort_unstable_by_key(|waiting| waiting.position);
        report.folded = self.folded;
        report.orphaned = self.orphaned;
        report.unfinished = unfinished.len() as u64;
        Ok(unfinished)
    }
}

/// Says once what was found.
fn tell(report: &RecoveryReport) {
    let journal = &report.journal;
    tracing::info!(
        records = journal.records,
        folded = report.folded,
        unfinished = report.unfinished,
        after = %report.replayed_after,
        last = %journal.last,
        seconds = report.seconds,
        "recovered"
    );
    if journal.torn_tail_bytes > 0 {
        tracing::warn!(bytes = journal.torn_tail_bytes, "cut a torn end off the journal");
    }
    for place in &journal.quarantined {
        let (segment, kept_in) = (place.segment.display(), place.kept_in.as_deref().unwrap_or(Path::new("")).display());
        tracing::error!(%segment, offset = place.offset, bytes = place.bytes, why = place.why, %kept_in, "the journal is damaged here");
    }
    for gap in &journal.missing {
        tracing::error!(first = %gap.first, last = %gap.last, "records are missing from the journal");
    }
    if report.orphaned > 0 {
        tracing::error!(readings = report.orphaned, "parked readings whose outcome was lost");
    }
}
