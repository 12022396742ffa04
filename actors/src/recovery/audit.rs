//! The audit: does the view have what snapshot and journal come to, and does every reading of the journal stand in the counts?
//!
//! Two ways lead to the states of a stopped node: from the oldest whole snapshot over the journal after it, and from the view over
//! the little of the journal that it does not have yet. Both go through recovery's own replay and fold, and must end alike.
//! Nothing in the data directory is changed: the view is opened as a copy, and what is built anew is built elsewhere.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::{DataDir, RecoveryReport, Unfinished, fill, replay::Replay};
use crate::{
    fold::fold_state,
    ids::{DeviceId, Position},
    journal::{self, Record, ScanError, ScanReport},
    lifetime::Lifetime,
    snapshot::{self, Entry, Snapshot, SnapshotError},
    state::DeviceState,
    store::{KEPT_PAGE, MemoryStore, SledConfig, SledStore, StateStore, StoreError},
};

/// Differing devices that are named; more are counted.
const NAMED: usize = 20;
/// Bytes of snapshot and journal up to which the states are built in memory.
const IN_MEMORY: u64 = 512 * 1024 * 1024;

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The snapshot that the states were rebuilt from; `None`: from the journal alone.
    pub snapshot: Option<Position>,
    /// What the journal's scan after it found.
    pub journal: ScanReport,
    /// Is there a view to compare with? If not, the next start makes it.
    pub has_view: bool,
    /// Devices that were compared.
    pub devices: u64,
    /// Devices whose states differ.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Devices of which the view has an outcome that was not in the journal yet when the node ended: not compared.
    pub ahead: u64,
    /// Parked readings that one side has and the other has not.
    pub parked_differing: u64,
    /// Kept pairs that were compared.
    pub kept: u64,
    /// Kept pairs that differ, or that one side has and the other has not.
    pub kept_differing: u64,
    /// The ledger's arithmetic.
    pub ledger: Arithmetic,
}

impl Audit {
    /// Does everything agree?
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.differing == 0 && self.parked_differing == 0 && self.kept_differing == 0 && self.ledger.difference == 0
    }
}

/// A device whose state in the view is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The device.
    #[serde(serialize_with = "as_text")]
    pub device: DeviceId,
    /// In what, and both values.
    pub what: String,
}

fn as_text<S: serde::Serializer>(device: &DeviceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(device.as_str())
}

/// `counted before + readings since = counted now + unfinished`, or there is a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arithmetic {
    /// Readings in the counts of the snapshot, and of states that were imported since.
    pub before: u64,
    /// Readings of the journal that are not in those.
    pub readings: u64,
    /// Readings in the counts now.
    pub now: Lifetime,
    /// Readings of the journal that are still to be folded: the next start goes on with them.
    pub unfinished: u64,
    /// Readings that are not accounted for; below 0: counted though the journal does not have them.
    pub difference: i128,
}

/// Why an audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ScanError),
    /// No snapshot can be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The view cannot be used: the next start moves it away and rebuilds it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The view is older than a snapshot that was made from it.
    #[error("the view is folded up to {folded}, and a snapshot up to {snapshot}")]
    Behind {
        /// The view's position.
        folded: Position,
        /// The snapshot's.
        snapshot: Position,
    },
    /// There is no room for a copy, or it cannot be read.
    #[error("cannot copy the view from {from} to {to}: {source}", from = from.display(), to = to.display())]
    Copy {
        /// From where.
        from: PathBuf,
        /// Where to.
        to: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Audits the data directory of a node that does not run. `scratch` is an empty directory, which the caller removes afterwards.
///
/// # Errors
/// [`AuditError`]. That something differs is no error: it is in the audit.
pub fn audit(data: &DataDir, scratch: &Path) -> Result<Audit, AuditError> {
    audit_with(data, scratch, IN_MEMORY)
}

fn audit_with(data: &DataDir, scratch: &Path, in_memory: u64) -> Result<Audit, AuditError> {
    let mut audit = Audit::default();
    let snapshots = whole_snapshots(data)?;
    let base = snapshots.first();
    let after = base.map_or(Position(0), |base| base.position);
    let rebuilt = empty_store(data, base, scratch, in_memory)?;
    let mut counting = Counting::new(after);
    if let Some(base) = base {
        counting.start_from(base)?;
        fill(&*rebuilt, base, &mut RecoveryReport::default())?;
        audit.snapshot = Some(base.position);
    }
    let view = open_view(data, scratch)?;
    if let Some(view) = &view
        && let Some(newest) = snapshots.last().filter(|newest| newest.position > view.folded())
        && !view.is_empty()
    {
        return Err(AuditError::Behind { folded: view.folded(), snapshot: newest.position });
    }
    // An empty view is filled from a snapshot at the next start: then there is nothing to compare.
    let view = view.filter(|view| !view.is_empty() || after == Position(0));

    let (mut one, mut other) = (fold_state, fold_state);
    let mut rebuild = Replay::new(&*rebuilt, &mut one);
    let mut catch_up = view.as_ref().map(|view| (view.folded(), Replay::new(&**view, &mut other)));
    audit.journal = journal::read(&data.journal(), after.plus(1), |position, record| {
        if let Some((folded, replay)) = &mut catch_up
            && position > *folded
        {
            replay.feed(position, record.clone())?;
        }
        counting.record(position, &record);
        rebuild.feed(position, record)
    })?;
    let brought = rebuild.brought();
    let (waiting, _) = rebuild.finish(&mut RecoveryReport::default())?;
    let unfinished = match catch_up {
        Some((_, replay)) => replay.finish(&mut RecoveryReport::default())?.0,
        None => waiting.clone(),
    };
    if let Some(view) = &view {
        audit.has_view = true;
        compare(&*rebuilt, &**view, &ahead(&waiting, &unfinished), &mut audit)?;
    }
    let last = view.as_ref().map_or(&*rebuilt, |view| &**view as &dyn StateStore);
    let readings = unfinished.iter().filter(|one| matches!(one, Unfinished::Reading { .. })).count();
    audit.ledger = counting.close(brought, readings as u64, lifetime(last)?);
    Ok(audit)
}

/// The whole snapshots that the journal goes on from, oldest first: the oldest says most.
fn whole_snapshots(data: &DataDir) -> Result<Vec<Snapshot>, AuditError> {
    let first = journal::first_position(&data.journal())?.unwrap_or(Position(1));
    let mut listed = snapshot::list(&data.snapshots())?;
    listed.reverse();
    listed.retain(|found| found.position.plus(1) >= first && snapshot::verify(found).is_ok());
    Ok(listed)
}

/// Where the states are built anew: in memory, or in a sled of its own when they may be many.
fn empty_store(
    data: &DataDir,
    base: Option<&Snapshot>,
    scratch: &Path,
    in_memory: u64,
) -> Result<Arc<dyn StateStore>, AuditError> {
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let journal = fs::read_dir(data.journal()).into_iter().flatten().flatten();
    let all = journal.map(|entry| bytes(&entry.path())).sum::<u64>() + base.map_or(0, |base| bytes(&base.path));
    if all <= in_memory {
        return Ok(Arc::new(MemoryStore::new()));
    }
    Ok(Arc::new(SledStore::open(&scratch.join("rebuilt"), SledConfig::default())?))
}

/// Opens a copy of the view; `None`: there is none.
fn open_view(data: &DataDir, scratch: &Path) -> Result<Option<Arc<SledStore>>, AuditError> {
    let (from, to) = (data.state(), scratch.join("state"));
    if !from.is_dir() {
        return Ok(None);
    }
    let side = (from.with_extension("folded"), to.with_extension("folded"));
    let copied = copy_dir(&from, &to).and_then(|()| match fs::copy(&side.0, &side.1) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    copied.map_err(|source| AuditError::Copy { from, to: to.clone(), source })?;
    Ok(Some(Arc::new(SledStore::open(&to, SledConfig::default())?)))
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Devices that still wait for an outcome by the journal, and have it in the view: it is folded before it is durable.
fn ahead(waiting: &[Unfinished], unfinished: &[Unfinished]) -> HashSet<DeviceId> {
    let still: HashSet<Position> = unfinished.iter().map(Unfinished::position).collect();
    let gone = waiting.iter().filter(|one| !still.contains(&one.position()));
    gone.map(|one| one.device().clone()).collect()
}

/// Counts the readings of the journal, apart from the fold.
struct Counting {
    after: Position,
    /// Devices whose state in the snapshot is ahead of the snapshot's own position.
    beyond: HashMap<DeviceId, Position>,
    before: u64,
    readings: u64,
}

impl Counting {
    fn new(after: Position) -> Self {
        Self { after, beyond: HashMap::new(), before: 0, readings: 0 }
    }

    fn start_from(&mut self, base: &Snapshot) -> Result<(), SnapshotError> {
        snapshot::load(base, &mut |entry| {
            if let Entry::State(state) = entry {
                self.before += total(&state);
                if state.position > self.after {
                    self.beyond.insert(state.device, state.position);
                }
            }
            Ok(())
        })
    }

    fn record(&mut self, position: Position, record: &Record) {
        if let Record::Reading { reading, .. } = record
            && self.beyond.get(&reading.device).is_none_or(|beyond| position > *beyond)
        {
            self.readings += 1;
        }
    }

    /// `brought`: what imported states changed in the counts.
    fn close(&self, brought: i128, unfinished: u64, now: Lifetime) -> Arithmetic {
        let before = i128::from(self.before) + brought;
        let expected = before + i128::from(self.readings) - i128::from(unfinished);
        let difference = expected - i128::from(now.total());
        Arithmetic { before: u64::try_from(before).unwrap_or(0), readings: self.readings, now, unfinished, difference }
    }
}

/// Every reading that a state has counted.
fn total(state: &DeviceState) -> u64 {
    state.version + state.counts.reasons().total()
}

fn lifetime(store: &dyn StateStore) -> Result<Lifetime, StoreError> {
    let mut lifetime = Lifetime::default();
    store.for_each(&mut |state| {
        lifetime.change(None, &state);
        ControlFlow::Continue(())
    })?;
    Ok(lifetime)
}

/// Goes through both stores by id.
fn compare(
    rebuilt: &dyn StateStore,
    view: &dyn StateStore,
    ahead: &HashSet<DeviceId>,
    audit: &mut Audit,
) -> Result<(), StoreError> {
    let (mut rebuilt_states, mut view_states) = (Pages::of(rebuilt), Pages::of(view));
    loop {
        let (should, is) = match (rebuilt_states.peek()?, view_states.peek()?) {
            (None, None) => break,
            (Some(one), Some(other)) if one.device == other.device => (rebuilt_states.next(), view_states.next()),
            (Some(one), Some(other)) if one.device > other.device => (None, view_states.next()),
            (Some(_), _) => (rebuilt_states.next(), None),
            (None, Some(_)) => (None, view_states.next()),
        };
        let Some(device) = should.as_ref().or(is.as_ref()).map(|state| state.device.clone()) else { break };
        if ahead.contains(&device) {
            audit.ahead += 1;
            continue;
        }
        audit.devices += 1;
        if let Some(what) = difference(should.as_ref(), is.as_ref()) {
            audit.differing += 1;
            if audit.differences.len() < NAMED {
                audit.differences.push(Difference { device, what });
            }
        }
    }
    let of = |store: &dyn StateStore| -> Result<HashSet<Position>, StoreError> {
        let parked = store.parked(None, usize::MAX)?;
        let compared = parked.iter().filter(|parked| !ahead.contains(&parked.reading.device));
        Ok(compared.map(|parked| parked.position).collect())
    };
    audit.parked_differing = of(rebuilt)?.symmetric_difference(&of(view)?).count() as u64;
    compare_kept(rebuilt, view, audit)
}

/// Goes through the kept pairs of both stores by key.
fn compare_kept(rebuilt: &dyn StateStore, view: &dyn StateStore, audit: &mut Audit) -> Result<(), StoreError> {
    let (mut should, mut is) = (KeptPages::of(rebuilt), KeptPages::of(view));
    loop {
        let (one, other) = match (should.peek()?, is.peek()?) {
            (None, None) => return Ok(()),
            (Some(one), Some(other)) if one.0 == other.0 => (should.next(), is.next()),
            (Some(one), Some(other)) if one.0 > other.0 => (None, is.next()),
            (Some(_), _) => (should.next(), None),
            (None, Some(_)) => (None, is.next()),
        };
        audit.kept += 1;
        audit.kept_differing += u64::from(one != other);
    }
}

/// The first thing in which a state is not what it should be.
fn difference(should: Option<&DeviceState>, is: Option<&DeviceState>) -> Option<String> {
    let (should, is) = match (should, is) {
        (Some(should), Some(is)) => (should, is),
        (Some(_), None) => return Some("it is not in the view".to_owned()),
        (None, Some(_)) => return Some("it is in the view only".to_owned()),
        (None, None) => return None,
    };
    if should == is {
        return None;
    }
    let differ = |what: &str, should: &dyn std::fmt::Debug, is: &dyn std::fmt::Debug| {
        let (should, is) = (format!("{should:?}"), format!("{is:?}"));
        (should != is).then(|| format!("{what}: {} in the view, {} by the journal", short(&is), short(&should)))
    };
    differ("version", &should.version, &is.version)
        .or_else(|| differ("counts", &should.counts.reasons(), &is.counts.reasons()))
        .or_else(|| differ("position", &should.position.0, &is.position.0))
        .or_else(|| differ("state", &should.state, &is.state))
        .or_else(|| differ("device time", &should.device_time, &is.device_time))
        .or_else(|| differ("newest device time", &should.newest_device_time, &is.newest_device_time))
        .or_else(|| differ("received", &should.received, &is.received))
        .or_else(|| differ("ctx.state", &should.script_state, &is.script_state))
        .or_else(|| differ("remembered requests", &should.requests, &is.requests))
        .or_else(|| Some("it differs".to_owned()))
}

/// At most 120 characters of it.
fn short(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// All states of a store by id, a page at a time.
struct Pages<'a> {
    store: &'a dyn StateStore,
    page: std::vec::IntoIter<DeviceState>,
    after: Option<String>,
    done: bool,
}

impl<'a> Pages<'a> {
    const STATES: usize = 1_000;

    fn of(store: &'a dyn StateStore) -> Self {
        Self { store, page: Vec::new().into_iter(), after: None, done: false }
    }

    fn peek(&mut self) -> Result<Option<&DeviceState>, StoreError> {
        if self.page.as_slice().is_empty() && !self.done {
            let page = self.store.page(self.after.as_deref(), "", Self::STATES)?;
            self.done = page.len() < Self::STATES;
            self.after = page.last().map(|last| last.device.as_str().to_owned()).or(self.after.take());
            self.page = page.into_iter();
        }
        Ok(self.page.as_slice().first())
    }

    fn next(&mut self) -> Option<DeviceState> {
        self.page.next()
    }
}

/// All kept pairs of a store by key, a page at a time.
struct KeptPages<'a> {
    store: &'a dyn StateStore,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
    after: Option<Bytes>,
    done: bool,
}

impl<'a> KeptPages<'a> {
    fn of(store: &'a dyn StateStore) -> Self {
        Self { store, page: Vec::new().into_iter(), after: None, done: false }
    }

    fn peek(&mut self) -> Result<Option<&(Bytes, Bytes)>, StoreError> {
        if self.page.as_slice().is_empty() && !self.done {
            let page = self.store.kept_page(self.after.as_deref(), b"", KEPT_PAGE)?;
            self.done = page.is_empty();
            self.after = page.last().map(|(last, _)| last.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.as_slice().first())
    }

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        self.page.next()
    }
}

#[cfg(test)]
mod tests;
