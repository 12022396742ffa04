//! One device on its own MQTT connection: one task that polls its link, takes its readings in time, keeps what is not yet
//! acknowledged, and sends it again after a lost connection.
//!
//! Life: wait for its turn → connect → (read, write, match acks) → drain → DISCONNECT. A lost connection goes back to
//! "connect" after a growing, jittered wait; an injected cut goes back at once.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{self, Instant};

use crate::{
    config::Ack,
    device::Device,
    dice::{Dice, Stream},
    faults::{Class, Message, Traffic},
    mqtt_link::{self, Link, LinkError, LinkEvent, Publisher},
    oracle::Oracle,
    schedule::{Schedule, Start},
    shared::{BEHIND, OVERTIME, Shared},
};

/// How long it waits for its DISCONNECT to be written.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a device whose window is full waits for any ack before it takes no more readings.
const STALL: Duration = Duration::from_secs(30);
/// First and longest wait before a new attempt to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// A device on MQTT.
pub(crate) struct MqttDevice {
    shared: Arc<Shared>,
    index: usize,
    topic: String,
    traffic: Traffic,
    schedule: Schedule,
    oracle: Oracle,
    backoff: Dice,
    start: Option<Start>,
    /// No more readings are taken from here on; the last acks are waited for until this time.
    drain_until: Option<Instant>,
    /// When the link last did something.
    progress: Instant,
    /// Waiting to be handed to the link.
    queue: VecDeque<Flight>,
    /// Handed to the link, not yet written: the link writes them in this order.
    handed: VecDeque<Flight>,
    /// Written and not yet acknowledged, with their packet identifiers.
    unacked: Vec<(u16, Flight)>,
    connected: bool,
    was_connected: bool,
}

/// A message on its way.
#[derive(Debug)]
struct Flight {
    message: Message,
    due: Instant,
    /// The first send call.
    sent: Option<Instant>,
}

/// How a connection ended.
enum Ended {
    /// All is said and the DISCONNECT is written, or there was nothing to say.
    Done,
    /// An injected fault.
    Cut,
    /// By the network or the node.
    Lost(LinkError),
}

impl MqttDevice {
    /// The device with this index.
    pub(crate) fn new(shared: Arc<Shared>, index: u64) -> Self {
        let config = &shared.config;
        let device = Device::new(config.seed, index, &config.prefix, false);
        let id = device.id().to_owned();
        Self {
            index: index as usize,
            topic: format!("devices/{id}/metrics"),
            traffic: Traffic::new(device, config.seed, index, config.faults),
            schedule: Schedule::new(config, index),
            oracle: Oracle::new(id),
            backoff: Dice::of(config.seed, index, Stream::Backoff),
            start: None,
            drain_until: None,
            progress: Instant::now(),
            queue: VecDeque::new(),
            handed: VecDeque::new(),
            unacked: Vec::new(),
            connected: false,
            was_connected: false,
            shared,
        }
    }

    /// Runs until every reading is sent and answered, or the swarm is stopped. Returns what the node owes to the device.
    pub(crate) async fn run(mut self) -> Oracle {
        let shared = Arc::clone(&self.shared);
        let ramp = Duration::from_secs_f64(self.index as f64 / f64::from(shared.config.ramp));
        tokio::select! {
            biased;
            () = shared.stopped() => return self.oracle,
            () = time::sleep(ramp) => {}
        }
        let mut wait = BACKOFF.0;
        loop {
            let ended = self.connection().await;
            let was_up = std::mem::take(&mut self.connected);
            if was_up {
                shared.stats.connected.less_one();
            }
            self.take_back();
            match ended {
                Ended::Done => break,
                Ended::Cut => {
                    shared.stats.cut.one();
                    continue;
                }
                Ended::Lost(LinkError(reason)) if was_up => shared.stats.lost.add(&reason, 1),
                Ended::Lost(LinkError(reason)) => shared.stats.connect_failures.add(&reason, 1),
            }
            wait = if was_up { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
            let jittered = wait.mul_f64(self.backoff.range(0.5, 1.5));
            if !self.rest(jittered).await {
                break;
            }
        }
        self.settle()
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self) -> Ended {
        let shared = Arc::clone(&self.shared);
        let (publisher, mut link) = mqtt_link::open(&shared.config, shared.target, self.oracle.id());
        let mut stopped = pin!(shared.stopped());
        // Fused: it also ends, without a start, when the swarm is stopped, and must not be polled after that.
        let mut started = pin!(shared.started().fuse());
        let mut tick = pin!(time::sleep(Duration::ZERO));
        let mut stopping = false;
        loop {
            self.fill(&publisher);
            if self.connected && self.finished() {
                return self.goodbye(&publisher, link).await;
            }
            let mut next = pin!(link.next());
            // The link's call is kept through the ticks: dropping it midway could tear a packet or a connection attempt.
            let event = loop {
                let due = self.wake_at();
                if let Some(due) = due {
                    tick.as_mut().reset(due);
                }
                tokio::select! {
                    event = &mut next => break event,
                    () = &mut tick, if due.is_some() => {
                        let now = Instant::now();
                        if self.drain_until.is_some_and(|until| until <= now) {
                            return Ended::Done;
                        }
                        if self.gives_up_at().is_some_and(|at| at <= now) {
                            self.drain();
                        }
                        self.fill(&publisher);
                        if self.connected && self.finished() {
                            break Ok(LinkEvent::Other);
                        }
                    }
                    Some(start) = &mut started, if self.start.is_none() && !stopping => self.start = Some(start),
                    () = &mut stopped, if !stopping => {
                        stopping = true;
                        if self.drain_until.is_none() {
                            self.drain();
                        }
                        if !self.connected {
                            return Ended::Done;
                        }
                        break Ok(LinkEvent::Other);
                    }
                }
            };
            match event {
                Ok(event) => {
                    if self.on_event(&event) {
                        return Ended::Cut;
                    }
                }
                Err(error) => return Ended::Lost(error),
            }
        }
    }

    /// When something is to do without an event: the next reading if it could be sent now, or the end of all patience.
    fn wake_at(&self) -> Option<Instant> {
        if self.drain_until.is_some() {
            return self.drain_until;
        }
        if !self.connected {
            return None;
        }
        if !self.has_room() {
            return self.gives_up_at();
        }
        let start = self.start?;
        let end = self.shared.config.duration.filter(|_| !self.schedule.is_complete()).unwrap_or_default();
        Some(self.schedule.next(start).map_or(start.at + end, |due| due.at))
    }

    /// When no more readings are taken although some are due: at the end of the run, or when the node answers nothing.
    fn gives_up_at(&self) -> Option<Instant> {
        let start = self.start?;
        let stalled = (!self.has_room()).then(|| self.progress + STALL);
        let over = self.shared.config.duration.map(|duration| start.at + duration + OVERTIME);
        stalled.into_iter().chain(over).min().filter(|_| self.drain_until.is_none())
    }

    fn has_room(&self) -> bool {
        self.queue.is_empty() && self.handed.len() + self.unacked.len() < usize::from(self.shared.config.inflight)
    }

    /// Takes the readings that are due and hands messages to the link, as far as there is room.
    fn fill(&mut self, publisher: &Publisher) {
        if !self.connected {
            return;
        }
        loop {
            self.hand_over(publisher);
            if !self.has_room() || self.drain_until.is_some() {
                return;
            }
            let Some(start) = self.start else { return };
            match self.schedule.next(start) {
                _ if self.over(start) => self.drain(),
                Some(due) if due.at <= Instant::now() => self.take_reading(due.at, due.ts),
                _ => return,
            }
        }
    }

    fn hand_over(&mut self, publisher: &Publisher) {
        while self.handed.len() + self.unacked.len() < usize::from(self.shared.config.inflight) {
            let Some(mut flight) = self.queue.pop_front() else { return };
            let message = &flight.message;
            if !publisher.publish(&self.topic, self.shared.config.ack, message.payload.clone()) {
                self.queue.push_front(flight);
                return;
            }
            if flight.sent.is_none() {
                flight.sent = Some(Instant::now());
                self.shared.stats.count_send(message.class);
                match message.class {
                    Class::Reading | Class::Late => self.shared.sending(self.index, message.seq),
                    Class::Duplicate | Class::Garbage => {}
                }
                if message.class == Class::Reading && flight.due.elapsed() > BEHIND {
                    self.shared.stats.behind.one();
                }
            } else {
                self.shared.stats.resent.one();
            }
            self.handed.push_back(flight);
        }
    }

    fn take_reading(&mut self, due: Instant, ts: i64) {
        self.schedule.advance();
        let (reading, messages) = self.traffic.tick(ts);
        self.oracle.sent(reading.seq, reading.ts, reading.payload);
        self.queue.extend(messages.into_iter().map(|message| Flight { message, due, sent: None }));
    }

    /// Takes no more readings: what is held back goes out now, and the last acks are waited for.
    fn drain(&mut self) {
        let now = Instant::now();
        self.drain_until = Some(now + self.shared.config.drain);
        if let Some(start) = self.start {
            self.shared.stats.missed.add(self.schedule.missed(start, now));
        }
        if let Some(message) = self.traffic.flush() {
            self.queue.push_back(Flight { message, due: now, sent: None });
        }
    }

    fn finished(&self) -> bool {
        self.drain_until.is_some() && self.queue.is_empty() && self.handed.is_empty() && self.unacked.is_empty()
    }

    /// Takes in what happened on the link. True when an injected fault cuts it now.
    fn on_event(&mut self, event: &LinkEvent) -> bool {
        self.progress = Instant::now();
        match *event {
            LinkEvent::Connected => {
                self.connected = true;
                let stats = &self.shared.stats;
                stats.connected.one();
                if self.was_connected { &stats.reconnects } else { &stats.connects }.one();
                self.was_connected = true;
            }
            LinkEvent::Written(id) => return self.written(id),
            LinkEvent::Acked(id, refusal) => self.acked(id, refusal),
            LinkEvent::Disconnected | LinkEvent::Other => {}
        }
        false
    }

    fn written(&mut self, id: u16) -> bool {
        let Some(mut flight) = self.handed.pop_front() else { return false };
        let cut = std::mem::take(&mut flight.message.cut);
        if self.shared.config.ack == Ack::Committed {
            self.unacked.push((id, flight));
        }
        cut
    }

    fn acked(&mut self, id: u16, refusal: Option<&str>) {
        let Some(at) = self.unacked.iter().position(|(unacked, _)| *unacked == id) else { return };
        let (_, Flight { message, due, sent }) = self.unacked.remove(at);
        match refusal {
            Some(reason) => self.shared.stats.count_refusal(message.class, reason),
            None => {
                self.shared.stats.count_ack(message.class, sent.unwrap_or(due), due);
                if message.class != Class::Garbage {
                    self.oracle.acked(message.seq, message.ts);
                }
            }
        }
    }

    /// After a connection's end: what has no answer is to be sent again, in its old order. Garbage is not: a node may answer
    /// it by closing the connection.
    fn take_back(&mut self) {
        let open = self.unacked.drain(..).map(|(_, flight)| flight).chain(self.handed.drain(..));
        let mut again: VecDeque<Flight> = open.filter(|flight| flight.message.class != Class::Garbage).collect();
        again.append(&mut self.queue);
        self.queue = again;
    }

    /// Waits before the next attempt. False when there is nothing to come back for.
    async fn rest(&mut self, wait: Duration) -> bool {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            () = shared.stopped(), if self.drain_until.is_none() => self.drain(),
            () = time::sleep(wait) => {}
        }
        // The readings may have come to their end while there was no connection.
        let start = self.start.or(*shared.start.borrow());
        if self.drain_until.is_none() && start.is_some_and(|start| self.over(start)) {
            self.start = start;
            self.drain();
        }
        self.drain_until.is_none_or(|until| until > Instant::now() && !self.finished())
    }

    /// Whether no more readings are to be taken, whether or not some were due. A device that is done before the run's time
    /// stays connected until then, so that the load of connections does not thin out.
    fn over(&self, start: Start) -> bool {
        let overtime = if self.schedule.next(start).is_some() { OVERTIME } else { Duration::ZERO };
        self.schedule.is_complete()
            || self.shared.config.duration.is_some_and(|most| start.at.elapsed() >= most + overtime)
    }

    /// Asks for a DISCONNECT and waits until it is written.
    async fn goodbye(&mut self, publisher: &Publisher, mut link: Link) -> Ended {
        if publisher.disconnect() {
            let written = async { while !matches!(link.next().await, Ok(LinkEvent::Disconnected) | Err(_)) {} };
            // Nothing depends on it: every reading is answered.
            let _ = time::timeout(GOODBYE, written).await;
        }
        Ended::Done
    }

    /// Counts what was never answered.
    fn settle(mut self) -> Oracle {
        self.take_back();
        for flight in &self.queue {
            match flight.sent {
                Some(_) => self.shared.stats.count_failure(flight.message.class, "no ack at the end"),
                None if matches!(flight.message.class, Class::Reading | Class::Late) => self.shared.stats.missed.one(),
                None => {}
            }
        }
        self.oracle
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{
        config::{FieldCheck, SwarmConfig},
        faults::FaultPlan,
        oracle::Fault,
        stats::Stats,
    };

    /// A connected device whose first second of readings, one every 10 ms, is due, and its link, which is never polled.
    fn device(faults: FaultPlan) -> (MqttDevice, Publisher, Link) {
        let interval = Duration::from_millis(10);
        let config = SwarmConfig { inflight: 4, readings: Some(100), interval, faults, ..SwarmConfig::new(1) };
        let target = ([127, 0, 0, 1], 1).into();
        let start = watch::channel(None).1;
        let stop = watch::channel(false).1;
        let shared = Shared { config, target, stats: Stats::default(), start, stop, send_times: None };
        let mut device = MqttDevice::new(Arc::new(shared), 0);
        let (publisher, link) = mqtt_link::open(&device.shared.config, target, "d");
        device.on_event(&LinkEvent::Connected);
        device.start = Some(Start { at: Instant::now() - Duration::from_secs(1), wall: 1_000 });
        device.fill(&publisher);
        (device, publisher, link)
    }

    /// A fresh link: nobody polls the first one, so it stays full.
    fn relink(device: &MqttDevice) -> (Publisher, Link) {
        mqtt_link::open(&device.shared.config, device.shared.target, "d")
    }

    fn seqs<'a>(flights: impl IntoIterator<Item = &'a Flight>) -> Vec<u64> {
        flights.into_iter().map(|flight| flight.message.seq).collect()
    }

    #[test]
    fn the_window_bounds_what_is_on_its_way_and_an_ack_opens_it() {
        let (mut device, publisher, _link) = device(FaultPlan::default());
        assert_eq!((seqs(&device.handed), device.shared.stats.sent.get()), (vec![1, 2, 3, 4], 4));
        for id in 1..=4 {
            device.on_event(&LinkEvent::Written(id));
        }
        device.fill(&publisher);
        assert_eq!((device.handed.len(), device.unacked.len()), (0, 4));
        // Acks need not come in order.
        device.on_event(&LinkEvent::Acked(3, None));
        device.on_event(&LinkEvent::Acked(3, None));
        let (publisher, _link) = relink(&device);
        device.fill(&publisher);
        assert_eq!(
            (seqs(&device.handed), seqs(device.unacked.iter().map(|(_, flight)| flight))),
            (vec![5], vec![1, 2, 4])
        );
        assert_eq!((device.shared.stats.acked.get(), device.oracle.acked_seq()), (1, Some(3)));
    }

    #[test]
    fn what_is_refused_is_counted_and_not_owed() {
        let (mut device, ..) = device(FaultPlan::default());
        device.on_event(&LinkEvent::Written(1));
        device.on_event(&LinkEvent::Written(2));
        device.on_event(&LinkEvent::Acked(1, None));
        device.on_event(&LinkEvent::Acked(2, Some("puback 0x97 quota exceeded")));
        let stats = &device.shared.stats;
        assert_eq!((stats.acked.get(), stats.failed.get()["puback 0x97 quota exceeded"]), (1, 1));
        assert_eq!(device.oracle.check(None, FieldCheck::Exact), Some(Fault::Missing { acked: 1 }));
    }

    #[test]
    fn after_a_lost_connection_the_unanswered_goes_again_in_its_old_order_but_garbage_does_not() {
        let (mut device, publisher, _link) = device(FaultPlan { garbage: 1.0, ..FaultPlan::default() });
        assert_eq!(seqs(&device.handed), [1, 0, 2, 0]);
        for id in 1..=3 {
            device.on_event(&LinkEvent::Written(id));
        }
        device.take_back();
        assert_eq!(seqs(&device.queue), [1, 2]);
        // A full link loses nothing.
        device.fill(&publisher);
        assert_eq!((seqs(&device.queue), device.shared.stats.resent.get()), (vec![1, 2], 0));
        let (publisher, _link) = relink(&device);
        device.fill(&publisher);
        assert_eq!((seqs(&device.handed), device.shared.stats.resent.get()), (vec![1, 2, 3, 0], 2));
    }

    #[test]
    fn an_injected_cut_strikes_once_the_reading_is_written_and_only_once() {
        let (mut device, publisher, _link) = device(FaultPlan { disconnect: 1.0, ..FaultPlan::default() });
        assert!(device.on_event(&LinkEvent::Written(1)));
        device.take_back();
        assert_eq!(seqs(&device.queue), [1, 2, 3, 4]);
        assert_eq!(device.queue.iter().map(|flight| flight.message.cut).collect::<Vec<_>>(), [false, true, true, true]);
        drop(publisher);
    }

    #[test]
    fn what_never_went_out_is_missed_and_what_was_never_answered_has_failed() {
        let (mut device, ..) = device(FaultPlan::default());
        device.on_event(&LinkEvent::Written(1));
        device.drain();
        let shared = Arc::clone(&device.shared);
        device.settle();
        let failed: u64 = shared.stats.failed.get().values().sum();
        // Four were sent; what was due within the second was not all taken.
        assert_eq!((shared.stats.sent.get(), failed), (4, 4));
        assert!((95..=96).contains(&shared.stats.missed.get()), "{}", shared.stats.missed.get());
    }
}
