//! `POST /metrics` over kept connections, one request at a time on each, one reading a request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::{LOOK_UP, PATIENCE, Run, check_pace, latencies, record};
use crate::conn::{Conn, Progress, SCRATCH_BYTES};
use crate::http;
use crate::poller::{Poller, Ready};
use crate::reading;

/// The shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpLoad {
    /// Kept connections. Each posts for devices of its own.
    pub(crate) connections: usize,
    /// Requests a second over all connections; `None`: as fast as the server answers.
    pub(crate) rate: Option<u32>,
}

struct Client {
    conn: Conn,
    requests: Vec<Vec<u8>>,
    next: usize,
    /// When the request that is under way went out, or should have: a late start counts as the server's latency.
    asked_at: Option<Instant>,
}

/// Connected clients.
pub(crate) struct Clients {
    load: HttpLoad,
    poller: Poller,
    clients: Vec<Client>,
    /// The clients that wait for work, the longest first.
    idle: VecDeque<usize>,
    answered: u64,
    latency_us: Histogram<u64>,
}

/// The device that the checks after a run look at.
pub(crate) fn first_device() -> String {
    device_id(0)
}

fn device_id(device: usize) -> String {
    format!("bench-{device:05}")
}

impl Clients {
    /// Connects everyone and posts one reading on each connection.
    ///
    /// # Errors
    /// Any refusal.
    pub(crate) fn connect(address: SocketAddr, load: HttpLoad) -> Result<Self> {
        let poller = Poller::new()?;
        let mut clients = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let requests: Vec<_> = (0..reading::VARIANTS)
                .map(|variant| {
                    let device = index * reading::VARIANTS + variant;
                    http::post_metrics(&reading::http(&device_id(device), device, variant))
                })
                .collect();
            let conn = Conn::open(address, &poller, index, &requests[0], accepted)?;
            clients.push(Client { conn, requests, next: 1, asked_at: None });
        }
        let idle = (0..clients.len()).collect();
        Ok(Self { load, poller, clients, idle, answered: 0, latency_us: latencies()? })
    }

    /// Posts `messages` readings and waits for every answer.
    ///
    /// # Errors
    /// A closed connection, an answer other than `202`, no answer.
    pub(crate) fn run(&mut self, messages: u64) -> Result<Run> {
        self.answered = 0;
        self.latency_us.reset();
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut ready = Vec::new();
        let mut progress = Progress::new(PATIENCE);
        let mut sent = 0;
        let start = Instant::now();
        while self.answered < messages {
            let wake = self.send(start, messages, &mut sent)?;
            self.poller.wait_until(wake, &mut ready)?;
            for event in &ready {
                self.on_ready(*event, &mut scratch)?;
                progress.moved();
            }
            progress.check(|| format!("{sent} of {messages} posted, {} answered", self.answered))?;
        }
        let elapsed = start.elapsed();
        if let Some(rate) = self.load.rate {
            check_pace(messages, rate, elapsed)?;
        }
        Ok(Run { sent: messages, messages, elapsed, latency_us: Some(self.latency_us.clone()), left_out: 0 })
    }

    /// Posts what is due on the connections that are idle and returns when to look again.
    fn send(&mut self, start: Instant, messages: u64, sent: &mut u64) -> Result<Instant> {
        while *sent < messages && !self.idle.is_empty() {
            let now = Instant::now();
            let due = match self.load.rate {
                Some(rate) => start + Duration::from_secs_f64(*sent as f64 / f64::from(rate)),
                None => now,
            };
            if due > now {
                return Ok(due);
            }
            let Some(index) = self.idle.pop_front() else { break };
            let client = &mut self.clients[index];
            client.asked_at = Some(due);
            client.conn.send(&self.poller, &client.requests[client.next])?;
            client.next = (client.next + 1) % client.requests.len();
            *sent += 1;
        }
        Ok(Instant::now() + LOOK_UP)
    }

    fn on_ready(&mut self, event: Ready, scratch: &mut [u8]) -> Result<()> {
        let Some(client) = self.clients.get_mut(event.token) else { return Ok(()) };
        if event.writable {
            client.conn.flush(&self.poller)?;
        }
        if event.readable {
            let mut answers = 0;
            client.conn.read(scratch, |bytes| {
                let used = accepted(bytes)?;
                answers = u64::from(used.is_some());
                ensure!(used.is_none_or(|used| used == bytes.len()), "more than one answer to one request");
                Ok(used.unwrap_or(0))
            })?;
            if answers > 0 {
                let asked_at = client.asked_at.take().context("an answer that nobody asked for")?;
                record(&mut self.latency_us, asked_at.elapsed());
                self.answered += answers;
                self.idle.push_back(event.token);
            }
        }
        Ok(())
    }
}

/// The length of the `202` at the start of `bytes`, when it is all there.
///
/// # Errors
/// Any other answer.
pub(crate) fn accepted(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(response) = http::response(bytes)? else { return Ok(None) };
    let text = String::from_utf8_lossy(response.body);
    ensure!(response.status == 202, "POST /metrics: status {}: {text}", response.status);
    Ok(Some(response.length))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::scenario::stub;

    /// Posts 100 readings to a server whose answer number `odd` is `answer`; the others are `202`.
    fn check(rate: Option<u32>, odd: u64, answer: &'static str) -> Result<Run> {
        let count = AtomicU64::new(0);
        let address = stub::serve(move |bytes| {
            if !bytes.ends_with(b"}") {
                return Some((0, Vec::new()));
            }
            let this = count.fetch_add(1, Ordering::Relaxed);
            let text = if this == odd { answer } else { "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}" };
            Some((bytes.len(), text.as_bytes().to_vec()))
        });
        Clients::connect(address, HttpLoad { connections: 4, rate })?.run(100)
    }

    #[test]
    fn every_answer_is_counted() {
        for rate in [None, Some(2_000)] {
            let run = check(rate, u64::MAX, "").expect("a good server");
            assert_eq!((run.messages, run.latency_us.map(|latency_us| latency_us.len())), (100, Some(100)));
        }
    }

    #[test]
    fn any_other_answer_fails_the_run() {
        for answer in [
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert!(check(None, 50, answer).is_err(), "{answer}");
        }
    }
}
