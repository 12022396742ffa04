//! TLS and WebSocket for rumqttc, which is built here with TCP only (docs/adr/0007-bridge-packets.md says why): it connects to a
//! port of the test's, and what it writes goes to the node over the transport that was asked for.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tungstenite::{Message, WebSocket, client::IntoClientRequest as _};

use crate::support::PATIENCE;

/// How long one side is listened to before it is the other's turn.
const TURN: Duration = Duration::from_millis(2);

/// A TLS client as small as can be.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// What the node's end of a tunnel is.
enum Far {
    Tls(Box<Tls>),
    Ws(Box<WebSocket<TcpStream>>),
    Wss(Box<WebSocket<Tls>>),
}

/// Opens a tunnel for one connection; returns where rumqttc finds its mouth.
pub(super) fn open(connect: &Value) -> SocketAddr {
    let mouth = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = mouth.local_addr().expect("an address");
    let connect = connect.clone();
    std::thread::spawn(move || {
        let Ok((near, _)) = mouth.accept() else { return };
        // Where the far end does not come to be, rumqttc sees its connection closed.
        if let Ok(far) = far(&connect) {
            let _ = relay(&near, far);
        }
        let _ = near.shutdown(Shutdown::Both);
    });
    at
}

/// A TLS connection to the node: which CA is trusted, and the certificate and key that are shown, if any.
pub(crate) fn tls(to: SocketAddr, ca: &Path, own: Option<(&Path, &Path)>) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = CertificateDer::pem_file_iter(cert).expect("a file").collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_file(key).expect("a key");
            config.with_client_auth_cert(chain.expect("certificates"), key).expect("a pair")
        }
    };
    let client = ClientConnection::new(Arc::new(config), ServerName::IpAddress(to.ip().into()));
    StreamOwned::new(client.expect("a client"), socket(to))
}

fn socket(to: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(to).expect("the node accepts");
    socket.set_nodelay(true).expect("a socket option");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    socket
}

fn far(connect: &Value) -> io::Result<Far> {
    let text = |member: &str| connect[member].as_str().unwrap_or_default();
    let to = format!("{}:{}", text("host"), connect["port"]).parse::<SocketAddr>().expect("an address");
    let own = connect["cert"].as_str().zip(connect["key"].as_str());
    let own = own.map(|(cert, key)| (Path::new(cert), Path::new(key)));
    let request = |scheme: &str| {
        let mut request = format!("{scheme}://{to}{}", text("path")).into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().expect("a header"));
        request
    };
    let refused = |error: String| io::Error::new(ErrorKind::ConnectionRefused, error);
    let far = match text("transport") {
        "tls" => Far::Tls(Box::new(tls(to, Path::new(text("ca")), own))),
        "ws" => {
            let opened = tungstenite::client(request("ws"), socket(to));
            Far::Ws(Box::new(opened.map_err(|error| refused(error.to_string()))?.0))
        }
        "wss" => {
            let opened = tungstenite::client(request("wss"), tls(to, Path::new(text("ca")), own));
            Far::Wss(Box::new(opened.map_err(|error| refused(error.to_string()))?.0))
        }
        other => panic!("no transport {other:?}"),
    };
    far.socket().set_read_timeout(Some(TURN))?;
    Ok(far)
}

impl Far {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tls(stream) => &stream.sock,
            Self::Ws(socket) => socket.get_ref(),
            Self::Wss(socket) => &socket.get_ref().sock,
        }
    }

    /// What has come; `None` if nothing has.
    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let read = match self {
            Self::Tls(stream) => {
                let mut buffer = vec![0; 16 * 1024];
                stream.read(&mut buffer).and_then(|count| match count {
                    0 => Err(ErrorKind::UnexpectedEof.into()),
                    count => Ok(buffer[..count].to_vec()),
                })
            }
            Self::Ws(socket) => bytes_of(socket.read()),
            Self::Wss(socket) => bytes_of(socket.read()),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_nothing_yet(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        let message = || Message::Binary(bytes.to_vec().into());
        match self {
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Self::Ws(socket) => socket.send(message()).map_err(io::Error::other),
            Self::Wss(socket) => socket.send(message()).map_err(io::Error::other),
        }
    }
}

/// A frame's payload; one that is not binary has none.
fn bytes_of(read: Result<Message, tungstenite::Error>) -> io::Result<Vec<u8>> {
    match read {
        Ok(Message::Binary(bytes)) => Ok(bytes.to_vec()),
        Ok(_) => Ok(Vec::new()),
        Err(tungstenite::Error::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Carries bytes both ways until one side ends.
fn relay(mut near: &TcpStream, mut far: Far) -> io::Result<()> {
    near.set_nodelay(true)?;
    near.set_read_timeout(Some(TURN))?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match near.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => far.give(&buffer[..count])?,
            Err(error) if is_nothing_yet(&error) => {}
            Err(error) => return Err(error),
        }
        while let Some(bytes) = far.take()? {
            near.write_all(&bytes)?;
        }
    }
}
