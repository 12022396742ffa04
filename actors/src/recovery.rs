//! What happens before the node serves: lock the data directory, open or rebuild the store, and fold what the journal has
//! beyond it.
//!
//! Recovery does not know how a reading folds: the caller gives the same pure function that the running node uses.

pub mod audit;
mod data_dir;
mod progress;
mod replay;

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

pub use self::data_dir::{DataDir, DirectoryLock};
use self::{data_dir::take_lock, progress::Speaker, replay::Replay};
use crate::{
    dirty::DirtyStates,
    ids::{DeviceId, Position},
    journal::{self, Record, ScanError, ScanReport, disk},
    kept::{KeptChange, KeptChanges},
    lifetime::Lifetime,
    reading::Reading,
    script::Verdict,
    snapshot::{self, Entry, Snapshot, SnapshotError},
    state::DeviceState,
    store::{ParkedChanges, SledConfig, SledStore, StateStore, StoreError},
};

/// How a reading folds: the state before, its position, the reading, the verdict, and the states that scripts changed. `None`: the
/// state stays as it was.
pub type Fold<'a> =
    dyn FnMut(Option<&DeviceState>, Position, &Reading, &Verdict, &[(Box<str>, Bytes)]) -> Option<DeviceState> + 'a;

/// What a recovery leaves to go on with.
#[derive(Debug)]
pub struct Recovered {
    /// The store, with everything folded that can be.
    pub store: Arc<SledStore>,
    /// The position at which the journal goes on.
    pub next: Position,
    /// Readings that are still to be folded, by position: see [`Unfinished`].
    pub unfinished: Vec<Unfinished>,
    /// What became of every reading that the data directory ever took in.
    pub lifetime: Lifetime,
    /// What was found.
    pub report: RecoveryReport,
    /// The places.
    pub data: DataDir,
    /// The lock of the directory: keep it until the node has stopped.
    pub lock: DirectoryLock,
}

/// What is in the journal and not in its device's state: readings whose handlers had not run, and what waits behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// A reading.
    Reading {
        /// Its place in the journal.
        position: Position,
        /// The reading.
        reading: Reading,
        /// Do handlers want it?
        routed: bool,
    },
    /// A state that was brought in from elsewhere.
    Brought {
        /// Its place in the journal.
        position: Position,
        /// The state.
        state: DeviceState,
        /// Does it go over a newer one?
        overwrite: bool,
    },
}

impl Unfinished {
    /// The parked reading that it is another attempt at.
    #[must_use]
    pub fn retry_of(&self) -> Option<Position> {
        match self {
            Self::Reading { reading, .. } => reading.retry_of,
            Self::Brought { .. } => None,
        }
    }

    /// Its place in the journal.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Reading { position, .. } | Self::Brought { position, .. } => *position,
        }
    }

    /// Its device.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        match self {
            Self::Reading { reading, .. } => &reading.device,
            Self::Brought { state, .. } => &state.device,
        }
    }

    /// Does an outcome of handlers follow?
    pub(crate) fn is_routed(&self) -> bool {
        matches!(self, Self::Reading { routed: true, .. })
    }
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
    let (store, mut lifetime) = open_store(&data, config, &mut report)?;
    report.replayed_after = store.folded();
    let mut replay = Replay::new(&store, fold);
    let mut speaker = Speaker::new();
    let mut progress = |progress| speaker.at(progress);
    let from = store.folded().plus(1);
    let feed = |position, record| replay.feed(position, record);
    report.journal = journal::scan_with(&data.journal(), from, &mut progress, feed)?;
    let (unfinished, changed) = replay.finish(&mut report)?;
    // Also beyond what the store has seen, should the journal have lost its end: a position is never used twice.
    let next = report.journal.last.max(store.newest()).max(store.folded()).plus(1);
    report.seconds = started.elapsed().as_secs_f64();
    tell(&report);
    lifetime.add(&changed);
    Ok(Recovered { store: Arc::new(store), next, unfinished, lifetime, report, data, lock })
}

/// Folds what the journal in `dir` has of devices after the store's position into the store, up to and including `through`, and changes
/// nothing in the journal: also while a node writes it. Kept pairs are the caller's. Says how many readings wait for an outcome, and are not folded.
///
/// # Errors
/// As [`recover`].
pub(crate) fn fold_through(
    store: &dyn StateStore,
    dir: &Path,
    through: Position,
    fold: &mut Fold<'_>,
) -> Result<u64, RecoveryError> {
    let from = store.folded().plus(1);
    if from > through {
        return Ok(0);
    }
    let mut replay = Replay::new(store, fold);
    journal::read(dir, from, |position, record| {
        if position <= through && !matches!(record, Record::Kept(_)) {
            replay.feed(position, record)?;
        }
        // Behind it may stand what is just being written.
        if position >= through { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let mut report = RecoveryReport::default();
    replay.finish(&mut report)?;
    Ok(report.unfinished)
}

/// Opens the store; one that cannot be trusted is moved away and rebuilt from the newest whole snapshot.
fn open_store(
    data: &DataDir,
    config: SledConfig,
    report: &mut RecoveryReport,
) -> Result<(SledStore, Lifetime), RecoveryError> {
    let reason = match SledStore::open(&data.state(), config) {
        // A snapshot is never ahead of the store it was made from, unless somebody changed the store behind our back.
        Ok(store) => match newest_whole(data, store.folded(), report)? {
            None => {
                let lifetime = store.lifetime();
                return Ok((store, lifetime));
            }
            Some(newest) if store.is_empty() => {
                let lifetime = fill(&store, &newest, report)?;
                return Ok((store, lifetime));
            }
            Some(newest) => format!("it is folded up to {}, and a snapshot up to {}", store.folded(), newest.position),
        },
        Err(StoreError::Damaged { reason, .. }) => reason,
        Err(error) => return Err(error.into()),
    };
    let moved = move_away(data).map_err(|source| StoreError::Io { what: "move away", path: data.state(), source })?;
    tracing::error!(reason, moved = %moved.display(), "the state store is damaged: it is rebuilt from the journal");
    report.store_quarantined = Some((moved, reason));
    let store = SledStore::open(&data.state(), config)?;
    let lifetime = match newest_whole(data, Position(0), report)? {
        Some(newest) => fill(&store, &newest, report)?,
        None => Lifetime::default(),
    };
    Ok((store, lifetime))
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
    disk::sync_dir(data.path())?;
    Ok(moved)
}

/// The newest whole snapshot beyond a position. Damaged ones on the way are set aside.
fn newest_whole(
    data: &DataDir,
    beyond: Position,
    report: &mut RecoveryReport,
) -> Result<Option<Snapshot>, SnapshotError> {
    for found in snapshot::list(&data.snapshots())?.into_iter().take_while(|found| found.position > beyond) {
        match snapshot::verify(&found) {
            Ok(()) => return Ok(Some(found)),
            Err(error @ SnapshotError::Damaged { .. }) => {
                tracing::error!(%error, "an older one is used, if there is one");
                report.snapshots_damaged.push(error.to_string());
                snapshot::set_aside(&found)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Puts a snapshot into an empty store, in pieces; only the last one says how far it is folded.
fn fill(store: &dyn StateStore, newest: &Snapshot, report: &mut RecoveryReport) -> Result<Lifetime, SnapshotError> {
    tracing::info!(position = %newest.position, path = %newest.path.display(), "filling the store from a snapshot");
    let (mut states, mut parked, mut kept) = (DirtyStates::default(), ParkedChanges::default(), KeptChanges::default());
    let mut lifetime = Lifetime::default();
    snapshot::load(newest, &mut |entry| {
        match entry {
            Entry::State(state) => {
                lifetime.change(None, &state);
                states.insert(state);
            }
            Entry::Parked(reading) => parked.park(reading),
            Entry::Kept(key, value) => kept.insert(KeptChange { key, value: Some(value) }),
        }
        if states.is_full() || parked.is_full() || kept.is_full() {
            store.write(&parked.with(states.to_vec(), kept.to_vec()), Position(0))?;
            states.clear();
            parked.clear();
            kept.clear();
        }
        Ok(())
    })?;
    store.write(&parked.with(states.to_vec(), kept.to_vec()), newest.position)?;
    report.snapshot_used = Some(newest.position);
    Ok(lifetime)
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

#[cfg(test)]
mod tests;
