//! Kept pairs: what the edge wants to find again after a restart, as keys and values of its own (sessions, retained messages).
//!
//! A pair goes the way of a state: into the loop's journal batch, with a checkpoint into the store, from there into the
//! snapshots. What keys and values mean is the edge's business. Here are the changes that the store does not have yet, the
//! latest of each key; the journal's record is in `journal/record.rs`.

use bytes::Bytes;
use hashbrown::{HashMap, hash_map};

/// A change of one pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptChange {
    /// The key: 1 to [`crate::limits::KEPT_KEY_BYTES`] bytes.
    pub key: Bytes,
    /// The value; `None`: the pair is forgotten.
    pub value: Option<Bytes>,
}

/// Changes at which they should be written: this bounds the time of the write.
const CHANGES: usize = 100_000;
/// Bytes at which they should be written: this bounds the memory.
const BYTES: usize = 64 * 1024 * 1024;
/// What a change takes up besides its key and value.
const OVERHEAD: usize = 128;

/// Changes of one handing over, at most: see [`KeptCycle::take`].
const PIECE: usize = 16_384;
/// Bytes of one handing over, about.
const PIECE_BYTES: usize = 4 * 1024 * 1024;

/// Changes on their way into the store: the latest of each key.
#[derive(Debug, Default)]
pub(crate) struct KeptChanges {
    changes: HashMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

impl KeptChanges {
    /// Puts a change in the place of the key's last one.
    pub(crate) fn insert(&mut self, KeptChange { key, value }: KeptChange) {
        self.bytes += size(&key, value.as_ref());
        let key_bytes = key.len();
        if let Some(last) = self.changes.insert(key, value) {
            self.bytes -= OVERHEAD + key_bytes + last.map_or(0, |value| value.len());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Should they be written now, whatever the time?
    pub(crate) fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES || self.bytes >= BYTES
    }

    /// The changes, for a write that may fail. Handles only: their bytes are shared.
    pub(crate) fn to_vec(&self) -> Vec<KeptChange> {
        let change = |(key, value): (&Bytes, &Option<Bytes>)| KeptChange { key: key.clone(), value: value.clone() };
        self.changes.iter().map(change).collect()
    }

    /// Forgets them: they are in the store.
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
        self.bytes = 0;
    }
}

/// A loop's changes on their way to the checkpoint thread: those that were there when the checkpoint began, which goes on piece by
/// piece, and those that came since.
#[derive(Debug, Default)]
pub(crate) struct KeptCycle {
    since: KeptChanges,
    going: Option<hash_map::IntoIter<Bytes, Option<Bytes>>>,
    going_bytes: usize,
}

impl KeptCycle {
    pub(crate) fn insert(&mut self, change: KeptChange) {
        self.since.insert(change);
    }

    /// A checkpoint begins: it is through once everything that is here now has been taken. The one before is through.
    pub(crate) fn begin(&mut self) {
        if self.going.is_none() && !self.since.is_empty() {
            let KeptChanges { changes, bytes } = std::mem::take(&mut self.since);
            (self.going, self.going_bytes) = (Some(changes.into_iter()), bytes);
        }
    }

    /// The next piece of the checkpoint; and whether it is the last.
    pub(crate) fn take(&mut self) -> (Vec<KeptChange>, bool) {
        let mut piece = Vec::new();
        let Some(going) = &mut self.going else { return (piece, true) };
        let mut bytes = 0;
        while piece.len() < PIECE && bytes < PIECE_BYTES {
            let Some((key, value)) = going.next() else { break };
            bytes += size(&key, value.as_ref());
            piece.push(KeptChange { key, value });
        }
        self.going_bytes -= bytes;
        let last = going.len() == 0;
        if last {
            self.going = None;
        }
        (piece, last)
    }

    /// Has the checkpoint thread been given everything?
    pub(crate) fn is_empty(&self) -> bool {
        self.going.is_none() && self.since.is_empty()
    }

    /// The memory that they take up, about.
    pub(crate) fn bytes(&self) -> usize {
        self.going_bytes + self.since.bytes
    }
}

fn size(key: &Bytes, value: Option<&Bytes>) -> usize {
    OVERHEAD + key.len() + value.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn change(key: usize, value: Option<usize>) -> KeptChange {
        KeptChange { key: format!("key {key}").into(), value: value.map(|bytes| Bytes::from(vec![b'v'; bytes])) }
    }

    #[test]
    fn an_overwritten_or_forgotten_pair_counts_once() {
        let mut changes = KeptChanges::default();
        for round in 0..1_000 {
            changes.insert(change(1, (round % 2 == 0).then_some(BYTES / 100)));
        }
        assert!(!changes.is_full(), "it is one pair");
        assert_eq!(changes.to_vec(), [change(1, None)], "put and forgotten is forgotten");
        (0..100).for_each(|key| changes.insert(change(key, Some(BYTES / 100))));
        assert!(changes.is_full(), "large values");
        changes.clear();
        assert!(changes.is_empty() && changes.bytes == 0);
        (0..CHANGES).for_each(|key| changes.insert(change(key, None)));
        assert!(changes.is_full(), "many changes");
    }

    #[test]
    fn a_cycle_gives_what_was_there_when_it_began_and_counts_the_rest() {
        let mut cycle = KeptCycle::default();
        (0..PIECE + 10).for_each(|key| cycle.insert(change(key, Some(8))));
        cycle.begin();
        cycle.insert(change(5, None));
        let (first, last) = cycle.take();
        assert_eq!((first.len(), last), (PIECE, false));
        let (rest, last) = cycle.take();
        assert_eq!((rest.len(), last), (10, true));
        let mut all: BTreeMap<_, _> = first.into_iter().chain(rest).map(|one| (one.key, one.value)).collect();
        assert_eq!(all.len(), PIECE + 10);
        assert_eq!(all.remove(b"key 5".as_slice()), Some(Some(Bytes::from_static(b"vvvvvvvv"))));
        assert!(!cycle.is_empty());
        assert_eq!(cycle.bytes(), OVERHEAD + 5);
        assert_eq!(cycle.take(), (Vec::new(), true), "it came after the beginning");
        cycle.begin();
        assert_eq!(cycle.take(), (vec![change(5, None)], true));
        assert!(cycle.is_empty() && cycle.bytes() == 0);
    }

    #[test]
    fn large_values_go_in_more_pieces() {
        let mut cycle = KeptCycle::default();
        (0..10).for_each(|key| cycle.insert(change(key, Some(PIECE_BYTES / 2))));
        cycle.begin();
        let mut pieces = 0;
        while !cycle.take().1 {
            pieces += 1;
        }
        assert_eq!(pieces, 4, "and the last");
    }
}
