//! As little of a node as the swarm's transports need: MQTT 3.1.1 and HTTP in front of one map of states, folded by the
//! greatest time, a WebSocket that shows the updates, and knobs to misbehave. It proves the swarm, not Tidegate.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::SinkExt as _;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::Message;

/// How the toy misbehaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manners {
    /// Acknowledges this sequence and everything after it, but does not keep it.
    pub(crate) forgets_from: Option<u64>,
    /// Closes the connection instead of answering every so many publishes.
    pub(crate) hangs_up_every: Option<u64>,
    /// Changes this field of every reading.
    pub(crate) changes: Option<&'static str>,
    /// Answers nothing at all (but pings).
    pub(crate) mute: bool,
    /// Acknowledges HTTP garbage.
    pub(crate) swallows_garbage: bool,
}

pub(crate) struct ToyNode {
    pub(crate) mqtt: SocketAddr,
    pub(crate) http: SocketAddr,
    node: Arc<Node>,
    tasks: Vec<JoinHandle<()>>,
}

/// The greatest time and the state of each device.
pub(crate) type States = BTreeMap<String, (i64, Map<String, Value>)>;

struct Node {
    manners: Manners,
    devices: Mutex<States>,
    updates: broadcast::Sender<String>,
    publishes: Mutex<u64>,
}

impl ToyNode {
    pub(crate) async fn start(manners: Manners) -> Self {
        let mqtt = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let node = Arc::new(Node {
            manners,
            devices: Mutex::default(),
            updates: broadcast::channel(10_000).0,
            publishes: Mutex::default(),
        });
        let addr = |listener: &TcpListener| listener.local_addr().expect("a bound listener");
        Self {
            mqtt: addr(&mqtt),
            http: addr(&http),
            tasks: vec![
                tokio::spawn(accept(mqtt, Arc::clone(&node), |stream, node| Box::pin(serve_mqtt(stream, node)))),
                tokio::spawn(accept(http, Arc::clone(&node), |stream, node| Box::pin(serve_http(stream, node)))),
            ],
            node,
        }
    }

    /// The devices' greatest times and states.
    pub(crate) fn devices(&self) -> States {
        self.node.devices.lock().expect("no test thread panicked").clone()
    }
}

impl Drop for ToyNode {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Served = std::pin::Pin<Box<dyn Future<Output = Option<()>> + Send>>;

async fn accept(listener: TcpListener, node: Arc<Node>, serve: fn(TcpStream, Arc<Node>) -> Served) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&node)));
    }
}

impl Node {
    /// Folds a payload. False: it is no reading.
    fn fold(&self, topic_device: Option<&str>, payload: &[u8]) -> bool {
        let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(payload) else { return false };
        let named = fields.remove("deviceId").and_then(|id| id.as_str().map(str::to_owned));
        let Some(id) = topic_device.map(str::to_owned).or(named) else { return false };
        let Some(ts) = fields.remove("ts").and_then(|ts| ts.as_i64()) else { return false };
        if self.manners.forgets_from.is_some_and(|from| fields["seq"].as_u64() >= Some(from)) {
            return true;
        }
        if let Some(value) = self.manners.changes.and_then(|field| fields.get_mut(field)) {
            *value = "changed".into();
        }
        let mut devices = self.devices.lock().expect("no test thread panicked");
        let known = devices.entry(id.clone()).or_insert((i64::MIN, Map::new()));
        if ts >= known.0 {
            *known = (ts, fields);
            let update = json!({"type": "state", "deviceId": id, "state": known.1, "deviceTime": ts});
            // Nobody has to be watching.
            let _ = self.updates.send(update.to_string());
        }
        true
    }

    /// Whether this publish is one to hang up on.
    fn hangs_up(&self) -> bool {
        let mut publishes = self.publishes.lock().expect("no test thread panicked");
        *publishes += 1;
        self.manners.hangs_up_every.is_some_and(|every| publishes.is_multiple_of(every))
    }

    fn page(&self, query: &str) -> Value {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let (prefix, after) = (value("prefix").unwrap_or_default(), value("after").unwrap_or_default());
        // Small pages, so that the swarm has to turn some.
        let limit = value("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100).min(7);
        let devices = self.devices.lock().expect("no test thread panicked");
        let mut hits = devices.iter().filter(|(id, _)| id.starts_with(prefix) && id.as_str() > after);
        let page: Vec<Value> = hits
            .by_ref()
            .take(limit)
            .map(|(id, (ts, state))| json!({"deviceId": id, "state": state, "deviceTime": ts, "version": 1}))
            .collect();
        let next = hits.next().and(page.last()).map(|last| last["deviceId"].clone());
        json!({"devices": page, "next": next, "total": devices.len()})
    }
}

/// One MQTT 3.1.1 connection: CONNECT, PUBLISH at QoS 0 and 1, PINGREQ, DISCONNECT.
async fn serve_mqtt(stream: TcpStream, node: Arc<Node>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    loop {
        let first = stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        match first >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0]).await.ok()?,
            3 => {
                let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = std::str::from_utf8(&body[2..topic_end]).ok()?;
                let device = topic.strip_prefix("devices/")?.strip_suffix("/metrics")?;
                let qos1 = first & 0x02 != 0;
                let payload_at = if qos1 { topic_end + 2 } else { topic_end };
                node.fold(Some(device), &body[payload_at..]);
                if node.hangs_up() {
                    return None;
                }
                if qos1 && !node.manners.mute {
                    stream.write_all(&[0x40, 2, body[topic_end], body[topic_end + 1]]).await.ok()?;
                }
            }
            12 => stream.write_all(&[0xD0, 0]).await.ok()?,
            _ => return None,
        }
    }
}

/// One HTTP/1.1 keep-alive connection, or a WebSocket.
async fn serve_http(stream: TcpStream, node: Arc<Node>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut head = [0; 8];
    while stream.peek(&mut head).await.ok()? < head.len() {
        tokio::task::yield_now().await;
    }
    if head.starts_with(b"GET /ws?") {
        return serve_websocket(stream, node).await;
    }
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        stream.read_line(&mut request).await.ok()?;
        let mut parts = request.split_whitespace();
        let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let mut length = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await.ok()?;
            match header.trim().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok()?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        if method == "POST" && node.hangs_up() {
            node.fold(None, &body);
            return None;
        }
        let (status, answer) = match (method.as_str(), path) {
            ("POST", "/metrics") if node.fold(None, &body) || node.manners.swallows_garbage => match query {
                "ack=committed" => (200, json!({"accepted": 1})),
                _ => (202, json!({"accepted": 1})),
            },
            ("POST", "/metrics") => (400, json!({"title": "no reading"})),
            ("GET", "/devices") => (200, node.page(query)),
            _ => (404, json!({})),
        };
        let answer = answer.to_string();
        let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(text.as_bytes()).await.ok()?;
    }
}

async fn serve_websocket(stream: TcpStream, node: Arc<Node>) -> Option<()> {
    let mut updates = node.updates.subscribe();
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    for text in [json!({"type": "hello", "loops": 1, "devices": 0}), json!({"type": "synced"})] {
        socket.send(Message::text(text.to_string())).await.ok()?;
    }
    while let Ok(update) = updates.recv().await {
        socket.send(Message::text(update)).await.ok()?;
    }
    None
}
