//! The commands' way to a running node: a small, blocking HTTP/1.1 client. One connection is kept and used again; a stream
//! has a connection of its own.
//!
//! It owns the timeouts and the words for what went wrong; it knows no route. Where a node is, and the connection to it, is in [`place`].

mod place;

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    Method,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::{runtime::Runtime, time};

pub(crate) use self::place::show_token;
use self::place::{Connection, Place, UNIX, is_ours, send};
use crate::http::admin;

/// Where a node listens by default.
pub(crate) const DEFAULT_NODE: &str = "http://127.0.0.1:8080";
/// The node of this machine: the default of `--node`. By the admin socket in `./tidegate-data`, if a node listens there and no token
/// says who asks; else [`DEFAULT_NODE`].
pub(crate) const LOCAL_NODE: &str = "local";

/// Largest answer that is read as a whole, in bytes; what can be larger is streamed.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Time for a request and its answer, and between two pieces of a stream, unless [`NodeClient::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The address makes no sense.
    #[error("{url:?} is no address of a node: {reason}; it looks like {DEFAULT_NODE}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody listens there.
    #[error("no node answers at {url}: start one with `tidegate serve`, or name it with --node")]
    NoNode {
        /// The address.
        url: String,
    },
    /// Its admin socket belongs to another user.
    #[error(
        "{url} is for the user that the node runs as: be that user, or name the node's http:// address with a token"
    )]
    NotYours {
        /// The address.
        url: String,
    },
    /// It cannot be reached for another reason. The request was not sent.
    #[error("cannot reach the node at {url}: {source}")]
    Unreachable {
        /// The address.
        url: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It did not answer in time. Whether the request took effect is unknown.
    #[error("the node at {url} did not answer within {timeout:?}")]
    Timeout {
        /// The address.
        url: String,
        /// The time that it had.
        timeout: Duration,
    },
    /// The connection broke. Whether the request took effect is unknown.
    #[error("the connection to the node at {url} broke: {reason}")]
    Broken {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The node answered with a refusal.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The answer is not what this command understands.
    #[error("the node's answer cannot be read: {0}")]
    Answer(String),
}

impl ClientError {
    /// May the request be sent again, perhaps with success? (A refusal without a time to come back is final.)
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Address { .. } | Self::NotYours { .. } | Self::Answer(_) => false,
            Self::NoNode { .. } | Self::Unreachable { .. } | Self::Timeout { .. } | Self::Broken { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 503),
        }
    }
}

/// A refusal, from the problem document (RFC 9457) if there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node refused ({status}{}{kind}): {detail}", if .kind.is_empty() { "" } else { " " })]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The last part of the problem's type, such as `overloaded`; empty when there was no problem document.
    pub(crate) kind: String,
    /// What an operator should read.
    pub(crate) detail: String,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The answer if it is a success.
    ///
    /// # Errors
    /// [`ClientError::Refused`] otherwise.
    pub(crate) fn success(self) -> Result<Self, ClientError> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refusal().into()) }
    }

    /// The body's JSON.
    ///
    /// # Errors
    /// [`ClientError::Answer`].
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Answer(error.to_string()))
    }

    fn refusal(&self) -> Refusal {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Document {
            r#type: String,
            title: String,
            detail: String,
        }
        let status = self.status;
        let Ok(problem) = serde_json::from_slice::<Document>(&self.body) else {
            let text: String = String::from_utf8_lossy(&self.body).trim().chars().take(200).collect();
            let detail = if text.is_empty() { "without a reason".to_owned() } else { text };
            return Refusal { status, kind: String::new(), detail };
        };
        let kind = problem.r#type.rsplit('/').next().unwrap_or_default().to_owned();
        let detail = if problem.detail.is_empty() { problem.title } else { problem.detail };
        Refusal { status, kind, detail }
    }
}

/// A client of one node.
pub(crate) struct NodeClient {
    place: Place,
    timeout: Duration,
    connection: Option<Connection>,
    // Last: the connections' tasks live on it.
    runtime: Runtime,
}

impl NodeClient {
    /// A client of the node at `url`, such as `http://127.0.0.1:8080`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub(crate) fn new(url: &str) -> Result<Self, ClientError> {
        if url == LOCAL_NODE {
            return Self::local(Path::new("./tidegate-data"));
        }
        Self::at(Place::parse(url)?)
    }

    /// A client of the node with this data directory, by its admin socket; if there is none, or a token says who asks, of the
    /// default address.
    ///
    /// # Errors
    /// There is an admin socket, of somebody else.
    pub(crate) fn local(data_dir: &Path) -> Result<Self, ClientError> {
        if !place::has_token() {
            let socket = data_dir.join(admin::FILE);
            let url = format!("{UNIX}{}", socket.display());
            match std::os::unix::net::UnixStream::connect(&socket) {
                Ok(_) if is_ours(&socket) => return Self::new(&url),
                // Somebody's trap in a directory that we happen to be in.
                Ok(_) => {}
                Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ClientError::NotYours { url });
                }
                // No node has this directory now, or no socket in it.
                Err(_) => {}
            }
        }
        Self::new(DEFAULT_NODE)
    }

    fn at(place: Place) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| ClientError::Unreachable { url: place.url.clone(), source })?;
        Ok(Self { place, timeout: TIMEOUT, connection: None, runtime })
    }

    /// Gives each request, and each piece of a stream, so much time.
    pub(crate) fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = timeout;
        self
    }

    /// The address, as it is told in messages.
    pub(crate) fn url(&self) -> &str {
        &self.place.url
    }

    /// `GET`: the answer, if it is a success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn get(&mut self, path: &str) -> Result<Answer, ClientError> {
        self.request(Method::GET, path, &[], Bytes::new())?.success()
    }

    /// `POST`: the answer, if it is a success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn post(&mut self, path: &str, content_type: &str, body: Bytes) -> Result<Answer, ClientError> {
        self.request(Method::POST, path, &[(CONTENT_TYPE.as_str(), content_type)], body)?.success()
    }

    /// Any request: the answer, whatever its status. `path` begins with `/` and is percent-encoded.
    ///
    /// # Errors
    /// [`ClientError`], but not for a status.
    pub(crate) fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let request = self.place.request(method, path, headers, body)?;
        let (place, timeout, kept) = (&self.place, self.timeout, self.connection.take());
        let exchange = async {
            let (response, connection) = send(place, kept, request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    ClientError::Answer(format!("it is longer than {ANSWER_BYTES} bytes"))
                } else {
                    place.broken(&*error)
                }
            })?;
            Ok((Answer { status, body: body.to_bytes() }, connection))
        };
        let exchanged = self.runtime.block_on(async { time::timeout(timeout, exchange).await });
        let (answer, connection) =
            exchanged.unwrap_or_else(|_| Err(ClientError::Timeout { url: place.url.clone(), timeout }))?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// `GET` of a long body, piece by piece.
    ///
    /// # Errors
    /// [`ClientError`]; a refusal is one.
    pub(crate) fn stream(&mut self, path: &str) -> Result<Stream<'_>, ClientError> {
        let request = self.place.request(Method::GET, path, &[], Bytes::new())?;
        let (place, timeout) = (&self.place, self.timeout);
        let late = || ClientError::Timeout { url: place.url.clone(), timeout };
        let exchange = async {
            let (response, connection) = send(place, None, request).await?;
            let status = response.status().as_u16();
            if response.status().is_success() {
                let (head, body) = response.into_parts();
                return Ok(Stream { client: self, _connection: connection, headers: head.headers, body });
            }
            let body = response.into_body().collect().await.map_err(|error| place.broken(&error))?;
            Err(Answer { status, body: body.to_bytes() }.refusal().into())
        };
        self.runtime.block_on(async { time::timeout(timeout, exchange).await }).unwrap_or_else(|_| Err(late()))
    }
}

/// A body on its way.
pub(crate) struct Stream<'a> {
    client: &'a NodeClient,
    /// Ends with the stream.
    _connection: Connection,
    headers: HeaderMap,
    body: Incoming,
}

impl Stream<'_> {
    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next piece; `None` at the body's end, which the node has marked as such.
    ///
    /// # Errors
    /// [`ClientError`]: it broke off.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Self { client, body, .. } = self;
        let (place, timeout) = (&client.place, client.timeout);
        loop {
            let frame = client.runtime.block_on(async { time::timeout(timeout, body.frame()).await });
            let frame = frame.map_err(|_| ClientError::Timeout { url: place.url.clone(), timeout })?;
            match frame.transpose().map_err(|error| place.broken(&error))? {
                None => return Ok(None),
                // Trailers are nobody's business here.
                Some(frame) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }
}

/// Percent-encodes a path segment or a query value (RFC 3986, all but the unreserved characters).
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// All but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::{place::At, *};

    /// Answers each connection with the next script: as many requests as it has answers, then it is closed.
    fn server(connections: Vec<Vec<&'static str>>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    let mut request = Vec::new();
                    let mut piece = [0; 4096];
                    while !is_whole(&request) {
                        let read = stream.read(&mut piece).unwrap();
                        assert!(read > 0, "the client went away");
                        request.extend_from_slice(&piece[..read]);
                    }
                    requests.push(String::from_utf8(request).unwrap());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
            requests
        });
        (url, thread)
    }

    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        body.len() >= length.unwrap_or(0)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\":42}";

    #[test]
    fn a_connection_is_used_again_and_opened_again_when_the_node_closed_it() {
        let (url, server) = server(vec![vec![OK, OK], vec![OK]]);
        let mut client = NodeClient::new(&url).unwrap();
        for path in ["/one", "/two", "/three"] {
            let answer = client.get(path).unwrap();
            assert_eq!(answer.json::<serde_json::Value>().unwrap()["a"], 42);
        }
        let requests = server.join().unwrap();
        assert!(requests[2].starts_with("GET /three HTTP/1.1\r\nhost: 127.0.0.1:"), "{requests:?}");
    }

    #[test]
    fn what_the_node_took_and_did_not_answer_is_sent_again_only_if_that_is_safe() {
        // An empty answer: the request is read, and the connection closed.
        let (url, server) = server(vec![vec![OK, ""], vec![OK, ""]]);
        let mut client = NodeClient::new(&url).unwrap();
        client.get("/one").unwrap();
        client.get("/two").unwrap();
        let refused = client.post("/three", "text/plain", Bytes::from_static(b"x"));
        assert!(matches!(refused, Err(ClientError::Broken { .. })), "{refused:?}");
        let requests = server.join().unwrap();
        let lines: Vec<_> = requests.iter().filter_map(|request| request.lines().next()).collect();
        assert_eq!(lines, ["GET /one HTTP/1.1", "GET /two HTTP/1.1", "GET /two HTTP/1.1", "POST /three HTTP/1.1"]);
    }

    #[test]
    fn a_problem_becomes_a_sentence() {
        let refused = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: 98\r\n\r\n\
                       {\"type\":\"https://tidegate.dev/problems/overloaded\",\"title\":\"Busy\",\"status\":503,\"detail\":\"later\"}  ";
        let plain = "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope";
        let (url, server) = server(vec![vec![refused, plain]]);
        let mut client = NodeClient::new(&url).unwrap();
        let error = client.post("/x", "application/json", Bytes::from_static(b"{}")).unwrap_err();
        assert_eq!(error.to_string(), "the node refused (503 overloaded): later");
        assert!(error.is_passing());
        let error = client.get("/y").unwrap_err();
        assert_eq!(error.to_string(), "the node refused (404): nope");
        assert!(!error.is_passing());
        assert!(server.join().unwrap()[0].contains("content-type: application/json\r\n"));
    }

    #[test]
    fn a_stream_comes_in_pieces_and_one_that_breaks_off_is_an_error() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde";
        let (url, server) = server(vec![vec![head], vec![cut]]);
        let mut client = NodeClient::new(&url).unwrap();
        let mut whole = Vec::new();
        let mut stream = client.stream("/s").unwrap();
        while let Some(piece) = stream.next().unwrap() {
            whole.extend_from_slice(&piece);
        }
        assert_eq!(whole, b"abcde");
        let mut stream = client.stream("/s").unwrap();
        let broken = loop {
            match stream.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("half a body is none"),
                Err(error) => break error,
            }
        };
        assert!(matches!(broken, ClientError::Broken { .. }), "{broken}");
        server.join().unwrap();
    }

    #[test]
    fn an_address_is_checked_and_nobody_there_is_said_plainly() {
        for wrong in ["https://a", "ftp://a", "http://a/b", "http://u:p@a", "http://", "a b"] {
            assert!(matches!(NodeClient::new(wrong), Err(ClientError::Address { .. })), "{wrong}");
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = NodeClient::new(&free.to_string()).unwrap().get("/livez").unwrap_err();
        let expected = "start one with `tidegate serve`, or name it with --node";
        assert_eq!(error.to_string(), format!("no node answers at http://{free}: {expected}"));
        let place = Place::parse("http://[::1]:80/").unwrap();
        assert!(matches!(place.at, At::Tcp { ref host, port: 80 } if host == "::1"));
        let dir = tempfile::tempdir().unwrap();
        let url = format!("unix:{}", dir.path().join("admin.sock").display());
        let error = NodeClient::new(&url).unwrap().get("/livez").unwrap_err();
        assert!(matches!(error, ClientError::NoNode { .. }), "{error}");
        assert_eq!(NodeClient::local(dir.path()).unwrap().url(), DEFAULT_NODE, "without a socket");
    }

    #[test]
    fn a_node_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = NodeClient::new(&listener.local_addr().unwrap().to_string()).unwrap();
        let error = client.timeout(Duration::from_millis(20)).get("/livez").unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    }

    #[test]
    fn values_are_percent_encoded() {
        assert_eq!(encode("Gerät 5&x=a-b_c.d~9"), "Ger%C3%A4t%205%26x%3Da-b_c.d~9");
    }
}
