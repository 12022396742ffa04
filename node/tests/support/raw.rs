//! A node that is sent bytes instead of requests, so that a test can send what no client would; and the command line.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Deref,
    path::Path,
    process::{Output, Stdio},
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{House, PATIENCE, node};

/// A running node with its directory.
pub(crate) struct RawNode {
    pub(crate) node: node::Node,
    pub(crate) house: House,
}

impl Deref for RawNode {
    type Target = node::Node;

    fn deref(&self) -> &node::Node {
        &self.node
    }
}

/// An HTTP answer, whatever it looks like.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON; anything else as a string, so that a message shows it.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| Value::from(self.body.as_str()))
    }
}

/// Arguments of a node on free ports.
pub(crate) const SERVE: [&str; 5] = ["serve", "--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0"];

/// Runs `tidegate` with arguments with which it is expected to end by itself.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = node::tidegate(dir);
    let mut child =
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let ended = holds(|| child.try_wait().expect("a child of ours").is_some());
    if !ended {
        child.kill().expect("a child of ours");
    }
    let output = child.wait_with_output().expect("its output");
    assert!(ended, "{arguments:?} goes on: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Whether something comes true within [`PATIENCE`], for a test that says itself what is missing.
pub(crate) fn holds(mut found: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if found() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    found()
}

/// Sends bytes and reads until the node closes. A reset after an answer is an answer too.
pub(crate) fn send(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("the node accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    // The node may close before everything is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    answer
}

impl RawNode {
    /// Starts a node with these handler files.
    pub(crate) fn start(handlers: &[(&str, &str)]) -> Self {
        let house = handlers.iter().fold(House::new(), |house, (name, source)| house.handler(name, source));
        Self { node: house.start(), house }
    }

    /// Starts a node in a prepared directory.
    pub(crate) fn start_in(dir: TempDir) -> Self {
        let house = House::in_dir(dir);
        Self { node: house.start(), house }
    }

    /// Sends raw bytes to the HTTP port.
    pub(crate) fn http_raw(&self, bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(&send(self.http, bytes)).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// One request on a connection of its own; `headers` end with line ends.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.http_raw(&[head.as_bytes(), body].concat())
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = self.http_raw(head.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, "", body.as_bytes())
    }

    /// The node lives and still takes and keeps a good reading.
    #[track_caller]
    pub(crate) fn assert_alive(&self, after: &str) {
        assert_eq!(self.get("/livez"), "ok", "after {after}");
        let answer = self.post("/metrics?ack=committed", r#"{"deviceId":"good","t":1}"#);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"deviceId":"good","accepted":1}"#),
            "after {after}"
        );
    }
}
