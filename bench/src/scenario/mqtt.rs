//! Publishers over MQTT 3.1.1, each its own device or a gateway of some, with QoS 0 or 1, and at most one subscriber to all.
//!
//! QoS 0 has no acknowledgement: a PINGREQ behind the messages tells by its PINGRESP that the server has read them, which
//! both bounds what is outstanding and ends the run.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

use super::{LOOK_UP, PATIENCE, Run, check_pace, latencies, record};
use crate::conn::{Conn, Progress, SCRATCH_BYTES};
use crate::mqtt::{self, Publish};
use crate::poller::{Poller, Ready};
use crate::reading;

const KEEP_ALIVE_S: u16 = 600;

/// Messages that the subscriber may lag behind the publishers: below every server's limit for a slow reader.
const SUBSCRIBER_LAG: u64 = 512;

/// The shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MqttLoad {
    /// Connections.
    pub(crate) publishers: usize,
    /// Devices that they report for, in turn: as many as publishers, or more, a like share each.
    pub(crate) devices: usize,
    /// QoS 1 instead of 0.
    pub(crate) with_ack: bool,
    /// Whether a further client subscribes to `devices/+/metrics`.
    pub(crate) subscriber: bool,
    /// Messages a second over all publishers, evenly spread; `None`: as fast as the server confirms.
    pub(crate) rate: Option<u32>,
    /// Messages in one write of a publisher (flat-out only).
    pub(crate) burst: usize,
    /// Unconfirmed messages of a publisher (flat-out only).
    pub(crate) window: usize,
}

/// Where the device's number stands in a topic.
const NUMBER_AT: usize = "devices/bench-".len();

/// The id of a device by its number.
pub(crate) fn device_id(number: usize) -> String {
    format!("bench-{number:06}")
}

struct Publisher {
    conn: Conn,
    packets: Vec<Publish>,
    /// Its devices are every `stride`-th one from its own number on; `turn` is the one whose turn it is.
    number: usize,
    stride: usize,
    share: usize,
    turn: usize,
    /// Messages still to send.
    left: u64,
    /// QoS 1: when each unacknowledged message went out. Acks come in order (MQTT 3.1.1, 4.6).
    unacked: VecDeque<(u16, Instant)>,
    next_id: u16,
    /// QoS 0: how many messages each unanswered PINGREQ stands behind.
    pings: VecDeque<usize>,
    since_ping: usize,
    unconfirmed: usize,
}

/// Connected publishers.
pub(crate) struct Swarm {
    load: MqttLoad,
    poller: Poller,
    publishers: Vec<Publisher>,
    subscriber: Option<Conn>,
    received: u64,
    confirmed: u64,
    latency_us: Histogram<u64>,
    outgoing: Vec<u8>,
}

impl Swarm {
    /// Connects everyone.
    ///
    /// # Errors
    /// Any refusal.
    pub(crate) fn connect(address: SocketAddr, load: MqttLoad) -> Result<Self> {
        let poller = Poller::new()?;
        ensure!(load.devices >= load.publishers && load.devices <= 1_000_000, "{} devices", load.devices);
        let mut publishers = Vec::with_capacity(load.publishers);
        for device in 0..load.publishers {
            let id = device_id(device);
            let topic = format!("devices/{id}/metrics");
            let packets = (0..reading::VARIANTS)
                .map(|variant| Publish::new(&topic, reading::mqtt(device, variant).as_bytes(), load.with_ack));
            publishers.push(Publisher {
                conn: Conn::open(address, &poller, device, &mqtt::connect(&id, KEEP_ALIVE_S), mqtt::connack)?,
                packets: packets.collect(),
                number: device,
                stride: load.publishers,
                share: load.devices / load.publishers,
                turn: 0,
                left: 0,
                unacked: VecDeque::new(),
                next_id: 1,
                pings: VecDeque::new(),
                since_ping: 0,
                unconfirmed: 0,
            });
        }
        let subscriber = load.subscriber.then(|| subscribe(address, &poller, load.publishers)).transpose()?;
        let (latency_us, outgoing) = (latencies()?, Vec::new());
        Ok(Self { load, poller, publishers, subscriber, received: 0, confirmed: 0, latency_us, outgoing })
    }

    /// Sends `messages` (rounded down to a multiple of the publishers) and waits until all are accounted for.
    ///
    /// # Errors
    /// A closed connection, an ack out of order, a message that never arrives.
    pub(crate) fn run(&mut self, messages: u64) -> Result<Run> {
        let each = messages / self.publishers.len() as u64;
        let messages = each * self.publishers.len() as u64;
        self.publishers.iter_mut().for_each(|publisher| publisher.left = each);
        (self.received, self.confirmed) = (0, 0);
        self.latency_us.reset();

        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut ready = Vec::new();
        let mut progress = Progress::new(PATIENCE);
        let mut sent = 0;
        let start = Instant::now();
        while self.confirmed < messages || (self.subscriber.is_some() && self.received < messages) {
            let wake = match self.load.rate {
                Some(rate) => self.send_due(start, rate, messages, &mut sent)?,
                None => self.send_allowed(&mut sent)?,
            };
            self.poller.wait_until(wake, &mut ready)?;
            for event in &ready {
                self.on_ready(*event, &mut scratch)?;
                progress.moved();
            }
            let (confirmed, received) = (self.confirmed, self.received);
            progress.check(|| {
                format!("{sent} of {messages} sent, {confirmed} confirmed, {received} received by the subscriber")
            })?;
        }
        let elapsed = start.elapsed();
        ensure!(self.received <= messages, "the subscriber got {} of {messages} messages", self.received);
        if let Some(rate) = self.load.rate {
            check_pace(messages, rate, elapsed)?;
        }
        let latency_us = self.load.with_ack.then(|| self.latency_us.clone());
        Ok(Run { sent: messages, messages, elapsed, latency_us, left_out: 0 })
    }

    /// Sends what the schedule says is due and returns when the next is.
    fn send_due(&mut self, start: Instant, rate: u32, messages: u64, sent: &mut u64) -> Result<Instant> {
        let gap_s = 1.0 / f64::from(rate);
        loop {
            if *sent == messages {
                return Ok(Instant::now() + LOOK_UP);
            }
            let due = start + Duration::from_secs_f64(*sent as f64 * gap_s);
            if due > Instant::now() {
                return Ok(due);
            }
            let index = (*sent % self.publishers.len() as u64) as usize;
            self.publishers[index].send(&self.poller, &mut self.outgoing, self.load.with_ack, 1, usize::MAX)?;
            *sent += 1;
        }
    }

    /// One round over the publishers that may send, and when to look again: at once if somebody still may.
    fn send_allowed(&mut self, sent: &mut u64) -> Result<Instant> {
        let load = self.load;
        let mut more = false;
        for publisher in &mut self.publishers {
            let lags = load.subscriber && *sent >= self.received + SUBSCRIBER_LAG;
            if lags || !publisher.may_send(load.window, load.burst) {
                continue;
            }
            *sent +=
                publisher.send(&self.poller, &mut self.outgoing, load.with_ack, load.burst, load.window / 2)? as u64;
            more |= publisher.may_send(load.window, load.burst);
        }
        Ok(if more { Instant::now() } else { Instant::now() + LOOK_UP })
    }

    fn on_ready(&mut self, event: Ready, scratch: &mut [u8]) -> Result<()> {
        let Some(publisher) = self.publishers.get_mut(event.token) else {
            return self.on_subscriber_ready(event, scratch);
        };
        if event.writable {
            publisher.conn.flush(&self.poller)?;
        }
        if event.readable {
            let Publisher { conn, unacked, pings, unconfirmed, .. } = publisher;
            let (confirmed, latency_us) = (&mut self.confirmed, &mut self.latency_us);
            conn.read(scratch, |bytes| {
                mqtt::packets(bytes, |kind, body| {
                    let count = match kind {
                        mqtt::PUBACK => on_puback(unacked, body, latency_us)?,
                        mqtt::PINGRESP => pings.pop_front().context("a PINGRESP that nobody asked for")?,
                        other => bail!("a publisher got a packet of type {other}"),
                    };
                    *unconfirmed -= count;
                    *confirmed += count as u64;
                    Ok(())
                })
            })?;
        }
        Ok(())
    }

    fn on_subscriber_ready(&mut self, event: Ready, scratch: &mut [u8]) -> Result<()> {
        let Some(conn) = &mut self.subscriber else { return Ok(()) };
        if event.readable {
            let received = &mut self.received;
            conn.read(scratch, |bytes| {
                mqtt::packets(bytes, |kind, _| {
                    ensure!(kind == mqtt::PUBLISH, "the subscriber got a packet of type {kind}");
                    *received += 1;
                    Ok(())
                })
            })?;
        }
        Ok(())
    }
}

impl Publisher {
    fn may_send(&self, window: usize, burst: usize) -> bool {
        self.left > 0 && self.unconfirmed + burst <= window.max(burst) && !self.conn.is_backed_up()
    }

    /// Sends up to `burst` messages in one write, and for QoS 0 a PINGREQ after every `ping_every` messages and after the
    /// last. Returns how many messages went out.
    fn send(
        &mut self,
        poller: &Poller,
        outgoing: &mut Vec<u8>,
        with_ack: bool,
        burst: usize,
        ping_every: usize,
    ) -> Result<usize> {
        let count = burst.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        outgoing.clear();
        for _ in 0..count {
            let variant = (self.left % self.packets.len() as u64) as usize;
            let packet = &mut self.packets[variant];
            if self.share > 1 {
                packet.overwrite_topic(NUMBER_AT, &six_digits(self.number + self.stride * self.turn));
                self.turn = (self.turn + 1) % self.share;
            }
            outgoing.extend_from_slice(packet.bytes(self.next_id));
            if with_ack {
                self.unacked.push_back((self.next_id, Instant::now()));
                self.next_id = if self.next_id == u16::MAX { 1 } else { self.next_id + 1 };
            }
            self.left -= 1;
        }
        self.unconfirmed += count;
        self.conn.send(poller, outgoing)?;
        self.since_ping += count;
        if !with_ack && (self.since_ping >= ping_every || self.left == 0) {
            self.pings.push_back(std::mem::take(&mut self.since_ping));
            self.conn.send(poller, &mqtt::PINGREQ)?;
        }
        Ok(count)
    }
}

fn six_digits(mut number: usize) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    digits
}

fn on_puback(unacked: &mut VecDeque<(u16, Instant)>, body: &[u8], latency_us: &mut Histogram<u64>) -> Result<usize> {
    let (id, sent_at) = unacked.pop_front().context("a PUBACK that nobody waits for")?;
    ensure!(body.get(..2) == Some(&id.to_be_bytes()[..]), "a PUBACK for {body:?} where {id} was next");
    record(latency_us, sent_at.elapsed());
    Ok(1)
}

fn subscribe(address: SocketAddr, poller: &Poller, token: usize) -> Result<Conn> {
    let mut hello = mqtt::connect("bench-subscriber", KEEP_ALIVE_S);
    hello.extend_from_slice(&mqtt::subscribe("devices/+/metrics"));
    Conn::open(address, poller, token, &hello, |bytes| {
        let Some(connack) = mqtt::connack(bytes)? else { return Ok(None) };
        Ok(mqtt::suback(&bytes[connack..])?.map(|suback| connack + suback))
    })
    .context("subscribing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::stub;

    const LOAD: MqttLoad =
        MqttLoad { publishers: 3, devices: 3, with_ack: false, subscriber: false, rate: None, burst: 1, window: 8 };

    /// Runs 300 messages against a broker that answers each packet with what `reply` makes of its type and body.
    fn check(load: MqttLoad, reply: fn(u8, &[u8]) -> Option<Vec<u8>>) -> Result<Run> {
        let address = stub::serve(move |bytes| {
            let mut answers = Vec::new();
            let used = mqtt::packets(bytes, |kind, body| {
                answers.extend(reply(kind, body).context("closed")?);
                Ok(())
            });
            Some((used.ok()?, answers))
        });
        Swarm::connect(address, load)?.run(300)
    }

    fn good(kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        Some(match kind {
            1 => vec![0x20, 2, 0, 0],
            12 => vec![0xD0, 0],
            mqtt::PUBLISH if body.windows(2).any(|pair| pair == b"s{") => Vec::new(),
            mqtt::PUBLISH => vec![0x40, 2, body[body.len() - payload_length(body) - 2], id_low(body)],
            _ => return None,
        })
    }

    fn payload_length(body: &[u8]) -> usize {
        body.len() - body.iter().position(|&byte| byte == b'{').expect("a JSON payload")
    }

    fn id_low(body: &[u8]) -> u8 {
        body[body.len() - payload_length(body) - 1]
    }

    #[test]
    fn every_message_is_confirmed_with_and_without_acks() {
        let loads = [
            LOAD,
            MqttLoad { burst: 4, ..LOAD },
            MqttLoad { rate: Some(10_000), ..LOAD },
            MqttLoad { with_ack: true, ..LOAD },
        ];
        for load in loads {
            let run = check(load, good).expect("a good broker");
            assert_eq!(run.messages, 300);
            assert_eq!(run.latency_us.map(|latency_us| latency_us.len()), load.with_ack.then_some(300));
        }
    }

    #[test]
    fn a_gateway_reports_for_each_of_its_devices_in_turn() {
        let address = stub::serve(|bytes| {
            let mut answers = Vec::new();
            let used = mqtt::packets(bytes, |kind, body| {
                if kind == mqtt::PUBLISH {
                    let topic = String::from_utf8(body[2..2 + "devices/bench-000000/metrics".len()].to_vec())?;
                    let mut seen = SEEN.lock().expect("no panic");
                    *seen.entry(topic).or_insert(0) += 1;
                }
                answers.extend(good(kind, body).context("closed")?);
                Ok(())
            });
            Some((used.ok()?, answers))
        });
        static SEEN: std::sync::Mutex<std::collections::BTreeMap<String, u32>> =
            std::sync::Mutex::new(std::collections::BTreeMap::new());
        let load = MqttLoad { devices: 150, with_ack: true, ..LOAD };
        Swarm::connect(address, load).and_then(|mut swarm| swarm.run(300)).expect("a good broker");
        let seen = SEEN.lock().expect("no panic");
        assert_eq!(seen.len(), 150);
        assert!(seen.contains_key("devices/bench-000149/metrics") && seen.values().all(|&count| count == 2));
    }

    #[test]
    fn a_broker_that_closes_or_acks_the_wrong_message_fails_the_run() {
        let closes = |kind, body: &[u8]| good(kind, body).filter(|_| kind != 12);
        assert!(check(LOAD, closes).is_err());
        let wrong = |kind, body: &[u8]| {
            let mut answer = good(kind, body)?;
            if kind == mqtt::PUBLISH && id_low(body) == 7 {
                answer[3] = 8;
            }
            Some(answer)
        };
        assert!(check(MqttLoad { with_ack: true, ..LOAD }, wrong).is_err());
    }

    #[test]
    fn a_refused_connect_fails_the_run() {
        assert!(check(LOAD, |_, _| Some(vec![0x20, 2, 0, 5])).is_err());
    }
}
