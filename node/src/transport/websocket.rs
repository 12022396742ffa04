//! A WebSocket as a stream of bytes: what the binary frames carry, in both directions. It lies on TCP or on TLS, answers pings
//! and the goodbye, and knows nothing of MQTT; the handshake is `http::upgrade`'s.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{self, Frames, Violation, code};

/// Bytes of one frame that the node sends: what is copied to stand behind the frame's head.
const FRAME_BYTES: usize = 64 * 1024;
/// Reads in a row that may bring nothing but control frames before others get their turn.
const EMPTY_READS: usize = 8;

/// A WebSocket on `S`.
pub(crate) struct WebSocket<S> {
    io: S,
    frames: Frames,
    /// What the client did wrong; it is told once what came before is taken.
    violation: Option<Violation>,
    /// Frames that the socket has not taken yet.
    pending: Vec<u8>,
    written: usize,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, frames: Frames::default(), violation: None, pending: Vec::new(), written: 0, closing: false }
    }

    pub(super) fn io(&mut self) -> &mut S {
        &mut self.io
    }

    /// Reads payload. Nothing read: the client has closed.
    pub(super) fn poll_read(&mut self, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        for _ in 0..EMPTY_READS {
            if let Some(violation) = self.violation {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
            }
            if self.frames.closed().is_some() {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(task, buf))?;
            let raw = &mut buf.filled_mut()[before..];
            if raw.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let (data, violation) = self.frames.read(raw);
            self.violation = violation;
            buf.set_filled(before + data);
            if data > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes `out` and the answers to pings; ready when all of it has left.
    pub(super) fn poll_write(&mut self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.pending.len() {
                match ready!(Pin::new(&mut self.io).poll_write(task, &self.pending[self.written..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.written += written,
                }
            }
            // Let go: an idle connection owns no buffer.
            (self.pending, self.written) = (Vec::new(), 0);
            if let Some(payload) = self.frames.take_pong() {
                frames::write_pong(&mut self.pending, &payload);
            }
            if out.len() > FRAME_BYTES {
                frames::write_data(&mut self.pending, &out[..FRAME_BYTES]);
                out.drain(..FRAME_BYTES);
            } else if !out.is_empty() {
                frames::write_data(&mut self.pending, &std::mem::take(out));
            }
            if self.pending.is_empty() {
                return Pin::new(&mut self.io).poll_flush(task);
            }
        }
    }

    /// Says goodbye; ready when it has left.
    pub(super) fn poll_close(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(task, &mut Vec::new()))?;
        if !std::mem::replace(&mut self.closing, true) {
            let violated = self.violation.map(|violation| violation.code);
            frames::write_close(&mut self.pending, violated.or(self.frames.closed()).unwrap_or(code::NORMAL));
        }
        ready!(self.poll_write(task, &mut Vec::new()))?;
        Pin::new(&mut self.io).poll_shutdown(task)
    }
}
