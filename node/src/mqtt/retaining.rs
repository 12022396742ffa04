//! What a PUBLISH with the retain flag does (section 3.3.1.3): the index has the message at once, and the loop that owns the topic has
//! it kept, so that it is there after a crash.
//!
//! The publisher's loop changes the index and leaves a note for the owner; the owner keeps whatever the index has by then.
//! So what is kept last is what was set last, whichever loops the publishers are on. Notes carry the publishers' receipts:
//! a PUBACK goes out when the message, or a later one of its topic, is durable.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tidegate_actors::{event_loop::LoopMessage, ids::LoopId, limits, placement, store::StoreError};

use super::{
    receipt::Receipt,
    retained::{Full, Size},
    retained_entry::Parts,
    router::{Again, Message},
    stored,
};
use crate::edge::{EdgeLoop, Shared};

/// Bytes of messages that one turn keeps, at most beside the last.
const KEEP_BYTES: usize = 1024 * 1024;
/// Messages that one sweep looks at for whether they have expired.
const SWEEP: usize = 8_192;

/// The topics of a loop whose retained message has changed and is to be kept.
#[derive(Default)]
pub(crate) struct Notes {
    waiting: Mutex<Vec<Note>>,
    any: AtomicBool,
}

struct Note {
    topic: Box<str>,
    receipt: Option<Arc<Receipt>>,
}

/// Retains a message, or with an empty payload forgets its topic's. `receipt`: who waits for that to be durable.
///
/// # Errors
/// A limit; then nothing has changed.
pub(crate) fn retain(edge: &EdgeLoop, message: &Message, receipt: Option<Arc<Receipt>>) -> Result<(), Full> {
    let retained = &edge.shared.retained;
    let owner = placement::owner(&message.topic, edge.handle.services().loops());
    let notes = &edge.shared.notes[owner.index()];
    if notes.is_full() {
        return Err(Full::Handover);
    }
    if message.again == Again::SinceTheStart {
        // The index has had it, and may have had another since.
    } else if message.payload.is_empty() {
        let was_there = retained.clear(&message.topic);
        // Who waits for an answer may follow one whose message is not durable yet.
        if !was_there && receipt.is_none() {
            return Ok(());
        }
    } else {
        retained.set(&parts_of(message))?;
    }
    leave(edge, owner, Note { topic: message.topic.clone(), receipt });
    Ok(())
}

/// Would a message be retained?
///
/// # Errors
/// The limit that speaks against it.
pub(crate) fn check(edge: &EdgeLoop, message: &Message) -> Result<(), Full> {
    let owner = placement::owner(&message.topic, edge.handle.services().loops());
    if edge.shared.notes[owner.index()].is_full() {
        return Err(Full::Handover);
    }
    if message.payload.is_empty() { Ok(()) } else { edge.shared.retained.check(&parts_of(message)) }
}

/// As [`retain`], where nobody can be told of a limit: there the message is delivered, and not retained.
pub(crate) fn try_retain(edge: &EdgeLoop, message: &Message, receipt: Option<Arc<Receipt>>) {
    if let Err(full) = retain(edge, message, receipt) {
        refused(edge, &message.topic, full);
    }
}

/// A message is not retained.
pub(crate) fn refused(edge: &EdgeLoop, topic: &str, full: Full) {
    edge.shared.counters.mqtt_not_retained.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(topic, "{full}");
}

fn parts_of(message: &Message) -> Parts<'_> {
    Parts {
        topic: &message.topic,
        payload: &message.payload,
        qos: message.qos,
        properties: &message.properties,
        deadline: message.deadline,
    }
}

fn leave(edge: &EdgeLoop, owner: LoopId, note: Note) {
    let waiting = edge.shared.notes[owner.index()].put(note);
    if waiting >= limits::HANDOVER {
        edge.crowded_notes.set(Some(owner));
    }
    if waiting == 1 {
        if owner == edge.handle.id() {
            edge.handle.wake();
        } else {
            // A loop whose inbox is full has turns to come, and looks at the end of each.
            let nothing = LoopMessage::Task(Box::new(|_| {}));
            let _ = edge.handle.services().outlets[owner.index()].try_send(nothing);
        }
    }
}

/// Should sockets not be read now: do too many messages of this loop's publishers wait to be kept by another loop?
pub(crate) fn is_pressed(edge: &EdgeLoop) -> bool {
    let Some(owner) = edge.crowded_notes.get() else { return false };
    let is_crowded = edge.shared.notes[owner.index()].waiting().len() >= limits::HANDOVER;
    if !is_crowded {
        edge.crowded_notes.set(None);
    }
    is_crowded
}

/// Has the messages kept that this loop has notes of. At the end of each turn.
pub(crate) fn keep_noted(edge: &EdgeLoop) {
    let notes = &edge.shared.notes[edge.handle.id().index()];
    // The journal has enough to do: notes wait, and then their publishers.
    if !notes.any.load(Ordering::Relaxed) || edge.handle.is_pressed() {
        return;
    }
    let mut noted = notes.take();
    // A topic that changed often is kept once.
    noted.sort_by(|a, b| a.topic.cmp(&b.topic));
    let now = (edge.handle.services().clock.now(), edge.uptime_ms());
    let (mut done, mut bytes) = (0, 0);
    while let Some(Note { topic, .. }) = noted.get(done).filter(|_| bytes < KEEP_BYTES) {
        let same = noted[done..].iter().take_while(|other| other.topic == *topic).count();
        done += same;
        let key = stored::retained_key(topic);
        let value = edge.shared.retained.with(topic, |entry| entry.map(|entry| stored::encode_retained(entry, now)));
        bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        if edge.handle.keep(key, value).is_err() {
            // `retain` has measured it.
            tracing::error!(%topic, "a retained message is too large to be kept: a defect, please report it");
        }
    }
    let rest = noted.split_off(done);
    if !rest.is_empty() {
        notes.put_back(rest);
        edge.handle.wake();
    }
    let receipts: Vec<_> = noted.into_iter().filter_map(|note| note.receipt).collect();
    if !receipts.is_empty() {
        edge.handle.when_durable(move || drop(receipts));
    }
}

/// Forgets messages that have expired; one loop does it for all, once a second.
pub(crate) fn sweep(edge: &EdgeLoop) {
    let mut cursor = edge.retained_cursor.borrow_mut();
    for topic in edge.shared.retained.sweep(&mut cursor, SWEEP, edge.uptime_ms()) {
        let owner = placement::owner(&topic, edge.handle.services().loops());
        leave(edge, owner, Note { topic: topic.into(), receipt: None });
    }
}

/// Fills the index with what is kept, before the listeners open: who subscribes first gets what was retained before the stop.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn load(shared: &Shared) -> Result<(), StoreError> {
    let started = Instant::now();
    let now = (shared.runtime.services().clock.now(), shared.runtime.services().uptime_ms());
    let mut entries = Vec::new();
    shared.runtime.kept(stored::RETAINED, &mut |key, value| {
        match stored::decode_retained(key, value, now) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::error!(key = %String::from_utf8_lossy(key), "a retained message cannot be read: {error}");
            }
        }
        ControlFlow::Continue(())
    })?;
    shared.retained.fill(entries);
    let Size { messages, bytes } = shared.retained.size();
    tracing::info!(messages, bytes, seconds = started.elapsed().as_secs_f64(), "retained messages loaded");
    Ok(())
}

impl Notes {
    /// The publishers' sockets are not read from half of that on.
    fn is_full(&self) -> bool {
        self.any.load(Ordering::Relaxed) && self.waiting().len() >= 2 * limits::HANDOVER
    }

    /// Returns how many wait now.
    fn put(&self, note: Note) -> usize {
        let mut waiting = self.waiting();
        waiting.push(note);
        self.any.store(true, Ordering::Release);
        waiting.len()
    }

    fn put_back(&self, notes: Vec<Note>) {
        let mut waiting = self.waiting();
        let newer = std::mem::replace(&mut *waiting, notes);
        waiting.extend(newer);
        self.any.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<Note> {
        if self.any.load(Ordering::Relaxed) && self.any.swap(false, Ordering::Acquire) {
            std::mem::take(&mut *self.waiting())
        } else {
            Vec::new()
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Note>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::mqtt::{packet::QoS, retained_entry::Entry};

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was_kept(
            topic in "[a-zä/$ ]{1,40}",
            payload in vec(any::<u8>(), 1..200),
            properties in vec(any::<u8>(), 0..50),
            qos in 0..3_u8,
            left in prop::option::of(0..u64::from(u32::MAX) * 1_000),
        ) {
            let qos = QoS::from_bits(qos).unwrap();
            let deadline = left.map(|left| 500 + left);
            let parts = Parts { topic: &topic, payload: &payload, qos, properties: &properties, deadline };
            let (key, value) = (stored::retained_key(&topic), stored::encode_retained(&Entry::pack(&parts, 7), (10_000, 500)));
            // The node was away for a second, and its uptime begins anew.
            let entry = stored::decode_retained(&key, &value, (11_000, 3)).unwrap();
            prop_assert_eq!((entry.topic(), entry.payload(), entry.qos()), (topic.clone(), &payload[..], qos));
            prop_assert_eq!((entry.properties(), entry.serial()), (&properties[..], 0));
            prop_assert_eq!(entry.deadline(), left.map(|left| 3 + left.saturating_sub(1_000)));
            for cut in 0..value.len() {
                prop_assert!(stored::decode_retained(&key, &value[..cut], (0, 0)).is_err());
            }
            prop_assert!(stored::decode_retained(b"r", &value, (0, 0)).is_err(), "no topic");
        }
    }

    /// Written by the first version that retained messages.
    #[test]
    fn the_first_version_stays_readable() {
        let value = [0, 2, b'o', b'n', 1, 2, 1, 1, 1, 0xFB, 0xD0, 0x07];
        let entry = stored::decode_retained(b"ra/b", &value, (400, 50)).unwrap();
        assert_eq!((entry.topic().as_str(), entry.payload(), entry.qos()), ("a/b", &b"on"[..], QoS::AtLeastOnce));
        assert_eq!((entry.properties(), entry.deadline()), (&[1, 1][..], Some(650)));
    }

    #[test]
    fn notes_are_taken_in_order_and_what_is_put_back_comes_first() {
        let notes = Notes::default();
        let note = |topic: &str| Note { topic: topic.into(), receipt: None };
        assert_eq!([notes.put(note("1")), notes.put(note("2"))], [1, 2]);
        let mut taken = notes.take();
        assert!(notes.take().is_empty());
        assert_eq!(notes.put(note("3")), 1, "somebody must be woken again");
        notes.put_back(taken.split_off(1));
        let topics: Vec<_> = notes.take().into_iter().map(|note| note.topic).collect();
        assert_eq!(topics, ["2".into(), "3".into()]);
    }
}
