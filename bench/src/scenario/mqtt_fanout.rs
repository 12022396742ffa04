//! One MQTT publisher, many subscribers of its one topic, QoS 0, at a fixed pace.
//!
//! Each message carries a number: every subscriber must see every number, in order. The topic carries no readings: it is the delivery
//! that is measured, which is the same work for every broker.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::{LOOK_UP, PATIENCE, Run, check_pace, latencies, record};
use crate::conn::{Conn, Progress, SCRATCH_BYTES};
use crate::mqtt::{self, Publish};
use crate::poller::{Poller, Ready};
use crate::reading;

const TOPIC: &str = "bench/fanout";
const KEEP_ALIVE_S: u16 = 600;

/// The shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MqttFanoutLoad {
    /// Clients that subscribe to the topic.
    pub(crate) subscribers: usize,
    /// Messages a second.
    pub(crate) rate: u32,
}

struct Subscriber {
    conn: Conn,
    /// The number of the message that comes next.
    next: u64,
}

/// Connected subscribers, and the publisher.
pub(crate) struct Subscribers {
    load: MqttFanoutLoad,
    poller: Poller,
    subscribers: Vec<Subscriber>,
    publisher: Conn,
    sent_at: Vec<Instant>,
    received: u64,
    latency_us: Histogram<u64>,
}

impl Subscribers {
    /// Connects everyone.
    ///
    /// # Errors
    /// Any refusal.
    pub(crate) fn connect(address: SocketAddr, load: MqttFanoutLoad) -> Result<Self> {
        let poller = Poller::new()?;
        let subscriber = |token| {
            let mut hello = mqtt::connect(&format!("bench-subscriber-{token}"), KEEP_ALIVE_S);
            hello.extend_from_slice(&mqtt::subscribe(TOPIC));
            let conn = Conn::open(address, &poller, token, &hello, |bytes| {
                let Some(connack) = mqtt::connack(bytes)? else { return Ok(None) };
                Ok(mqtt::suback(&bytes[connack..])?.map(|suback| connack + suback))
            });
            Ok(Subscriber { conn: conn.context("subscribing")?, next: 0 })
        };
        let subscribers = (0..load.subscribers).map(subscriber).collect::<Result<Vec<_>>>()?;
        let hello = mqtt::connect("bench-publisher", KEEP_ALIVE_S);
        let publisher = Conn::open(address, &poller, load.subscribers, &hello, mqtt::connack)?;
        let latency_us = latencies()?;
        Ok(Self { load, poller, subscribers, publisher, sent_at: Vec::new(), received: 0, latency_us })
    }

    /// Publishes `messages` messages and waits until every subscriber has all of them.
    ///
    /// # Errors
    /// A closed connection, a message that is missing or out of order.
    pub(crate) fn run(&mut self, messages: u64) -> Result<Run> {
        let deliveries = messages * self.subscribers.len() as u64;
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut ready = Vec::new();
        let mut progress = Progress::new(PATIENCE);
        let start = Instant::now();
        while self.received < deliveries {
            let wake = self.send_due(start, messages)?;
            self.poller.wait_until(wake, &mut ready)?;
            for event in &ready {
                self.on_ready(*event, &mut scratch)?;
                progress.moved();
            }
            let (sent, received) = (self.sent_at.len(), self.received);
            progress.check(|| format!("{sent} of {messages} sent, {received} of {deliveries} deliveries"))?;
        }
        let elapsed = start.elapsed();
        check_pace(messages, self.load.rate, elapsed)?;
        let latency_us = Some(self.latency_us.clone());
        Ok(Run { sent: 0, messages: deliveries, elapsed, latency_us, left_out: 0 })
    }

    /// Sends what is due, and returns when the next is.
    fn send_due(&mut self, start: Instant, messages: u64) -> Result<Instant> {
        loop {
            let number = self.sent_at.len() as u64;
            if number == messages {
                return Ok(Instant::now() + LOOK_UP);
            }
            let due = start + Duration::from_secs_f64(number as f64 / f64::from(self.load.rate));
            if due > Instant::now() {
                return Ok(due);
            }
            let payload = reading::numbered("bench", number);
            let mut publish = Publish::new(TOPIC, payload.as_bytes(), false);
            self.sent_at.push(Instant::now());
            self.publisher.send(&self.poller, publish.bytes(0))?;
        }
    }

    fn on_ready(&mut self, event: Ready, scratch: &mut [u8]) -> Result<()> {
        let Self { subscribers, publisher, poller, sent_at, received, latency_us, .. } = self;
        let Some(Subscriber { conn, next }) = subscribers.get_mut(event.token) else {
            return if event.writable {
                publisher.flush(poller)
            } else {
                publisher.read(scratch, |bytes| Ok(bytes.len()))
            };
        };
        if !event.readable {
            return Ok(());
        }
        conn.read(scratch, |bytes| {
            take(bytes, next, |number| {
                let sent_at = sent_at.get(number as usize).context("a message that was not sent")?;
                record(latency_us, sent_at.elapsed());
                *received += 1;
                Ok(())
            })
        })
    }
}

/// Calls `each` with the number of every message in `bytes`, and returns how many bytes they took. `next` is the number that
/// comes next.
fn take(bytes: &[u8], next: &mut u64, mut each: impl FnMut(u64) -> Result<()>) -> Result<usize> {
    mqtt::packets(bytes, |kind, body| {
        ensure!(kind == mqtt::PUBLISH, "a subscriber got a packet of type {kind}");
        let number = reading::number_of(body).context("a message without a number")?;
        ensure!(number == *next, "a subscriber got message {number} where {next} was next");
        *next += 1;
        each(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_order_or_no_message_is_an_error() {
        let message =
            |number| Publish::new(TOPIC, reading::numbered("bench", number).as_bytes(), false).bytes(0).to_vec();
        let taken = |bytes: &[u8]| {
            let mut seen = Vec::new();
            take(bytes, &mut 3, |number| {
                seen.push(number);
                Ok(())
            })
            .map(|_| seen)
            .map_err(|error| error.to_string())
        };
        assert_eq!(taken(&[message(3), message(4)].concat()), Ok(vec![3, 4]));
        assert_eq!(taken(&message(7)), Err("a subscriber got message 7 where 3 was next".to_owned()));
        assert_eq!(taken(b"\x30\x03\x00\x01t"), Err("a message without a number".to_owned()));
        assert_eq!(taken(b"\xd0\x00"), Err("a subscriber got a packet of type 13".to_owned()));
    }
}
