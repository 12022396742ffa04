//! A client's socket, tied to the viewer that may live on it.
//!
//! The HTTP library writes a response until it is through, whatever the client does meanwhile: it would keep a viewer that has
//! left until its next write fails, and one that does not read for ever. The [`Tie`] lets both sides know.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
};

use actix_rt::net::{ActixStream, Ready};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::viewer::Seat;

/// What a connection and the viewer on it tell each other. A connection without a viewer has one that says nothing.
#[derive(Default)]
pub(crate) struct Tie {
    seat: RefCell<Weak<Seat>>,
    over: Cell<bool>,
}

impl Tie {
    /// The connection's response is a viewer's stream.
    pub(crate) fn to(&self, seat: &Rc<Seat>) {
        *self.seat.borrow_mut() = Rc::downgrade(seat);
    }

    /// The viewer's stream is over: the connection has no other use.
    pub(crate) fn end(&self) {
        self.over.set(true);
    }

    fn seat(&self) -> Option<Rc<Seat>> {
        self.seat.borrow().upgrade()
    }
}

/// The socket of one HTTP connection.
pub(crate) struct Socket {
    stream: TcpStream,
    tie: Rc<Tie>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, tie: Rc::default() }
    }

    pub(crate) fn tie(&self) -> &Rc<Tie> {
        &self.tie
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.tie.over.get() {
            // Nothing more is wanted: the connection is closed now, not when the client closes it (RFC 6455 section 7.1.1).
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(task, buf);
        let left = matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        if left && let Some(seat) = self.tie.seat() {
            seat.end();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.tie.seat().is_some_and(|seat| seat.has_stalled()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the viewer does not read")));
        }
        Pin::new(&mut self.stream).poll_write(task, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

impl ActixStream for Socket {
    fn poll_read_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(&self.stream, task)
    }

    fn poll_write_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(&self.stream, task)
    }
}
