//! The connection to a broker: TCP, and TLS by rustls over it. Certificates are read anew for each connection, so that new ones
//! need no restart.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::BrokerUrl;
use crate::config::Bridge;

/// What a connection is to the bridge.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects. An error is a sentence for the operator.
pub(super) async fn connect(bridge: &Bridge, url: &BrokerUrl) -> Result<Box<dyn Stream>, String> {
    let socket = TcpStream::connect((url.host.as_str(), url.port)).await;
    let socket = socket.map_err(|error| format!("cannot connect to {url}: {error}"))?;
    // An acknowledgement should not wait for company.
    let _ = socket.set_nodelay(true);
    if !url.tls {
        return Ok(Box::new(socket));
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|error| format!("the host {:?}: {error}", url.host))?;
    let connector = TlsConnector::from(Arc::new(client_config(bridge)?));
    let stream =
        connector.connect(name, socket).await.map_err(|error| format!("TLS with {url}: {}", tls_words(&error)))?;
    Ok(Box::new(stream))
}

/// What the broker's certificate is checked with, and the node's own certificate.
pub(super) fn client_config(bridge: &Bridge) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &bridge.ca_file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| format!("ca_file {}: {error}", file.display()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (taken, _) = roots.add_parsable_certificates(found.certs);
            if taken == 0 {
                return Err("this system has no CA certificates; name one with ca_file".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots);
    match (&bridge.certificate_file, &bridge.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?)
                .map_err(|error| format!("key_file {}: no private key in PEM: {error}", key.display()))?;
            config.with_client_auth_cert(chain, key).map_err(|error| format!("certificate_file and key_file: {error}"))
        }
        _ => Ok(config.with_no_client_auth()),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(file)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{}: no certificate in PEM", file.display())),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// rustls' words for a certificate that is not good say what is wrong with it, but stand in a debug form.
fn tls_words(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!("the broker's certificate is not accepted: {reason}")
        }
        _ => error.to_string(),
    }
}
