//! The readings on their way to one loop from the others: a bounded queue into which every loop puts, and which its owner takes
//! whole.
//!
//! A reading is in it before its sender is told that it was received, so that no later reading of the same device overtakes it,
//! over whatever connection. Putting one in wakes nobody: the senders do that, once a turn for whom somebody waits and once a
//! commit tick for the others ([`crate::event_loop`]).

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{limits, lock::lock, submission::Submission};

/// The queue to one loop.
#[derive(Debug, Default)]
pub struct Handover {
    queue: Mutex<VecDeque<Submission>>,
    /// The queue's length, to be read without the lock.
    waiting: AtomicUsize,
}

impl Handover {
    /// Puts a reading behind those that wait, and says how many wait now.
    ///
    /// # Errors
    /// Gives it back at twice [`limits::HANDOVER`].
    #[expect(clippy::result_large_err, reason = "it is the reading, moved back to who refuses it")]
    pub(crate) fn push(&self, submission: Submission) -> Result<usize, Submission> {
        let mut queue = lock(&self.queue);
        if queue.len() >= 2 * limits::HANDOVER {
            return Err(submission);
        }
        queue.push_back(submission);
        self.waiting.store(queue.len(), Ordering::Release);
        Ok(queue.len())
    }

    /// How many readings wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Moves everything that waits behind what is in `taken`.
    pub(crate) fn take(&self, taken: &mut VecDeque<Submission>) {
        if self.waiting() == 0 {
            return;
        }
        let mut queue = lock(&self.queue);
        if taken.is_empty() {
            // The two take turns: nobody allocates, and the lock is held for a few instructions.
            std::mem::swap(&mut *queue, taken);
        } else {
            taken.append(&mut queue);
        }
        self.waiting.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        ids::DeviceId,
        reading::{AckLevel, Channel, Reading},
    };

    fn submission(received: i64) -> Submission {
        let reading = Reading {
            device: DeviceId::new("d1").unwrap(),
            channel: Channel::Metrics,
            device_time: None,
            received,
            payload: Bytes::from_static(b"{}"),
            idempotency: None,
            retry_of: None,
        };
        Submission { reading, level: AckLevel::Received, ack: None }
    }

    fn times(taken: &VecDeque<Submission>) -> Vec<i64> {
        taken.iter().map(|submission| submission.reading.received).collect()
    }

    #[test]
    fn what_is_taken_comes_in_order_and_behind_what_was_taken_before() {
        let handover = Handover::default();
        let mut taken = VecDeque::new();
        handover.take(&mut taken);
        assert!(taken.is_empty());
        for time in 0..3 {
            assert_eq!(handover.push(submission(time)).unwrap(), handover.waiting());
        }
        handover.take(&mut taken);
        assert_eq!((times(&taken), handover.waiting()), (vec![0, 1, 2], 0));
        taken.pop_front();
        handover.push(submission(3)).unwrap();
        handover.take(&mut taken);
        assert_eq!((times(&taken), handover.waiting()), (vec![1, 2, 3], 0));
    }

    #[test]
    fn a_full_queue_gives_the_reading_back() {
        let handover = Handover::default();
        for time in 0..2 * limits::HANDOVER as i64 {
            handover.push(submission(time)).unwrap();
        }
        assert_eq!(handover.push(submission(-1)).unwrap_err().reading.received, -1);
        assert_eq!(handover.waiting(), 2 * limits::HANDOVER);
    }
}
