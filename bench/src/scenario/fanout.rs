//! One device, many WebSocket viewers of it, and updates by `POST /metrics` at a fixed pace.
//!
//! Each update carries a number: a viewer must see the numbers rise and must see the last one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::http::accepted;
use super::{LOOK_UP, PATIENCE, Run, check_pace, latencies, record};
use crate::conn::{Conn, Progress, SCRATCH_BYTES};
use crate::poller::{Poller, Ready};
use crate::websocket::{self, Frame};
use crate::{http, reading};

/// The largest share of updates that a server may conflate before the run counts as failed.
const MAX_CONFLATED: f64 = 0.01;

/// The shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FanoutLoad {
    /// WebSockets that watch the device.
    pub(crate) viewers: usize,
    /// Updates a second.
    pub(crate) rate: u32,
}

struct Viewer {
    conn: Conn,
    last: Option<u64>,
    received: u64,
}

/// Connected viewers, who have all seen the update number 0.
pub(crate) struct Audience {
    load: FanoutLoad,
    device_id: String,
    poller: Poller,
    viewers: Vec<Viewer>,
    poster: Conn,
    poster_busy: bool,
    sent_at: Vec<Instant>,
    scratch: Vec<u8>,
}

impl Audience {
    /// Connects everyone to `device_id`, which must be new to the server, and waits until all have seen update 0.
    ///
    /// # Errors
    /// Any refusal, or a viewer that sees nothing.
    pub(crate) fn connect(address: SocketAddr, load: FanoutLoad, device_id: &str) -> Result<Self> {
        let poller = Poller::new()?;
        let path = format!("/ws?deviceId={device_id}");
        let mut viewers = Vec::with_capacity(load.viewers);
        for token in 0..load.viewers {
            let conn = Conn::open(address, &poller, token, &websocket::open(&path), websocket::opened)?;
            viewers.push(Viewer { conn, last: None, received: 0 });
        }
        let first = http::post_metrics(&reading::numbered(device_id, 0));
        let poster = Conn::open(address, &poller, load.viewers, &first, accepted)?;
        let mut audience = Self {
            load,
            device_id: device_id.to_owned(),
            poller,
            viewers,
            poster,
            poster_busy: false,
            sent_at: vec![Instant::now()],
            scratch: vec![0; SCRATCH_BYTES],
        };
        audience.wait_for_first()?;
        Ok(audience)
    }

    fn wait_for_first(&mut self) -> Result<()> {
        let mut latency_us = latencies()?;
        let mut ready = Vec::new();
        let mut progress = Progress::new(PATIENCE);
        while self.viewers.iter().any(|viewer| viewer.last.is_none()) {
            self.poller.wait_until(Instant::now() + LOOK_UP, &mut ready)?;
            for event in &ready {
                self.on_ready(*event, &mut latency_us)?;
                progress.moved();
            }
            progress.check(|| "some viewers have not seen the first update".to_owned())?;
        }
        Ok(())
    }

    /// Posts `updates` updates and waits until every viewer has seen the last.
    ///
    /// # Errors
    /// A closed connection, updates out of order, a viewer that misses the last one or more than one in a hundred.
    pub(crate) fn run(&mut self, updates: u64) -> Result<Run> {
        let mut latency_us = latencies()?;
        let mut ready = Vec::new();
        let mut progress = Progress::new(PATIENCE);
        self.viewers.iter_mut().for_each(|viewer| viewer.received = 0);
        let first = self.sent_at.len() as u64;
        let last = first + updates - 1;
        let start = Instant::now();
        while self.poster_busy || self.viewers.iter().any(|viewer| viewer.last != Some(last)) {
            let wake = self.send_due(start, first, last)?;
            self.poller.wait_until(wake, &mut ready)?;
            for event in &ready {
                self.on_ready(*event, &mut latency_us)?;
                progress.moved();
            }
            progress.check(|| format!("update {} of {last} is the last that was posted", self.sent_at.len() - 1))?;
        }
        let elapsed = start.elapsed();
        check_pace(updates, self.load.rate, elapsed)?;

        let expected = updates * self.viewers.len() as u64;
        let received: u64 = self.viewers.iter().map(|viewer| viewer.received).sum();
        ensure!(received <= expected, "{received} deliveries of {expected}");
        let left_out = expected - received;
        ensure!(left_out as f64 <= expected as f64 * MAX_CONFLATED, "{left_out} of {expected} deliveries are missing");
        Ok(Run { sent: updates, messages: received, elapsed, latency_us: Some(latency_us), left_out })
    }

    /// Posts the next update if it is due and the former has been answered, and returns when to look again.
    fn send_due(&mut self, start: Instant, first: u64, last: u64) -> Result<Instant> {
        let next = self.sent_at.len() as u64;
        if self.poster_busy || next > last {
            return Ok(Instant::now() + LOOK_UP);
        }
        let due = start + Duration::from_secs_f64((next - first) as f64 / f64::from(self.load.rate));
        if due > Instant::now() {
            return Ok(due);
        }
        self.poster.send(&self.poller, &http::post_metrics(&reading::numbered(&self.device_id, next)))?;
        self.poster_busy = true;
        self.sent_at.push(Instant::now());
        Ok(Instant::now() + LOOK_UP)
    }

    fn on_ready(&mut self, event: Ready, latency_us: &mut hdrhistogram::Histogram<u64>) -> Result<()> {
        let Self { poller, viewers, poster, poster_busy, sent_at, scratch, .. } = self;
        let Some(viewer) = viewers.get_mut(event.token) else {
            if event.writable {
                poster.flush(poller)?;
            }
            return poster.read(scratch, |bytes| {
                let used = accepted(bytes)?;
                *poster_busy &= used.is_none();
                Ok(used.unwrap_or(0))
            });
        };
        if event.writable {
            viewer.conn.flush(poller)?;
        }
        if !event.readable {
            return Ok(());
        }
        let Viewer { conn, last, received } = viewer;
        let mut pings = 0;
        conn.read(scratch, |bytes| {
            websocket::frames(bytes, |frame| {
                match frame {
                    Frame::Text(text) => {
                        // Greetings and the end of the snapshot carry no number.
                        let Some(number) = reading::number_of(text) else { return Ok(()) };
                        ensure!(*last < Some(number), "a viewer saw update {number} after {last:?}");
                        *last = Some(number);
                        *received += 1;
                        if let Some(sent_at) = sent_at.get(number as usize) {
                            record(latency_us, sent_at.elapsed());
                        }
                    }
                    Frame::Ping => pings += 1,
                    Frame::Pong => {}
                }
                Ok(())
            })
        })?;
        for _ in 0..pings {
            conn.send(poller, &websocket::PONG)?;
        }
        Ok(())
    }
}
