//! The bytes of HTTP/1.1 that the generator sends and reads: prebuilt requests out, one response at a time in.
//!
//! Reads bodies by `Content-Length` only. Anything else is an error, so that a server cannot look fast by answering
//! something that nobody has read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A response whose body is all there.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    /// The status code.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: &'a [u8],
    /// Header and body together.
    pub(crate) length: usize,
}

/// `POST /metrics` with a JSON body, on a connection that is kept.
pub(crate) fn post_metrics(body: &str) -> Vec<u8> {
    format!(
        "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The response at the start of `buffer`, when it is all there.
///
/// # Errors
/// Anything that is not HTTP/1.1 with a `Content-Length`, and a connection that the server means to close.
pub(crate) fn response(buffer: &[u8]) -> Result<Option<Response<'_>>> {
    let Some(end) = head_end(buffer) else { return Ok(None) };
    let (status, headers) = head(&buffer[..end])?;
    let mut length = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse::<usize>().context("a Content-Length that is no number")?);
        } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            bail!("the server closes the connection after a response with status {status}");
        }
    }
    let Some(body) = length else { bail!("a response with status {status} and without Content-Length") };
    let total = end + body;
    Ok((buffer.len() >= total).then(|| Response { status, body: &buffer[end..total], length: total }))
}

/// The length of the head at the start of `buffer` with its empty line, when it is all there.
pub(crate) fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The status and the headers of a whole head.
///
/// # Errors
/// When it is not the head of an HTTP/1.1 response.
pub(crate) fn head(head: &[u8]) -> Result<(u16, impl Iterator<Item = (&str, &str)>)> {
    let text = std::str::from_utf8(head).context("a response head that is not text")?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let Some(status) = status else { bail!("not an HTTP/1.1 response: {first:?}") };
    Ok((status, lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim()))))
}

/// A single blocking `GET`, for checks outside the measured window. Returns the body of a `200`.
///
/// # Errors
/// A refused connection, another status, or no answer within 10 s.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")?;
    let mut bytes = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let read = stream.read(&mut chunk).with_context(|| format!("GET {path}"))?;
        ensure!(read > 0, "GET {path}: the server closed the connection");
        bytes.extend_from_slice(&chunk[..read]);
        if let Some(response) = response(&bytes).with_context(|| format!("GET {path}"))? {
            let text = String::from_utf8_lossy(response.body);
            ensure!(response.status == 200, "GET {path}: status {}: {text}", response.status);
            return Ok(response.body.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_by_its_content_length() {
        let whole = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1";
        let parsed = response(whole).expect("well formed").expect("all there");
        assert_eq!((parsed.status, parsed.body, parsed.length), (202, &b"hello"[..], 49));
        assert!(response(&whole[..48]).expect("well formed").is_none());
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        for text in [
            "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0\r\n\r\n",
        ] {
            assert!(response(text.as_bytes()).is_err(), "{text}");
        }
    }
}
