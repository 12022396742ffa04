//! Live views: WebSocket and SSE over one [`Viewer`] mailbox. The body is a stream that takes out of the mailbox what the
//! socket has room for; a client that does not read is conflated there and slows nobody.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_http::ws::{Codec, Frame, Message, ProtocolError};
use actix_web::{
    HttpRequest, HttpResponse,
    body::BodyStream,
    http::{StatusCode, header},
    web,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use serde::Deserialize;
use tidegate_actors::{
    fanout::{Drained, Filter, Viewer, ViewerLimits},
    ids::DeviceId,
};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep},
};
use tokio_util::codec::{Decoder, Encoder};

use super::{problem::Problem, socket::Tie};
use crate::{
    auth::{self, Principal},
    edge::{EdgeLoop, here},
};

/// Bytes that one write to a viewer takes at most (about).
const WRITE_BYTES: usize = 64 * 1024;
/// The least time between two writes to a viewer of the whole fleet, unless it asks otherwise.
const FLEET_INTERVAL: Duration = Duration::from_millis(250);
/// The longest interval that a viewer may ask for.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// Silence after which a sign of life is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Largest message of a viewer, in bytes.
const MESSAGE_BYTES: usize = 64 * 1024;
/// The longest head of a frame (RFC 6455 section 5.2).
const FRAME_HEAD: usize = 14;
/// Bytes of answers that may wait for a viewer; past them the viewer's messages are not read.
const REPLY_BYTES: usize = 64 * 1024;

/// What a viewer asks for, in the query or in a `watch` message.
#[derive(Debug, Default)]
struct Wish {
    filter: Filter,
    interval: Option<Duration>,
}

impl Wish {
    fn of_query(query: &str, most: usize) -> Result<Self, Problem> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|error| Problem::parameter("query", format!("the query cannot be read: {error}")))?;
        let mut wish = Self::default();
        for (name, value) in pairs.into_inner() {
            match name.as_str() {
                "deviceId" => wish.filter.devices.push(device(&value)?),
                "prefix" if value.is_empty() => wish.filter.fleet = true,
                "prefix" => wish.filter.prefixes.push(value.into()),
                "interval" => wish.interval = Some(interval(value.parse().ok())?),
                other => {
                    let detail = format!("unknown parameter {other:?}; allowed: deviceId, prefix, interval");
                    return Err(Problem::parameter("query", detail));
                }
            }
        }
        if wish.filter.devices.is_empty() && wish.filter.prefixes.is_empty() {
            wish.filter.fleet = true;
        }
        wish.checked(most)
    }

    fn of_message(text: &[u8], most: usize) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Request {
            watch: Watch,
            interval: Option<u64>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        #[derive(Default)]
        struct Watch {
            device_ids: Vec<String>,
            prefixes: Vec<String>,
            fleet: bool,
        }
        let request: Request = serde_json::from_slice(text)
            .map_err(|error| Problem::parameter("message", format!("not a watch message: {error}")))?;
        let filter = Filter {
            devices: request.watch.device_ids.iter().map(|id| device(id)).collect::<Result<_, _>>()?,
            prefixes: request.watch.prefixes.into_iter().map(Into::into).collect(),
            fleet: request.watch.fleet,
        };
        let interval = request.interval.map(|millis| interval(Some(millis))).transpose()?;
        Self { filter, interval }.checked(most)
    }

    fn checked(self, most: usize) -> Result<Self, Problem> {
        let filters = self.filter.devices.len() + self.filter.prefixes.len();
        if filters > most {
            let detail = format!("{filters} devices and prefixes, at most {most} are allowed");
            return Err(Problem::parameter("deviceId", detail).limit("viewers.filters", most));
        }
        Ok(self)
    }

    fn interval(&self) -> Duration {
        self.interval.unwrap_or(if self.filter.fleet { FLEET_INTERVAL } else { Duration::ZERO })
    }

    /// A viewer of the whole fleet, or one that wants to hear seldom, is always conflated.
    fn conflates(&self) -> bool {
        self.filter.fleet || !self.interval().is_zero()
    }
}

fn device(id: &str) -> Result<DeviceId, Problem> {
    DeviceId::new(id).map_err(|error| Problem::parameter("deviceId", error.to_string()))
}

fn interval(millis: Option<u64>) -> Result<Duration, Problem> {
    let allowed = millis.map(Duration::from_millis).filter(|interval| *interval <= MAX_INTERVAL);
    allowed.ok_or_else(|| Problem::parameter("interval", format!("allowed: 0 to {} ms", MAX_INTERVAL.as_millis())))
}

/// `GET /ws`.
pub(crate) async fn websocket(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    open_websocket(&request, payload).await.unwrap_or_else(|problem| problem.response())
}

async fn open_websocket(request: &HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let wish = Wish::of_query(request.query_string(), here().shared.settings.viewer_filters)?;
    let mut response = actix_http::ws::handshake(request.head()).map_err(|error| {
        let detail = format!("{error}; connect with a WebSocket client, or use GET /stream for server-sent events");
        Problem::new(StatusCode::UPGRADE_REQUIRED, "not-a-websocket", "Not a WebSocket handshake", detail)
    })?;
    let seat = Seat::take(request, wish)?;
    let hello = seat.hello().await?;
    seat.replies.borrow_mut().push(text_frame(hello.to_string().as_bytes()));
    actix_rt::spawn(listen(payload, Rc::clone(&seat)));
    let body = BodyStream::new(View::new(seat, Wire::WebSocket));
    let response = response.message_body(body).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The node failed", error.to_string())
    })?;
    Ok(HttpResponse::from(response.map_body(|_, body| actix_web::body::BoxBody::new(body))))
}

/// `GET /stream`.
pub(crate) async fn sse(request: HttpRequest) -> HttpResponse {
    let most = here().shared.settings.viewer_filters;
    let seat = match Wish::of_query(request.query_string(), most).and_then(|wish| Seat::take(&request, wish)) {
        Ok(seat) => seat,
        Err(problem) => return problem.response(),
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(View::new(seat, Wire::Sse))
}

/// A viewer's place: its mailbox, its pace, and what is to be said to it besides updates.
pub(crate) struct Seat {
    edge: Rc<EdgeLoop>,
    viewer: RefCell<Arc<Viewer>>,
    /// The connection that it lives on.
    tie: Option<Rc<Tie>>,
    /// Who watches; `None`: nobody was asked.
    pub(crate) caller: Option<Arc<Principal>>,
    interval: Cell<Duration>,
    replies: RefCell<Vec<Bytes>>,
    /// Told when the replies were taken, and when the viewer is gone.
    room: Notify,
    waker: RefCell<Option<Waker>>,
    ended: Cell<bool>,
    /// What the mailboxes of former filters conflated.
    conflated: Cell<u64>,
}

/// Wakes the viewers of this loop that do not read, so that their connections are closed. Runs once a second.
pub(crate) fn sweep(edge: &EdgeLoop) {
    edge.seats.borrow_mut().retain(|seat| {
        let Some(seat) = seat.upgrade() else { return false };
        if seat.has_stalled() {
            seat.wake();
        }
        true
    });
}

impl Seat {
    fn take(request: &HttpRequest, wish: Wish) -> Result<Rc<Self>, Problem> {
        let edge = here();
        let limit = edge.shared.settings.viewers;
        if edge.shared.counters.viewers.fetch_add(1, Ordering::Relaxed) >= limit {
            edge.shared.counters.viewers.fetch_sub(1, Ordering::Relaxed);
            let problem = Problem::overloaded(format!("{limit} viewers are connected already"), "viewers");
            return Err(problem.limit("viewers", limit));
        }
        let seat = Rc::new(Self {
            viewer: RefCell::new(mailbox(&edge, &wish)),
            edge,
            tie: request.conn_data::<Rc<Tie>>().cloned(),
            caller: auth::http::caller(request),
            interval: Cell::new(wish.interval()),
            replies: RefCell::default(),
            room: Notify::new(),
            waker: RefCell::default(),
            ended: Cell::default(),
            conflated: Cell::default(),
        });
        if let Some(tie) = &seat.tie {
            tie.to(&seat);
        }
        seat.edge.seats.borrow_mut().push(Rc::downgrade(&seat));
        seat.edge.shared.runtime.watch(&seat.viewer(), wish.filter)?;
        Ok(seat)
    }

    fn viewer(&self) -> Arc<Viewer> {
        Arc::clone(&self.viewer.borrow())
    }

    /// Has the node closed the mailbox, because its viewer took nothing out for too long?
    pub(crate) fn has_stalled(&self) -> bool {
        !self.ended.get() && self.viewer.borrow().is_closed()
    }

    async fn hello(&self) -> Result<serde_json::Value, Problem> {
        let (loops, devices) = self.edge.shared.runtime.health().await?;
        Ok(serde_json::json!({ "type": "hello", "loops": loops.len(), "devices": devices }))
    }

    fn reply(&self, frame: Bytes) {
        self.replies.borrow_mut().push(frame);
        self.wake();
    }

    /// Waits while the viewer does not read what it was answered.
    async fn wait_for_room(&self) {
        while !self.ended.get() && self.replies.borrow().iter().map(Bytes::len).sum::<usize>() > REPLY_BYTES {
            self.room.notified().await;
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// The viewer has left.
    pub(crate) fn end(&self) {
        if !self.ended.replace(true) {
            self.viewer.borrow().close();
            self.room.notify_one();
            self.wake();
        }
    }

    /// The viewer wants to see something else: what is still on its way for the former wish ends in the former mailbox.
    fn change(&self, text: &[u8]) {
        let changed = Wish::of_message(text, self.edge.shared.settings.viewer_filters).and_then(|wish| {
            self.interval.set(wish.interval());
            let old = self.viewer.replace(mailbox(&self.edge, &wish));
            old.close();
            self.conflated.set(self.conflated.get() + old.conflated());
            self.edge.shared.runtime.watch(&self.viewer(), wish.filter).map_err(Problem::from)
        });
        self.wake();
        if let Err(problem) = changed {
            let error = serde_json::json!({ "type": "error", "problem": problem.json() });
            self.reply(text_frame(error.to_string().as_bytes()));
        }
    }
}

/// A mailbox for this wish. One that wants to hear seldom reads as seldom: that is no stall.
fn mailbox(edge: &EdgeLoop, wish: &Wish) -> Arc<Viewer> {
    let mut limits = edge.shared.settings.viewer_limits;
    limits.stall = stall(limits, wish);
    Viewer::new(limits, wish.conflates(), usize::from(edge.handle.services().loops()), edge.handle.now())
}

fn stall(limits: ViewerLimits, wish: &Wish) -> Duration {
    limits.stall + wish.interval()
}

impl Drop for Seat {
    fn drop(&mut self) {
        let counters = &self.edge.shared.counters;
        let viewer = self.viewer.get_mut();
        viewer.close();
        counters.viewers.fetch_sub(1, Ordering::Relaxed);
        counters.viewer_conflated.fetch_add(self.conflated.get() + viewer.conflated(), Ordering::Relaxed);
    }
}

/// Why a viewer that does not read is closed.
const STALLED: &str = "the viewer does not read (limit viewers.stall_timeout_ms)";

/// Reads what a WebSocket viewer sends until it leaves.
async fn listen(mut payload: web::Payload, seat: Rc<Seat>) {
    let mut codec = Codec::new().max_size(MESSAGE_BYTES);
    let mut bytes = BytesMut::new();
    while let Some(Ok(chunk)) = payload.next().await {
        bytes.extend_from_slice(&chunk);
        loop {
            seat.wait_for_room().await;
            match codec.decode(&mut bytes) {
                // The codec would keep all of a large message before it refuses it.
                Ok(None) if bytes.len() > MESSAGE_BYTES + FRAME_HEAD => {
                    return goodbye(&seat, "a message of more than 65536 bytes");
                }
                Ok(None) => break,
                Ok(Some(Frame::Text(text))) => seat.change(&text),
                Ok(Some(Frame::Ping(data))) => seat.reply(control_frame(Message::Pong(data))),
                Ok(Some(Frame::Pong(_))) => {}
                Ok(Some(Frame::Close(reason))) => {
                    seat.reply(control_frame(Message::Close(reason)));
                    return seat.end();
                }
                Ok(Some(Frame::Binary(_) | Frame::Continuation(_))) => {
                    return goodbye(&seat, "send text messages, unfragmented");
                }
                Err(ProtocolError::Overflow) => return goodbye(&seat, "a message of more than 65536 bytes"),
                Err(error) => return goodbye(&seat, &error.to_string()),
            }
        }
    }
    seat.end();
}

fn goodbye(seat: &Seat, why: &str) {
    tracing::debug!(why, "closed a viewer");
    let reason =
        actix_http::ws::CloseReason { code: actix_http::ws::CloseCode::Protocol, description: Some(why.to_owned()) };
    seat.reply(control_frame(Message::Close(Some(reason))));
    seat.end();
}

fn control_frame(message: Message) -> Bytes {
    let mut out = BytesMut::new();
    // Encoding a control frame of at most 125 bytes cannot fail; a longer one is left out.
    let _ = Codec::new().encode(message, &mut out);
    out.freeze()
}

fn text_frame(text: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    let _ = Codec::new().encode(Message::Text(String::from_utf8_lossy(text).into_owned().into()), &mut out);
    out.freeze()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    WebSocket,
    Sse,
}

/// The response body of a viewer.
struct View {
    seat: Rc<Seat>,
    wire: Wire,
    /// When the next write is allowed.
    pace: Pin<Box<Sleep>>,
    heartbeat: Pin<Box<Sleep>>,
    over: bool,
}

impl View {
    fn new(seat: Rc<Seat>, wire: Wire) -> Self {
        let pace = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { seat, wire, pace, heartbeat: Box::pin(tokio::time::sleep(HEARTBEAT)), over: false }
    }

    fn encode(&self, drained: &Drained) -> Bytes {
        if let (Wire::WebSocket, [only], false) = (self.wire, &drained.updates[..], drained.synced) {
            // The bytes that every other viewer of this update gets.
            return only.frame().clone();
        }
        let mut out = BytesMut::new();
        for update in &drained.updates {
            match self.wire {
                Wire::WebSocket => out.extend_from_slice(update.frame()),
                Wire::Sse => put_sse(&mut out, if update.is_event() { "event" } else { "state" }, &update.json()),
            }
        }
        if drained.synced {
            let synced = br#"{"type":"synced"}"#;
            match self.wire {
                Wire::WebSocket => out.extend_from_slice(&text_frame(synced)),
                Wire::Sse => put_sse(&mut out, "synced", synced),
            }
        }
        out.freeze()
    }

    fn sign_of_life(&self) -> Bytes {
        match self.wire {
            Wire::WebSocket => control_frame(Message::Ping(Bytes::new())),
            Wire::Sse => Bytes::from_static(b":\n\n"),
        }
    }
}

fn put_sse(out: &mut BytesMut, event: &str, data: &[u8]) {
    out.put_slice(b"event: ");
    out.put_slice(event.as_bytes());
    out.put_slice(b"\ndata: ");
    out.put_slice(data);
    out.put_slice(b"\n\n");
}

impl Stream for View {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        *this.seat.waker.borrow_mut() = Some(task.waker().clone());
        if this.over {
            return Poll::Ready(None);
        }
        let replies = std::mem::take(&mut *this.seat.replies.borrow_mut());
        if !replies.is_empty() {
            this.seat.room.notify_one();
            return Poll::Ready(Some(Ok(replies.concat().into())));
        }
        if this.seat.ended.get() {
            return Poll::Ready(None);
        }
        let viewer = this.seat.viewer();
        viewer.register(task.waker());
        if this.pace.as_mut().poll(task).is_ready() {
            let drained = viewer.take(WRITE_BYTES, this.seat.edge.handle.services().clock.uptime());
            if drained.closed {
                this.over = true;
                let close = actix_http::ws::CloseReason {
                    code: actix_http::ws::CloseCode::Policy,
                    description: Some(STALLED.to_owned()),
                };
                let frame = control_frame(Message::Close(Some(close)));
                return Poll::Ready((this.wire == Wire::WebSocket).then_some(Ok(frame)));
            }
            if !drained.updates.is_empty() || drained.synced {
                let now = Instant::now();
                let interval = this.seat.interval.get();
                if !drained.more && !interval.is_zero() {
                    this.pace.as_mut().reset(now + interval);
                }
                this.heartbeat.as_mut().reset(now + HEARTBEAT);
                return Poll::Ready(Some(Ok(this.encode(&drained))));
            }
        }
        if this.heartbeat.as_mut().poll(task).is_ready() {
            this.heartbeat.as_mut().reset(Instant::now() + HEARTBEAT);
            return Poll::Ready(Some(Ok(this.sign_of_life())));
        }
        Poll::Pending
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // The stream is through or the connection is gone: neither has another use.
        if let Some(tie) = &self.seat.tie {
            tie.end();
        }
        if self.seat.has_stalled() {
            self.seat.edge.shared.counters.viewers_stalled.fetch_add(1, Ordering::Relaxed);
            tracing::info!(reason = STALLED, "closed a viewer");
        }
        self.seat.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1_000;

    #[test]
    fn the_query_says_what_to_watch() {
        let wish = Wish::of_query("deviceId=a&deviceId=b%20c&prefix=pump-&interval=100", MOST).ok().unwrap();
        assert_eq!(wish.filter.devices.len(), 2);
        assert_eq!(wish.filter.devices[1].as_str(), "b c");
        assert_eq!((wish.filter.fleet, wish.interval()), (false, Duration::from_millis(100)));
        assert!(wish.conflates());

        let fleet = Wish::of_query("", MOST).ok().unwrap();
        assert!(fleet.filter.fleet && fleet.conflates());
        assert!(!Wish::of_query("deviceId=a", MOST).ok().unwrap().conflates());
    }

    #[test]
    fn one_that_wants_to_hear_seldom_is_not_taken_for_one_that_does_not_read() {
        let wish = Wish::of_query("interval=60000", MOST).ok().unwrap();
        let limits = ViewerLimits::default();
        assert!(limits.stall < MAX_INTERVAL, "else nothing is to be tested");
        assert!(stall(limits, &wish) > MAX_INTERVAL);
    }

    #[test]
    fn bad_wishes_are_refused_by_name() {
        for (query, word) in [
            ("deviceId=", "empty"),
            ("deviceId=a%2Fb", "reserved"),
            ("device=a", "unknown parameter"),
            ("interval=soon", "allowed: 0 to 60000"),
        ] {
            let problem = Wish::of_query(query, MOST).err().unwrap();
            assert!(problem.json().to_string().contains(word), "{query}: {}", problem.json());
        }
        let many = vec!["prefix=x"; MOST + 1].join("&");
        assert!(Wish::of_query(&many, MOST).err().unwrap().json().to_string().contains("viewers.filters"));
        assert!(Wish::of_message(br#"{"watch":{"devices":[]}}"#, MOST).is_err());
        assert!(Wish::of_message(br#"{"watch":{"deviceIds":["a"]},"interval":5}"#, MOST).is_ok());
    }
}
