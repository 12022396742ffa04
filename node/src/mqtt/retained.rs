//! The retained messages of the node: one index in the order of topics, for all loops.
//!
//! It is the only part of the router behind a lock. A PUBLISH without the retain flag never meets it; one with the flag
//! takes it for one insertion; a SUBSCRIBE reads it in bounded steps ([`super::retained_walk`]). Nothing here is durable: who
//! changes the index has the change kept.
//!
//! Each change has a serial. A walk sends only what was there when it began: what came later was delivered as it came.

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tidegate_actors::limits;

use super::retained_entry::{Entry, Parts, key_of};

/// What a message costs beside its packed bytes: its place in the index and the allocator's share.
pub(crate) const OVERHEAD: usize = 48;

/// Bytes of a message that a record has room for, beside its own parts.
const RECORD_ROOM: usize = limits::RECORD_BYTES - 1_024;

/// How many messages, and how many bytes of them, are retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// The index is full: the message is not retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("not retained: limit mqtt.limits.retained_messages: {0} messages")]
    Messages(usize),
    #[error("not retained: limit mqtt.limits.retained_bytes: {0} bytes with topics and properties")]
    Bytes(usize),
    #[error("not retained: {0} bytes, more than a record may have (limit record_bytes)")]
    Record(usize),
    #[error("not retained: too many wait to be stored (limit handover); send it again later")]
    Handover,
}

/// What is retained now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) messages: usize,
    /// With [`OVERHEAD`].
    pub(crate) bytes: usize,
}

/// The index.
pub(crate) struct Retained {
    limits: Limits,
    index: RwLock<Index>,
}

/// What is behind the lock.
#[derive(Default)]
pub(super) struct Index {
    pub(super) entries: BTreeSet<Entry>,
    bytes: usize,
    /// Messages that expire.
    mortal: usize,
    /// The serial of the last change.
    pub(super) serial: u64,
}

impl Retained {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, index: RwLock::default() }
    }

    /// Retains a message in place of its topic's last one.
    ///
    /// # Errors
    /// [`Full`]; then the topic keeps the message that it had.
    pub(crate) fn set(&self, parts: &Parts<'_>) -> Result<(), Full> {
        let mut index = self.write();
        self.has_room(&index, parts)?;
        index.serial += 1;
        let entry = Entry::pack(parts, index.serial);
        index.insert(entry);
        Ok(())
    }

    /// Would [`Retained::set`] take it?
    ///
    /// # Errors
    /// As there.
    pub(crate) fn check(&self, parts: &Parts<'_>) -> Result<(), Full> {
        self.has_room(&self.read(), parts)
    }

    fn has_room(&self, index: &Index, parts: &Parts<'_>) -> Result<(), Full> {
        let len = Entry::packed_len(parts);
        if len > RECORD_ROOM {
            return Err(Full::Record(len));
        }
        // Far from the limits nobody has to look what is replaced.
        let bytes = index.bytes + OVERHEAD + len;
        if index.entries.len() < self.limits.messages && bytes <= self.limits.bytes {
            return Ok(());
        }
        let replaced = index.entries.get(&key_of(parts.topic)[..]).map(|entry| OVERHEAD + entry.len());
        if replaced.is_none() && index.entries.len() >= self.limits.messages {
            return Err(Full::Messages(self.limits.messages));
        }
        if bytes - replaced.unwrap_or(0) > self.limits.bytes {
            return Err(Full::Bytes(self.limits.bytes));
        }
        Ok(())
    }

    /// Forgets a topic's message. Returns whether there was one.
    pub(crate) fn clear(&self, topic: &str) -> bool {
        let key = key_of(topic);
        // Most of what is cleared is there; a look that finds nothing costs nobody the lock.
        self.read().entries.contains(&key[..]) && self.write().remove(&key)
    }

    /// Shows a topic's message, or that there is none, to `show`.
    pub(crate) fn with<R>(&self, topic: &str, show: impl FnOnce(Option<&Entry>) -> R) -> R {
        show(self.read().entries.get(&key_of(topic)[..]))
    }

    /// Fills an empty index.
    pub(crate) fn fill(&self, entries: Vec<Entry>) {
        let mut index = self.write();
        index.bytes = entries.iter().map(|entry| OVERHEAD + entry.len()).sum();
        index.mortal = entries.iter().filter(|entry| entry.deadline().is_some()).count();
        // Built at once, its nodes are full: one by one, in order, they would be half empty.
        index.entries = entries.into_iter().collect();
    }

    pub(crate) fn size(&self) -> Size {
        let index = self.read();
        Size { messages: index.entries.len(), bytes: index.bytes }
    }

    /// Forgets the messages among the next `most` that have expired, from the key at `cursor` on, and moves the cursor; back
    /// to the start at the end. Returns their topics.
    pub(crate) fn sweep(&self, cursor: &mut Vec<u8>, most: usize, now: u64) -> Vec<String> {
        let mut expired = Vec::new();
        {
            let index = self.read();
            if index.mortal == 0 {
                return expired;
            }
            let mut seen = 0;
            let mut last = None;
            for entry in index.entries.range::<[u8], _>((Bound::Excluded(&cursor[..]), Bound::Unbounded)).take(most) {
                seen += 1;
                if entry.is_expired(now) {
                    expired.push(entry.topic());
                }
                last = Some(entry);
            }
            let next = last.filter(|_| seen == most).map(|entry| entry.key().to_vec());
            *cursor = next.unwrap_or_default();
        }
        if !expired.is_empty() {
            let mut index = self.write();
            // Another may have come in its place meanwhile.
            expired.retain(|topic| {
                let key = key_of(topic);
                index.entries.get(&key[..]).is_some_and(|entry| entry.is_expired(now)) && index.remove(&key)
            });
        }
        expired
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, entry: Entry) {
        self.bytes += OVERHEAD + entry.len();
        self.mortal += usize::from(entry.deadline().is_some());
        if let Some(old) = self.entries.replace(entry) {
            self.forget(&old);
        }
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let Some(old) = self.entries.take(key) else { return false };
        self.forget(&old);
        self.serial += 1;
        true
    }

    fn forget(&mut self, old: &Entry) {
        self.bytes -= OVERHEAD + old.len();
        self.mortal -= usize::from(old.deadline().is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::mqtt::packet::QoS;

    const UNLIMITED: Limits = Limits { messages: usize::MAX, bytes: usize::MAX };

    fn parts<'a>(topic: &'a str, payload: &'a [u8], deadline: Option<u64>) -> Parts<'a> {
        Parts { topic, payload, qos: QoS::AtLeastOnce, properties: &[], deadline }
    }

    #[test]
    fn at_a_limit_a_topic_keeps_what_it_had_and_the_limit_is_named() {
        let retained = Retained::new(Limits { messages: 2, bytes: 1_000 });
        retained.set(&parts("a", b"1", None)).unwrap();
        retained.set(&parts("b", b"1", None)).unwrap();
        assert_eq!(retained.set(&parts("c", b"1", None)), Err(Full::Messages(2)));
        assert_eq!(retained.set(&parts("a", &[0; 1_000], None)), Err(Full::Bytes(1_000)));
        retained.with("a", |entry| assert_eq!(entry.unwrap().payload(), b"1"));
        retained.set(&parts("a", b"2", None)).unwrap();
        assert!(retained.clear("b") && !retained.clear("b"));
        retained.set(&parts("c", b"1", None)).unwrap();
        assert!(Full::Messages(2).to_string().contains("mqtt.limits.retained_messages"));
        assert!(Full::Bytes(2).to_string().contains("mqtt.limits.retained_bytes"));
    }

    #[test]
    fn what_has_expired_goes_in_steps_and_what_has_not_stays() {
        let retained = Retained::new(UNLIMITED);
        for n in 0..100 {
            let deadline = (n % 2 == 0).then_some(1_000 + n % 4);
            retained.set(&parts(&format!("t/{n:03}"), b"1", deadline)).unwrap();
        }
        let mut cursor = Vec::new();
        assert!(retained.sweep(&mut cursor, 30, 999).is_empty());
        assert_eq!(cursor, key_of("t/029"));
        let mut swept = Vec::new();
        for _ in 0..4 {
            swept.extend(retained.sweep(&mut cursor, 30, 1_000));
        }
        assert!(cursor == key_of("t/029") || !cursor.is_empty(), "the walk goes round");
        swept.sort_unstable();
        let expected: Vec<_> = (0..100).step_by(4).map(|n| format!("t/{n:03}")).collect();
        assert_eq!(swept, expected);
        assert_eq!(retained.size().messages, 75);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in vec(
            (select(vec!["a", "a/b", "a-b", "/", "b", "$x"]), prop::option::of(vec(any::<u8>(), 0..30)), any::<bool>()),
            1..60,
        )) {
            let retained = Retained::new(UNLIMITED);
            let mut model = BTreeMap::new();
            for (topic, payload, mortal) in steps {
                match payload {
                    Some(payload) => {
                        retained.set(&parts(topic, &payload, mortal.then_some(5))).unwrap();
                        model.insert(topic, (payload, mortal));
                    }
                    None => prop_assert_eq!(retained.clear(topic), model.remove(topic).is_some()),
                }
                let bytes: usize = model
                    .iter()
                    .map(|(topic, (payload, mortal))| {
                        OVERHEAD + Entry::packed_len(&parts(topic, payload, mortal.then_some(5)))
                    })
                    .sum();
                prop_assert_eq!(retained.size(), Size { messages: model.len(), bytes });
            }
            for (topic, (payload, _)) in model {
                retained.with(topic, |entry| assert_eq!(entry.unwrap().payload(), payload));
            }
        }
    }
}
