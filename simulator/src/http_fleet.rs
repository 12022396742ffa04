//! The devices over HTTP: each of a few keep-alive connections serves its share of the devices, one request at a time.
//! A reading that finds its connection busy goes out late, and its latency counts from the time at which it was due.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use crate::{
    config::Ack,
    device::Device,
    faults::{Class, Message, Traffic},
    http_client::{Answer, HttpClient, HttpError},
    oracle::Oracle,
    schedule::{Due, Schedule, Start},
    shared::{BEHIND, OVERTIME, Shared},
};

/// How long one reading is tried again while the connection fails.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// First and longest wait between two attempts.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Time for a request to be written before an injected fault cuts its connection.
const CUT_AFTER: Duration = Duration::from_millis(1);

/// One connection and its share of the devices.
#[derive(Debug)]
pub(crate) struct HttpWorker {
    shared: Arc<Shared>,
    client: HttpClient,
    path: &'static str,
    devices: Vec<HttpDevice>,
    /// Whose reading is due next.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    was_connected: bool,
    /// When no reading is tried again any more, in a run of a fixed duration.
    give_up_at: Option<Instant>,
    /// Whether this connection is among the `connected` ones.
    counted_open: bool,
}

#[derive(Debug)]
struct HttpDevice {
    index: usize,
    traffic: Traffic,
    schedule: Schedule,
    oracle: Oracle,
}

impl HttpWorker {
    /// The worker of every `workers`th device from `first` on.
    pub(crate) fn new(shared: Arc<Shared>, first: u64, workers: u64) -> Self {
        let config = &shared.config;
        let devices = (first..config.devices)
            .step_by(usize::try_from(workers).unwrap_or(usize::MAX))
            .map(|index| {
                let device = Device::new(config.seed, index, &config.prefix, true);
                HttpDevice {
                    index: index as usize,
                    oracle: Oracle::new(device.id().to_owned()),
                    traffic: Traffic::new(device, config.seed, index, config.faults),
                    schedule: Schedule::new(config, index),
                }
            })
            .collect();
        let client = HttpClient::new(shared.target, config.credentials.as_ref());
        let path = match config.ack {
            Ack::Received => "/metrics?ack=received",
            Ack::Committed => "/metrics?ack=committed",
        };
        Self {
            client,
            path,
            devices,
            due: BinaryHeap::new(),
            was_connected: false,
            give_up_at: None,
            counted_open: false,
            shared,
        }
    }

    /// Runs until every reading is sent or the swarm is stopped. Returns what the node owes to the devices.
    pub(crate) async fn run(mut self) -> Vec<Oracle> {
        let shared = Arc::clone(&self.shared);
        if let Err(error) = self.connect().await {
            self.shared.stats.connect_failures.add(&error.to_string(), 1);
        }
        let Some(start) = shared.started().await else { return self.finish() };
        self.due = (0..self.devices.len())
            .filter_map(|n| Some(Reverse((self.devices[n].schedule.next(start)?.at, n))))
            .collect();
        let end = shared.config.duration.map(|duration| start.at + duration);
        self.give_up_at = end.map(|end| end + shared.config.drain);
        while let Some(Reverse((at, n))) = self.due.pop() {
            tokio::select! {
                biased;
                () = shared.stopped() => break,
                () = time::sleep_until(at) => {}
            }
            if end.is_some_and(|end| end + OVERTIME <= Instant::now()) {
                break;
            }
            self.tick(start, n).await;
        }
        let now = Instant::now();
        for n in 0..self.devices.len() {
            if let Some(message) = self.devices[n].traffic.flush() {
                self.deliver(n, &message, now).await;
            }
            self.shared.stats.missed.add(self.devices[n].schedule.missed(start, now));
        }
        self.finish()
    }

    fn finish(mut self) -> Vec<Oracle> {
        self.disconnected();
        self.devices.into_iter().map(|device| device.oracle).collect()
    }

    /// The due reading of one device, with its faults.
    async fn tick(&mut self, start: Start, n: usize) {
        let device = &mut self.devices[n];
        let Some(Due { at, ts }) = device.schedule.next(start) else { return };
        device.schedule.advance();
        if let Some(next) = device.schedule.next(start) {
            self.due.push(Reverse((next.at, n)));
        }
        let (reading, messages) = device.traffic.tick(ts);
        device.oracle.sent(reading.seq, reading.ts, reading.payload);
        if at.elapsed() > BEHIND {
            self.shared.stats.behind.one();
        }
        for message in messages {
            self.deliver(n, &message, at).await;
        }
    }

    /// Sends one message until it is answered, and counts what became of it.
    async fn deliver(&mut self, n: usize, message: &Message, due: Instant) {
        self.shared.stats.count_send(message.class);
        let sent = Instant::now();
        if matches!(message.class, Class::Reading | Class::Late) {
            self.shared.sending(self.devices[n].index, message.seq);
        }
        if message.cut {
            // The request may or may not have arrived: that is the point.
            let _ = time::timeout(CUT_AFTER, self.post(message)).await;
            self.client.close();
            self.disconnected();
            self.shared.stats.cut.one();
            self.shared.stats.resent.one();
        }
        match self.persist(message).await {
            Ok(answer) => self.answered(n, message, &answer, sent, due),
            Err(error) => self.shared.stats.count_failure(message.class, &error.to_string()),
        }
    }

    fn answered(&mut self, n: usize, message: &Message, answer: &Answer, sent: Instant, due: Instant) {
        let stats = &self.shared.stats;
        if !answer.status.is_success() {
            stats.count_refusal(message.class, &format!("http {}", answer.status.as_u16()));
            return;
        }
        stats.count_ack(message.class, sent, due);
        if self.shared.config.ack == Ack::Committed && message.class != Class::Garbage {
            self.devices[n].oracle.acked(message.seq, message.ts);
        }
    }

    /// Posts, and posts again when the connection fails: a device keeps a reading until it is answered, or given up.
    async fn persist(&mut self, message: &Message) -> Result<Answer, HttpError> {
        let until = self.give_up_at.unwrap_or(Instant::now() + RETRY_FOR);
        let mut wait = RETRY_AFTER.0;
        loop {
            let answer = self.post(message).await;
            let Err(error) = &answer else { return answer };
            self.failed(error);
            // Garbage is not worth it: a node may answer it by closing the connection.
            if message.class == Class::Garbage || self.shared.is_stopped() || Instant::now() + wait >= until {
                return answer;
            }
            self.shared.stats.resent.one();
            time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_AFTER.1);
        }
    }

    async fn post(&mut self, message: &Message) -> Result<Answer, HttpError> {
        self.connect().await?;
        self.client.post(self.path, message.payload.clone()).await
    }

    async fn connect(&mut self) -> Result<(), HttpError> {
        if self.client.is_open() {
            return Ok(());
        }
        self.disconnected();
        self.client.open().await?;
        self.shared.stats.connected.one();
        if self.was_connected { &self.shared.stats.reconnects } else { &self.shared.stats.connects }.one();
        self.was_connected = true;
        self.counted_open = true;
        Ok(())
    }

    fn disconnected(&mut self) {
        if std::mem::take(&mut self.counted_open) {
            self.shared.stats.connected.less_one();
        }
    }

    fn failed(&mut self, error: &HttpError) {
        let stats = &self.shared.stats;
        match error {
            HttpError::Connect(_) => stats.connect_failures.add(&error.to_string(), 1),
            _ => stats.lost.add(&error.to_string(), 1),
        }
        self.disconnected();
    }
}
