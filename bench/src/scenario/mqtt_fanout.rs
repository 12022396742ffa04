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
            mqtt::packets(bytes, |kind, body| {
                ensure!(kind == mqtt::PUBLISH, "a subscriber got a packet of type {kind}");
                let number = reading::number_of(body).context("a message without a number")?;
                ensure!(number == *next, "a subscriber got message {number} where {next} was next");
                record(latency_us, sent_at.get(number as usize).context("a message that was not sent")?.elapsed());
                (*next, *received) = (*next + 1, *received + 1);
                Ok(())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::stub;

    /// Subscribers of a broker that sends `unasked` behind each SUBACK.
    fn error_with(unasked: &'static [u8]) -> String {
        let address = stub::serve(move |bytes| {
            let mut answers = Vec::new();
            let used = mqtt::packets(bytes, |kind, _| {
                match kind {
                    1 => answers.extend_from_slice(&[0x20, 2, 0, 0]),
                    8 => answers.extend([&[0x90, 3, 0, 1, 0], unasked].concat()),
                    _ => {}
                }
                Ok(())
            });
            Some((used.ok()?, answers))
        });
        let load = MqttFanoutLoad { subscribers: 2, rate: 1_000 };
        let run = Subscribers::connect(address, load).and_then(|mut all| all.run(10).map(|_| ()));
        format!("{:#}", run.expect_err("a broker that does wrong"))
    }

    #[test]
    fn what_is_out_of_order_or_no_message_is_an_error() {
        let seven = b"\x30\x0b\x00\x01t{\"seq\":7}";
        assert!(error_with(seven).contains("message 7 where 0 was next"), "{}", error_with(seven));
        assert!(error_with(b"\x30\x03\x00\x01t").contains("without a number"));
        assert!(error_with(b"\xd0\x00").contains("packet of type 13"));
    }
}
