//! Every key of the configuration, once: its type, default, bounds, flag, and what it means. The typed structs, the
//! reading, `config show`, the suggestions and `docs/config.md` all come from here. A new key is one line here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tidegate_actors::{limits, reading::AckLevel, script::OpenPolicy};
use tidegate_scripts::Hosts;

use super::{
    Config, machine,
    rule::Rule,
    value::{Field, Value},
};
use crate::auth::Role;
use crate::transport::identity::DeviceIdFrom;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const HOUR_MS: u64 = 3_600_000;
/// Most loops, and most script workers: far beyond the cores of today's machines, far below what exhausts them.
const MOST_CORES: usize = 256;

/// One key of the configuration.
pub(crate) struct Key {
    /// The dotted path, such as `mqtt.limits.inflight`.
    pub(crate) path: &'static str,
    /// What is allowed.
    pub(crate) rule: Rule,
    /// What it means, in Markdown.
    pub(crate) meaning: &'static str,
    /// What happens at the limit or with the setting.
    pub(crate) effect: &'static str,
    /// The flag of `tidegate serve` that sets it.
    pub(crate) flag: Option<&'static str>,
    /// The default in words, where it depends on the machine.
    pub(crate) derived: Option<&'static str>,
    /// The key's value in a configuration.
    pub(crate) get: fn(&Config) -> Value,
    /// Sets the key; `None` if the value does not fit its type.
    pub(crate) set: fn(&mut Config, Value) -> Option<()>,
}

impl Key {
    /// The part of the path after the section.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

/// One `[section]` of the file.
pub(crate) struct Section {
    /// The dotted path.
    pub(crate) path: &'static str,
    /// What the section is about.
    pub(crate) about: &'static str,
    /// Its keys, in the order of the reference.
    pub(crate) keys: &'static [Key],
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people, coloured on a terminal.
    Pretty,
}

/// Declares a section: its struct with defaults, and its keys. `at |config| place`: where a [`Config`] has it.
///
/// A key is `"name" field: type = default, rule, "effect"`, then `flag` and `derived` where it has them.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $struct:ident [$section:literal] at |$config:ident| $place:expr => {
            $(nested $nested:ident: $nested_type:ty,)?
            $(
                $(#[doc = $meaning:literal])+
                $name:literal $field:ident: $type:ty = $default:expr, $rule:expr, $effect:literal
                $(, flag $flag:literal)? $(, derived $derived:literal)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $struct {
            $(
                /// The section below this one.
                pub(crate) $nested: $nested_type,
            )?
            $( $(#[doc = $meaning])+ pub(crate) $field: $type, )+
        }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($nested: Default::default(),)? $($field: $default,)+ }
            }
        }

        impl $struct {
            const SECTION: Section = Section {
                path: $section,
                about: concat!($($about),+),
                keys: &[$(Key {
                    path: concat!($section, ".", $name),
                    rule: $rule,
                    meaning: concat!($($meaning),+),
                    effect: $effect,
                    flag: section!(@option $($flag)?),
                    derived: section!(@option $($derived)?),
                    get: |$config| $place.$field.to_value(),
                    set: |$config, value| {
                        $place.$field = Field::from_value(value)?;
                        Some(())
                    },
                },)+],
            };
        }
    };
    (@option) => { None };
    (@option $value:literal) => { Some($value) };
}

/// Every section, in the order of the reference.
pub(crate) const SECTIONS: &[Section] = &[
    Mqtt::SECTION,
    MqttLimits::SECTION,
    Http::SECTION,
    HttpLimits::SECTION,
    Viewers::SECTION,
    Data::SECTION,
    Runtime::SECTION,
    Scripts::SECTION,
    Log::SECTION,
    Auth::SECTION,
    AuthBans::SECTION,
    Security::SECTION,
];

/// Every key.
pub(crate) fn keys() -> impl Iterator<Item = &'static Key> + Clone {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key at a dotted path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

section! {
    /// The MQTT listeners (3.1.1 and 5): TCP, TLS, WebSocket. MQTT over WebSocket is at `/mqtt` of the HTTP listeners, too.
    Mqtt["mqtt"] at |config| config.mqtt => {
        nested limits: MqttLimits,

        /// Addresses that MQTT listens on. Port 0 takes a free one.
        "bind" bind: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 1883))], Rule::Binds,
            "An address that other machines can reach needs authentication (section `auth`), or `security.insecure_allow_anonymous`.", flag "--mqtt-bind";
        /// Addresses for MQTT over TLS, such as 127.0.0.1:8883.
        "tls_bind" tls_bind: Vec<SocketAddr> = Vec::new(), Rule::Binds,
            "Needs `mqtt.tls_cert` and `mqtt.tls_key`. TLS 1.2 and 1.3.", flag "--mqtts-bind", derived "none";
        /// Addresses for nothing but MQTT over WebSocket.
        "ws_bind" ws_bind: Vec<SocketAddr> = Vec::new(), Rule::Binds,
            "The path is `/mqtt` or `/`, the subprotocol `mqtt`.", flag "--ws-bind", derived "none";
        /// Addresses for nothing but MQTT over WebSocket over TLS.
        "wss_bind" wss_bind: Vec<SocketAddr> = Vec::new(), Rule::Binds,
            "Needs `mqtt.tls_cert` and `mqtt.tls_key`.", flag "--wss-bind", derived "none";
        /// Web origins whose pages may connect by WebSocket, beside the page's own: what a browser says in `Origin`.
        "ws_origins" ws_origins: String = String::new(), Rule::Origins,
            "A page of another origin is refused: 403. Clients that are no browsers send none and are not asked.";
        /// This node's certificate and those between it and its CA, in this order (PEM).
        "tls_cert" tls_cert: Option<PathBuf> = None, Rule::OptionalPath,
            "Read again when it changes, and at SIGHUP; one that cannot be used leaves the former in use, which is logged and counted.";
        /// The certificate's private key (PEM, not encrypted).
        "tls_key" tls_key: Option<PathBuf> = None, Rule::OptionalPath,
            "As `tls_cert`.";
        /// The certificates of the CAs that issue clients' certificates (PEM). Set: clients are asked for one.
        "tls_client_ca" tls_client_ca: Option<PathBuf> = None, Rule::OptionalPath,
            "A certificate of any other issuer is refused in the handshake.";
        /// Revocation lists of those CAs (PEM).
        "tls_crl" tls_crl: Option<PathBuf> = None, Rule::OptionalPath,
            "A revoked certificate is refused in the handshake, and so is one whose issuer has no list; a live connection of one is closed when the list is read.";
        /// Whether a client must show a certificate, where `tls_client_ca` is set.
        "tls_require_client_cert" tls_require_client_cert: bool = true, Rule::Switch,
            "false: a client without one may come in, and is nobody by its certificate.";
        /// Which part of a client's certificate names its device.
        "tls_device_id" tls_device_id: DeviceIdFrom = DeviceIdFrom::None,
            Rule::Choice(&["none", "cn", "san-dns", "san-uri"]),
            "The client id must be that name (CONNACK 0x85 otherwise); an empty client id becomes it. none: any client id.";
        /// How far a reading must have come before its PUBACK. `received` is not offered: a PUBACK means durable.
        "default_ack" default_ack: AckLevel = AckLevel::Committed, Rule::Choice(&["committed", "processed"]),
            "committed: the journal has synced it. processed: the handlers have run and the state has it.";
        /// Seconds between two rounds of `$SYS/broker/...`; 0: there is no `$SYS`.
        "sys_interval_s" sys_interval_s: u64 = limits::MQTT_SYS_INTERVAL_S, Rule::Count(0, 86_400),
            "What has changed is published, if anybody has subscribed to it.";
    }
}

section! {
    /// Bounds of one MQTT connection.
    MqttLimits["mqtt.limits"] at |config| config.mqtt.limits => {
        /// Largest packet.
        "packet_bytes" packet_bytes: usize = limits::MQTT_PACKET_BYTES, Rule::Size(KIB, 256 * MIB),
            "A larger packet closes the connection (v5: 0x95 packet too large).";
        /// Largest packet before the CONNECT was accepted; at most `packet_bytes`.
        "pre_auth_packet_bytes" pre_auth_packet_bytes: usize = limits::MQTT_PRE_AUTH_BYTES, Rule::Size(KIB, MIB),
            "A larger packet closes the connection.";
        /// Time that a connection has to send its CONNECT.
        "connect_timeout_ms" connect_timeout: Duration = limits::MQTT_CONNECT_TIMEOUT, Rule::Millis(100, 600_000),
            "A connection without a CONNECT is closed. The handshakes of TLS and WebSocket are within it.";
        /// Connections that have not connected yet, over all MQTT listeners together: in the handshakes of TLS and WebSocket, or
        /// before their CONNECT is accepted.
        "pre_auth_connections" pre_auth_connections: usize = limits::MQTT_PRE_AUTH_CONNECTIONS, Rule::Count(1, 1_000_000),
            "Nobody is accepted until one is through; one that takes longer than 2 s gives way to a newer one, counted.";
        /// Of those, how many may come from one address (IPv6: one /64).
        "pre_auth_per_address" pre_auth_per_address: usize = limits::MQTT_PRE_AUTH_PER_ADDRESS, Rule::Count(1, 1_000_000),
            "A further one is closed at once, counted.";
        /// Connections that are accepted in a second; as many at once after a quiet second. One over TLS counts as four.
        "connects_per_s" connects_per_s: u32 = limits::MQTT_CONNECTS_PER_S, Rule::Count(1, 1_000_000),
            "Others wait in the kernel's queue (4,096 for each listener and loop).";
        /// Unacknowledged QoS 1 messages to one subscriber.
        "inflight" inflight: u16 = limits::MQTT_INFLIGHT, Rule::Count(1, 65_535),
            "Further messages wait for its acknowledgements, up to `queue` and `queue_bytes`.";
        /// Messages with QoS 1 and 2 that wait in one session: for acknowledgements, or for the client to come back.
        "queue" queue: usize = limits::MQTT_QUEUE, Rule::Count(1, 10_000_000),
            "A further one is dropped for this session, counted.";
        /// Bytes of the messages that wait in one session. One message of any size may.
        "queue_bytes" queue_bytes: usize = limits::MQTT_QUEUE_BYTES, Rule::Size(KIB, TIB),
            "A further one is dropped for this session, counted.";
        /// PUBLISHes of one client that are not done: with QoS 1 until their PUBACK, with QoS 2 until their PUBREL.
        "receive_maximum" receive_maximum: u16 = limits::MQTT_RECEIVE_MAXIMUM, Rule::Count(1, 65_535),
            "The socket is not read while as many wait for the disk. More: closed (v5: 0x93, as the CONNACK's Receive Maximum says).";
        /// Topic aliases that one client may use.
        "topic_aliases" topic_aliases: u16 = limits::MQTT_TOPIC_ALIASES, Rule::Count(0, 65_535),
            "The CONNACK says so; a higher alias closes the connection (v5: 0x94).";
        /// Longest keep alive of an MQTT 5 client, in seconds; 0: as it likes.
        "keep_alive_s" keep_alive_s: u16 = 0, Rule::Count(0, 65_535),
            "A client that asks for a longer one, or for none, is told to use this (Server Keep Alive).";
        /// Longest time that a session is kept without its client, in seconds; 4294967295: for ever.
        "session_expiry_s" session_expiry_s: u32 = limits::MQTT_SESSION_EXPIRY_S, Rule::Count(0, 4_294_967_295),
            "A client that asks for more gets this, and is told (v5: Session Expiry Interval). 0: no session outlives its connection.";
        /// Sessions of the node that outlive their connection.
        "sessions" sessions: usize = limits::MQTT_SESSIONS, Rule::Count(0, 10_000_000),
            "A CONNECT that asks for a further one is refused (CONNACK 0x97, quota exceeded).";
        /// Subscriptions of one session.
        "subscriptions" subscriptions: usize = limits::MQTT_SUBSCRIPTIONS, Rule::Count(1, 100_000),
            "A further one is refused (SUBACK 0x97, quota exceeded).";
        /// Subscriptions of all connections together.
        "subscriptions_total" subscriptions_total: usize = limits::MQTT_SUBSCRIPTIONS_TOTAL, Rule::Count(1, 100_000_000),
            "A further one is refused (SUBACK 0x97, quota exceeded).";
        /// Retained messages.
        "retained_messages" retained_messages: usize = limits::MQTT_RETAINED_MESSAGES, Rule::Count(0, 100_000_000),
            "A further one is refused (v5: 0x97, quota exceeded); over 3.1.1, and as a reading or a will, it is delivered and not retained, counted.";
        /// Bytes of all retained messages, with topics and properties and 48 a message beside.
        "retained_bytes" retained_bytes: usize = limits::MQTT_RETAINED_BYTES, Rule::Size(4 * KIB, TIB),
            "As at `retained_messages`.";
        /// Bytes that wait to be written to one subscriber.
        "outbound_bytes" outbound_bytes: usize = limits::MQTT_OUTBOUND_BYTES, Rule::Size(4 * KIB, GIB),
            "Messages for a subscriber that does not read are dropped, counted.";
    }
}

section! {
    /// The HTTP listener: ingestion, queries, live streams and the dashboard.
    Http["http"] at |config| config.http => {
        nested limits: HttpLimits,

        /// Addresses that HTTP listens on. Port 0 takes a free one.
        "bind" bind: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 8080))], Rule::Binds,
            "An address that other machines can reach needs authentication (section `auth`), or `security.insecure_allow_anonymous`.", flag "--http-bind";
        /// Addresses for HTTP over TLS.
        "tls_bind" tls_bind: Vec<SocketAddr> = Vec::new(), Rule::Binds,
            "Needs a certificate and its key.", flag "--https-bind", derived "none";
        /// This node's certificate for HTTP (PEM).
        "tls_cert" tls_cert: Option<PathBuf> = None, Rule::OptionalPath,
            "Read again when it changes, and at SIGHUP.", derived "`mqtt.tls_cert`";
        /// The certificate's private key (PEM, not encrypted).
        "tls_key" tls_key: Option<PathBuf> = None, Rule::OptionalPath,
            "As `tls_cert`.", derived "`mqtt.tls_key`";
        /// How far a reading must have come before it is answered, where the request does not say.
        "default_ack" default_ack: AckLevel = AckLevel::Received,
            Rule::Choice(&["received", "committed", "processed"]),
            "received: 202, held in memory. committed: 200, durable. processed: 200, folded into the state.";
    }
}

section! {
    /// Bounds of one HTTP request.
    HttpLimits["http.limits"] at |config| config.http.limits => {
        /// HTTP connections of the node at one time, viewers and idle ones included.
        "connections" connections: usize = limits::HTTP_CONNECTIONS, Rule::Count(1, 1_000_000),
            "A further one is refused: 503.";
        /// Largest body.
        "body_bytes" body_bytes: usize = limits::HTTP_BODY_BYTES, Rule::Size(KIB, 256 * MIB),
            "A larger body is refused: 413.";
        /// Time that a client has to send its request head.
        "header_timeout_ms" header_timeout: Duration = limits::HTTP_HEADER_TIMEOUT, Rule::Millis(100, 600_000),
            "A connection without a whole head is closed: 408.";
    }
}

section! {
    /// Live viewers: WebSocket and SSE.
    Viewers["viewers"] at |config| config.viewers => {
        /// Viewers of the node at one time.
        "max" max: usize = limits::VIEWERS, Rule::Count(1, 100_000),
            "A further one is refused: 503.";
        /// Bytes of updates that wait for one viewer one by one.
        "buffer_bytes" buffer_bytes: usize = limits::VIEWER_BUFFER_BYTES, Rule::Size(4 * KIB, 64 * MIB),
            "Further updates are conflated to the latest of each device.";
        /// Time after which a viewer that does not read is dropped.
        "stall_timeout_ms" stall_timeout: Duration = limits::VIEWER_STALL, Rule::Millis(1_000, HOUR_MS),
            "Its connection is closed; it may come back and gets a fresh snapshot.";
        /// Device ids and prefixes of one viewer's filter.
        "filters" filters: usize = limits::VIEWER_FILTERS, Rule::Count(1, 100_000),
            "A longer filter is refused: 400.";
    }
}

section! {
    /// What is kept on disk.
    Data["data"] at |config| config.data => {
        /// The directory of the journal, the states and the parked readings. It is made if it does not exist.
        "dir" dir: PathBuf = PathBuf::from("./tidegate-data"), Rule::Path,
            "One node at a time: a second one on the same directory refuses to start.", flag "--data-dir";
        /// Bytes of the journal that are kept after the states cover them, for replay and history.
        "journal_retention_bytes" journal_retention_bytes: u64 = GIB, Rule::Size(0, 16 * TIB),
            "Whole old segments are freed; a segment that no snapshot covers stays whatever this says.";
        /// Hours for which the journal is kept after the states cover it; 0: no bound by age.
        "journal_retention_hours" journal_retention_hours: u64 = 168, Rule::Count(0, 876_000),
            "Segments are closed after an eighth of it, and freed when they are older or beyond `journal_retention_bytes`. A node that takes nothing in frees nothing.";
        /// Size at which a journal segment is closed.
        "segment_bytes" segment_bytes: u64 = limits::SEGMENT_BYTES, Rule::Size(MIB, 4 * GIB),
            "A new segment file is begun.";
        /// Longest wait for company of a commit that nobody waits for.
        "commit_max_delay_ms" commit_max_delay: Duration = limits::COMMIT_MAX_DELAY, Rule::Millis(0, 1_000),
            "What has gathered is written and synced. 0: at once. For commits that somebody waits for, see `runtime.gather_ms`.";
        /// Time between two checkpoints of the latest states.
        "checkpoint_interval_ms" checkpoint_interval: Duration = limits::CHECKPOINT_INTERVAL, Rule::Millis(100, 600_000),
            "The changed states are stored; a longer interval writes less and recovers more slowly.";
        /// Cache of the store of the latest states; best at four times the bytes of all states.
        "sled_cache_bytes" sled_cache_bytes: u64 = 256 * MIB, Rule::Size(8 * MIB, TIB),
            "The least recently used pages are dropped and read again from disk.";
    }
}

section! {
    /// Threads and memory of the node.
    Runtime["runtime"] at |config| config.runtime => {
        /// Event loops; each owns its share of the devices and connections.
        "loops" loops: usize = machine::cores(MOST_CORES), Rule::Count(1, MOST_CORES as u64),
            "More loops than cores bring nothing.", flag "--loops", derived "one per core";
        /// Threads of the shared blocking pool (files, password hashes, compression, what handlers wait for).
        "blocking_threads" blocking_threads: usize = limits::BLOCKING_THREADS, Rule::Count(1, 256),
            "Further jobs wait.", flag "--blocking-threads";
        /// Jobs that wait for the blocking pool.
        "blocking_jobs" blocking_jobs: usize = limits::BLOCKING_JOBS, Rule::Count(1, 1_000_000),
            "A further job is refused by name (HTTP: 503).";
        /// Time between two wake-ups of a loop, and between two commits, while sockets have something for them all the time.
        "gather_ms" gather: Duration = limits::GATHER, Rule::Millis(0, 100),
            "A wake-up costs more than the message that it brings: a loop that expects two or more MQTT messages within this time fetches them together. HTTP requests are not held up, nor are MQTT clients that all wait for each answer. 0: nothing waits; answers are as fast as they can be, for two to four times the processor time at thousands of messages a second.";
        /// Memory of the node's own process; script workers have limits of their own.
        "memory_limit_bytes" memory_limit_bytes: u64 = machine::memory_share().max(64 * MIB), Rule::Size(64 * MIB, 64 * TIB),
            "At 80 % of it sockets are not read (HTTP: 503 after 2 s) until less is used or nothing is under way; at 90 % readings are refused and counted (`memory`), and `/readyz` says so.",
            derived "80 % of the machine's or the cgroup's memory, whichever is less";
    }
}

section! {
    /// Operators' handlers and the worker processes that run them.
    Scripts["scripts"] at |config| config.scripts => {
        /// The directory of the handlers (`*.js`). If it does not exist, readings become states unchanged.
        "dir" dir: PathBuf = PathBuf::from("./handlers"), Rule::Path,
            "Files run in the order of their names.", flag "--handlers";
        /// Worker processes.
        "workers" workers: usize = machine::cores(MOST_CORES), Rule::Count(1, MOST_CORES as u64),
            "Further batches wait for a free worker.", flag "--script-workers", derived "one per core";
        /// Wall time of one call of a handler.
        "call_wall_ms" call_wall: Duration = limits::SCRIPT_CALL_WALL, Rule::Millis(1, 60_000),
            "The worker is killed and its reading parked (`deadline`).";
        /// Time for which a handler may wait for its promise, by its own clock; twice as long on the wall.
        "async_wall_ms" async_wall: Duration = limits::SCRIPT_ASYNC_WALL, Rule::Millis(1, 600_000),
            "Its reading is parked (`deadline`).";
        /// Heap of one worker.
        "heap_bytes" heap_bytes: u64 = limits::SCRIPT_HEAP_BYTES, Rule::Size(16 * MIB, 64 * GIB),
            "The worker is ended and its reading parked (`memory`).";
        /// Failures in a row after which a handler's breaker opens.
        "breaker_failures" breaker_failures: u32 = limits::SCRIPT_BREAKER_FAILURES, Rule::Count(1, 1_000_000),
            "What then becomes of readings for the handler says `scripts.breaker_policy`.";
        /// Time for which a breaker stays open before it lets one reading through.
        "breaker_open_ms" breaker_open: Duration = limits::SCRIPT_BREAKER_OPEN, Rule::Millis(100, 24 * HOUR_MS),
            "One reading is tried: it closes the breaker or opens it again.";
        /// What becomes of readings for a handler while its breaker is open.
        "breaker_policy" breaker_policy: OpenPolicy = OpenPolicy::Park, Rule::Choice(&["pass", "park", "reject"]),
            "park: they are kept aside to be retried (`breaker-open`). pass: they go on without the handler. reject: they are refused at the door (`handler-open`), and those that were in already are parked.";
        /// Restarts of workers within a minute that one handler may cause.
        "max_restarts" max_restarts: u32 = limits::SCRIPT_MAX_RESTARTS, Rule::Count(1, 1_000),
            "Its breaker opens.";
        /// The part of the devices, in percent, on whose readings new handlers are tried beside the running ones; 0: they are not tried.
        "canary_share" canary_share: u32 = 10, Rule::Count(0, 100),
            "Their readings cost three times the CPU time as long as it lasts; the results of the running handlers count.";
        /// Readings after which it is decided about new handlers.
        "canary_readings" canary_readings: u64 = 1_000, Rule::Count(1, 10_000_000),
            "New handlers take over, unless they fail more often or are much dearer.";
        /// Time after which it is decided about new handlers in any case, also if no reading came.
        "canary_ms" canary_time: Duration = Duration::from_secs(10), Rule::Millis(1, 600_000),
            "As `scripts.canary_readings`.";
        /// How many times the CPU time of the running handlers new ones may take.
        "canary_cost_factor" canary_cost_factor: u32 = 4, Rule::Count(1, 1_000),
            "Above it, and above 50 us a reading more, they are rolled back.";
        /// Time that a task of a handler (`new Worker` of `node:worker_threads`) has.
        "task_wall_ms" task_wall: Duration = limits::SCRIPT_TASK_WALL, Rule::Millis(1, 600_000),
            "Its process is killed, its Worker has an `error`. A reading waits no longer than twice `scripts.async_wall_ms`.";
        /// Threads of the blocking pool that handlers' slow work may hold at once, and never the last one; waiting for other hosts and tasks never take the last of these.
        "pool_threads" pool_threads: usize = limits::SCRIPT_POOL_THREADS, Rule::Count(1, 256),
            "Further pieces wait, 1,024 at most.";
        /// Bytes of the files that one handler may keep.
        "fs_bytes" fs_bytes: u64 = limits::SCRIPT_FS_BYTES, Rule::Size(0, TIB),
            "What would be more is refused (`EDQUOT`).";
        /// Files and folders that one handler may keep.
        "fs_files" fs_files: u64 = limits::SCRIPT_FS_FILES, Rule::Count(0, 100_000),
            "One more is refused (`EDQUOT`).";
        /// Hosts that handlers may reach with `fetch` and look up with `dns.lookup`, separated by commas: `api.example.org`, `*.example.org` (below it), `10.0.0.7:8080`, `[::1]:*`. Without a port it is that of `http` or `https`.
        "fetch_allow" fetch_allow: String = String::new(), Rule::Checked("hosts separated by commas, such as api.example.org, *.example.org, 10.0.0.7:8080 or [::1]:*; empty: none", check_hosts),
            "Any other host is refused, also behind a redirect. Empty: all are.";
        /// Time of one `fetch`, redirects and body included.
        "fetch_wall_ms" fetch_wall: Duration = limits::SCRIPT_FETCH_WALL, Rule::Millis(1, 600_000),
            "Its promise is rejected. A reading waits no longer than `scripts.async_wall_ms`.";
        /// Largest body of an answer to a `fetch`.
        "fetch_body_bytes" fetch_body: u64 = limits::SCRIPT_FETCH_BODY as u64, Rule::Size(0, 32 * MIB),
            "Its promise is rejected.";
        /// `fetch`es in a row to a host that come to nothing (no connection, no answer in time) after which it is left alone.
        "fetch_breaker_failures" fetch_breaker_failures: u32 = limits::SCRIPT_FETCH_BREAKER_FAILURES, Rule::Count(1, 1_000_000),
            "Further ones are refused at once for `scripts.fetch_breaker_open_ms`.";
        /// Time for which a host is left alone before one `fetch` tries it.
        "fetch_breaker_open_ms" fetch_breaker_open: Duration = limits::SCRIPT_FETCH_BREAKER_OPEN, Rule::Millis(100, 24 * HOUR_MS),
            "One is tried: if it is answered, the others may come, too.";
    }
}

fn check_hosts(text: &str) -> Result<(), String> {
    text.parse::<Hosts>().map(drop)
}

section! {
    /// Log lines, on stderr.
    Log["log"] at |config| config.log => {
        /// How a line is written.
        "format" format: LogFormat = LogFormat::Pretty, Rule::Choice(&["json", "pretty"]),
            "json: one object a line. pretty: text, coloured on a terminal unless `NO_COLOR` is set.", flag "--log-format";
        /// Which lines are written. `TIDEGATE_LOG` is its short variable.
        "level" level: String = "info".to_owned(), Rule::LogFilter,
            "Lines below the level are dropped.", flag "--log-level";
    }
}

section! {
    /// Identity and authorization. Authentication is on when a users' file is there, or any of `users_file`, `acl_file` and `jwt_key_file` is set.
    Auth["auth"] at |config| config.auth => {
        nested bans: AuthBans,

        /// The users' file, which `tidegate user` and `tidegate token` write. If it is not set, it is `users.jsonl` in `data.dir`, if that is there.
        "users_file" users_file: Option<PathBuf> = None, Rule::OptionalPath,
            "A file that is set and missing, or that is wrong anywhere, refuses to start. A change takes effect within a second.", flag "--users-file", derived "users.jsonl in the data directory, if it is there";
        /// Rules for topics in the syntax of mosquitto's `acl_file`. They add to what the roles grant; a `deny` wins.
        "acl_file" acl_file: Option<PathBuf> = None, Rule::OptionalPath,
            "A file that is missing or wrong anywhere refuses to start. A change takes effect within a second.", flag "--acl-file", derived "none";
        /// Which listeners let somebody in without a credential while authentication is on.
        "allow_anonymous" allow_anonymous: String = "none".to_owned(), Rule::Choice(&["none", "mqtt", "http", "all"]),
            "none: a client without a credential is refused (MQTT 0x87, HTTP 401).";
        /// The role of those who are let in without a credential. An anonymous `device` is the one that its client id names.
        "anonymous_role" anonymous_role: Role = Role::Device, Rule::Choice(&Role::NAMES),
            "Whoever can reach the listener has it.";
        /// For how long a password that was verified counts as verified.
        "verified_ms" verified: Duration = Duration::from_secs(3_600), Rule::Millis(0, 24 * HOUR_MS),
            "A fleet that reconnects costs no password hashes. A changed password is checked at once. 0: each login is hashed.";
        /// The key that signs JSON Web Tokens: a PEM file (public key), a JWKS file (`.json`), or a file with the secret of HS256 and its like.
        "jwt_key_file" jwt_key_file: Option<PathBuf> = None, Rule::OptionalPath,
            "Tokens are taken as MQTT password or user name, and as HTTP bearer. A file that is missing or wrong refuses to start.";
        /// The algorithms that a token may have; what its own header says is only compared with these.
        "jwt_algorithms" jwt_algorithms: String = "RS256,ES256,EdDSA".to_owned(),
            Rule::Words(&["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]),
            "Another algorithm is refused, and so is one that the key is not made for.";
        /// The audience (`aud`) that a token must name.
        "jwt_audience" jwt_audience: String = String::new(), Rule::Text,
            "Empty: a token that names an audience is refused.";
        /// The issuer (`iss`) that a token must have.
        "jwt_issuer" jwt_issuer: String = String::new(), Rule::Text,
            "Empty: any issuer that has the key.";
        /// The claim that is the user's name.
        "jwt_name_claim" jwt_name_claim: String = "sub".to_owned(), Rule::Text,
            "A token without it is refused.";
        /// The claim that is the device's id.
        "jwt_device_claim" jwt_device_claim: String = "device".to_owned(), Rule::Text,
            "A token of the role `device` without it is of the device that its name claim names.";
        /// The claim that is the role.
        "jwt_role_claim" jwt_role_claim: String = "role".to_owned(), Rule::Text,
            "A token without it has the role `device`; one with a role that is not known is refused.";
        /// Size at which `audit.log` in `data.dir` is put aside.
        "audit_bytes" audit_bytes: u64 = 10 * MIB, Rule::Size(64 * KIB, 16 * GIB),
            "A new file is begun.";
        /// Files of the audit log.
        "audit_files" audit_files: usize = 10, Rule::Count(1, 1_000),
            "The oldest is removed.";
    }
}

section! {
    /// Who is kept out for a while, where authentication is on.
    AuthBans["auth.bans"] at |config| config.auth.bans => {
        /// Wrong credentials from one address (an IPv6 network of 64 bits counts as one) within `wrong_passwords_within_ms`. 0: no bans.
        "wrong_passwords" wrong_passwords: u32 = 10, Rule::Count(0, 1_000_000),
            "The address is refused for `wrong_passwords_ban_ms` (MQTT 0x8A, HTTP 429).";
        /// See `wrong_passwords`.
        "wrong_passwords_within_ms" wrong_passwords_within: Duration = Duration::from_secs(60), Rule::Millis(1_000, 24 * HOUR_MS),
            "Older ones do not count.";
        /// See `wrong_passwords`.
        "wrong_passwords_ban_ms" wrong_passwords_ban: Duration = Duration::from_secs(60), Rule::Millis(1_000, 24 * HOUR_MS),
            "Then it may try again.";
        /// Whether addresses of this machine are spared. They are not by default: a proxy in front should have its own limits, and a guess from here is a guess.
        "spare_loopback" spare_loopback: bool = false, Rule::Switch,
            "true: 127.0.0.0/8 and ::1 are never banned.";
        /// Connections of one user and client id that end without a DISCONNECT within `disconnects_within_ms`. 0: no bans.
        "disconnects" disconnects: u32 = 15, Rule::Count(0, 1_000_000),
            "The client is refused for `disconnects_ban_ms` (MQTT 0x8A).";
        /// See `disconnects`.
        "disconnects_within_ms" disconnects_within: Duration = Duration::from_secs(60), Rule::Millis(1_000, 24 * HOUR_MS),
            "Older ones do not count.";
        /// See `disconnects`.
        "disconnects_ban_ms" disconnects_ban: Duration = Duration::from_secs(300), Rule::Millis(1_000, 24 * HOUR_MS),
            "Then it may connect again.";
    }
}

section! {
    /// Who may connect.
    Security["security"] at |config| config.security => {
        /// Whether anybody who can reach the node may use it without authentication.
        "insecure_allow_anonymous" insecure_allow_anonymous: bool = false, Rule::Switch,
            "false: an address that other machines can reach refuses to start unless its clients must authenticate.", flag "--insecure-allow-anonymous";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_and_every_key_sets_its_own_field() {
        let defaults = Config::default();
        for key in keys() {
            let value = (key.get)(&defaults);
            let shown = key.rule.show(&value);
            let given = super::super::file::parse_value(&shown).expect("show writes TOML");
            assert_eq!(key.rule.check(&given), Ok(value.clone()), "{} = {shown}", key.path);
            let mut config = defaults.clone();
            assert_eq!((key.set)(&mut config, value), Some(()), "{}", key.path);
            assert_eq!(config, defaults, "{}", key.path);
        }
    }

    #[test]
    fn bounds_fit_their_types_and_choices_are_all_known() {
        let mut config = Config::default();
        for key in keys() {
            let extremes = match key.rule {
                Rule::Count(min, max) | Rule::Size(min, max) | Rule::Millis(min, max) => {
                    vec![Value::Number(min), Value::Number(max)]
                }
                Rule::Choice(words) => words.iter().map(|word| Value::Text((*word).to_owned())).collect(),
                _ => continue,
            };
            for value in extremes {
                assert_eq!((key.set)(&mut config, value.clone()), Some(()), "{}", key.path);
                assert_eq!((key.get)(&config), value, "{}", key.path);
            }
        }
    }

    #[test]
    fn names_are_unique_and_lowercase() {
        let mut paths: Vec<_> = keys().map(|key| key.path).collect();
        assert!(paths.iter().all(|path| path.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c))));
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
