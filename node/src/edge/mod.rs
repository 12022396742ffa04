//! The edge of one loop: its connections, the requests that wait for answers, and the MQTT routes.
//!
//! Everything here lives on the loop's thread. What other loops send comes in as tasks that call [`here`].

mod key_memory;
mod retries;
mod waits;

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::TcpListener,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_actors::{
    event_loop::LoopMessage,
    fanout::ViewerLimits,
    ids::LoopId,
    loop_handle::{Edge, LoopHandle},
    reading::AckLevel,
    recovery::DataDir,
    runtime::RuntimeHandle,
    script::ScriptCommand,
    submission::{Ack, AckTo},
    turn::Shown,
};

use tidegate_scripts::WorkerPool;
use tokio::sync::Notify;

pub(crate) use key_memory::KeyMemory;
pub(crate) use retries::{Retries, Taken};
pub(crate) use waits::Waits;

use crate::{
    auth::Auth,
    bridge::Bridges,
    commands::{self, Commands},
    http::{admin, state::Exporting, viewer::Seat},
    listeners::Door,
    mqtt::{
        announcements::Announcements,
        changed::Changed,
        connections::Connections,
        drops::Drops,
        outgoing::QueueLimit,
        packet::{Connect, Version},
        receipt::{self, Receipts},
        remembered::Remembered,
        replay::Replays,
        retained::Retained,
        retaining::Notes,
        router::Router,
        sessions::Sessions,
        sys_feed::Feed,
    },
    shadow::{self, Shadows},
    transport::{
        admission::{Admission, Lobby},
        certificates::Certificates,
        hush::Hushes,
        identity::DeviceIdFrom,
    },
    vitals::Vitals,
};

/// What the edges of all loops share.
pub(crate) struct Shared {
    /// The runtime.
    pub(crate) runtime: RuntimeHandle,
    /// The settings that the edge needs.
    pub(crate) settings: Settings,
    /// Counters of the whole edge.
    pub(crate) counters: Counters,
    /// Identity and authorization.
    pub(crate) auth: Arc<Auth>,
    /// The admin socket, until a loop listens.
    pub(crate) admin: admin::Door,
    /// The handlers' workers: what an operator can do with them.
    pub(crate) scripts: Arc<WorkerPool>,
    /// Who may come in.
    pub(crate) admission: Arc<Admission>,
    /// The certificates of MQTT over TLS, and of HTTP over TLS.
    pub(crate) mqtt_tls: Option<Arc<Certificates>>,
    pub(crate) http_tls: Option<Arc<Certificates>>,
    /// The idempotency keys of requests.
    pub(crate) keys: KeyMemory,
    /// The parked readings that are being worked on.
    pub(crate) retries: Arc<Retries>,
    /// The last sample of the vital signs.
    pub(crate) vitals: Arc<Vitals>,
    /// The subscriptions at other brokers.
    pub(crate) bridges: Bridges,
    /// Whether an export is under way.
    pub(crate) exporting: Exporting,
    /// What is counted of commands to devices.
    pub(crate) commands: commands::Counters,
    /// What is counted of shadows.
    pub(crate) shadows: shadow::Counters,
    /// The retained messages.
    pub(crate) retained: Retained,
    /// Those that are to be kept, by the loop that owns their topics.
    pub(crate) notes: Vec<Notes>,
    /// Subscriptions of all sessions.
    pub(crate) subscriptions: AtomicUsize,
    /// What was published under `$SYS`.
    pub(crate) sys_feed: Feed,
    /// Stored sessions, by loop.
    pub(crate) stored_sessions: StoredSessions,
    /// The receipts that each loop's publishers wait for.
    pub(crate) receipts: Vec<Receipts>,
    /// Names of messages with QoS 2 begin here: no start of the node gives one twice.
    pub(crate) origins: AtomicU64,
    /// The node is stopping: `/readyz` says so and nothing new is accepted.
    pub(crate) stopping: AtomicBool,
}

/// The part of the configuration that the edge reads while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) mqtt_packet_bytes: usize,
    pub(crate) mqtt_pre_auth_bytes: usize,
    pub(crate) mqtt_connect_timeout: Duration,
    pub(crate) mqtt_default_ack: AckLevel,
    pub(crate) mqtt_tls_device_id: DeviceIdFrom,
    /// Web origins whose pages may connect by WebSocket; `*`: any.
    pub(crate) mqtt_ws_origins: Vec<String>,
    pub(crate) http_body_bytes: usize,
    pub(crate) http_header_timeout: Duration,
    pub(crate) http_default_ack: AckLevel,
    pub(crate) mqtt_inflight: u16,
    pub(crate) mqtt_subscriptions: usize,
    pub(crate) mqtt_subscriptions_total: usize,
    pub(crate) mqtt_outbound_bytes: usize,
    pub(crate) mqtt_sys_interval: Duration,
    pub(crate) mqtt_receive_maximum: u16,
    pub(crate) mqtt_queue: QueueLimit,
    pub(crate) mqtt_topic_aliases: u16,
    pub(crate) mqtt_longest_keep_alive: u16,
    pub(crate) mqtt_longest_session: u32,
    pub(crate) mqtt_sessions: usize,
    pub(crate) viewers: usize,
    pub(crate) viewer_filters: usize,
    pub(crate) viewer_limits: ViewerLimits,
    pub(crate) memory_limit: u64,
    pub(crate) data_dir: DataDir,
}

impl Settings {
    /// The keep alive that a client is told to use in place of its own ([MQTT-3.2.2-21]); 3.1.1 cannot be told.
    pub(crate) fn mqtt_keep_alive(&self, connect: &Connect) -> Option<u16> {
        let most = self.mqtt_longest_keep_alive;
        let is_longer = connect.keep_alive == 0 || connect.keep_alive > most;
        (most > 0 && is_longer && connect.version == Version::V5).then_some(most)
    }

    /// The seconds that a session is kept, of those that are asked for.
    pub(crate) fn mqtt_session_expiry(&self, asked: u32) -> u32 {
        asked.min(self.mqtt_longest_session)
    }
}

/// How many sessions are stored, by loop.
#[derive(Debug)]
pub(crate) struct StoredSessions(Vec<AtomicUsize>);

impl StoredSessions {
    /// None on so many loops.
    pub(crate) fn new(loops: usize) -> Self {
        Self((0..loops).map(|_| AtomicUsize::new(0)).collect())
    }

    /// A session of this loop is stored.
    pub(crate) fn add(&self, id: LoopId) {
        self.0[id.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// A session of this loop is not stored any more.
    pub(crate) fn remove(&self, id: LoopId) {
        self.0[id.index()].fetch_sub(1, Ordering::Relaxed);
    }

    /// Are there any on this loop?
    pub(crate) fn are_on(&self, id: LoopId) -> bool {
        self.0[id.index()].load(Ordering::Relaxed) > 0
    }

    /// All of them.
    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// What the edge counts, beside the ledger.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// MQTT connections now.
    pub(crate) mqtt_connections: AtomicUsize,
    /// Viewers now.
    pub(crate) viewers: AtomicUsize,
    /// Messages that came in by MQTT PUBLISH.
    pub(crate) mqtt_received: AtomicU64,
    /// Messages sent to MQTT subscribers.
    pub(crate) mqtt_sent: AtomicU64,
    /// Messages that were to be retained and were not (limits `retained_messages`, `retained_bytes`).
    pub(crate) mqtt_not_retained: AtomicU64,
    /// MQTT sessions now, with those whose client is away.
    pub(crate) mqtt_sessions: AtomicUsize,
    /// CONNECTs that were accepted.
    pub(crate) mqtt_accepted: AtomicU64,
    /// Most MQTT connections at a time.
    pub(crate) mqtt_most_connections: AtomicUsize,
    /// Packets and bytes of accepted connections, from the clients and to them.
    pub(crate) mqtt_packets_in: AtomicU64,
    pub(crate) mqtt_packets_out: AtomicU64,
    pub(crate) mqtt_bytes_in: AtomicU64,
    pub(crate) mqtt_bytes_out: AtomicU64,
    /// Messages that MQTT subscribers did not get.
    pub(crate) mqtt_dropped: Drops,
    /// Connections closed for what they sent.
    pub(crate) mqtt_refused: AtomicU64,
    /// TLS handshakes that came to nothing.
    pub(crate) tls_failed: AtomicU64,
    /// Updates that viewers did not get because a newer one took their place.
    pub(crate) viewer_conflated: AtomicU64,
    /// Viewers closed because they did not read.
    pub(crate) viewers_stalled: AtomicU64,
}

/// The MQTT traffic of one loop, counted without the others.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    packets_in: Cell<u64>,
    packets_out: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Traffic {
    pub(crate) fn came_in(&self, packets: u64, bytes: usize) {
        self.packets_in.set(self.packets_in.get() + packets);
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
    }

    pub(crate) fn went_out(&self, packets: u64, bytes: usize) {
        self.packets_out.set(self.packets_out.get() + packets);
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
    }

    /// Adds it to the node's counters.
    fn settle(&self, counters: &Counters) {
        for (of_loop, of_node) in [
            (&self.packets_in, &counters.mqtt_packets_in),
            (&self.packets_out, &counters.mqtt_packets_out),
            (&self.bytes_in, &counters.mqtt_bytes_in),
            (&self.bytes_out, &counters.mqtt_bytes_out),
        ] {
            let count = of_loop.take();
            if count > 0 {
                of_node.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

/// The edge of one loop.
pub(crate) struct EdgeLoop {
    pub(crate) handle: LoopHandle,
    pub(crate) shared: Arc<Shared>,
    /// MQTT connections of this loop.
    pub(crate) connections: RefCell<Connections>,
    /// MQTT sessions of this loop, with or without a connection.
    pub(crate) sessions: RefCell<Sessions>,
    /// HTTP requests that wait for answers.
    pub(crate) waits: RefCell<Waits>,
    /// Subscriptions of this loop, and what other loops are interested in.
    pub(crate) router: RefCell<Router>,
    /// Retained messages on their way to this loop's sessions.
    pub(crate) replays: RefCell<Replays>,
    /// The loop that has too many retained messages of this loop's publishers to keep.
    pub(crate) crowded_notes: Cell<Option<LoopId>>,
    /// Where the sweep of the retained messages is.
    pub(crate) retained_cursor: RefCell<Vec<u8>>,
    /// What this loop has read and written since its last turn.
    pub(crate) traffic: Traffic,
    /// Live viewers on this loop's HTTP connections.
    pub(crate) seats: RefCell<Vec<Weak<Seat>>>,
    /// Commands to this loop's devices.
    pub(crate) commands: RefCell<Commands>,
    /// The first deadline of the commands has become another.
    pub(crate) commands_due: Notify,
    /// Shadows of this loop's devices.
    pub(crate) shadows: RefCell<Shadows>,
    /// The read buffer that all connections of the loop share.
    pub(crate) buffer: Cell<Vec<u8>>,
    /// What this loop has to tell the others about its subscriptions, in order.
    pub(crate) announcements: Announcements,
    /// Sessions that are to be kept at the end of the turn.
    pub(crate) changed: Changed,
    /// Sessions that know names of messages that are over.
    pub(crate) remembered: Remembered,
    /// MQTT clients that have not connected yet.
    pub(crate) lobby: Rc<Lobby>,
    /// Log lines about those that were turned away, and about handshakes.
    pub(crate) hush: Hushes,
    /// The listening sockets until they are opened.
    pub(crate) doors: RefCell<Vec<(Door, TcpListener)>>,
    /// The tasks that accept.
    pub(crate) accepting: RefCell<Vec<actix_rt::task::JoinHandle<()>>>,
}

thread_local! {
    static HERE: OnceCell<Rc<EdgeLoop>> = const { OnceCell::new() };
}

/// The edge of this thread's loop.
///
/// # Panics
/// On a thread that is no loop; every caller runs on one.
pub(crate) fn here() -> Rc<EdgeLoop> {
    HERE.with(|edge| Rc::clone(edge.get().expect("only a loop's own tasks ask for its edge")))
}

/// Attaches an edge to the loop of this thread.
pub(crate) fn attach(handle: &LoopHandle, shared: Arc<Shared>) -> Rc<EdgeLoop> {
    let loops = usize::from(handle.services().loops());
    let edge = Rc::new(EdgeLoop {
        router: RefCell::new(Router::new(handle.id(), loops)),
        handle: handle.clone(),
        lobby: Rc::new(Lobby::new(Arc::clone(&shared.admission), loops)),
        hush: Hushes::default(),
        shared,
        connections: RefCell::default(),
        sessions: RefCell::default(),
        waits: RefCell::default(),
        replays: RefCell::default(),
        crowded_notes: Cell::default(),
        retained_cursor: RefCell::default(),
        traffic: Traffic::default(),
        seats: RefCell::default(),
        commands: RefCell::default(),
        commands_due: Notify::new(),
        shadows: RefCell::default(),
        buffer: Cell::new(vec![0; READ_BUFFER]),
        announcements: Announcements::default(),
        changed: Changed::default(),
        remembered: Remembered::default(),
        doors: RefCell::default(),
        accepting: RefCell::default(),
    });
    HERE.with(|here| drop(here.set(Rc::clone(&edge))));
    handle.set_edge(Rc::clone(&edge) as Rc<dyn Edge>);
    edge
}

/// Where the names of messages with QoS 2 begin: a million starts a second would have to go by before one is given twice.
pub(crate) fn first_origin() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// Bytes that one read takes at most.
pub(crate) const READ_BUFFER: usize = 64 * 1024;

/// The bit of an [`AckTo::key`] that tells an HTTP request from a connection.
const HTTP: u64 = 1 << 63;
/// The lower half of an [`AckTo::key`] with [`HTTP`] that tells a bridge: no request has a place with this number. The upper half
/// is the bridge's number.
const BRIDGE: u64 = 0xFFFF_FFFF;

impl EdgeLoop {
    /// Runs `task` on another loop's edge, or here. Returns `false` when that loop's inbox is full.
    pub(crate) fn on_loop(&self, id: LoopId, task: impl FnOnce(&Rc<EdgeLoop>) + Send + 'static) -> bool {
        let message = LoopMessage::Task(Box::new(move |_| task(&here())));
        self.handle.services().outlets[id.index()].try_send(message).is_ok()
    }

    /// Runs `task` on a loop's edge: at once if it is this one. Returns `false` when that loop's inbox is full.
    pub(crate) fn at_loop(self: &Rc<Self>, id: LoopId, task: impl FnOnce(&Rc<EdgeLoop>) + Send + 'static) -> bool {
        if id == self.handle.id() {
            task(self);
            return true;
        }
        self.on_loop(id, task)
    }

    /// As [`EdgeLoop::at_loop`], for what must not get lost: a full inbox is tried again.
    pub(crate) fn at_loop_surely(self: &Rc<Self>, id: LoopId, task: impl FnOnce(&Rc<EdgeLoop>) + Send + 'static) {
        if id == self.handle.id() {
            return task(self);
        }
        let outlet = &self.handle.services().outlets[id.index()];
        let Err(mut message) = outlet.try_send(LoopMessage::Task(Box::new(move |_| task(&here())))) else { return };
        let edge = Rc::clone(self);
        actix_rt::spawn(async move {
            while let Err(back) = edge.handle.services().outlets[id.index()].try_send(message) {
                message = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    /// MQTT connections of the node.
    pub(crate) fn connected(&self) -> usize {
        self.shared.counters.mqtt_connections.load(Ordering::Relaxed)
    }

    /// Milliseconds since the node started, for timeouts.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.handle.services().uptime_ms()
    }

    /// A name for a message with QoS 2, never 0.
    pub(crate) fn next_origin(&self) -> u64 {
        self.shared.origins.fetch_add(1, Ordering::Relaxed).max(1)
    }

    /// The other loops.
    pub(crate) fn others(&self) -> impl Iterator<Item = LoopId> + use<> {
        let me = self.handle.id();
        (0..self.handle.services().loops()).map(LoopId).filter(move |id| *id != me)
    }

    /// Whom the runtime answers for a connection's packet.
    pub(crate) fn ack_to_connection(&self, key: u64, packet_id: u16) -> AckTo {
        AckTo { home: self.handle.id(), key, item: u32::from(packet_id) }
    }

    /// Whom the runtime answers for an item of a waiting request.
    pub(crate) fn ack_to_request(&self, key: u64, item: u32) -> AckTo {
        AckTo { home: self.handle.id(), key: key | HTTP, item }
    }

    /// Whom the runtime answers for a reading of a bridge.
    pub(crate) fn ack_to_bridge(&self, bridge: usize, token: u32) -> AckTo {
        AckTo { home: self.handle.id(), key: HTTP | (bridge as u64) << 32 | BRIDGE, item: token }
    }
}

impl Edge for EdgeLoop {
    fn on_acks(&self, acks: Vec<Ack>) {
        for ack in acks {
            if ack.to.key & (HTTP | BRIDGE) == HTTP | BRIDGE {
                let bridge = usize::try_from((ack.to.key & !HTTP) >> 32).unwrap_or(usize::MAX);
                self.shared.bridges.answer(bridge, ack.to.item, ack.answer);
            } else if ack.to.key & HTTP != 0 {
                self.waits.borrow_mut().answer(ack.to.key & !HTTP, ack.to.item, ack.answer);
            } else {
                crate::mqtt::readings::on_ack(self, &ack);
            }
        }
    }

    fn on_shown(&self, shown: Vec<Shown>) {
        for shown in shown {
            crate::mqtt::router::publish_shown(self, &shown);
        }
    }

    fn on_commands(&self, commands: Vec<(String, ScriptCommand)>) {
        // What a handler wants is sent once its outcome is durable: a crash before that has the handler run again.
        commands::of_handlers(&here(), commands);
    }

    fn on_turn_end(&self) {
        crate::mqtt::router::forward(self);
        crate::mqtt::retaining::keep_noted(self);
        crate::mqtt::changed::keep_all(self);
        self.traffic.settle(&self.shared.counters);
        receipt::answer_complete(self);
        self.connections.borrow_mut().wake_dirty();
    }
}
