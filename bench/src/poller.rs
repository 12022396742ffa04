//! The epoll instance of the load generator: level-triggered, one token a socket.
//!
//! Owns no socket and knows no protocol. Plain epoll rather than a runtime, so that the generator takes as little as it
//! can of the processor time that it shares with the server under test.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A wait shorter than this is left to `ppoll`, because the timeout of `epoll_wait` counts whole milliseconds.
const FINE_WAIT: Duration = Duration::from_millis(2);

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// The token that the socket was registered with.
    pub(crate) token: usize,
    /// Bytes, the end of the stream or an error can be read.
    pub(crate) readable: bool,
    /// The send buffer has room again.
    pub(crate) writable: bool,
}

/// The set of watched sockets.
pub(crate) struct Poller {
    epoll: OwnedFd,
    raw: Vec<epoll::Event>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, raw: Vec::with_capacity(1024) })
    }

    /// Watches `socket` for reading.
    ///
    /// # Errors
    /// Whatever `epoll_ctl` says.
    pub(crate) fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token as u64), EventFlags::IN)?)
    }

    /// Watches `socket` for writing too, or no longer.
    ///
    /// # Errors
    /// Whatever `epoll_ctl` says.
    pub(crate) fn want_write(&self, socket: impl AsFd, token: usize, on: bool) -> io::Result<()> {
        let flags = if on { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token as u64), flags)?)
    }

    /// Waits until a socket is ready or `until` has come, and puts what is ready into `ready`.
    ///
    /// # Errors
    /// Whatever `epoll_wait` says, except an interruption, which is an empty answer.
    pub(crate) fn wait_until(&mut self, until: Instant, ready: &mut Vec<Ready>) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || left >= FINE_WAIT {
            return self.wait(left, ready);
        }
        let nanos = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&nanos)) {
            Ok(_) | Err(Errno::INTR) => self.wait(Duration::ZERO, ready),
            Err(error) => Err(error.into()),
        }
    }

    fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.raw.clear();
        let millis = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.raw), Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in &self.raw {
            let (flags, data) = (event.flags, event.data);
            ready.push(Ready {
                token: data.u64() as usize,
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP),
                writable: flags.contains(EventFlags::OUT),
            });
        }
        Ok(())
    }
}
