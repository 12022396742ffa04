//! A stream of bytes as HTTP takes it: TCP, TLS, or the admin socket's. It becomes a [`Transport`] once a WebSocket is open on it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use actix_rt::net::{ActixStream, Ready};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::{
    Other, Transport,
    tls::{Carrier, Tls},
    websocket::WebSocket,
};

/// TCP, TLS, or the admin socket's.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<Tls>),
    Unix(UnixStream),
}

impl Stream {
    /// The WebSocket on this stream, whose handshake is done. (There is no MQTT on the admin socket.)
    pub(crate) fn into_websocket(self) -> Option<Transport> {
        match self {
            Self::Tcp(stream) => Some(Other::Ws(Box::new(WebSocket::new(Carrier::from(stream)))).into()),
            Self::Tls(tls) => Some(Other::Wss(Box::new(WebSocket::new(*tls))).into()),
            Self::Unix(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(task, buf),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(task, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(task, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(task, buf),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(task, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(task, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(task),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(task),
            Self::Unix(stream) => Pin::new(stream).poll_flush(task),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(task),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(task),
        }
    }
}

impl ActixStream for Stream {
    fn poll_read_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        match self {
            Self::Tcp(stream) => ActixStream::poll_read_ready(stream, task),
            Self::Unix(stream) => ActixStream::poll_read_ready(stream, task),
            Self::Tls(tls) => {
                tls.socket().map_or(Poll::Ready(Ok(Ready::EMPTY)), |socket| ActixStream::poll_read_ready(socket, task))
            }
        }
    }

    fn poll_write_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        match self {
            Self::Tcp(stream) => ActixStream::poll_write_ready(stream, task),
            Self::Unix(stream) => ActixStream::poll_write_ready(stream, task),
            Self::Tls(tls) => {
                tls.socket().map_or(Poll::Ready(Ok(Ready::EMPTY)), |socket| ActixStream::poll_write_ready(socket, task))
            }
        }
    }
}
