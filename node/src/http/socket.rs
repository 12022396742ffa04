//! A client's socket, tied to the viewer that may live on it.
//!
//! The HTTP library writes a response until it is through, whatever the client does meanwhile: it would keep a viewer that has
//! left until its next write fails, and one that does not read for ever. The [`Tie`] lets both sides know. It is also how a
//! socket leaves HTTP, once MQTT is spoken on it.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
};

use actix_rt::net::{ActixStream, Ready};
use tidegate_actors::gather;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{admin::Peer, viewer::Seat};
use crate::transport::{
    Transport,
    admission::{HttpPlace, Place},
    identity::TlsIdentity,
    stream::Stream,
};

/// The place of a connection among all.
pub(crate) enum Ticket {
    Http(#[expect(dead_code, reason = "held for its drop")] HttpPlace),
    /// It came by a door of MQTT's.
    Mqtt(Place),
    /// It came by the admin socket.
    Admin(Peer, #[expect(dead_code, reason = "counted while it is held")] Rc<()>),
}

/// Takes a socket on which the response is written and a WebSocket is open.
type Takeover = Box<dyn FnOnce(Transport)>;

/// What a connection and the viewer on it tell each other. A connection without a viewer has one that says nothing.
#[derive(Default)]
pub(crate) struct Tie {
    seat: RefCell<Weak<Seat>>,
    over: Cell<bool>,
    ticket: RefCell<Option<Ticket>>,
    /// What the client's certificate says, if it has shown one.
    tls: RefCell<Option<Box<TlsIdentity>>>,
    takeover: RefCell<Option<Takeover>>,
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

    /// The place of an MQTT client, if it has one already.
    pub(crate) fn mqtt_place(&self) -> Option<Place> {
        let mut ticket = self.ticket.borrow_mut();
        match ticket.take()? {
            Ticket::Mqtt(place) => Some(place),
            other @ (Ticket::Http(_) | Ticket::Admin(..)) => {
                *ticket = Some(other);
                None
            }
        }
    }

    /// Who came by the admin socket.
    pub(super) fn admin(&self) -> Option<Peer> {
        match &*self.ticket.borrow() {
            Some(Ticket::Admin(peer, _)) => Some(*peer),
            _ => None,
        }
    }

    pub(crate) fn take_identity(&self) -> Option<Box<TlsIdentity>> {
        self.tls.borrow_mut().take()
    }

    /// Once the response is written the socket goes to `takeover`; HTTP sees its end.
    pub(crate) fn take_over(&self, takeover: impl FnOnce(Transport) + 'static) {
        *self.takeover.borrow_mut() = Some(Box::new(takeover));
    }

    fn seat(&self) -> Option<Rc<Seat>> {
        self.seat.borrow().upgrade()
    }
}

/// The socket of one HTTP connection.
pub(crate) struct Socket {
    /// `None`: it has been taken over.
    stream: Option<Stream>,
    tie: Rc<Tie>,
}

impl Socket {
    pub(crate) fn new(stream: Stream, ticket: Ticket, tls: Option<Box<TlsIdentity>>) -> Self {
        let tie = Tie { ticket: Some(ticket).into(), tls: tls.into(), ..Tie::default() };
        Self { stream: Some(stream), tie: Rc::new(tie) }
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
        if self.tie.takeover.borrow().is_some() {
            // What comes now is no HTTP. The dispatcher is woken when the socket is gone.
            return Poll::Pending;
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        let before = buf.filled().len();
        let read = Pin::new(stream).poll_read(task, buf);
        let ready = matches!(read, Poll::Ready(Ok(())));
        let left = ready && buf.filled().len() == before;
        if ready {
            gather::asked();
        }
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
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_write(task, buf),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        ready!(Pin::new(stream).poll_flush(task))?;
        // HTTP flushes once it has nothing left to write: the response that opened the WebSocket is out.
        if let Some(takeover) = self.tie.takeover.take()
            && let Some(stream) = self.stream.take()
        {
            if let Some(transport) = stream.into_websocket() {
                takeover(transport);
            }
            task.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(task),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl ActixStream for Socket {
    fn poll_read_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.stream.as_ref().map_or(Poll::Ready(Ok(Ready::READABLE)), |stream| stream.poll_read_ready(task))
    }

    fn poll_write_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.stream.as_ref().map_or(Poll::Ready(Ok(Ready::WRITABLE)), |stream| stream.poll_write_ready(task))
    }
}
