//! A viewer over `GET /ws`.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;
use tungstenite::{Error, Message, WebSocket, protocol::CloseFrame};

use super::PATIENCE;

/// An open viewer.
pub(crate) struct Viewer {
    socket: WebSocket<TcpStream>,
}

impl Viewer {
    /// Connects; `query` is what stands behind `/ws`, e.g. `?deviceId=d1`.
    #[track_caller]
    pub(crate) fn open(to: SocketAddr, query: &str) -> Self {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("the node's HTTP port takes connections");
        Self::over(stream, to, query)
    }

    /// Over a socket that the test has made.
    #[track_caller]
    pub(crate) fn over(stream: TcpStream, to: SocketAddr, query: &str) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        match tungstenite::client(format!("ws://{to}/ws{query}"), stream) {
            Ok((socket, _)) => Self { socket },
            Err(error) => panic!("/ws{query}: {error}"),
        }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        match self.read() {
            Ok(message) => message,
            Err(close) => panic!("the viewer was closed: {close:?}"),
        }
    }

    /// The next message, or the reason why there is none any more.
    #[track_caller]
    pub(crate) fn read(&mut self) -> Result<Value, Option<CloseFrame>> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).expect("one JSON value a message")),
                Ok(Message::Close(frame)) => return Err(frame),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => panic!("not a text message: {other:?}"),
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => return Err(None),
                Err(Error::Io(error)) if !is_timeout(&error) => return Err(None),
                Err(error) => panic!("no message within {PATIENCE:?}: {error}"),
            }
        }
    }

    /// The next message, if one comes within `time`.
    #[track_caller]
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Value> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.get_ref().set_read_timeout(Some(left)).expect("a socket option");
            let read = self.socket.read();
            self.socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("a socket option");
            match read {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => panic!("not a text message: {other:?}"),
                Err(Error::Io(error)) if is_timeout(&error) => return None,
                Err(error) => panic!("the viewer was closed: {error}"),
            }
        }
    }

    /// The messages up to the first that fits, which comes last.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let message = self.next();
            let found = fits(&message);
            seen.push(message);
            if found {
                return seen;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; the last was {:?}", seen.last());
        }
    }

    /// The messages up to `synced`, without it.
    #[track_caller]
    pub(crate) fn snapshot(&mut self) -> Vec<Value> {
        let mut seen = self.until("synced", |message| message["type"] == "synced");
        seen.pop();
        seen
    }

    #[track_caller]
    pub(crate) fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).expect("the message is written");
    }

    /// Says goodbye and waits for the node's answer.
    pub(crate) fn close(mut self) {
        let _ = self.socket.close(None);
        while self.socket.read().is_ok() {}
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
