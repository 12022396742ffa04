//! The inbox of a loop: a bounded flume queue and the waker of the loop's pump.
//!
//! flume carries the messages; the wake-up is our own, because a loop never blocks on a queue and one wake-up a turn is enough.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    thread::{self, Thread},
    time::Instant,
};

use futures_util::task::AtomicWaker;

/// The receiving end, owned by one loop.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: flume::Receiver<T>,
    waker: Arc<AtomicWaker>,
    nap: Arc<Nap>,
}

/// A sending end: cheap to clone, usable from any thread.
#[derive(Debug)]
pub struct Outlet<T> {
    queue: flume::Sender<T>,
    waker: Arc<AtomicWaker>,
    nap: Arc<Nap>,
}

/// The sleep of a loop that waits for company, which a message may end.
#[derive(Debug, Default)]
pub(crate) struct Nap {
    thread: OnceLock<Thread>,
    called: AtomicBool,
}

impl Nap {
    /// Sleeps on this thread until then, or until somebody calls.
    pub(crate) fn sleep_until(&self, end: Instant) {
        self.thread.get_or_init(thread::current);
        while !self.called.load(Ordering::SeqCst) {
            let now = Instant::now();
            if now >= end {
                return;
            }
            thread::park_timeout(end - now);
        }
    }

    fn call(&self) {
        self.called.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// An inbox for at most `limit` messages, and its first sending end.
#[must_use]
pub fn inbox<T>(limit: usize) -> (Outlet<T>, Inbox<T>) {
    let (sender, receiver) = flume::bounded(limit);
    let (waker, nap) = (Arc::new(AtomicWaker::new()), Arc::new(Nap::default()));
    (Outlet { queue: sender, waker: Arc::clone(&waker), nap: Arc::clone(&nap) }, Inbox { queue: receiver, waker, nap })
}

impl<T> Inbox<T> {
    /// Says whom to wake at the next message. Call it before [`Inbox::take`], or a message may go unnoticed.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
        self.nap.called.store(false, Ordering::SeqCst);
    }

    /// The sleep that [`Outlet::call`] ends.
    pub(crate) fn nap(&self) -> Arc<Nap> {
        Arc::clone(&self.nap)
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

    /// Somebody waits for what was sent: a loop that sleeps on for company is woken, too.
    pub(crate) fn call(&self) {
        self.nap.call();
    }
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), waker: Arc::clone(&self.waker), nap: Arc::clone(&self.nap) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_ends_the_wait_for_company_and_other_messages_do_not() {
        let (outlet, inbox) = inbox(2);
        let nap = inbox.nap();
        let (began, for_good) = (Instant::now(), Duration::from_secs(3_600));
        let sender = thread::spawn(move || {
            outlet.send(1).unwrap();
            thread::sleep(Duration::from_millis(20));
            outlet.send(2).unwrap();
            outlet.call();
        });
        nap.sleep_until(began + for_good);
        assert!(began.elapsed() >= Duration::from_millis(20));
        sender.join().unwrap();
        // An answer that is there already is not slept through, until the loop has begun a turn.
        nap.sleep_until(began + for_good);
        inbox.register(Waker::noop());
        let end = Instant::now() + Duration::from_millis(5);
        nap.sleep_until(end);
        assert!(Instant::now() >= end);
        assert_eq!((inbox.take(), inbox.take()), (Some(1), Some(2)));
    }

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
