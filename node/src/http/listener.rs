//! The HTTP door of a loop: accepts and serves connections on the loop's own thread.

use std::{rc::Rc, time::Duration};

use actix_http::HttpService;
use actix_service::{Service as _, ServiceFactory as _, map_config};
use actix_web::dev::AppConfig;
use tokio::net::TcpListener;

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
                actix_rt::spawn(async move {
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
