//! A client of `GET /stream`: server-sent events (WHATWG HTML, section 9.2), as far as the node uses them.

use std::{net::SocketAddr, time::Instant};

use serde_json::Value;

use super::{PATIENCE, http::Http};

/// An open stream.
pub(crate) struct Events {
    http: Http,
    text: String,
}

impl Events {
    #[track_caller]
    pub(crate) fn open(to: SocketAddr, path: &str) -> Self {
        let mut http = Http::connect(to);
        http.send("GET", path, &[("accept", "text/event-stream")], b"");
        let head = http.head().expect("a response comes");
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Self { http, text: String::new() }
    }

    /// The next event: its name and its data. Comments are skipped.
    #[track_caller]
    pub(crate) fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(event), Some(data)) = (field("event: "), field("data: ")) {
                    return (event.to_owned(), serde_json::from_str(data).expect("data is JSON"));
                }
                assert!(block.starts_with(':'), "neither an event nor a comment: {block:?}");
                continue;
            }
            let chunk = self.http.chunk().expect("the stream goes on").expect("the stream does not end");
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8, whole characters a chunk"));
        }
    }

    /// The events up to the first that fits, which comes last.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&str, &Value) -> bool) -> Vec<(String, Value)> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let (event, data) = self.next();
            let found = fits(&event, &data);
            seen.push((event, data));
            if found {
                return seen;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; the last was {:?}", seen.last());
        }
    }
}
