//! Measures publish→dashboard: opens the node's `/ws` as a dashboard does, and matches every update's `seq` with the time
//! at which the device sent that reading. It owns the WebSocket; the devices only note their send times.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    config::SwarmConfig,
    device::{Kind, device_id},
    error::SwarmError,
    http_client::{basic, encode},
    shared::Shared,
    stats::{Count, Latency},
    summary::Dashboard,
};

/// Send times that are kept of one device; older ones are taken for conflated.
const KEPT: usize = 64;
/// How long the snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);
/// After the last ack, the probe listens until nothing came for so long, and at most so long in all.
const QUIET: Duration = Duration::from_millis(500);
const LINGER: Duration = Duration::from_secs(5);

/// When the readings that no update has shown yet were sent, by device.
#[derive(Debug)]
pub(crate) struct SendTimes {
    by_id: HashMap<String, usize>,
    times: Vec<Mutex<VecDeque<(u64, Instant)>>>,
}

impl SendTimes {
    pub(crate) fn new(config: &SwarmConfig) -> Self {
        let by_id = (0..config.devices).map(|index| (device_id(&config.prefix, index), index as usize)).collect();
        Self { by_id, times: (0..config.devices).map(|_| Mutex::default()).collect() }
    }

    pub(crate) fn sending(&self, device: usize, seq: u64, now: Instant) {
        let mut times = self.times[device].lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() == KEPT {
            times.pop_front();
        }
        times.push_back((seq, now));
    }

    /// The send time of a reading that is seen for the first time. Older readings of the device were conflated into it and
    /// will not be seen any more.
    fn seen(&self, id: &str, seq: u64) -> Option<Instant> {
        let mut times = self.times[*self.by_id.get(id)?].lock().unwrap_or_else(PoisonError::into_inner);
        let at = times.iter().position(|(sent, _)| *sent == seq)?;
        times.drain(..=at).next_back().map(|(_, sent)| sent)
    }
}

/// A dashboard that measures.
#[derive(Debug)]
pub(crate) struct WatchProbe {
    listener: JoinHandle<Option<String>>,
    counts: Arc<Counts>,
    last_update: watch::Receiver<Instant>,
}

#[derive(Debug, Default)]
struct Counts {
    updates: Count,
    seen: Count,
    latency: Latency,
}

/// As much of a message as the probe looks at.
#[derive(Deserialize)]
struct Update<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "deviceId", borrow, default)]
    device_id: Option<Cow<'a, str>>,
    #[serde(default)]
    state: Option<Sequence>,
}

#[derive(Deserialize)]
struct Sequence {
    /// A handler's JavaScript knows only doubles, so it may come back as `7.0`.
    #[serde(default)]
    seq: Option<f64>,
}

impl WatchProbe {
    /// Opens the WebSocket and waits until the snapshot is complete, so that every update from here on is one of the swarm's.
    ///
    /// # Errors
    /// [`SwarmError::Watch`] when there is no such WebSocket or its snapshot does not end.
    pub(crate) async fn open(shared: &Arc<Shared>, target: SocketAddr) -> Result<Self, SwarmError> {
        let failed = |why: String| SwarmError::Watch { target: target.to_string(), why };
        let socket = time::timeout(SNAPSHOT_TIMEOUT, connect(&shared.config, target))
            .await
            .unwrap_or_else(|_| Err(format!("no complete snapshot within {} s", SNAPSHOT_TIMEOUT.as_secs())))
            .map_err(failed)?;
        let counts = Arc::new(Counts::default());
        let (report, last_update) = watch::channel(Instant::now());
        let listener = tokio::spawn(listen(socket, Arc::clone(shared), Arc::clone(&counts), report));
        Ok(Self { listener, counts, last_update })
    }

    /// Listens until the last updates are in, then closes.
    pub(crate) async fn close(mut self) -> Dashboard {
        let quiet = async { while let Ok(Ok(())) = time::timeout(QUIET, self.last_update.changed()).await {} };
        // On a node that goes on sending there is no quiet; the linger bounds it.
        let _ = time::timeout(LINGER, quiet).await;
        let lost = if self.listener.is_finished() {
            self.listener.await.unwrap_or_else(|error| Some(error.to_string()))
        } else {
            self.listener.abort();
            None
        };
        Dashboard {
            updates: self.counts.updates.get(),
            readings_seen: self.counts.seen.get(),
            latency: self.counts.latency.percentiles(),
            lost,
        }
    }
}

async fn connect(config: &SwarmConfig, target: SocketAddr) -> Result<WebSocketStream<TcpStream>, String> {
    // By kind, not by the bare prefix: an empty prefix would mean the whole fleet, which is conflated by default.
    let prefixes =
        Kind::ALL.map(|kind| format!("prefix={}", encode(&format!("{}{}-", config.prefix, kind.name())))).join("&");
    let mut request =
        format!("ws://{target}/ws?{prefixes}&interval=0").into_client_request().map_err(|error| error.to_string())?;
    if let Some(credentials) = &config.credentials {
        let value = basic(credentials).try_into().map_err(|_| "the credentials make no header".to_owned())?;
        request.headers_mut().insert("authorization", value);
    }
    let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(|error| error.to_string())?;
    while let Some(message) = socket.next().await {
        let message = message.map_err(|error| error.to_string())?;
        if message
            .to_text()
            .is_ok_and(|text| serde_json::from_str(text).is_ok_and(|Update { kind, .. }| kind == "synced"))
        {
            return Ok(socket);
        }
    }
    Err("closed before the snapshot was complete".to_owned())
}

/// Reads updates until the connection ends. Returns why it ended.
async fn listen(
    mut socket: WebSocketStream<TcpStream>,
    shared: Arc<Shared>,
    counts: Arc<Counts>,
    report: watch::Sender<Instant>,
) -> Option<String> {
    while let Some(message) = socket.next().await {
        let now = Instant::now();
        match message {
            Ok(Message::Text(text)) => {
                counts.take(&shared, text.as_str(), now);
                report.send_replace(now);
            }
            // Reading answers pings into the write buffer; the flush sends them.
            Ok(Message::Ping(_)) => {
                if let Err(error) = socket.flush().await {
                    return Some(error.to_string());
                }
            }
            Ok(Message::Close(frame)) => {
                return Some(frame.map_or_else(|| "closed by the node".to_owned(), |frame| frame.to_string()));
            }
            Ok(_) => {}
            Err(error) => return Some(error.to_string()),
        }
    }
    Some("closed by the node".to_owned())
}

impl Counts {
    fn take(&self, shared: &Shared, text: &str, now: Instant) {
        let Ok(update) = serde_json::from_str::<Update<'_>>(text) else { return };
        if update.kind != "state" {
            return;
        }
        self.updates.one();
        let (Some(id), Some(seq)) = (update.device_id, update.state.and_then(|state| state.seq)) else { return };
        let sent = shared.send_times.as_ref().and_then(|times| times.seen(&id, seq as u64));
        if let Some(sent) = sent {
            self.seen.one();
            self.latency.record(now.duration_since(sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_matched_once_and_conflates_the_older_ones() {
        let times = SendTimes::new(&SwarmConfig::new(3));
        let now = Instant::now();
        for seq in 1..=5 {
            times.sending(1, seq, now + Duration::from_millis(seq));
        }
        assert_eq!(times.seen("meter-00001", 3), Some(now + Duration::from_millis(3)));
        assert_eq!(times.seen("meter-00001", 3), None);
        assert_eq!(times.seen("meter-00001", 2), None);
        assert_eq!(times.seen("meter-00001", 5), Some(now + Duration::from_millis(5)));
        assert_eq!((times.seen("meter-00001", 9), times.seen("someone", 1)), (None, None));
    }

    #[test]
    fn the_memory_of_send_times_is_bounded() {
        let times = SendTimes::new(&SwarmConfig::new(1));
        let now = Instant::now();
        for seq in 1..=1_000 {
            times.sending(0, seq, now);
        }
        assert_eq!(times.times[0].lock().expect("no other thread").len(), KEPT);
        assert_eq!(times.seen("thermostat-00001", 1), None);
        assert_eq!(times.seen("thermostat-00001", 1_000), Some(now));
    }
}
