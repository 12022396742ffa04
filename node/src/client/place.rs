//! Where a node is, and the connection to it: by TCP, or by its admin socket. What the node may have seen is sent again only if that is
//! safe (RFC 9110, section 9.2.1) and its kept connection turned out to be closed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time,
};

use super::ClientError;

/// What the address of an admin socket begins with.
pub(super) const UNIX: &str = "unix:";
/// Time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The token of this process, which every request shows.
static TOKEN: OnceLock<String> = OnceLock::new();

/// From here on every request shows this token.
pub(crate) fn show_token(token: String) {
    // There is one command line, so it is set once.
    let _ = TOKEN.set(token);
}

/// Does one show a token?
pub(super) fn has_token() -> bool {
    TOKEN.get().is_some()
}

/// Is it a socket that we can have made? (Root asks the nodes of others.)
pub(super) fn is_ours(socket: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let own = rustix::process::geteuid().as_raw();
    own == 0 || std::fs::symlink_metadata(socket).is_ok_and(|file| file.uid() == own)
}

/// Where a node is.
pub(super) struct Place {
    pub(super) url: String,
    pub(super) at: At,
    token: Option<String>,
}

pub(super) enum At {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Place {
    pub(super) fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |reason| ClientError::Address { url: url.to_owned(), reason };
        if let Some(path) = url.strip_prefix(UNIX).filter(|path| !path.is_empty()) {
            return Ok(Self { url: url.to_owned(), at: At::Unix(path.into()), token: TOKEN.get().cloned() });
        }
        let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = with_scheme.parse().map_err(|_| wrong("it cannot be read"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("https is not spoken by this command")),
            _ => return Err(wrong("it does not begin with http://")),
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(wrong("it has a path"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user in it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { url: format!("http://{authority}"), at: At::Tcp { host, port }, token: TOKEN.get().cloned() })
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let authority = match self.at {
            At::Tcp { .. } => self.url.trim_start_matches("http://"),
            At::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, authority);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).map_err(|error| ClientError::Answer(format!("no such request: {error}")))
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::ConnectionRefused => ClientError::NoNode { url: self.url.clone() },
            io::ErrorKind::NotFound if matches!(self.at, At::Unix(_)) => ClientError::NoNode { url: self.url.clone() },
            io::ErrorKind::PermissionDenied if matches!(self.at, At::Unix(_)) => {
                ClientError::NotYours { url: self.url.clone() }
            }
            _ => ClientError::Unreachable { url: self.url.clone(), source },
        };
        let (sender, driver) = match &self.at {
            At::Tcp { host, port } => {
                let connecting = time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port))).await;
                let stream = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                self.shake_hands(stream).await?
            }
            At::Unix(path) => self.shake_hands(UnixStream::connect(path).await.map_err(failed)?).await?,
        };
        Ok(Connection { sender, driver })
    }

    async fn shake_hands(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(SendRequest<Full<Bytes>>, JoinHandle<()>), ClientError> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Its error reaches who waits for the answer as well.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok((sender, driver))
    }

    /// hyper's own message names only the stage; the reason is its source.
    pub(super) fn broken(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ClientError::Broken { url: self.url.clone(), reason: cause.to_string() }
    }
}

pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The socket belongs to the driver: ending it closes the socket.
        self.driver.abort();
    }
}

/// Sends a request over the connection that was kept, or over a new one. A kept one may have been closed by the node
/// meanwhile; what never left is sent again, and so is a safe request that has had no answer (RFC 9110, section 9.2.2).
pub(super) async fn send(
    place: &Place,
    kept: Option<Connection>,
    mut request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Connection), ClientError> {
    if let Some(mut connection) = kept
        && connection.sender.ready().await.is_ok()
    {
        let again = request.method().is_safe().then(|| request.clone());
        match connection.sender.try_send_request(request).await {
            Ok(response) => return Ok((response, connection)),
            Err(mut error) => match error.take_message().or(again) {
                Some(unanswered) => request = unanswered,
                None => return Err(place.broken(error.error())),
            },
        }
    }
    let mut connection = place.connect().await?;
    let response = connection.sender.send_request(request).await.map_err(|error| place.broken(&error))?;
    Ok((response, connection))
}
