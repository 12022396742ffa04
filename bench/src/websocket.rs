//! The bytes of a WebSocket client that only listens (RFC 6455): the opening handshake and the framing of messages.

use anyhow::{Result, bail, ensure};

use crate::http;

/// A key and the answer that belongs to it, from RFC 6455 section 1.3. A fixed key is enough for a load generator.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The opening request for `path`.
pub(crate) fn open(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// The length of the server's handshake at the start of `buffer`, when it is all there.
///
/// # Errors
/// A refusal or a wrong answer to the key.
pub(crate) fn opened(buffer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = http::head_end(buffer) else { return Ok(None) };
    let (status, mut headers) = http::head(&buffer[..end])?;
    ensure!(status == 101, "the WebSocket was refused: {}", String::from_utf8_lossy(buffer));
    ensure!(
        headers.any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value == ACCEPT),
        "a wrong Sec-WebSocket-Accept"
    );
    Ok(Some(end))
}

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A whole text message.
    Text(&'a [u8]),
    /// A ping, to be answered with a pong.
    Ping,
    /// A pong that nobody asked for.
    Pong,
}

/// A masked pong without a body (section 5.5.3). The mask is zero.
pub(crate) const PONG: [u8; 6] = [0x8A, 0x80, 0, 0, 0, 0];

/// Calls `each` with every whole frame in `buffer` and returns how many bytes they took.
///
/// # Errors
/// A close frame, fragments, a masked or a binary frame: no server here sends them.
pub(crate) fn frames<'a>(buffer: &'a [u8], mut each: impl FnMut(Frame<'a>) -> Result<()>) -> Result<usize> {
    let mut used = 0;
    while let Some((header, length)) = bounds(&buffer[used..])? {
        let body = &buffer[used + header..used + header + length];
        match buffer[used] {
            0x81 => each(Frame::Text(body))?,
            0x89 => each(Frame::Ping)?,
            0x8A => each(Frame::Pong)?,
            0x88 => bail!("the server closed a WebSocket: {}", String::from_utf8_lossy(body.get(2..).unwrap_or(body))),
            first => bail!("an unexpected WebSocket frame that starts with {first:#04x}"),
        }
        used += header + length;
    }
    Ok(used)
}

/// The lengths of the header and of the body of the frame that `buffer` starts with, when it is all there.
fn bounds(buffer: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(&second) = buffer.get(1) else { return Ok(None) };
    ensure!(second & 0x80 == 0, "a server must not mask its frames");
    let (header, length) = match second {
        126 => match buffer.get(2..4) {
            Some(bytes) => (4, usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))),
            None => return Ok(None),
        },
        127 => bail!("a WebSocket message of more than 64 KB"),
        short => (2, usize::from(short)),
    };
    Ok((buffer.len() >= header + length).then_some((header, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_both_lengths_are_found() {
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x89, 0, 0x81, 126, 0, 200];
        bytes.extend_from_slice(&[b'x'; 200]);
        bytes.extend_from_slice(&[0x81, 5, b'h']);
        let mut seen = Vec::new();
        let used = frames(&bytes, |frame| {
            seen.push(frame);
            Ok(())
        });
        assert_eq!(used.expect("well formed"), bytes.len() - 3);
        assert_eq!(seen, [Frame::Text(b"hi"), Frame::Ping, Frame::Text(&[b'x'; 200])]);
    }

    #[test]
    fn a_close_is_an_error() {
        assert!(frames(&[0x88, 2, 3, 0xE8], |_| Ok(())).is_err());
    }
}
