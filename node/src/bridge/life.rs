//! The life of a bridge: connect, subscribe, take messages and acknowledge them, and again after a pause when that ends.
//!
//! One task a bridge, on the bridges' own thread. It stops reading while too much is under way, and pings all the same, so that
//! a node whose disk is full for an hour is not taken for dead. What it knows of messages is in [`Flow`], which outlives connections.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
use tidegate_actors::{clock::Clock, limits, placement, submission::Answer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    BrokerUrl,
    flow::{Arrival, Flow, What},
    packets::{self, Decoded, Incoming, Outgoing},
    status::Status,
    transport::{self, Stream},
};
use crate::config::{Bridge, Version};

/// What the node wants of its bridges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    Run,
    /// Take nothing in any more; acknowledge what is answered.
    Drain,
    /// Say goodbye.
    Stop,
}

/// What a bridge's task needs.
pub(super) struct Life {
    pub(super) bridge: Arc<Bridge>,
    pub(super) url: BrokerUrl,
    pub(super) status: Arc<Status>,
    pub(super) clock: Arc<dyn Clock>,
    /// The loops' ends, by loop. None of them is ever full: they hold more than may be under way.
    pub(super) loops: Vec<mpsc::Sender<Arrival>>,
    pub(super) answers: mpsc::Receiver<(u32, Answer)>,
    pub(super) phase: watch::Receiver<Phase>,
}

/// How often readings that were refused at a limit are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A connection that lasted so long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(5);
/// Bytes that are read ahead of what is taken in, beside one whole packet.
const READ_AHEAD: usize = 64 * 1024;

/// Bytes that one read takes at most.
const READ_AT_ONCE: usize = 16 * 1024;

/// Why a connection ended.
enum End {
    /// The node stops.
    Told,
    Failed(String),
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// A connection that the broker has accepted.
struct Link {
    stream: Box<dyn Stream>,
    /// What came in and is not taken yet.
    bytes: BytesMut,
    /// Bytes of a message that is too large, still to be passed over.
    skip: usize,
    out: BytesMut,
    keep_alive: Option<Duration>,
    /// When the broker gets a ping if nothing else goes out, and since when it owes an answer.
    ping_at: Instant,
    pinged: Option<Instant>,
}

impl Life {
    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        let mut flow = Flow::new(Arc::clone(&self.bridge), Arc::clone(&self.status));
        let mut pause = limits::BRIDGE_RETRY_FIRST;
        let mut last = String::new();
        while *self.phase.borrow() == Phase::Run {
            let began = Instant::now();
            let End::Failed(reason) = self.one_connection(&mut flow).await else { break };
            let was_up = self.status.is_connected();
            self.status.disconnected(reason.clone(), self.clock.now());
            if was_up && began.elapsed() >= GOOD {
                pause = limits::BRIDGE_RETRY_FIRST;
            }
            let wait = with_chance(pause);
            // The same trouble again and again is one line.
            if was_up || reason != last {
                tracing::warn!(bridge = %self.bridge.name, retry_ms = wait.as_millis(), "a bridge has no connection: {reason}");
            }
            last = reason;
            pause = (pause * 2).min(limits::BRIDGE_RETRY_MOST);
            self.rest(&mut flow, wait).await;
        }
    }

    /// Waits, and lets answers come in meanwhile.
    async fn rest(&mut self, flow: &mut Flow, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                Some((token, answer)) = self.answers.recv() => flow.on_answer(token, answer),
                changed = self.phase.changed() => if changed.is_err() || *self.phase.borrow() != Phase::Run { return },
            }
        }
    }

    async fn one_connection(&mut self, flow: &mut Flow) -> End {
        let opened = timeout(limits::BRIDGE_TIMEOUT, self.open()).await;
        let opened =
            opened.unwrap_or_else(|_| Err(format!("{} did not answer within {:?}", self.url, limits::BRIDGE_TIMEOUT)));
        let (mut link, resumed) = match opened {
            Ok(opened) => opened,
            Err(reason) => return End::Failed(reason),
        };
        flow.connected(resumed);
        match self.serve(flow, &mut link, resumed).await {
            Err(end) => end,
            Ok(()) => End::Told,
        }
    }

    /// Connects and waits for the CONNACK. Returns whether the broker has kept the session.
    async fn open(&self) -> Result<(Link, bool), String> {
        let mut stream = transport::connect(&self.bridge, &self.url).await?;
        let (mut bytes, mut out) = (BytesMut::new(), BytesMut::new());
        packets::connect(&self.bridge, &mut out)?;
        stream.write_all_buf(&mut out).await.map_err(|error| format!("cannot write to {}: {error}", self.url))?;
        loop {
            match packets::decode(self.bridge.version, &mut bytes)? {
                Decoded::Packet(Incoming::Connected { session_present, keep_alive }) => {
                    let own = self.bridge.keep_alive;
                    let keep_alive = keep_alive.map_or(own, |seconds| Duration::from_secs(seconds.into()));
                    let keep_alive = Some(keep_alive).filter(|time| !time.is_zero());
                    let ping_at = Instant::now() + keep_alive.unwrap_or_default();
                    return Ok((
                        Link { stream, bytes, skip: 0, out, keep_alive, ping_at, pinged: None },
                        session_present,
                    ));
                }
                Decoded::Packet(Incoming::Refused(reason)) => {
                    return Err(format!("{} refuses the connection: {reason}", self.url));
                }
                Decoded::Packet(_) | Decoded::Oversized { .. } => {
                    return Err(format!("{} does not answer a CONNECT with a CONNACK", self.url));
                }
                Decoded::Incomplete => match stream.read_buf(&mut bytes).await {
                    Ok(0) => return Err(format!("{} closed the connection instead of accepting it", self.url)),
                    Ok(_) => {}
                    Err(error) => return Err(format!("cannot read from {}: {error}", self.url)),
                },
            }
        }
    }

    /// Serves a connection. `Ok`: the node stops.
    async fn serve(&mut self, flow: &mut Flow, link: &mut Link, resumed: bool) -> Result<(), End> {
        // A session that the broker has kept has its subscriptions, if this run of the node made them: retained messages would
        // come once more. Another run may have had another configuration.
        if resumed && self.status.has_subscribed() {
            self.up();
        } else {
            packets::subscribe(&self.bridge, &mut link.out)?;
        }
        let mut ended = false;
        let mut again_at = None;
        loop {
            while !ended && flow.has_room() {
                let Some(packet) = link.next(self.bridge.version)? else { break };
                self.on_packet(flow, link, packet)?;
            }
            self.hand_over(flow);
            for packet in flow.take_packets() {
                packets::encode(packet, &mut link.out);
            }
            link.flush().await?;
            let phase = *self.phase.borrow();
            if phase == Phase::Stop || phase == Phase::Drain && flow.is_idle() {
                return self.goodbye(flow, link).await;
            }
            ended = phase != Phase::Run;
            again_at = again_at
                .filter(|_| flow.has_refused())
                .or_else(|| flow.has_refused().then(|| Instant::now() + TRY_AGAIN));
            link.bytes.reserve(READ_AT_ONCE);
            let reads = !ended && flow.has_room() && link.bytes.len() < limits::MQTT_PACKET_BYTES + READ_AHEAD;
            tokio::select! {
                answer = self.answers.recv() => {
                    let Some((token, answer)) = answer else { return Ok(()) };
                    flow.on_answer(token, answer);
                    self.take_answers(flow);
                }
                read = link.stream.read_buf(&mut link.bytes), if reads => match read {
                    Ok(0) => return Err(format!("{} closed the connection", self.url).into()),
                    Ok(_) => link.pinged = None,
                    Err(error) => return Err(format!("cannot read from {}: {error}", self.url).into()),
                },
                () = sleep_until(link.ping_at), if link.keep_alive.is_some() => link.ping(reads, &self.url)?,
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => flow.try_again(),
                changed = self.phase.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    fn up(&self) {
        self.status.connected(self.clock.now());
        tracing::info!(bridge = %self.bridge.name, url = %self.url, "a bridge is connected");
    }

    fn on_packet(&self, flow: &mut Flow, link: &mut Link, packet: Decoded) -> Result<(), End> {
        match packet {
            Decoded::Packet(Incoming::Publish(publish)) => flow.on_publish(&publish, self.clock.now()),
            Decoded::Packet(Incoming::Release(packet_id)) => flow.on_release(packet_id),
            Decoded::Packet(Incoming::Subscribed(answers)) => self.on_subscribed(&answers)?,
            Decoded::Packet(Incoming::Disconnect(reason)) => {
                return Err(format!("{} closed the connection: {reason}", self.url).into());
            }
            Decoded::Packet(_) | Decoded::Incomplete => {}
            Decoded::Oversized { publish, bytes } => {
                flow.on_oversized(&publish, bytes);
                link.skip = bytes;
            }
        }
        Ok(())
    }

    /// A filter that is refused is told, and the others serve; without any the connection is of no use.
    fn on_subscribed(&self, answers: &[Option<String>]) -> Result<(), End> {
        let filters = self.bridge.subscriptions.iter().filter_map(|one| one.filter.as_ref());
        let refused: Vec<_> =
            filters.zip(answers).filter_map(|(filter, answer)| Some((filter.subscribed(), answer.as_ref()?))).collect();
        let mut words = None;
        for (filter, reason) in &refused {
            tracing::warn!(bridge = %self.bridge.name, filter, "a broker refuses a subscription: {reason}");
            words.get_or_insert_with(|| format!("{} refuses the subscription to {filter}: {reason}", self.url));
        }
        match words {
            Some(words) if refused.len() == answers.len() => Err(End::Failed(words)),
            words => {
                self.status.subscribed();
                self.up();
                if let Some(words) = words {
                    self.status.complain(words, self.clock.now());
                }
                Ok(())
            }
        }
    }

    /// Gives the loops their readings.
    fn hand_over(&self, flow: &mut Flow) {
        let loops = u16::try_from(self.loops.len()).unwrap_or(u16::MAX);
        for arrival in flow.take_arrivals() {
            let device = match &arrival.what {
                What::Reading(reading) => Some(&reading.device),
                What::Refused(_, device) => device.as_ref(),
            };
            let at = device.map_or(0, |device| placement::owner(device.as_str(), loops).index());
            let Some(to) = self.loops.get(at) else { continue };
            // Only a loop that has ended takes nothing, and then the node is about to end.
            if to.try_send(arrival).is_err() {
                tracing::error!(bridge = %self.bridge.name, "a bridge cannot hand over a reading: it stays unacknowledged");
            }
        }
    }

    fn take_answers(&mut self, flow: &mut Flow) {
        while let Ok((token, answer)) = self.answers.try_recv() {
            flow.on_answer(token, answer);
        }
    }

    /// The last acknowledgements, and a DISCONNECT.
    async fn goodbye(&mut self, flow: &mut Flow, link: &mut Link) -> Result<(), End> {
        self.take_answers(flow);
        flow.take_packets().into_iter().for_each(|packet| packets::encode(packet, &mut link.out));
        packets::encode(Outgoing::Disconnect, &mut link.out);
        link.flush().await?;
        let _ = link.stream.shutdown().await;
        self.status.disconnected("the node is stopping".to_owned(), self.clock.now());
        Ok(())
    }
}

impl Link {
    /// The next packet, once it is whole.
    fn next(&mut self, version: Version) -> Result<Option<Decoded>, String> {
        let passed = self.skip.min(self.bytes.len());
        self.bytes.advance(passed);
        self.skip -= passed;
        if self.skip > 0 {
            return Ok(None);
        }
        // What a broker sends may find a defect of the decoder: that costs the connection, not the bridge.
        let bytes = &mut self.bytes;
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| packets::decode(version, bytes)));
        match decoded
            .unwrap_or_else(|_| Err("the broker sent what cannot be decoded (a panic, see the log)".to_owned()))?
        {
            Decoded::Incomplete => Ok(None),
            packet => Ok(Some(packet)),
        }
    }

    async fn flush(&mut self) -> Result<(), String> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all_buf(&mut self.out).await?;
            self.stream.flush().await
        };
        match timeout(limits::BRIDGE_TIMEOUT, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("cannot write to the broker: {error}")),
            Err(_) => return Err(format!("the broker took nothing for {:?}", limits::BRIDGE_TIMEOUT)),
        }
        // While a ping is not answered its own time counts.
        if self.pinged.is_none() {
            self.ping_at = Instant::now() + self.keep_alive.unwrap_or_default() / 4 * 3;
        }
        Ok(())
    }

    /// Sends a ping, and looks whether the last one was answered: that can be seen only while the socket is read.
    fn ping(&mut self, reads: bool, url: &BrokerUrl) -> Result<(), String> {
        let now = Instant::now();
        match self.pinged {
            Some(since) if reads && now.duration_since(since) >= limits::BRIDGE_TIMEOUT => {
                return Err(format!("{url} did not answer a ping within {:?}", limits::BRIDGE_TIMEOUT));
            }
            Some(_) if !reads => self.pinged = Some(now),
            Some(_) => {}
            None => self.pinged = Some(now),
        }
        packets::encode(Outgoing::Ping, &mut self.out);
        self.ping_at = now + limits::BRIDGE_TIMEOUT;
        Ok(())
    }
}

/// Between half of the pause and the whole: bridges that lost the same broker do not come back all at once.
fn with_chance(pause: Duration) -> Duration {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hasher has random keys.
    let chance = std::hash::RandomState::new().build_hasher().finish() % 1_000;
    pause / 2 + pause / 2 * u32::try_from(chance).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_have_chance_in_them() {
        let second = Duration::from_secs(1);
        let pauses: Vec<_> = (0..100).map(|_| with_chance(second)).collect();
        assert!(pauses.iter().all(|pause| (second / 2..=second).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
