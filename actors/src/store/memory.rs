//! A store in memory: for tests, and for a node that keeps nothing.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{Changes, KEPT_PAGE_BYTES, StateStore, StoreError};
use crate::{
    ids::{DeviceId, Position},
    kept::KeptChange,
    limits,
    lock::{read, write},
    state::{DeviceState, ParkedReading},
};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    content: RwLock<Content>,
    parked_dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Content {
    states: BTreeMap<DeviceId, DeviceState>,
    parked: BTreeMap<Position, ParkedReading>,
    kept: BTreeMap<Bytes, Bytes>,
    folded: Position,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateStore for MemoryStore {
    fn get(&self, device: &str) -> Result<Option<DeviceState>, StoreError> {
        Ok(read(&self.content).states.get(device).cloned())
    }

    fn page(&self, after: Option<&str>, prefix: &str, limit: usize) -> Result<Vec<DeviceState>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let content = read(&self.content);
        let matching = content.states.range::<str, _>((start, Bound::Unbounded)).map(|(_, state)| state);
        Ok(matching.take_while(|state| state.device.as_str().starts_with(prefix)).take(limit).cloned().collect())
    }

    fn count(&self) -> u64 {
        read(&self.content).states.len() as u64
    }

    fn write(&self, changes: &Changes, folded: Position) -> Result<(), StoreError> {
        let mut content = write(&self.content);
        content.states.extend(changes.states.iter().map(|state| (state.device.clone(), state.clone())));
        content.parked.extend(changes.parked.iter().map(|parked| (parked.position, parked.clone())));
        for position in &changes.unparked {
            content.parked.remove(position);
        }
        while content.parked.len() > limits::PARKED_READINGS {
            content.parked.pop_first();
            self.parked_dropped.fetch_add(1, Ordering::Relaxed);
        }
        for KeptChange { key, value } in &changes.kept {
            match value {
                Some(value) => drop(content.kept.insert(key.clone(), value.clone())),
                None => drop(content.kept.remove(key)),
            }
        }
        content.folded = folded;
        Ok(())
    }

    fn folded(&self) -> Position {
        read(&self.content).folded
    }

    fn parked(&self, before: Option<Position>, limit: usize) -> Result<Vec<ParkedReading>, StoreError> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let content = read(&self.content);
        let newest_first = content.parked.range((Bound::Unbounded, end)).rev().map(|(_, parked)| parked);
        Ok(newest_first.take(limit).cloned().collect())
    }

    fn parked_dropped(&self) -> u64 {
        self.parked_dropped.load(Ordering::Relaxed)
    }

    fn for_each(&self, each: &mut dyn FnMut(DeviceState) -> ControlFlow<()>) -> Result<(), StoreError> {
        // A copy of the ids and bodies' handles only: `each` may take its time, and may read the store.
        let states = read(&self.content).states.values().cloned().collect::<Vec<_>>();
        let _ = states.into_iter().try_for_each(each);
        Ok(())
    }

    fn kept_count(&self) -> u64 {
        read(&self.content).kept.len() as u64
    }

    fn kept_page(&self, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let content = read(&self.content);
        let pairs = content.kept.range::<[u8], _>((super::page_start(after, prefix), Bound::Unbounded));
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (key, value) in pairs.take_while(|(key, _)| key.starts_with(prefix)).take(limit) {
            page.push((key.clone(), value.clone()));
            bytes += key.len() + value.len();
            if bytes >= KEPT_PAGE_BYTES {
                break;
            }
        }
        Ok(page)
    }

    fn size_on_disk(&self) -> u64 {
        0
    }
}
