//! TLS on the server's side: the handshake, and the stream after it. Which certificates it shows and asks for is decided by
//! [`super::certificates`].

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::certificates::Certificates;
use crate::edge::EdgeLoop;

/// The socket under a TLS connection or a WebSocket: it can be taken off its loop's reactor and put on another's, while what lies
/// on it stays as it is.
pub(crate) struct Carrier(Place);

enum Place {
    Here(TcpStream),
    Away(std::net::TcpStream),
    /// It was lost on its way.
    Nowhere,
}

impl From<TcpStream> for Carrier {
    fn from(stream: TcpStream) -> Self {
        Self(Place::Here(stream))
    }
}

impl Carrier {
    pub(super) fn detach(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, Place::Nowhere) {
            Place::Here(stream) => Place::Away(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    pub(super) fn attach(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, Place::Nowhere) {
            Place::Away(stream) => Place::Here(TcpStream::from_std(stream)?),
            other => other,
        };
        Ok(())
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.0 {
            Place::Here(stream) => Ok(Pin::new(stream)),
            Place::Away(_) | Place::Nowhere => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(task, buf)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(task, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(task)
    }
}

/// A TLS connection after its handshake.
pub(crate) struct Tls {
    stream: TlsStream<Carrier>,
    /// The certificates by which the client's own was last looked at.
    generation: u64,
}

impl Tls {
    /// Has the certificate that the client has shown been revoked since?
    pub(super) fn is_revoked(&mut self, certificates: &Certificates) -> bool {
        let generation = certificates.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return false;
        }
        self.stream.get_ref().1.peer_certificates().is_some_and(|chain| certificates.revokes(chain))
    }

    /// The socket, unless it is on its way to another loop.
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        if let Carrier(Place::Here(stream)) = self.stream.get_ref().0 { Some(stream) } else { None }
    }

    pub(super) fn carrier(&mut self) -> &mut Carrier {
        self.stream.get_mut().0
    }

    /// The certificate that the client has shown and the handshake has verified.
    pub(crate) fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.stream.get_ref().1.peer_certificates()?.first()
    }
}

impl AsyncRead for Tls {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The client went, or its socket failed: a port scan or a health check.
    Gone,
    /// It speaks something else, in words that help.
    Stranger(&'static str),
    /// It did not finish within the deadline.
    TooSlow,
    /// The handshake failed; the client has been sent the alert that says why.
    Refused(String),
}

/// Shakes hands. The caller has a deadline for it. `what` is spoken at this port.
///
/// # Errors
/// Why not.
pub(crate) async fn accept(stream: TcpStream, certificates: &Certificates, what: &str) -> Result<Tls, Failed> {
    let mut first = [0; 4];
    let seen = match stream.peek(&mut first).await {
        Ok(seen @ 1..) => &first[..seen],
        _ => return Err(Failed::Gone),
    };
    if seen[0] != 0x16 {
        return Err(Failed::Stranger(stranger(seen, what)));
    }
    // Read before the certificates themselves: if they change in between, the client's is looked at again.
    let generation = certificates.generation();
    match TlsAcceptor::from(certificates.config()).accept(Carrier::from(stream)).await {
        Ok(stream) => Ok(Tls { stream, generation }),
        Err(error) => Err(explain(&error)),
    }
}

/// Who speaks, if it is not TLS.
fn stranger(first: &[u8], what: &str) -> &'static str {
    match (first, what) {
        ([0x10, ..], "MQTT") => {
            "this is plain MQTT, and this port speaks MQTT over TLS; connect with TLS, or to --mqtt-bind (port 1883 unless changed)"
        }
        ([0x10, ..], _) => "this is MQTT, and this port speaks HTTP over TLS; MQTT over TLS is at --mqtts-bind",
        ([b'A'..=b'Z', b'A'..=b'Z', ..], _) => {
            "this is plain HTTP, and this port speaks TLS; HTTP is at --http-bind (port 8080 unless changed)"
        }
        _ => "this is not TLS, and this port speaks nothing else",
    }
}

/// Counts a handshake that came to nothing, and tells the log; a flood gets a few lines.
pub(crate) fn failed(edge: &EdgeLoop, peer: SocketAddr, why: &Failed) {
    if let Failed::Gone = why {
        tracing::debug!(%peer, "closed before its TLS handshake");
        return;
    }
    edge.shared.counters.tls_failed.fetch_add(1, Ordering::Relaxed);
    let Some(left_out) = edge.hush.handshakes.may_say(edge.uptime_ms()) else { return };
    match why {
        Failed::Gone => {}
        Failed::Stranger(advice) => tracing::warn!(%peer, left_out, "refused a connection: {advice}"),
        Failed::TooSlow => tracing::warn!(%peer, left_out, "closed: its TLS handshake did not end in time"),
        Failed::Refused(reason) => tracing::warn!(%peer, left_out, "TLS handshake failed: {reason}"),
    }
}

/// A failed handshake in words that help the one who reads the log.
fn explain(error: &io::Error) -> Failed {
    use rustls::{AlertDescription, CertificateError, Error};
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return Failed::Refused(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the client closed during the handshake".to_owned(),
            _ => error.to_string(),
        });
    };
    Failed::Refused(match error {
        Error::NoCertificatesPresented => "the client has shown no certificate, and mqtt.tls_require_client_cert asks for one".to_owned(),
        Error::InvalidCertificate(CertificateError::Revoked) => "the client's certificate is revoked (mqtt.tls_crl)".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the client's certificate was issued by nobody in mqtt.tls_client_ca".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "no list in mqtt.tls_crl is of the authority that issued the client's certificate".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the client's certificate has expired".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "the client does not trust the issuer of this node's certificate (alert: unknown CA); give the client the CA's certificate".to_owned()
        }
        Error::AlertReceived(alert) => format!("the client refused: alert {alert:?}"),
        Error::PeerIncompatible(why) => format!("the client offers nothing in common: {why:?}; this node takes TLS 1.2 and 1.3"),
        other => other.to_string(),
    })
}
