//! The HTTP doors of a loop: accepts who may come in, shakes hands where the door speaks TLS, and serves connections on the loop's
//! own thread. The doors for nothing but MQTT over WebSocket are here, too: a WebSocket begins as HTTP.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use actix_http::{HttpService, Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, map_config};
use actix_web::{body::MessageBody, dev::AppConfig};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    app,
    socket::{Socket, Ticket},
};
use crate::{
    edge::EdgeLoop,
    listeners::Door,
    mqtt::listener::turned_away,
    transport::{
        identity::TlsIdentity,
        stream::Stream,
        tls::{self, Failed},
    },
};

/// Said to a connection for which there is no room.
pub(super) const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Accepts until the edge stops. Runs as a task of the loop.
pub(crate) async fn accept(edge: Rc<EdgeLoop>, listener: TcpListener, door: Door) {
    match door {
        Door::Ws | Door::Wss => {
            serve(edge, listener, door, map_config(app::mqtt_alone(), |()| AppConfig::default())).await;
        }
        _ => serve(edge, listener, door, map_config(app::app(), |()| AppConfig::default())).await,
    }
}

async fn serve<F, S, B>(edge: Rc<EdgeLoop>, listener: TcpListener, door: Door, app: F)
where
    F: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = ()> + 'static,
    S::Error: Into<Response<actix_http::body::BoxBody>> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let factory = HttpService::build()
        .client_request_timeout(edge.shared.settings.http_header_timeout)
        .client_disconnect_timeout(Duration::from_secs(5))
        .keep_alive(Duration::from_secs(75))
        .on_connect_ext(|socket: &Socket, data| drop(data.insert(Rc::clone(socket.tie()))))
        .h1(app);
    let service = match factory.new_service(()).await {
        Ok(service) => Rc::new(service),
        Err(error) => {
            tracing::error!(?error, "cannot serve HTTP on this loop");
            return;
        }
    };
    let is_mqtt = matches!(door, Door::Ws | Door::Wss);
    loop {
        if door != Door::Http {
            edge.lobby.wait_for_turn(door.cost()).await;
        }
        if is_mqtt {
            edge.lobby.wait_for_room().await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let admission = &edge.shared.admission;
                let ticket = if is_mqtt {
                    admission.enter(peer.ip(), edge.connected()).map(Ticket::Mqtt)
                } else {
                    admission.enter_http(edge.connected()).map(Ticket::Http)
                };
                let ticket = match ticket {
                    Ok(ticket) => ticket,
                    Err(limit) => {
                        turned_away(&edge, peer, limit);
                        // As much as goes out at once: this must not cost more than the connection would.
                        let _ = stream.try_write(NO_ROOM);
                        continue;
                    }
                };
                // A failure here only costs latency.
                let _ = stream.set_nodelay(true);
                let (service, edge_of) = (Rc::clone(&service), Rc::clone(&edge));
                let connection = async move {
                    let Some((stream, tls)) = open(&edge_of, stream, peer, door).await else { return };
                    if let Err(error) = service.call((Socket::new(stream, ticket, tls), Some(peer))).await {
                        tracing::debug!(%peer, ?error, "an HTTP connection ended early");
                    }
                };
                if is_mqtt {
                    edge.lobby.receive(|_| connection);
                } else {
                    actix_rt::spawn(connection);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection; waiting 100 ms (is the file descriptor limit reached?)");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The stream under HTTP, and who the client is by its certificate.
async fn open(
    edge: &EdgeLoop,
    stream: TcpStream,
    peer: SocketAddr,
    door: Door,
) -> Option<(Stream, Option<Box<TlsIdentity>>)> {
    let settings = &edge.shared.settings;
    let (certificates, what, patience) = match door {
        Door::Https => (edge.shared.http_tls.as_ref()?, "HTTP", settings.http_header_timeout),
        Door::Wss => (edge.shared.mqtt_tls.as_ref()?, "MQTT over WebSocket", settings.mqtt_connect_timeout),
        _ => {
            return speaks_http(&stream, peer, settings.http_header_timeout)
                .await
                .then_some((Stream::Tcp(stream), None));
        }
    };
    let tls = timeout(patience, tls::accept(stream, certificates, what)).await.unwrap_or(Err(Failed::TooSlow));
    let tls = tls.map_err(|error| tls::failed(edge, peer, &error)).ok()?;
    let identity =
        tls.client_certificate().map(|certificate| TlsIdentity::of(certificate, settings.mqtt_tls_device_id));
    Some((Stream::Tls(Box::new(tls)), identity.map(Box::new)))
}

/// Waits for a connection's first byte. What no HTTP request begins with is told in the log in words that help, and closed.
async fn speaks_http(stream: &TcpStream, peer: SocketAddr, patience: Duration) -> bool {
    let mut first = [0];
    let Ok(Ok(1)) = timeout(patience, stream.peek(&mut first)).await else { return false };
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
