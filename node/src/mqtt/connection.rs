//! The actor of one MQTT connection. It polls its own socket: bytes go into the read buffer that the loop's connections share,
//! whole packets are handed to the session borrowed, only a partial packet is kept, and everything that is to be written leaves
//! in one write a turn. An idle connection owns no buffer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context as Task, Poll, ready},
};

use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context};
use tidegate_actors::gather;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Sleep,
};

use super::{
    codec,
    connections::{Close, Link},
    encode::{self, Connack, Peer},
    frame::{Framing, count, frame},
    listener::Greeting,
    reason::{CodecError, ReasonCode},
    replay::{self, Waits},
    retaining,
    session::Stop,
    sessions,
};
use crate::{
    auth,
    edge::{EdgeLoop, READ_BUFFER},
    transport::{GOODBYE, Transport, Violation},
};

/// Reads of one connection before it yields its loop.
const READS: usize = 4;

/// One connection. Inbox: its socket, and its [`Link`]; exits: the client leaves, breaks a rule, falls silent, or is taken over.
pub(crate) struct Connection {
    edge: Rc<EdgeLoop>,
    transport: Transport,
    link: Rc<Link>,
    /// The start of a packet whose end has not come.
    #[expect(clippy::box_collection, reason = "an idle connection pays 8 bytes for it, not 24")]
    partial: Option<Box<Vec<u8>>>,
    /// There is something in `partial` that nobody has looked at: it came with the CONNECT.
    has_rest: bool,
    ended: bool,
    /// Bytes in the outgoing buffer that stand in the traffic's counts already: whole packets, but for what was written of the
    /// first.
    counted: usize,
    /// It has ended by what the client sent, who may be sending still.
    drains: bool,
    /// Runs from the goodbye on that the client has not read, or not answered by closing.
    goodbye: Option<Pin<Box<Sleep>>>,
}

/// Starts the actor on this loop, which owns the client id.
pub(crate) fn start(edge: &Rc<EdgeLoop>, transport: Transport, greeting: Greeting) {
    let link = match sessions::open(edge, &greeting) {
        Ok(link) => link,
        Err((reason, text)) => return refuse(edge, transport, &greeting, reason, &text),
    };
    let counters = &edge.shared.counters;
    let now = counters.mqtt_connections.fetch_add(1, Ordering::Relaxed) + 1;
    counters.mqtt_most_connections.fetch_max(now, Ordering::Relaxed);
    counters.mqtt_accepted.fetch_add(1, Ordering::Relaxed);
    let connect = &greeting.connect;
    let certificate = greeting.tls.as_deref().map(|tls| &*tls.subject);
    tracing::debug!(client = connect.client_id, peer = %greeting.peer, %transport, certificate, version = ?connect.version, "connected");
    // What came right behind the CONNECT is handled before anything else is read.
    let partial = Some(greeting.rest).filter(|rest| !rest.is_empty()).map(Box::new);
    let edge = Rc::clone(edge);
    let has_rest = partial.is_some();
    Connection { edge, transport, link, has_rest, partial, ended: false, drains: false, counted: 0, goodbye: None }
        .start();
}

/// Says no to a CONNECT.
fn refuse(edge: &EdgeLoop, transport: Transport, greeting: &Greeting, reason: ReasonCode, text: &str) {
    edge.shared.counters.mqtt_refused.fetch_add(1, Ordering::Relaxed);
    let Greeting { connect, peer, .. } = greeting;
    tracing::warn!(%peer, client = connect.client_id, %reason, "refused a CONNECT: {text}");
    let mut out = Vec::new();
    encode::connack(&mut out, &Peer::of(connect), &Connack::refused(reason, text));
    actix_rt::spawn(async move { transport.close_with(out).await });
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Drive);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        sessions::closed(&self.edge, &self.link);
        self.edge.shared.counters.mqtt_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endless future of a connection.
struct Drive;

impl ActorFuture<Connection> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut Connection,
        ctx: &mut Context<Connection>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let turn = catch_unwind(AssertUnwindSafe(|| actor.turn(task)));
        match turn {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                ctx.stop();
                Poll::Ready(())
            }
            Err(_) => {
                // The panic hook has logged the place; only this client pays.
                tracing::error!(client = %actor.link.client_id, "closed: the node failed on what this client sent");
                ctx.stop();
                Poll::Ready(())
            }
        }
    }
}

impl Connection {
    /// Reads, handles, writes. Ready when the connection is over.
    fn turn(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.remember_waker(task);
        if self.transport.is_revoked(self.edge.shared.mqtt_tls.as_ref()) {
            self.link.close(ReasonCode::NOT_AUTHORIZED, "the client's certificate has been revoked (mqtt.tls_crl)");
        }
        if !self.ended
            && let Some(close) = self.link.close.borrow().as_deref().cloned()
        {
            self.ended = true;
            // A stop closes every connection, and says so itself.
            if close.reason != ReasonCode::SERVER_SHUTTING_DOWN {
                tracing::info!(client = %self.link.client_id, reason = %close.reason, "closed: {}", close.text);
            }
            self.say_goodbye(&close);
        }
        if self.link.opening.get() && !self.ended {
            // Its first packet to the client is the CONNACK, which waits for the disk.
            self.link.paused.set(true);
            return Poll::Pending;
        }
        self.link.paused.set(false);
        if std::mem::take(&mut self.has_rest)
            && !self.ended
            && let Err(stop) = self.take(&[])
        {
            self.stop(stop);
        }
        let mut reads = 0;
        let mut full = false;
        while !self.ended {
            // A client that asks and does not read the answers is not asked for more.
            full = self.link.out.borrow().len() > self.edge.shared.settings.mqtt_outbound_bytes;
            if full {
                break;
            }
            // Back-pressure: what the client sends stays in its socket.
            if self.link.is_pressed(self.edge.shared.settings.mqtt_receive_maximum) {
                // Its next PUBACK wakes the connection.
                self.link.paused.set(true);
                break;
            }
            if self.edge.handle.is_pressed()
                || retaining::is_pressed(&self.edge)
                || self.link.session.is_device_pressed(&self.edge)
            {
                self.link.paused.set(true);
                self.edge.handle.pause(task.waker());
                break;
            }
            if reads == READS {
                task.waker().wake_by_ref();
                break;
            }
            reads += 1;
            match self.read(task) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(stop)) => self.stop(stop),
            }
        }
        let waits = if self.ended { Waits::Quiet } else { replay::go_on(&self.edge, &self.link) };
        match self.write(task) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) if self.ended => self.drain(task),
            Poll::Ready(Ok(())) => {
                // Messages that waited for room in the buffer have it now.
                let more = self.link.session.is_behind(&self.link) && self.link.session.pump(&self.edge, &self.link);
                if full || more || waits == Waits::Turn {
                    task.waker().wake_by_ref();
                }
                Poll::Pending
            }
            // A socket that has just come to this loop is not known to be writable yet; one that stays full is not waited for.
            Poll::Pending if self.ended => self.wait_a_little(task),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The goodbye is written: gives a client that was told why the time to read it.
    fn drain(&mut self, task: &mut Task<'_>) -> Poll<()> {
        if !self.drains {
            return Poll::Ready(());
        }
        let mut buffer = self.edge.buffer.take();
        if buffer.is_empty() {
            buffer = vec![0; READ_BUFFER];
        }
        let closed = self.transport.poll_drain(task, &mut buffer);
        self.edge.buffer.set(buffer);
        if closed.is_ready() { closed } else { self.wait_a_little(task) }
    }

    fn wait_a_little(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.goodbye.get_or_insert_with(|| Box::pin(tokio::time::sleep(GOODBYE))).as_mut().poll(task)
    }

    fn remember_waker(&self, task: &Task<'_>) {
        let mut waker = self.link.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|old| old.will_wake(task.waker())) {
            *waker = Some(task.waker().clone());
        }
    }

    fn read(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Stop>> {
        let edge = Rc::clone(&self.edge);
        let mut buffer = edge.buffer.take();
        if buffer.is_empty() {
            // A panic took it along: without a buffer every read of every connection would look like the end of its socket.
            buffer = vec![0; READ_BUFFER];
        }
        let mut read = ReadBuf::new(&mut buffer);
        let result = match Pin::new(&mut self.transport).poll_read(task, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(stop_of(&error))),
            Poll::Ready(Ok(())) if read.filled().is_empty() => Poll::Ready(Err(Stop::Lost)),
            Poll::Ready(Ok(())) => {
                edge.traffic.came_in(0, read.filled().len());
                gather::arrived(1);
                Poll::Ready(self.take(read.filled()))
            }
        };
        edge.buffer.set(buffer);
        result
    }

    /// Handles the whole packets in what has been read, and keeps the rest.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let Some(mut partial) = self.partial.take() else {
            let used = self.packets(bytes)?;
            if used < bytes.len() {
                self.partial = Some(Box::new(bytes[used..].to_vec()));
            }
            return Ok(());
        };
        partial.extend_from_slice(bytes);
        let used = self.packets(&partial)?;
        if used < partial.len() {
            partial.drain(..used);
            self.partial = Some(partial);
        }
        Ok(())
    }

    /// Handles the whole packets at the start of `bytes`; returns how many bytes they were.
    fn packets(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let limit = self.edge.shared.settings.mqtt_packet_bytes;
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match frame(rest, limit).map_err(Stop::Refused)? {
                Framing::Incomplete { .. } => return Ok(used),
                Framing::Complete(found) => {
                    // Packets count, not bytes ([MQTT-3.1.2-22]): one that never ends keeps no connection.
                    self.link.heard.set(self.edge.uptime_ms());
                    let packet = codec::decode(Some(self.link.peer.version), &found, rest).map_err(Stop::Refused)?;
                    self.edge.traffic.came_in(1, 0);
                    self.link.session.on_packet(&self.edge, &self.link, packet)?;
                    used += found.total;
                }
            }
        }
    }

    /// Writes what there is; at the end, the transport's goodbye, too.
    fn write(&mut self, task: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        let written = {
            let mut out = self.link.out.borrow_mut();
            let new = out.get(self.counted..).unwrap_or_default();
            self.edge.traffic.went_out(count(new), new.len());
            let written = self.transport.poll_write(task, &mut out);
            self.counted = out.len();
            written
        };
        ready!(written)?;
        if self.ended { self.transport.poll_close(task) } else { Poll::Ready(Ok(())) }
    }

    fn stop(&mut self, stop: Stop) {
        self.ended = true;
        match stop {
            Stop::Lost => auth::mqtt::lost(&self.edge, &self.link),
            Stop::Left => {}
            Stop::Refused(CodecError { reason, detail, .. }) => {
                self.edge.shared.counters.mqtt_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(client = %self.link.client_id, %reason, "closed: {detail}");
                self.drains = true;
                self.say_goodbye(&Close { reason, text: detail.into_owned() });
            }
        }
    }

    fn say_goodbye(&self, close: &Close) {
        // A client that has had no CONNACK would not understand it.
        if self.link.opening.get() {
            return;
        }
        encode::disconnect(&mut self.link.out.borrow_mut(), &self.link.peer, close.reason, &close.text);
    }
}

/// A socket that fails is lost; frames that a WebSocket may not carry are the client's fault.
fn stop_of(error: &std::io::Error) -> Stop {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Violation>()) {
        Some(Violation { detail, .. }) => Stop::Refused(CodecError::protocol(*detail)),
        None => Stop::Lost,
    }
}
