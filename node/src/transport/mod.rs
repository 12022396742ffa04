//! What a client's bytes travel on: TCP, TLS, and WebSocket on either. A connection reads, writes and closes its [`Transport`]
//! and need not know which it is; a transport moves to another loop with everything that it is in the middle of.
//!
//! `admission` (who may come in) → `tls` (the handshake, by `certificates`; `identity` of the client) → `websocket` (`frames`).
//! Nothing here knows MQTT or HTTP.

pub(crate) mod admission;
pub(crate) mod certificates;
mod frames;
pub(crate) mod hush;
pub(crate) mod identity;
pub(crate) mod stream;
pub(crate) mod tls;
mod websocket;

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use certificates::Certificates;
pub(crate) use frames::Violation;
use tls::{Carrier, Tls};
use websocket::WebSocket;

/// How long a client that is told to go may take to read it.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// A client's connection. On plain TCP it is as large as its socket; the others pay for being others.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Other(Box<Other>),
}

/// What is not plain TCP.
pub(crate) enum Other {
    Tls(Box<Tls>),
    Ws(Box<WebSocket<Carrier>>),
    Wss(Box<WebSocket<Tls>>),
}

/// A transport on its way to another loop.
pub(crate) struct Detached(Moving);

enum Moving {
    Tcp(std::net::TcpStream),
    /// Its [`Carrier`] is away.
    Other(Box<Other>),
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp(_) => "tcp",
            Self::Other(other) => match **other {
                Other::Tls(_) => "tls",
                Other::Ws(_) => "ws",
                Other::Wss(_) => "wss",
            },
        })
    }
}

impl From<Other> for Transport {
    fn from(other: Other) -> Self {
        Self::Other(Box::new(other))
    }
}

impl Other {
    fn carrier(&mut self) -> &mut Carrier {
        match self {
            Self::Tls(tls) => tls.carrier(),
            Self::Ws(ws) => ws.io(),
            Self::Wss(wss) => wss.io().carrier(),
        }
    }
}

impl Transport {
    /// Takes the socket off this loop's reactor.
    ///
    /// # Errors
    /// The socket cannot be taken off.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        Ok(Detached(match self {
            Self::Tcp(stream) => Moving::Tcp(stream.into_std()?),
            Self::Other(mut other) => {
                other.carrier().detach()?;
                Moving::Other(other)
            }
        }))
    }

    /// Has the certificate that the client has shown been revoked since? Plain transports know of none.
    pub(crate) fn is_revoked(&mut self, certificates: Option<&Arc<Certificates>>) -> bool {
        let (Self::Other(other), Some(certificates)) = (self, certificates) else { return false };
        match &mut **other {
            Other::Tls(tls) => tls.is_revoked(certificates),
            Other::Wss(wss) => wss.io().is_revoked(certificates),
            Other::Ws(_) => false,
        }
    }

    /// Writes all of `out` and empties it; ready when it has left for the socket.
    pub(crate) fn poll_write(&mut self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => poll_write_tcp(stream, task, out),
            Self::Other(other) => match &mut **other {
                Other::Tls(tls) => poll_write_tls(tls, task, out),
                Other::Ws(ws) => ws.poll_write(task, out),
                Other::Wss(wss) => wss.poll_write(task, out),
            },
        }
    }

    /// Says goodbye in the transport's own way, where it has one. TCP's is that the socket is dropped.
    pub(crate) fn poll_close(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Other(other) => match &mut **other {
                Other::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(task),
                Other::Ws(ws) => ws.poll_close(task),
                Other::Wss(wss) => wss.poll_close(task),
            },
        }
    }

    /// After the goodbye: throws away what the client still sends, until it has closed, too. A socket that is closed with bytes
    /// unread is reset, and the client loses what it has not read yet, which is why it was closed.
    pub(crate) fn poll_drain(&mut self, task: &mut Context<'_>, buffer: &mut [u8]) -> Poll<()> {
        if let Self::Tcp(stream) = self
            && ready!(Pin::new(stream).poll_shutdown(task)).is_err()
        {
            return Poll::Ready(());
        }
        let mut read = ReadBuf::new(buffer);
        match ready!(Pin::new(&mut *self).poll_read(task, &mut read)) {
            Ok(()) if !read.filled().is_empty() => {
                // One read a turn: the others on the loop do not wait for a client that goes on and on.
                task.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Writes `last` and closes, as far as the client lets it within [`GOODBYE`].
    pub(crate) async fn close_with(mut self, mut last: Vec<u8>) {
        let close = poll_fn(|task| {
            ready!(self.poll_write(task, &mut last))?;
            self.poll_close(task)
        });
        // The client is gone either way.
        let _ = tokio::time::timeout(GOODBYE, close).await;
    }
}

impl Detached {
    /// Puts the socket on the reactor of this thread's loop.
    ///
    /// # Errors
    /// The reactor does not take it.
    pub(crate) fn attach(self) -> io::Result<Transport> {
        match self.0 {
            Moving::Tcp(stream) => Ok(Transport::Tcp(TcpStream::from_std(stream)?)),
            Moving::Other(mut other) => {
                other.carrier().attach()?;
                Ok(Transport::Other(other))
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(task, buf),
            Self::Other(other) => match &mut **other {
                Other::Tls(tls) => Pin::new(&mut **tls).poll_read(task, buf),
                Other::Ws(ws) => ws.poll_read(task, buf),
                Other::Wss(wss) => wss.poll_read(task, buf),
            },
        }
    }
}

/// One write a turn where the socket takes it all.
fn poll_write_tcp(stream: &TcpStream, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        match stream.try_write(out) {
            // The buffer is let go: an idle connection owns none.
            Ok(written) if written == out.len() => *out = Vec::new(),
            Ok(written) => drop(out.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_write_ready(task))?,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

fn poll_write_tls(tls: &mut Tls, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        match ready!(Pin::new(&mut *tls).poll_write(task, out))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written if written == out.len() => *out = Vec::new(),
            written => drop(out.drain(..written)),
        }
    }
    // What the socket did not take waits in the TLS connection.
    Pin::new(tls).poll_flush(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_connection_pays_nothing_for_the_other_transports() {
        assert_eq!(size_of::<Transport>(), size_of::<TcpStream>());
    }
}
