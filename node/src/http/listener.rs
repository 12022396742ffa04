//! The HTTP door of a loop: accepts and serves connections on the loop's own thread.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use actix_http::HttpService;
use actix_service::{Service as _, ServiceFactory as _, map_config};
use actix_web::dev::AppConfig;
use tokio::net::{TcpListener, TcpStream};

use super::{app, socket::Socket};
use crate::edge::EdgeLoop;

/// Accepts until the edge stops. Runs as a task of the loop.
pub(crate) async fn accept(edge: Rc<EdgeLoop>, listener: TcpListener) {
    let factory = HttpService::build()
        .client_request_timeout(edge.shared.settings.http_header_timeout)
        .client_disconnect_timeout(Duration::from_secs(5))
        .keep_alive(Duration::from_secs(75))
        .on_connect_ext(|socket: &Socket, data| drop(data.insert(Rc::clone(socket.tie()))))
        .h1(map_config(app::app(), |()| AppConfig::default()));
    let service = match factory.new_service(()).await {
        Ok(service) => Rc::new(service),
        Err(error) => {
            tracing::error!(?error, "cannot serve HTTP on this loop");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A failure here only costs latency.
                let _ = stream.set_nodelay(true);
                let service = Rc::clone(&service);
                let patience = edge.shared.settings.http_header_timeout;
                actix_rt::spawn(async move {
                    if !speaks_http(&stream, peer, patience).await {
                        return;
                    }
                    if let Err(error) = service.call((Socket::new(stream), Some(peer))).await {
                        tracing::debug!(%peer, ?error, "an HTTP connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection; waiting 100 ms (is the file descriptor limit reached?)");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Waits for a connection's first byte. What no HTTP request begins with is told in the log in words that help, and closed.
async fn speaks_http(stream: &TcpStream, peer: SocketAddr, patience: Duration) -> bool {
    let mut first = [0];
    let Ok(Ok(1)) = tokio::time::timeout(patience, stream.peek(&mut first)).await else { return false };
    match first {
        [0x16] => {
            tracing::warn!(%peer, "refused a connection: this is a TLS handshake, and this port speaks plain HTTP; connect without TLS");
        }
        [0x10] => {
            tracing::warn!(%peer, "refused a connection: this is an MQTT CONNECT on the HTTP port; MQTT is at --mqtt-bind (port 1883 unless changed)");
        }
        _ => return true,
    }
    false
}
