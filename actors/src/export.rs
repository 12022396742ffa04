//! An export: the states and kept pairs of a running node, every one exactly as the journal has it at one position.
//!
//! In two steps. [`Base::take`] copies the store into a file, while others write it: each state as it is when its turn comes. Then
//! the caller waits until the journal has everything that those states were made of, and reads its position: [`Base::fold`] folds
//! what the journal has from the copy's beginning up to there into the states that changed. A fold is the same when it is
//! done twice, so it does not matter which of it a copied state had already.
//!
//! It opens no socket, and writes nothing but that file, which goes with it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use hashbrown::HashSet;

use crate::{
    fold::fold_state,
    ids::{DeviceId, Position},
    journal::{self, Record, ScanError},
    kept::KeptChange,
    recovery::{self, RecoveryError},
    snapshot::{Entries, Entry, Snapshot, SnapshotError, Writer},
    state::{DeviceState, ParkedReading},
    store::{Changes, MemoryStore, StateStore, StoreError},
};

/// States that are read, or put into the overlay, at a time.
const PIECE: usize = 1_024;

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The copy could not be written or read.
    #[error(transparent)]
    Copy(#[from] SnapshotError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] ScanError),
    /// The journal could not be folded.
    #[error(transparent)]
    Fold(#[from] RecoveryError),
    /// The journal does not have all that is needed any more.
    #[error(
        "the journal lacks {lacking} of the records {first} to {last}: they were freed meanwhile or are damaged; try again"
    )]
    Missing {
        /// Records that are not there.
        lacking: u64,
        /// The first that is needed.
        first: Position,
        /// The last that is needed.
        last: Position,
    },
    /// Who takes the export in does not take any more.
    #[error("the export was not taken: {0}")]
    NotTaken(io::Error),
}

/// A copy of the store, in a file of its own: no state is before the copy's position, some may be beyond it.
#[derive(Debug)]
pub struct Base {
    snapshot: Snapshot,
    _file: Scratch,
}

impl Base {
    /// Copies the store into the directory `scratch`, which is this export's alone: what an earlier one left there is removed.
    /// It reads a piece at a time, so that nobody waits for the store meanwhile, and calls `pause` with each piece's states: at full
    /// speed a copy takes a processor from the readings.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn take(store: &dyn StateStore, scratch: &Path, pause: &mut dyn FnMut(usize)) -> Result<Self, ExportError> {
        // Before the first state is read: whatever changes from here on is after it in the journal.
        let position = store.folded();
        let file = Scratch(scratch.to_owned());
        let path = scratch.join("base.tgs");
        let io = |what| move |source| SnapshotError::Io { what, path: scratch.to_owned(), source };
        fs::remove_dir_all(scratch)
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .map_err(io("clear"))?;
        fs::create_dir_all(scratch).map_err(io("create"))?;
        let out = BufWriter::with_capacity(256 * 1024, File::create(&path).map_err(io("create a file in"))?);
        copy(store, position, out, pause)?.map_err(io("write a copy of the states to"))?;
        Ok(Self { snapshot: Snapshot { position, path }, _file: file })
    }

    /// Brings the copy to the position `at` of the journal in `journal`. By then the journal must have everything that the
    /// copied states were made of, handlers' outcomes included.
    ///
    /// # Errors
    /// [`ExportError`]. [`ExportError::Missing`] passes with another try.
    pub fn fold(self, journal: &Path, at: Position) -> Result<Export, ExportError> {
        let changed = self.changed(journal, at)?;
        let (overlay, devices) = self.overlay(&changed.devices)?;
        let known = overlay.count();
        let unfinished = recovery::fold_through(&overlay, journal, at, &mut fold_state)?;
        let mut parked = overlay.parked(None, usize::MAX)?;
        parked.reverse();
        let states = overlay.page(None, "", usize::MAX)?;
        Ok(Export {
            devices: devices + (states.len() as u64 - known),
            position: at,
            unfinished,
            base: self,
            states,
            parked,
            kept: changed.kept,
        })
    }

    /// What the journal has something of, from the copy's position to `at`; it must have all of it.
    fn changed(&self, journal: &Path, at: Position) -> Result<Changed, ExportError> {
        let first = self.snapshot.position.plus(1);
        let mut changed = Changed::default();
        if first > at {
            return Ok(changed);
        }
        let mut found = 0;
        journal::read(journal, first, |position, record| {
            if position <= at {
                found += 1;
                match record {
                    Record::Reading { reading, .. } => _ = changed.devices.insert(reading.device),
                    Record::Imported { state, .. } => _ = changed.devices.insert(state.device),
                    Record::Kept(KeptChange { key, value }) => _ = changed.kept.insert(key, value),
                    // They change nothing of a device that has no reading here.
                    Record::Outcome(_) | Record::Unparked { .. } => {}
                }
            }
            if position >= at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let lacking = (at.0 - self.snapshot.position.0).saturating_sub(found);
        if lacking > 0 {
            return Err(ExportError::Missing { lacking, first, last: at });
        }
        Ok(changed)
    }

    /// A store of those devices only, and of all parked readings, as they were copied; and how many devices were.
    fn overlay(&self, changed: &HashSet<DeviceId>) -> Result<(MemoryStore, u64), ExportError> {
        let overlay = MemoryStore::new();
        let mut entries = Entries::open(&self.snapshot)?;
        let mut changes = Changes::default();
        let mut devices = 0;
        loop {
            let next = entries.next()?;
            let ended = next.is_none();
            match next {
                Some(Entry::State(state)) => {
                    devices += 1;
                    if changed.contains(&state.device) {
                        changes.states.push(state);
                    }
                }
                Some(Entry::Parked(parked)) => changes.parked.push(parked),
                Some(Entry::Kept(..)) | None => {}
            }
            if ended || changes.states.len() + changes.parked.len() >= PIECE {
                overlay.write(&std::mem::take(&mut changes), self.snapshot.position)?;
            }
            if ended {
                return Ok((overlay, devices));
            }
        }
    }
}

/// What is not as it was copied, or may not be.
#[derive(Debug, Default)]
struct Changed {
    devices: HashSet<DeviceId>,
    kept: BTreeMap<Bytes, Option<Bytes>>,
}

/// Writes the store's states, parked readings and kept pairs to `out`, and within it what the file system says.
fn copy(
    store: &dyn StateStore,
    position: Position,
    out: impl Write,
    pause: &mut dyn FnMut(usize),
) -> Result<io::Result<()>, StoreError> {
    let mut writer = match Writer::begin(out, position) {
        Ok(writer) => writer,
        Err(error) => return Ok(Err(error)),
    };
    let mut written = Ok(());
    let mut after: Option<DeviceId> = None;
    loop {
        let piece = store.page(after.as_ref().map(DeviceId::as_str), "", PIECE)?;
        let Some(last) = piece.last() else { break };
        written = written.and_then(|()| piece.iter().try_for_each(|state| writer.state(state)));
        if written.is_err() {
            return Ok(written);
        }
        after = Some(last.device.clone());
        pause(piece.len());
    }
    for reading in store.parked(None, usize::MAX)?.iter().rev() {
        written = written.and_then(|()| writer.parked(reading));
    }
    let mut after: Option<Bytes> = None;
    while written.is_ok() {
        let piece = store.kept_page(after.as_deref(), b"", PIECE)?;
        let Some((last, _)) = piece.last() else { break };
        written = piece.iter().try_for_each(|(key, value)| writer.kept(key, value));
        after = Some(last.clone());
        pause(piece.len());
    }
    Ok(written.and_then(|()| writer.end()).and_then(|mut out| out.flush()))
}

/// All states, parked readings and kept pairs at one position.
#[derive(Debug)]
pub struct Export {
    base: Base,
    position: Position,
    devices: u64,
    unfinished: u64,
    /// Those that are not as they were copied, by id.
    states: Vec<DeviceState>,
    parked: Vec<ParkedReading>,
    /// Pairs that are not as they were copied.
    kept: BTreeMap<Bytes, Option<Bytes>>,
}

impl Export {
    /// The position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many devices there are.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.devices
    }

    /// How many parked readings there are.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.parked.len() as u64
    }

    /// Readings up to the position whose handlers' outcome is after it: they are in no state here.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// Hands out the states by device id, then the parked readings by position, then the kept pairs by key.
    ///
    /// # Errors
    /// [`ExportError`], also that of `each`.
    pub fn for_each(&self, each: &mut dyn FnMut(Entry) -> io::Result<()>) -> Result<(), ExportError> {
        let mut each = |entry| each(entry).map_err(ExportError::NotTaken);
        let mut changed = self.states.iter().peekable();
        let mut copied = Entries::open(&self.base.snapshot)?;
        let mut next = copied.next()?;
        while let Some(Entry::State(state)) = next {
            next = copied.next()?;
            while let Some(new) = changed.next_if(|new| new.device < state.device) {
                each(Entry::State(new.clone()))?;
            }
            let newer = changed.next_if(|new| new.device == state.device);
            each(Entry::State(newer.cloned().unwrap_or(state)))?;
        }
        changed.try_for_each(|new| each(Entry::State(new.clone())))?;
        self.parked.iter().try_for_each(|parked| each(Entry::Parked(parked.clone())))?;
        let put = |(key, value): (&Bytes, &Option<Bytes>)| Some(Entry::Kept(key.clone(), value.clone()?));
        let mut changed = self.kept.iter().peekable();
        while let Some(entry) = next {
            next = copied.next()?;
            let Entry::Kept(key, value) = entry else { continue };
            while let Some(new) = changed.next_if(|(new, _)| **new < key) {
                put(new).map_or(Ok(()), &mut each)?;
            }
            match changed.next_if(|(new, _)| **new == key) {
                Some(newer) => put(newer).map_or(Ok(()), &mut each)?,
                None => each(Entry::Kept(key, value))?,
            }
        }
        changed.filter_map(put).try_for_each(each)
    }
}

/// A directory that goes with its owner.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove what an export left; the next one will");
        }
    }
}

#[cfg(test)]
mod tests;
