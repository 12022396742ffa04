//! One non-blocking client connection: unsent bytes, unparsed bytes, nothing else.
//!
//! Knows no protocol. A connection that the server closes is an error, always: no scenario expects it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::poller::Poller;

/// More unsent bytes than this on one connection mean that the server no longer reads.
const UNSENT_LIMIT: usize = 1 << 20;

/// How long the blocking handshake of one connection may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// The size of the read buffer that all connections of a generator share.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// A client connection.
pub(crate) struct Conn {
    stream: TcpStream,
    token: usize,
    unsent: Vec<u8>,
    unparsed: Vec<u8>,
}

impl Conn {
    /// Connects with `TCP_NODELAY`, writes `hello` and reads until `complete` finds a whole answer, then registers the
    /// connection as `token`. `complete` returns the length of the answer, or `None` while it is not all there.
    ///
    /// # Errors
    /// A refused connection, a refused handshake, or none within 20 s.
    pub(crate) fn open(
        address: SocketAddr,
        poller: &Poller,
        token: usize,
        hello: &[u8],
        complete: impl FnMut(&[u8]) -> Result<Option<usize>>,
    ) -> Result<Self> {
        let mut conn = Self::start(address, token, hello)?;
        conn.finish(poller, complete)?;
        Ok(conn)
    }

    /// The first half of [`Conn::open`]: connects and writes `hello`, waits for nothing.
    ///
    /// # Errors
    /// A refused connection.
    pub(crate) fn start(address: SocketAddr, token: usize, hello: &[u8]) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        let mut conn = Self { stream, token, unsent: Vec::new(), unparsed: Vec::new() };
        conn.stream.write_all(hello)?;
        Ok(conn)
    }

    /// The second half of [`Conn::open`].
    ///
    /// # Errors
    /// As [`Conn::open`].
    pub(crate) fn finish(
        &mut self,
        poller: &Poller,
        mut complete: impl FnMut(&[u8]) -> Result<Option<usize>>,
    ) -> Result<()> {
        let mut chunk = [0_u8; 4096];
        loop {
            let read = self.stream.read(&mut chunk).context("reading the handshake's answer")?;
            ensure!(read > 0, "the server closed the connection during the handshake");
            self.unparsed.extend_from_slice(&chunk[..read]);
            if let Some(length) = complete(&self.unparsed)? {
                self.unparsed.drain(..length);
                break;
            }
        }
        if self.unparsed.is_empty() {
            self.unparsed = Vec::new();
        }
        self.register(poller)
    }

    /// Goes on after [`Conn::start`] without waiting for an answer: it comes like everything else, by [`Conn::read`].
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub(crate) fn register(&self, poller: &Poller) -> Result<()> {
        self.stream.set_nonblocking(true)?;
        Ok(poller.add(&self.stream, self.token)?)
    }

    /// Sends `bytes` at once as far as the socket takes them and keeps the rest for [`Conn::flush`].
    ///
    /// # Errors
    /// A broken connection, or a server that has stopped reading.
    pub(crate) fn send(&mut self, poller: &Poller, bytes: &[u8]) -> Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            ensure!(self.unsent.len() < UNSENT_LIMIT, "the server does not read: {UNSENT_LIMIT} bytes are unsent");
            return Ok(());
        }
        let written = write_some(&mut self.stream, bytes)?;
        if written < bytes.len() {
            self.unsent.extend_from_slice(&bytes[written..]);
            poller.want_write(&self.stream, self.token, true)?;
        }
        Ok(())
    }

    /// Whether earlier bytes still wait for the socket.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Goes on with what [`Conn::send`] could not send.
    ///
    /// # Errors
    /// A broken connection.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Result<()> {
        let written = write_some(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..written);
        if self.unsent.is_empty() {
            poller.want_write(&self.stream, self.token, false)?;
        }
        Ok(())
    }

    /// Reads once into `scratch` and gives the bytes that are not yet parsed to `parse`, which returns how many it used.
    ///
    /// # Errors
    /// A connection that the server closed, and whatever `parse` objects to.
    pub(crate) fn read(&mut self, scratch: &mut [u8], parse: impl FnOnce(&[u8]) -> Result<usize>) -> Result<()> {
        let read = match self.stream.read(scratch) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(error).context("reading"),
        };
        if self.unparsed.is_empty() {
            let used = parse(&scratch[..read])?;
            self.unparsed.extend_from_slice(&scratch[used..read]);
        } else {
            self.unparsed.extend_from_slice(&scratch[..read]);
            let used = parse(&self.unparsed)?;
            self.unparsed.drain(..used);
        }
        Ok(())
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    match stream.write(bytes) {
        Ok(written) => Ok(written),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(error) => Err(error).context("writing"),
    }
}

/// The watch over a run: it fails when nothing has moved for too long.
pub(crate) struct Progress {
    last: Instant,
    patience: Duration,
}

impl Progress {
    /// A watch that allows standstills of `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { last: Instant::now(), patience }
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        self.last = Instant::now();
    }

    /// # Errors
    /// When nothing has moved for too long; `what` says what is missing.
    pub(crate) fn check(&self, what: impl FnOnce() -> String) -> Result<()> {
        if self.last.elapsed() > self.patience {
            bail!("nothing moved for {:?}: {}", self.patience, what());
        }
        Ok(())
    }
}
