//! The store of the latest states: a view of the journal for queries and for devices without an actor. It can be rebuilt.
//!
//! `sled` is the real one, `memory` serves tests and a node that keeps nothing; `record` is the stored form and `folded` the
//! side file that tells whether sled came back with what it had promised.

mod folded;
mod memory;
pub(crate) mod record;
mod sled;

use std::{
    collections::HashSet,
    io,
    ops::{Bound, ControlFlow},
    path::PathBuf,
};

use bytes::Bytes;

pub use self::{
    memory::MemoryStore,
    sled::{SledConfig, SledStore},
};
use crate::{
    ids::{DeviceId, Position},
    kept::KeptChange,
    state::{DeviceState, ParkedReading},
};

/// Where the latest states are kept. One thread writes (the checkpoint thread); any may read, none of them a loop if it
/// can be helped.
pub trait StateStore: Send + Sync + 'static {
    /// The state of a device.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, device: &str) -> Result<Option<DeviceState>, StoreError>;

    /// The first `limit` states after the id `after` whose ids begin with `prefix`, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    fn page(&self, after: Option<&str>, prefix: &str, limit: usize) -> Result<Vec<DeviceState>, StoreError>;

    /// How many devices have a state. Costs nothing.
    fn count(&self) -> u64;

    /// Makes the changes, and notes that everything up to `folded` is in. Durable when it returns.
    ///
    /// Beyond [`crate::limits::PARKED_READINGS`] the oldest parked readings are dropped, and counted.
    ///
    /// # Errors
    /// [`StoreError`]; some of it may be in all the same: write it again.
    fn write(&self, changes: &Changes, folded: Position) -> Result<(), StoreError>;

    /// The position up to which every reading is in a state here.
    fn folded(&self) -> Position;

    /// The last `limit` parked readings before the position `before` (`None`: all), the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn parked(&self, before: Option<Position>, limit: usize) -> Result<Vec<ParkedReading>, StoreError>;

    /// The parked reading at a position.
    ///
    /// # Errors
    /// [`StoreError`].
    fn parked_at(&self, position: Position) -> Result<Option<ParkedReading>, StoreError> {
        let at = self.parked(Some(position.plus(1)), 1)?;
        Ok(at.into_iter().next().filter(|parked| parked.position == position))
    }

    /// Parked readings that were dropped since start, because there were too many.
    fn parked_dropped(&self) -> u64;

    /// Every state, by id, until `each` breaks.
    ///
    /// # Errors
    /// [`StoreError`].
    fn for_each(&self, each: &mut dyn FnMut(DeviceState) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// How many pairs are kept. Costs nothing.
    fn kept_count(&self) -> u64;

    /// Kept pairs after the key `after` whose keys begin with `prefix`, in the order of the keys: at most `limit`, and not many
    /// more bytes than [`KEPT_PAGE_BYTES`]. Without one there are no more.
    ///
    /// # Errors
    /// [`StoreError`].
    fn kept_page(&self, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// The kept pairs whose keys begin with `prefix`, in the order of the keys, until `each` breaks.
    ///
    /// # Errors
    /// [`StoreError`].
    fn kept(&self, prefix: &[u8], each: &mut EachPair<'_>) -> Result<(), StoreError> {
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.kept_page(after.as_deref(), prefix, KEPT_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            if page.iter().any(|(key, value)| each(key, value).is_break()) {
                return Ok(());
            }
        }
    }

    /// Is there nothing of any device, and no pair?
    fn is_empty(&self) -> bool {
        self.count() == 0 && self.kept_count() == 0
    }

    /// Bytes on the disk.
    fn size_on_disk(&self) -> u64;
}

/// What is to change in a store: states and parked readings that are new, parked readings that are no more, and kept pairs.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The latest states of their devices.
    pub states: Vec<DeviceState>,
    /// Readings that were parked.
    pub parked: Vec<ParkedReading>,
    /// Readings that are parked no more.
    pub unparked: Vec<Position>,
    /// Pairs that were put or forgotten, in order.
    pub kept: Vec<KeptChange>,
}

/// Who is given kept pairs one by one, key and value, until he breaks.
pub type EachPair<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Kept pairs that are read from the store at a time.
pub(crate) const KEPT_PAGE: usize = 1_024;
/// Bytes of kept pairs that are read from the store at a time, about.
pub(crate) const KEPT_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Where a page of kept pairs begins.
fn page_start<'a>(after: Option<&'a [u8]>, prefix: &'a [u8]) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

/// Parked readings that are read from the store at a time.
const PAGE: usize = 256;

/// Parked readings on their way into the store, in the order of the journal: a reading is parked before it is unparked.
#[derive(Debug, Clone, Default)]
pub struct ParkedChanges {
    parked: Vec<ParkedReading>,
    unparked: Vec<Position>,
}

impl ParkedChanges {
    pub(crate) fn park(&mut self, reading: ParkedReading) {
        self.parked.push(reading);
    }

    pub(crate) fn unpark(&mut self, position: Position) {
        self.parked.retain(|parked| parked.position != position);
        self.unparked.push(position);
    }

    /// Adds what came after it.
    pub(crate) fn append(&mut self, later: Self) {
        for position in later.unparked {
            self.unpark(position);
        }
        self.parked.extend(later.parked);
    }

    /// The parked reading at a position: parked (`Some(Some(_))`), parked no more (`Some(None)`), or not among the changes.
    pub(crate) fn at(&self, position: Position) -> Option<Option<&ParkedReading>> {
        let parked = self.parked.iter().find(|parked| parked.position == position);
        parked.map(Some).or_else(|| self.unparked.contains(&position).then_some(None))
    }

    /// The last `limit` parked readings of `device` (`None`: of all) before a position, as they will be once these changes
    /// are in the store; the newest first.
    pub(crate) fn over(
        self,
        store: &dyn StateStore,
        device: Option<&DeviceId>,
        mut before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<ParkedReading>, StoreError> {
        let wanted = |parked: &ParkedReading| device.is_none_or(|device| parked.reading.device == *device);
        let mut found = self.parked;
        found.retain(|parked| wanted(parked) && before.is_none_or(|before| parked.position < before));
        let gone: HashSet<Position> =
            self.unparked.into_iter().chain(found.iter().map(|parked| parked.position)).collect();
        let mut stored = 0;
        // In pages: the readings may be large, and one device's few among many.
        while stored < limit {
            let page = store.parked(before, PAGE)?;
            let Some(last) = page.last() else { break };
            before = Some(last.position);
            let page = page.into_iter().filter(|parked| wanted(parked) && !gone.contains(&parked.position));
            let room = limit - stored;
            found.extend(page.take(room).inspect(|_| stored += 1));
        }
        found.sort_unstable_by_key(|parked| std::cmp::Reverse(parked.position));
        found.truncate(limit);
        Ok(found)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.unparked.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.parked.len() + self.unparked.len() >= crate::limits::PARKED_READINGS
    }

    /// The changes, with these states and pairs; for a write that may fail. Handles only: their texts are shared.
    pub(crate) fn with(&self, states: Vec<DeviceState>, kept: Vec<KeptChange>) -> Changes {
        Changes { states, parked: self.parked.clone(), unparked: self.unparked.clone(), kept }
    }

    /// Forgets them: they are in the store.
    pub(crate) fn clear(&mut self) {
        self.parked.clear();
        self.unparked.clear();
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the state directory {dir} is in use by another node", dir = dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What is stored makes no sense, or is less than was promised: it has to be rebuilt, which the next start does.
    #[error("the state store in {dir} is damaged: {reason}", dir = dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A newer Tidegate wrote it.
    #[error("the state store in {dir} was written by a newer version of tidegate: start that version, or move it away", dir = dir.display())]
    Newer {
        /// The directory.
        dir: PathBuf,
    },
    /// A kept pair is larger than any that the limits allow.
    #[error("a kept pair is too large to be stored: {bytes} bytes")]
    PairTooLarge {
        /// The size of its stored form.
        bytes: usize,
    },
    /// A state is larger than any that the limits allow.
    #[error("the state of device {device} is too large to be stored: {bytes} bytes")]
    TooLarge {
        /// The device.
        device: crate::ids::DeviceId,
        /// The size of its stored form.
        bytes: usize,
    },
}

impl StoreError {
    /// Is the disk full?
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

#[cfg(test)]
pub(crate) mod tests;
