//! HTTP requests that wait for answers of the runtime: one entry a request, one answer an item.

use slab::Slab;
use tidegate_actors::submission::Answer;
use tokio::sync::oneshot;

/// The waiting requests of a loop.
#[derive(Default)]
pub(crate) struct Waits {
    entries: Slab<Entry>,
    serial: u32,
}

struct Entry {
    serial: u32,
    missing: u32,
    answers: Vec<Option<Answer>>,
    done: Option<oneshot::Sender<Vec<Option<Answer>>>>,
}

/// A request's end of its wait.
pub(crate) struct Wait {
    /// The key for [`super::EdgeLoop::ack_to_request`].
    pub(crate) key: u64,
    /// The answers, by item, once all are there.
    pub(crate) answers: oneshot::Receiver<Vec<Option<Answer>>>,
}

impl Waits {
    /// Waits for the answers of `items` (at least one) items.
    pub(crate) fn open(&mut self, items: u32) -> Wait {
        self.serial = self.serial.wrapping_add(1) & 0x7FFF_FFFF;
        let (done, answers) = oneshot::channel();
        let entry =
            Entry { serial: self.serial, missing: items, answers: vec![None; items as usize], done: Some(done) };
        let index = self.entries.insert(entry) as u64;
        Wait { key: u64::from(self.serial) << 32 | index, answers }
    }

    /// An answer has come. Answers to requests that are gone are ignored.
    pub(crate) fn answer(&mut self, key: u64, item: u32, answer: Answer) {
        let index = (key & 0xFFFF_FFFF) as usize;
        let Some(entry) = self.entries.get_mut(index).filter(|entry| u64::from(entry.serial) == key >> 32) else {
            return;
        };
        if let Some(slot @ None) = entry.answers.get_mut(item as usize) {
            *slot = Some(answer);
            entry.missing -= 1;
        }
        if entry.missing == 0 {
            let entry = self.entries.remove(index);
            if let Some(done) = entry.done {
                // The client has gone: nobody to tell.
                let _ = done.send(entry.answers);
            }
        }
    }

    /// Gives up waiting: the request ended before its answers came.
    pub(crate) fn forget(&mut self, key: u64) {
        let index = (key & 0xFFFF_FFFF) as usize;
        if self.entries.get(index).is_some_and(|entry| u64::from(entry.serial) == key >> 32) {
            self.entries.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_last_answer_and_late_answers_hit_nobody() {
        let mut waits = Waits::default();
        let mut wait = waits.open(2);
        waits.answer(wait.key, 1, Answer::Committed);
        assert!(wait.answers.try_recv().is_err());
        waits.answer(wait.key, 1, Answer::Committed);
        waits.answer(wait.key, 0, Answer::Committed);
        assert_eq!(wait.answers.try_recv().unwrap(), vec![Some(Answer::Committed); 2]);

        let mut next = waits.open(1);
        assert_ne!(next.key, wait.key);
        waits.answer(wait.key, 0, Answer::Committed);
        assert!(next.answers.try_recv().is_err(), "an answer to an old request must not reach the next one");
        waits.forget(next.key);
        assert_eq!(waits.entries.len(), 0);
    }
}
