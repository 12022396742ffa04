//! A small HTTP/1.1 client: one keep-alive connection, one request at a time, opened when it is needed. It owns the
//! connection; it knows neither devices nor retries.

use std::{net::SocketAddr, time::Duration};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{net::TcpStream, task::JoinHandle, time};

/// Largest answer that is read, in bytes: a page of 1,000 devices of the largest readings fits; more is refused.
const ANSWER_BYTES: usize = 512 * 1024 * 1024;
/// Time for one request and its answer; longer: the connection is closed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer. Whether the request took effect is unknown, except for [`HttpError::Connect`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{}", root_cause(.0))]
    Exchange(#[from] hyper::Error),
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    #[error("the answer is longer than {ANSWER_BYTES} bytes")]
    TooLong,
    #[error("the answer broke off: {0}")]
    Body(String),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// One connection to one server.
#[derive(Debug)]
pub(crate) struct HttpClient {
    addr: SocketAddr,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    connection: Option<Connection>,
    /// Connections that were opened so far.
    pub(crate) opened: u64,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The socket belongs to the driver: ending it closes the socket.
        self.driver.abort();
    }
}

impl HttpClient {
    pub(crate) fn new(addr: SocketAddr, credentials: Option<&(String, String)>) -> Self {
        let host = HeaderValue::try_from(addr.to_string()).expect("an address is a good header value");
        let authorization = credentials.map(|credentials| {
            let mut value = HeaderValue::try_from(basic(credentials)).expect("base64 is a good header value");
            value.set_sensitive(true);
            value
        });
        Self { addr, host, authorization, connection: None, opened: 0 }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, HttpError> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    /// Posts JSON.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Answer, HttpError> {
        self.exchange(Method::POST, path, body).await
    }

    /// Closes the connection, whatever is on its way.
    pub(crate) fn close(&mut self) {
        self.connection = None;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.sender.is_closed())
    }

    /// Opens the connection if it is not open.
    pub(crate) async fn open(&mut self) -> Result<(), HttpError> {
        if self.is_open() {
            return Ok(());
        }
        let connecting = time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.addr)).await;
        let stream =
            connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(HttpError::Connect)?;
        stream.set_nodelay(true).map_err(HttpError::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // The error reaches the waiting request through the sender as well.
            let _ = driver.await;
        });
        self.connection = Some(Connection { sender, driver });
        self.opened += 1;
        Ok(())
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer, HttpError> {
        self.open().await?;
        let answer =
            time::timeout(REQUEST_TIMEOUT, self.ask(method, path, body)).await.unwrap_or(Err(HttpError::Timeout));
        if answer.is_err() {
            self.close();
        }
        answer
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer, HttpError> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(HttpError::Connect(std::io::ErrorKind::NotConnected.into()));
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).expect("our own paths and checked header values make a request");
        connection.sender.ready().await?;
        let answer = connection.sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { HttpError::TooLong } else { HttpError::Body(error.to_string()) }
        })?;
        Ok(Answer { status, body: body.to_bytes() })
    }
}

/// The value of an `Authorization` header (RFC 7617).
pub(crate) fn basic((name, password): &(String, String)) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}

/// Percent-encodes a query value (RFC 3986, section 2.3).
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// All but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// hyper's own message names only the stage; the reason is its source.
fn root_cause(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_and_credentials_are_encoded() {
        assert_eq!(encode("a-b_c.d~9"), "a-b_c.d~9");
        assert_eq!(encode("Gerät 5&x=1"), "Ger%C3%A4t%205%26x%3D1");
        assert_eq!(basic(&("Aladdin".to_owned(), "open sesame".to_owned())), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
