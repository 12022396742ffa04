//! The MQTT doors of a loop: accepts who may come in, shakes hands where the door speaks TLS, reads the CONNECT, all under one
//! deadline, and moves the connection to the loop that owns the client id, once.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tidegate_actors::{ids::DeviceId, placement};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::timeout_at,
};

use super::{
    codec, connection,
    encode::{self, Connack, Peer},
    frame::{Framing, frame},
    packet::{Connect, Packet},
    reason::{CodecError, ReasonCode},
};
use crate::{
    auth::{self, Principal},
    edge::EdgeLoop,
    listeners::Door,
    transport::{
        Other, Transport, Violation,
        admission::{Limit, Place},
        identity::TlsIdentity,
        tls::{self, Tls},
    },
};

/// Accepts until the edge stops. Runs as a task of the loop.
pub(crate) async fn accept(edge: Rc<EdgeLoop>, listener: TcpListener, door: Door) {
    loop {
        edge.lobby.wait_for_turn(door.cost()).await;
        edge.lobby.wait_for_room().await;
        match listener.accept().await {
            Ok((stream, peer)) => match edge.shared.admission.enter(peer.ip(), edge.connected()) {
                Ok(place) => {
                    let at = Rc::clone(&edge);
                    edge.lobby.receive(|serial| greet(at, stream, Guest::new(&edge, peer, place, serial), door));
                }
                Err(limit) => turned_away(&edge, peer, limit),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept an MQTT connection; waiting 100 ms (is the file descriptor limit reached?)");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Tells the log of a connection that was closed at a limit; a flood gets a few lines.
pub(crate) fn turned_away(edge: &EdgeLoop, peer: SocketAddr, limit: Limit) {
    if let Some(left_out) = edge.hush.turned_away.may_say(edge.uptime_ms()) {
        tracing::warn!(%peer, left_out, "closed a new connection: limit {}", limit.name());
    }
}

/// A client's greeting: its CONNECT and what came right behind it.
pub(crate) struct Greeting {
    pub(crate) connect: Box<Connect>,
    pub(crate) assigned: bool,
    /// Who the client is; `None`: nobody was asked. A session belongs to whoever began it.
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) peer: SocketAddr,
    /// What its certificate says, if it has shown one.
    pub(crate) tls: Option<Box<TlsIdentity>>,
    pub(crate) rest: Vec<u8>,
}

/// A client that has not connected yet.
struct Guest {
    peer: SocketAddr,
    place: Place,
    /// Its number in the lobby.
    serial: u64,
    tls: Option<Box<TlsIdentity>>,
    deadline: tokio::time::Instant,
}

impl Guest {
    fn new(edge: &EdgeLoop, peer: SocketAddr, place: Place, serial: u64) -> Self {
        let deadline = (Instant::now() + edge.shared.settings.mqtt_connect_timeout).into();
        Self { peer, place, serial, tls: None, deadline }
    }
}

async fn greet(edge: Rc<EdgeLoop>, stream: TcpStream, mut guest: Guest, door: Door) {
    // A failure here only costs latency.
    let _ = stream.set_nodelay(true);
    let transport = match door {
        Door::Mqtts => {
            // Boxed, as is everything else that not every client needs: one that says nothing should cost little.
            let Some(tls) = Box::pin(shake_hands(&edge, stream, &guest)).await else { return };
            let from = edge.shared.settings.mqtt_tls_device_id;
            guest.tls = tls.client_certificate().map(|certificate| Box::new(TlsIdentity::of(certificate, from)));
            Other::Tls(Box::new(tls)).into()
        }
        _ => Transport::Tcp(stream),
    };
    receive(edge, transport, guest).await;
}

/// Greets a client whose WebSocket is open.
pub(crate) async fn greet_websocket(
    edge: Rc<EdgeLoop>,
    transport: Transport,
    peer: SocketAddr,
    place: Place,
    serial: u64,
    tls: Option<Box<TlsIdentity>>,
) {
    let guest = Guest { tls, ..Guest::new(&edge, peer, place, serial) };
    receive(edge, transport, guest).await;
}

async fn shake_hands(edge: &EdgeLoop, stream: TcpStream, guest: &Guest) -> Option<Tls> {
    let certificates = edge.shared.mqtt_tls.as_ref()?;
    match timeout_at(guest.deadline, tls::accept(stream, certificates, "MQTT")).await {
        Ok(Ok(tls)) => Some(tls),
        Ok(Err(error)) => {
            tls::failed(edge, guest.peer, &error);
            None
        }
        Err(_) => {
            tls::failed(edge, guest.peer, &tls::Failed::TooSlow);
            None
        }
    }
}

async fn receive(edge: Rc<EdgeLoop>, mut transport: Transport, guest: Guest) {
    let peer = guest.peer;
    match timeout_at(guest.deadline, read_connect(&edge, &mut transport)).await {
        Ok(Ok(Some((connect, rest)))) => {
            edge.lobby.has_spoken(guest.serial);
            Box::pin(welcome(&edge, transport, guest, connect, rest)).await;
        }
        // Gone before it said anything whole: a port scan or a health check.
        Ok(Ok(None)) => tracing::debug!(%peer, "closed before its CONNECT"),
        Ok(Err(Greeted::Io(error))) => tracing::debug!(%peer, %error, "lost before its CONNECT"),
        Ok(Err(Greeted::Bad(error))) => {
            edge.shared.counters.mqtt_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, reason = %error.reason, "refused a CONNECT: {}", error.detail);
            let mut out = Vec::new();
            encode::refuse_connect(&mut out, &error);
            Box::pin(transport.close_with(out)).await;
        }
        Ok(Err(Greeted::Stranger(found))) => {
            edge.shared.counters.mqtt_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, "refused a connection: {}", found.advice);
            Box::pin(transport.close_with(found.answer.to_vec())).await;
        }
        Err(_) => {
            let limit = edge.shared.settings.mqtt_connect_timeout;
            if let Some(left_out) = edge.hush.turned_away.may_say(edge.uptime_ms()) {
                tracing::info!(%peer, left_out, "closed: no CONNECT within {limit:?} (limit mqtt.limits.connect_timeout_ms)");
            }
        }
    }
}

enum Greeted {
    Io(std::io::Error),
    Bad(CodecError),
    Stranger(&'static Stranger),
}

impl Greeted {
    fn of(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Violation>()) {
            Some(Violation { detail, .. }) => Self::Bad(CodecError::protocol(*detail)),
            None => Self::Io(error),
        }
    }
}

/// A protocol that people take to this port by mistake.
struct Stranger {
    starts: &'static [&'static [u8]],
    advice: &'static str,
    answer: &'static [u8],
}

const STRANGERS: [Stranger; 2] = [
    Stranger {
        starts: &[b"\x16\x03"],
        advice: "this is a TLS handshake, and this port speaks plain MQTT; connect without TLS",
        answer: b"",
    },
    Stranger {
        starts: &[b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PRI * "],
        advice: "this is HTTP on the MQTT port; HTTP and the dashboard are at --http-bind (port 8080 unless changed)",
        answer: b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
            this is the MQTT port; HTTP and the dashboard are at --http-bind (port 8080 unless changed)\n",
    },
];

/// Who speaks, if it is somebody known and not an MQTT client.
fn stranger(bytes: &[u8]) -> Option<&'static Stranger> {
    STRANGERS.iter().find(|stranger| stranger.starts.iter().any(|start| bytes.starts_with(start)))
}

/// Reads until the CONNECT is whole. The buffer grows with what comes, up to the pre-auth limit.
async fn read_connect(edge: &EdgeLoop, transport: &mut Transport) -> Result<Option<(Box<Connect>, Vec<u8>)>, Greeted> {
    let limit = edge.shared.settings.mqtt_pre_auth_bytes;
    let mut bytes = Vec::new();
    loop {
        if let Some(stranger) = stranger(&bytes) {
            return Err(Greeted::Stranger(stranger));
        }
        match frame(&bytes, limit).map_err(|error| Greeted::Bad(pre_auth(error, limit)))? {
            Framing::Incomplete { .. } => {}
            Framing::Complete(found) => {
                let packet = codec::decode(None, &found, &bytes).map_err(Greeted::Bad)?;
                let Packet::Connect(connect) = packet else { return Ok(None) };
                edge.traffic.came_in(1, bytes.len());
                bytes.drain(..found.total);
                return Ok(Some((connect, bytes)));
            }
        }
        bytes.reserve(256);
        if transport.read_buf(&mut bytes).await.map_err(Greeted::of)? == 0 {
            return Ok(None);
        }
    }
}

/// Names the limit that holds before the CONNECT.
fn pre_auth(error: CodecError, limit: usize) -> CodecError {
    if error.reason != ReasonCode::PACKET_TOO_LARGE {
        return error;
    }
    let detail =
        format!("a CONNECT has at most {limit} bytes (limit mqtt.limits.pre_auth_packet_bytes), this one has more");
    CodecError::new(error.reason, detail)
}

async fn welcome(edge: &Rc<EdgeLoop>, transport: Transport, guest: Guest, mut connect: Box<Connect>, rest: Vec<u8>) {
    let Guest { peer, place, tls, .. } = guest;
    let assigned = connect.client_id.is_empty();
    if assigned {
        let own = tls.as_deref().and_then(TlsIdentity::only_device_id);
        connect.client_id = own.map_or_else(|| format!("auto-{:016x}", rand_u64()), str::to_owned);
    }
    let admitted = match refusal(edge, &connect, tls.as_deref()) {
        Some(refusal) => Err(refusal),
        None => auth::mqtt::admit(edge, &connect, peer, tls.as_deref()).await,
    };
    let principal = match admitted {
        Ok(principal) => principal,
        Err(refusal) => return transport.close_with(refused(edge, peer, &connect, &refusal)).await,
    };
    let greeting = Greeting { connect, assigned, peer, tls, rest, principal };
    let owner = placement::owner(&greeting.connect.client_id, edge.handle.services().loops());
    if owner == edge.handle.id() {
        connection::start(edge, transport, greeting);
        return;
    }
    let Ok(transport) = transport.detach() else { return };
    let moved = edge.on_loop(owner, move |edge| {
        match transport.attach() {
            Ok(transport) => connection::start(edge, transport, greeting),
            Err(error) => tracing::warn!(%peer, %error, "lost a connection on its way to its loop"),
        }
        // Until here it counts as one that has not connected.
        drop(place);
    });
    if !moved {
        tracing::warn!(%peer, r#loop = owner.0, "refused an MQTT connection: its loop's inbox is full (limit loop_inbox)");
    }
}

/// The answer to a CONNECT that is refused, counted and logged.
pub(crate) fn refused(edge: &EdgeLoop, peer: SocketAddr, connect: &Connect, refusal: &auth::mqtt::Refusal) -> Vec<u8> {
    let (reason, text) = refusal;
    edge.shared.counters.mqtt_refused.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(%peer, client = connect.client_id, %reason, "refused a CONNECT: {text}");
    let mut out = Vec::new();
    encode::connack(&mut out, &Peer::of(connect), &Connack::refused(*reason, text));
    out
}

/// What this node does not offer, by the specification's reason codes.
fn refusal(edge: &EdgeLoop, connect: &Connect, tls: Option<&TlsIdentity>) -> Option<(ReasonCode, String)> {
    if edge.shared.stopping.load(Ordering::Relaxed) {
        return Some((ReasonCode::SERVER_UNAVAILABLE, "the node is stopping".to_owned()));
    }
    if connect.auth_method.is_some() {
        let text = "extended authentication is not offered; connect without an authentication method";
        return Some((ReasonCode::BAD_AUTHENTICATION_METHOD, text.to_owned()));
    }
    if let Some(text) = tls.and_then(|tls| tls.refuses(&connect.client_id)) {
        return Some((ReasonCode::CLIENT_ID_NOT_VALID, text));
    }
    None
}

/// The acceptance, with what this node does and does not do. `expiry` is what the session has been granted.
pub(crate) fn acceptance<'a>(edge: &EdgeLoop, greeting: &'a Greeting, expiry: u32, present: bool) -> Connack<'a> {
    let (settings, connect) = (&edge.shared.settings, &greeting.connect);
    Connack {
        session_expiry: (connect.session_expiry != expiry).then_some(expiry),
        receive_maximum: NonZeroU16::new(settings.mqtt_receive_maximum),
        maximum_packet_size: u32::try_from(settings.mqtt_packet_bytes).ok().and_then(NonZeroU32::new),
        assigned_client_id: greeting.assigned.then_some(greeting.connect.client_id.as_str()),
        topic_alias_maximum: settings.mqtt_topic_aliases,
        server_keep_alive: settings.mqtt_keep_alive(connect),
        ..Connack::accepted(present)
    }
}

/// The device that a connection's client id names, if it can be one.
pub(crate) fn device_of(client_id: &str) -> Option<DeviceId> {
    DeviceId::new(client_id).ok()
}

/// Unpredictable enough for a name that nobody must collide with; no secret.
fn rand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
