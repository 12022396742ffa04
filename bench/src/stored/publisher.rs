//! Publishes with QoS 1 as fast as it is acknowledged, over a few connections with a bounded number in flight.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::visits::KEEP_ALIVE_S;
use crate::conn::{Conn, Progress, SCRATCH_BYTES};
use crate::mqtt::{self, Publish};
use crate::poller::Poller;
use crate::scenario::{LOOK_UP, PATIENCE};

const CONNECTIONS: usize = 4;
/// Unacknowledged messages of a connection: half of the node's Receive Maximum.
const WINDOW: u64 = 512;
/// Messages in one write.
const BURST: usize = 64;

/// A connection, and how far it is.
struct Lane {
    conn: Conn,
    sent: u64,
    acked: u64,
}

/// Publishes the messages from 0 to `count` that `message` makes, waits until all are acknowledged, and gives the time that it took.
///
/// # Errors
/// A connection that is refused or closed, an acknowledgement out of order, and a standstill.
pub(crate) fn publish(
    address: SocketAddr,
    count: usize,
    mut message: impl FnMut(usize) -> Publish,
) -> Result<Duration> {
    let mut poller = Poller::new()?;
    let lane = |token| {
        let hello = mqtt::connect(&format!("stored-publisher-{token}"), KEEP_ALIVE_S);
        let conn = Conn::open(address, &poller, token, &hello, mqtt::connack).context("the publisher's CONNECT")?;
        Ok(Lane { conn, sent: 0, acked: 0 })
    };
    let mut lanes = (0..CONNECTIONS).map(lane).collect::<Result<Vec<_>>>()?;
    let mut scratch = vec![0; SCRATCH_BYTES];
    let (mut ready, mut out) = (Vec::new(), Vec::new());
    let mut numbers = 0..count;
    let mut progress = Progress::new(PATIENCE);
    let start = Instant::now();
    loop {
        for Lane { conn, sent, acked } in &mut lanes {
            while !numbers.is_empty() && *sent < *acked + WINDOW && !conn.is_backed_up() {
                let room = (*acked + WINDOW - *sent).min(BURST as u64) as usize;
                for number in numbers.by_ref().take(room) {
                    out.extend_from_slice(message(number).bytes(packet_id(*sent)));
                    *sent += 1;
                }
                conn.send(&poller, &out)?;
                out.clear();
            }
        }
        let acked: u64 = lanes.iter().map(|lane| lane.acked).sum();
        if acked == count as u64 {
            break;
        }
        progress.check(|| format!("{acked} of {count} messages are acknowledged"))?;
        poller.wait_until(Instant::now() + LOOK_UP, &mut ready)?;
        for event in &ready {
            let Some(Lane { conn, sent, acked }) = lanes.get_mut(event.token) else { bail!("an unknown token") };
            if event.writable {
                conn.flush(&poller)?;
            }
            if event.readable {
                conn.read(&mut scratch, |bytes| acknowledge(bytes, *sent, acked))?;
            }
            progress.moved();
        }
    }
    let elapsed = start.elapsed();
    lanes.iter_mut().try_for_each(|lane| lane.conn.send(&poller, &mqtt::DISCONNECT))?;
    Ok(elapsed)
}

/// The packet identifier of a connection's message by its number: never 0.
fn packet_id(number: u64) -> u16 {
    (number % u64::from(u16::MAX)) as u16 + 1
}

/// Counts the PUBACKs in `bytes` and returns how many bytes they took. They come in the order of the messages.
fn acknowledge(bytes: &[u8], sent: u64, acked: &mut u64) -> Result<usize> {
    mqtt::packets(bytes, |kind, body| {
        ensure!(kind == mqtt::PUBACK, "the publisher got a packet of type {kind}");
        ensure!(*acked < sent, "a PUBACK for nothing");
        ensure!(body == packet_id(*acked).to_be_bytes(), "a PUBACK out of order: {body:?} after {acked}");
        *acked += 1;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_counted_in_order_over_the_end_of_the_identifiers() {
        let from = u64::from(u16::MAX) - 2;
        let acks: Vec<u8> = (from..from + 4).flat_map(|number| mqtt::puback(packet_id(number))).collect();
        let mut acked = from;
        assert_eq!(acknowledge(&acks, from + 4, &mut acked).expect("in order"), acks.len());
        assert_eq!(acked, from + 4);
        assert!((0..200_000).all(|number| packet_id(number) != 0));
        assert!(acknowledge(&mqtt::puback(packet_id(acked)), acked, &mut acked).is_err(), "for nothing");
        assert!(acknowledge(&mqtt::puback(packet_id(acked + 1)), acked + 2, &mut acked).is_err(), "out of order");
    }
}
