//! `GET /mqtt`: MQTT over WebSocket (MQTT 5, section 6). The WebSocket is opened here; then its socket leaves HTTP and is an MQTT
//! connection like any other.

use std::rc::Rc;

use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    http::{StatusCode, header},
};

use super::{admin, problem::Problem, socket::Tie};
use crate::{
    edge::here,
    mqtt::listener::{self, greet_websocket},
    transport::admission::Limit,
};

/// The subprotocol ([MQTT-6.0.0-3], [MQTT-6.0.0-4]). `mqttv3.1` is MQTT 3.1, which this node does not speak.
const SUBPROTOCOL: &str = "mqtt";

/// `GET /mqtt`.
pub(crate) async fn mqtt(request: HttpRequest) -> HttpResponse {
    open(&request).unwrap_or_else(|problem| problem.response())
}

fn open(request: &HttpRequest) -> Result<HttpResponse, Problem> {
    let edge = here();
    let mut response = actix_http::ws::handshake(request.head()).map_err(|error| {
        let detail = format!("{error}; this is MQTT over WebSocket: connect with an MQTT client, subprotocol mqtt");
        Problem::new(StatusCode::UPGRADE_REQUIRED, "not-a-websocket", "Not a WebSocket handshake", detail)
    })?;
    check_origin(request, &edge.shared.settings.mqtt_ws_origins)?;
    if !offers(request, SUBPROTOCOL) {
        let detail = "the client must offer the WebSocket subprotocol mqtt (Sec-WebSocket-Protocol) [MQTT-6.0.0-3]";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "no-subprotocol", "Not MQTT over WebSocket", detail));
    }
    let internal = |what: &str| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The node failed", what);
    let tie = Rc::clone(request.conn_data::<Rc<Tie>>().ok_or_else(|| internal("a connection without its socket"))?);
    if admin::peer(request).is_some() {
        let detail = "MQTT is not spoken on the admin socket: connect to an address of the node";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail));
    }
    let peer = request.peer_addr().ok_or_else(|| internal("a connection without an address"))?;
    let turned_away = |limit: Limit| {
        listener::turned_away(&edge, peer, limit);
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "The node takes no MQTT connections now",
            "too many are not connected yet",
        )
        .with("limit", limit.name())
        .retry_after(1)
    };
    let place = match tie.mqtt_place() {
        Some(place) => place,
        None => {
            let admission = &edge.shared.admission;
            if admission.is_full() && !edge.lobby.oldest_gives_way() {
                return Err(turned_away(admission.turn_away(Limit::PreAuthConnections)));
            }
            admission.enter(peer.ip(), edge.connected()).map_err(turned_away)?
        }
    };
    let tls = tie.take_identity();
    let guests = Rc::clone(&edge);
    tie.take_over(move |transport| {
        let at = Rc::clone(&guests);
        guests.lobby.receive(|serial| greet_websocket(at, transport, peer, place, serial, tls));
    });
    let response = response
        .insert_header((header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL))
        .message_body(())
        .map_err(|error| internal(&error.to_string()))?;
    Ok(HttpResponse::from(response.map_body(|_, body| BoxBody::new(body))))
}

/// Does the client offer this subprotocol?
fn offers(request: &HttpRequest, subprotocol: &str) -> bool {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|offer| offer.trim() == subprotocol)
}

/// A browser says whose page it is that connects. A page of elsewhere must not reach a node through its reader's browser.
fn check_origin(request: &HttpRequest, allowed: &[String]) -> Result<(), Problem> {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if own || allowed.iter().any(|allowed| allowed == "*" || *allowed == origin) {
        return Ok(());
    }
    let detail =
        format!("pages of the origin {origin:?} may not connect; the node's operator can allow it (mqtt.ws_origins)");
    Err(Problem::new(StatusCode::FORBIDDEN, "foreign-origin", "Not from this origin", detail))
}
