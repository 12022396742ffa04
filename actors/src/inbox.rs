//! The inbox of a loop: a bounded flume queue and the waker of the loop's pump.
//!
//! flume carries the messages; the wake-up is our own, because a loop never blocks on a queue and one wake-up a turn is enough.

use std::{sync::Arc, task::Waker};

use futures_util::task::AtomicWaker;

/// The receiving end, owned by one loop.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: flume::Receiver<T>,
    waker: Arc<AtomicWaker>,
}

/// A sending end: cheap to clone, usable from any thread.
#[derive(Debug)]
pub struct Outlet<T> {
    queue: flume::Sender<T>,
    waker: Arc<AtomicWaker>,
}

/// An inbox for at most `limit` messages, and its first sending end.
#[must_use]
pub fn inbox<T>(limit: usize) -> (Outlet<T>, Inbox<T>) {
    let (sender, receiver) = flume::bounded(limit);
    let waker = Arc::new(AtomicWaker::new());
    (Outlet { queue: sender, waker: Arc::clone(&waker) }, Inbox { queue: receiver, waker })
}

impl<T> Inbox<T> {
    /// Says whom to wake at the next message. Call it before [`Inbox::take`], or a message may go unnoticed.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The next message, if one waits.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

impl<T> Outlet<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    /// Gives the message back when the inbox is full or its loop has ended.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        self.queue.try_send(message).map_err(flume::TrySendError::into_inner)?;
        self.waker.wake();
        Ok(())
    }

    /// Makes the loop run a turn soon.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Sends, waiting for room: for threads only, never on a loop.
    ///
    /// # Errors
    /// Gives the message back when the loop has ended.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.queue.send(message).map_err(flume::SendError::into_inner)?;
        self.waker.wake();
        Ok(())
    }
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), waker: Arc::clone(&self.waker) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_inbox_gives_the_message_back() {
        let (outlet, inbox) = inbox(1);
        assert_eq!(outlet.try_send(1), Ok(()));
        assert_eq!(outlet.try_send(2), Err(2));
        assert_eq!(inbox.take(), Some(1));
        assert_eq!(inbox.take(), None);
        drop(inbox);
        assert_eq!(outlet.send(3), Err(3));
    }
}
