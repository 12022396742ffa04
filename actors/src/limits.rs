//! Every limit of first resort, by name. What happens at each limit stands beside it; a refusal names the limit in these words.

use std::time::Duration;

// ---- devices and readings

/// Longest device id, in bytes; longer: refused.
pub const DEVICE_ID_BYTES: usize = 256;
/// Largest payload of one reading, in bytes; larger: refused.
pub const READING_BYTES: usize = 256 * 1024;
/// Deepest nesting of a reading's JSON; deeper: refused. (serde_json's own bound is 128.)
pub const JSON_DEPTH: usize = 64;
/// Readings in one HTTP body or one ThingsBoard array; more: refused.
pub const READINGS_PER_REQUEST: usize = 10_000;
/// Longest idempotency key, in characters; longer: refused.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Idempotency keys that the node remembers with their bodies; more: the oldest is forgotten, counted. (Retries are told by
/// the device's own memory, which is durable.)
pub const IDEMPOTENCY_KEYS: usize = 100_000;

/// How far a device's own clock may run ahead of the node's; more counts as that much.
pub const DEVICE_TIME_AHEAD: Duration = Duration::from_secs(24 * 3_600);
/// Requests with an idempotency key that are remembered per device; more: the oldest is forgotten.
pub const IDEMPOTENT_REQUESTS: usize = 64;
/// Runs of readings without a gap that are remembered of one such request; more: the oldest is forgotten.
pub const IDEMPOTENT_GAPS: usize = 8;
/// Devices per loop whose refused readings are counted one by one; those of more devices count for the node only.
pub const LEDGER_DEVICES: usize = 10_000;

// ---- queues of the runtime

/// Messages that wait for one loop, from other loops and threads; full: the sender keeps its batch and stops reading its sockets.
pub const LOOP_INBOX: usize = 1_024;
/// Readings that one loop may have between admission and fold; full: the loop stops reading its sockets (HTTP: 503).
pub const LOOP_IN_FLIGHT: usize = 32_768;
/// Readings of one device that may wait for their handlers; full: the device's connection is not read.
pub const DEVICE_IN_FLIGHT: usize = 4_096;
/// Readings of one device that may be under way at all; more: refused. What one read of a connection and one request bring
/// fits in between, so that a sender that is stopped in time is not refused.
pub const DEVICE_IN_FLIGHT_REFUSED: usize = 2 * DEVICE_IN_FLIGHT + READINGS_PER_REQUEST;
/// Batches that wait for the journal thread; full: the loops keep their batch and stop reading.
pub const JOURNAL_QUEUE: usize = 64;
/// Bytes of records that are not worth waiting longer with, even if nobody waits for their commit.
pub const JOURNAL_BATCH_SOON: usize = 128 * 1024;
/// Bytes of records that one loop collects before it must hand them over; full: the loop stops reading.
pub const JOURNAL_BATCH_BYTES: usize = 1024 * 1024;
/// Batches of states that wait for the checkpoint thread; full: the loop keeps its dirty states and tries later.
pub const CHECKPOINT_QUEUE: usize = 64;
/// Readings on their way to one loop from the others; full: who puts in more stops reading its sockets (HTTP: 503).
pub const HANDOVER: usize = 8_192;
/// Readings on their way to one loop that are not worth waiting longer with, even if nobody waits for them.
pub const HANDOVER_SOON: usize = 256;
/// Devices that were not heard of for so long are passivated: their state stays in the store only.
pub const DEVICE_IDLE: Duration = Duration::from_secs(300);
/// States that a loop hands to the checkpoint thread at a time.
pub const CHECKPOINT_BATCH: usize = 2_048;
/// Messages an actor handles before it yields its loop.
pub const YIELD_AFTER: usize = 64;

// ---- journal and store

/// Size at which a journal segment is closed, in bytes.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Longest wait for company of a commit that nobody waits for.
pub const COMMIT_MAX_DELAY: Duration = Duration::from_millis(10);
/// How long the journal waits for the other loops' batches of the same tick when nobody waits for the commit.
pub const COMMIT_COMPANY: Duration = Duration::from_millis(2);
/// Time between two wake-ups of a loop, and between two commits, while sockets have something for them all the time.
pub const GATHER: Duration = Duration::from_millis(5);
/// What must be expected to come in within that time, or the loop does not wait for it.
pub const GATHER_WORTH: f64 = 2.0;
/// Time between two checkpoints of the latest states.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Largest body of a journal record, in bytes: what a decoder may allocate.
pub const RECORD_BYTES: usize = 4 * 1024 * 1024;
/// Longest key of a kept pair, in bytes; longer: refused. It holds a topic or a client id of the greatest length, and what tells
/// pairs of one apart.
pub const KEPT_KEY_BYTES: usize = 66_000;
/// Bytes of changed pairs of one loop that the checkpoint thread has not taken; more: the loop stops reading its sockets.
pub const KEPT_UNSTORED_BYTES: usize = 32 * 1024 * 1024;
/// Parked readings that are kept; more: the oldest is dropped, counted.
pub const PARKED_READINGS: usize = 10_000;

/// Records of an export a second, unless the export asks for more or less: at full speed it takes a core from the loops.
pub const EXPORT_RATE: u32 = 100_000;

// ---- blocking pool

/// Threads of the shared blocking pool.
pub const BLOCKING_THREADS: usize = 4;
/// Jobs that wait for the blocking pool; full: the job is refused by name.
pub const BLOCKING_JOBS: usize = 1_024;

// ---- scripts

/// Largest source of one handler file, in bytes.
pub const SCRIPT_SOURCE_BYTES: usize = 256 * 1024;
/// Largest file of an installed package (below a `node_modules`), in bytes.
pub const SCRIPT_PACKAGE_SOURCE_BYTES: usize = 1024 * 1024;
/// Files below `node_modules` folders that are looked through for what handlers import; more: the handlers cannot be read, or that
/// plugin is broken.
pub const SCRIPT_PACKAGE_FILES: usize = 20_000;
/// Deepest nesting of brackets in a handler's source.
pub const SCRIPT_NESTING: usize = 64;
/// Most handlers.
pub const SCRIPTS: usize = 64;
/// Files and folders below the handlers' directory, of packages those that are imported; more: the handlers cannot be read.
pub const SCRIPT_FILES: usize = 4_000;
/// Bytes of these files; more: the handlers cannot be read.
pub const SCRIPT_FILES_BYTES: usize = 16 * 1024 * 1024;
/// Files and folders of one handler's folder; more: that handler is broken.
pub const SCRIPT_FOLDER_FILES: usize = 1_000;
/// Bytes of these files; more: that handler is broken.
pub const SCRIPT_FOLDER_BYTES: usize = 4 * 1024 * 1024;
/// Folders within folders below the handlers' directory; deeper: not read.
pub const SCRIPT_FOLDER_DEPTH: usize = 16;
/// Timers (`export const timers`) of one handler; more: that handler is broken.
pub const SCRIPT_SCHEDULES: usize = 16;
/// Shortest time between two calls for such a timer; shorter: that handler is broken.
pub const SCRIPT_SCHEDULE_MIN: Duration = Duration::from_secs(1);
/// CPU time of one call of a handler.
pub const SCRIPT_CALL_CPU: Duration = Duration::from_millis(50);
/// Wall time of one call of a handler; longer: its worker is killed, the reading parked.
pub const SCRIPT_CALL_WALL: Duration = Duration::from_millis(500);
/// Largest JSON that goes into or comes out of a handler, in bytes.
pub const SCRIPT_VALUE_BYTES: usize = 1024 * 1024;
/// Time for which a handler may wait for its promise; more: the reading is parked (`deadline`).
pub const SCRIPT_ASYNC_WALL: Duration = Duration::from_secs(10);
/// Runs of one worker that wait in a handler; more: the worker gets no further runs until one of them is done.
pub const SCRIPT_WAITING: usize = 1_024;
/// Timers and immediates of one call that wait; more: the reading is parked (`threw`).
pub const SCRIPT_TIMERS: usize = 256;
/// Callbacks of one call (ticks, promise jobs, timers, immediates); more: the reading is parked (`deadline`).
pub const SCRIPT_JOBS: usize = 10_000;
/// Callbacks of one test of `tidegate script test`; more: the test fails.
pub const SCRIPT_TEST_JOBS: usize = 1_000_000;
/// Time without a sign of a test; longer: its worker is killed, the test fails.
pub const SCRIPT_TEST_WALL: Duration = Duration::from_secs(5);
/// Tests of one file; more: the file does not load.
pub const SCRIPT_TESTS: usize = 10_000;
/// Heap of one script worker, in bytes.
pub const SCRIPT_HEAP_BYTES: u64 = 128 * 1024 * 1024;
/// Failures in a row after which a script's breaker opens.
pub const SCRIPT_BREAKER_FAILURES: u32 = 3;
/// Time for which a script's breaker stays open before it lets one reading through.
pub const SCRIPT_BREAKER_OPEN: Duration = Duration::from_secs(60);
/// Restarts of workers in [`SCRIPT_RESTART_WINDOW`] that one script may cause; then its breaker opens.
pub const SCRIPT_MAX_RESTARTS: u32 = 5;
/// The time in which restarts are counted.
pub const SCRIPT_RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Sets of handlers that loaded and ran, kept with their sources for `tidegate script rollback`.
pub const SCRIPT_SETS_KEPT: usize = 5;
/// Runs that wait for a canary; full: it leaves some out.
pub const SCRIPT_CANARY_QUEUE: usize = 256;
/// Runs that wait for the script workers; full: the loop keeps its runs and, at `LOOP_IN_FLIGHT`, stops reading.
pub const SCRIPT_QUEUE: usize = 256;
/// Readings that go to a worker in one batch.
pub const SCRIPT_BATCH: usize = 256;
/// Readings of one device in one run of its handlers.
pub const SCRIPT_RUN: usize = 64;
/// `ctx.emit` calls of one call of a handler; more: the call fails.
pub const SCRIPT_EMITS: usize = 100;

// ---- slow work of scripts

/// Pieces of slow work of one call that are under way; more: the piece is refused.
pub const SCRIPT_CALL_JOBS: usize = 16;
/// Pieces of slow work of one worker that are under way; more: the piece is refused.
pub const SCRIPT_WORKER_JOBS: usize = 256;
/// Threads of the blocking pool that scripts may hold at once, and never the last one; further pieces wait.
pub const SCRIPT_POOL_THREADS: usize = 3;
/// Pieces of slow work that wait for such a thread; more: the piece is refused.
pub const SCRIPT_POOL_QUEUE: usize = 1_024;
/// Bytes of the arguments and answers of all pieces that are under way; more: the piece is refused.
pub const SCRIPT_POOL_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that one piece of slow work takes in, and of a file that is read; more: it is refused.
pub const SCRIPT_JOB_BYTES: usize = 8 * 1024 * 1024;
/// Iterations of `pbkdf2`, times the blocks of its key; more: it is refused.
pub const SCRIPT_PBKDF2_ROUNDS: u64 = 2_000_000;
/// The same for `pbkdf2Sync`, which holds its worker up.
pub const SCRIPT_PBKDF2_SYNC_ROUNDS: u64 = 10_000;
/// Longest key of `pbkdf2` and `scrypt`, in bytes.
pub const SCRIPT_KEY_BYTES: usize = 1_024;
/// Memory of one `scrypt` (128 * N * r), in bytes; more: it is refused.
pub const SCRIPT_SCRYPT_BYTES: u64 = 64 * 1024 * 1024;
/// The parallelization of one `scrypt` (p); more: it is refused.
pub const SCRIPT_SCRYPT_P: u32 = 16;
/// What one call of `zlib` may give, in bytes; more (a decompression bomb): it is stopped and refused.
pub const SCRIPT_ZLIB_BYTES: usize = 8 * 1024 * 1024;
/// What `zlib.brotliCompress` takes in, in bytes: at its best quality it works on a megabyte for seconds.
pub const SCRIPT_BROTLI_BYTES: usize = 1024 * 1024;
/// What a `zlib.*Sync` takes in and gives, in bytes.
pub const SCRIPT_ZLIB_SYNC_BYTES: usize = 256 * 1024;
/// Bytes of one script's files; more: `EDQUOT`.
pub const SCRIPT_FS_BYTES: u64 = 16 * 1024 * 1024;
/// Files and folders of one script; more: `EDQUOT`.
pub const SCRIPT_FS_FILES: u64 = 1_000;
/// Folders within folders of a script's files.
pub const SCRIPT_FS_DEPTH: usize = 16;
/// Time of one `fetch`, redirects and body included; more: it fails.
pub const SCRIPT_FETCH_WALL: Duration = Duration::from_secs(5);
/// Bytes of the body of an answer to a `fetch`; more: it fails.
pub const SCRIPT_FETCH_BODY: usize = 1024 * 1024;
/// Redirects that a `fetch` follows.
pub const SCRIPT_FETCH_REDIRECTS: usize = 10;
/// Bytes of the headers of an answer to a `fetch`.
pub const SCRIPT_FETCH_HEADERS: usize = 64 * 1024;
/// `fetch`es in a row without an answer after which a host's breaker opens.
pub const SCRIPT_FETCH_BREAKER_FAILURES: u32 = 5;
/// Time for which it stays open.
pub const SCRIPT_FETCH_BREAKER_OPEN: Duration = Duration::from_secs(30);
/// Hosts whose failures are counted; more: those that failed longest ago are forgotten.
pub const SCRIPT_FETCH_HOSTS: usize = 1_024;
/// Time that a task (`new Worker`) has; longer: its process is killed.
pub const SCRIPT_TASK_WALL: Duration = Duration::from_secs(10);
/// Callbacks of one task (ticks, promise jobs, timers, immediates); more: it fails.
pub const SCRIPT_TASK_JOBS: usize = 1_000_000;
/// Objects within objects of a message to or from a task; more: it is refused.
pub const SCRIPT_CLONE_DEPTH: usize = 512;

// ---- MQTT

/// Largest MQTT packet, in bytes; larger: closed with 0x95.
pub const MQTT_PACKET_BYTES: usize = 1024 * 1024;
/// Largest packet before the CONNECT was accepted, in bytes.
pub const MQTT_PRE_AUTH_BYTES: usize = 64 * 1024;
/// Time that a connection has to send its CONNECT.
pub const MQTT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// MQTT connections of the node that have not connected yet; more: nobody is accepted until one is through or gives way.
pub const MQTT_PRE_AUTH_CONNECTIONS: usize = 4_096;
/// Of those, from one address; more: closed at once, counted.
pub const MQTT_PRE_AUTH_PER_ADDRESS: usize = 2_048;
/// MQTT connections that the node accepts in a second; more wait in the kernel's queue.
pub const MQTT_CONNECTS_PER_S: u32 = 5_000;
/// Levels of a topic or filter.
pub const MQTT_TOPIC_LEVELS: usize = 128;
/// Unacknowledged messages with QoS 1 and 2 to one subscriber, however many it would take; more wait in `mqtt_queue`.
pub const MQTT_INFLIGHT: u16 = 32;
/// PUBLISHes of one client that are not done: QoS 1 until their PUBACK, QoS 2 until their PUBREL (v5: our Receive Maximum); while
/// as many wait for the disk the socket is not read, more: closed (0x93).
pub const MQTT_RECEIVE_MAXIMUM: u16 = 1_024;
/// Messages with QoS 1 and 2 that wait in one session; more: the newest is dropped, counted.
pub const MQTT_QUEUE: usize = 1_000;
/// Bytes of the messages that wait in one session; more: the newest is dropped, counted.
pub const MQTT_QUEUE_BYTES: usize = 1024 * 1024;
/// Names of messages with QoS 2 that are over which a stored session remembers; the oldest one goes. At least as many as can be
/// under way from one publisher: what it sends again after a crash is known by them.
pub const MQTT_REMEMBERED: usize = 1_024;
/// Time for which they are remembered while the node runs; those that a crash left stay until others push them out. A publisher
/// whose exchange is not over after so long cannot reach the node.
pub const MQTT_REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Topic aliases of one client; a higher one: closed with 0x94.
pub const MQTT_TOPIC_ALIASES: u16 = 32;
/// Bytes of the topics that one client's aliases stand for; more: closed with 0x97.
pub const MQTT_TOPIC_ALIAS_BYTES: usize = 64 * 1024;
/// Topic aliases that the node uses towards one subscriber, however many it would take.
pub const MQTT_OUTBOUND_ALIASES: u16 = 16;
/// Longest time that a session is kept without its client, in seconds.
pub const MQTT_SESSION_EXPIRY_S: u32 = 7_200;
/// Sessions of the node that outlive their connection; more: CONNACK 0x97.
pub const MQTT_SESSIONS: usize = 100_000;
/// Bytes of the filters of one stored session; more: SUBACK 0x97.
pub const MQTT_SUBSCRIPTION_BYTES: usize = 1024 * 1024;
/// Subscriptions of one session; more: SUBACK 0x97.
pub const MQTT_SUBSCRIPTIONS: usize = 1_024;
/// Subscriptions of all connections together; more: SUBACK 0x97.
pub const MQTT_SUBSCRIPTIONS_TOTAL: usize = 1_000_000;
/// Retained messages; more: refused with 0x97 (3.1.1: delivered, not retained, counted).
pub const MQTT_RETAINED_MESSAGES: usize = 1_000_000;
/// Bytes of all retained messages, with their topics, properties and places in the index; more: as above.
pub const MQTT_RETAINED_BYTES: usize = 1024 * 1024 * 1024;
/// Time between two rounds of `$SYS/broker/...`.
pub const MQTT_SYS_INTERVAL_S: u64 = 10;
/// Bytes that wait to be written to one MQTT subscriber; more: messages for it are dropped, counted.
pub const MQTT_OUTBOUND_BYTES: usize = 256 * 1024;

// ---- bridges

/// Messages of one bridge that may be under way (v5: our Receive Maximum); full: the broker's socket is not read.
pub const BRIDGE_IN_FLIGHT: u16 = 1_024;
/// Time that a broker has for the connection, the TLS handshake and its CONNACK, and for the answer to a ping.
pub const BRIDGE_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause before a broker is connected to again; it doubles up to the longest, with chance in it.
pub const BRIDGE_RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest pause before a broker is connected to again.
pub const BRIDGE_RETRY_MOST: Duration = Duration::from_secs(60);

// ---- commands and shadows

/// Commands of one device that are not over; more: refused (HTTP 429), a handler's is dropped and counted.
pub const COMMAND_QUEUE: usize = 100;
/// Bytes of commands and their replies that one loop keeps; more: new commands are refused (HTTP 503), and commands that are
/// over are forgotten before their time.
pub const COMMAND_BYTES: usize = 64 * 1024 * 1024;
/// Longest name of a command, in bytes; longer: refused.
pub const COMMAND_NAME_BYTES: usize = 256;
/// Largest parameters of a command, in bytes of JSON; larger: refused.
pub const COMMAND_PARAMS_BYTES: usize = 64 * 1024;
/// Largest reply to a command, in bytes; larger: the command fails.
pub const COMMAND_REPLY_BYTES: usize = 64 * 1024;
/// Time that a device has to answer a command unless the command says otherwise; longer: the command fails (HTTP 504).
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that a command may give its device to answer; longer: refused.
pub const COMMAND_TIMEOUT_MOST: Duration = Duration::from_secs(600);
/// Longest time that a command may wait for its device; longer: refused.
pub const COMMAND_EXPIRY_MOST: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Time that a handler's command waits for its device; longer: it expires.
pub const COMMAND_HANDLER_EXPIRY: Duration = Duration::from_secs(3_600);
/// Commands of one device that are over and can still be looked at; more: the oldest is forgotten.
pub const COMMANDS_ENDED: usize = 100;
/// Time for which a command that is over can still be looked at.
pub const COMMAND_ENDED_KEPT: Duration = Duration::from_secs(3_600);
/// `ctx.command` calls of one call of a handler; more: the call fails.
pub const SCRIPT_COMMANDS: usize = 20;
/// Largest shadow, in bytes of JSON of `desired` and `reported` together; larger: refused with code 413.
pub const SHADOW_BYTES: usize = 8 * 1024;
/// Deepest nesting of `desired` and of `reported`; deeper: refused with code 400.
pub const SHADOW_DEPTH: usize = 8;
/// Longest `clientToken` of a shadow's request, in bytes; longer: refused with code 400.
pub const SHADOW_TOKEN_BYTES: usize = 64;
/// Largest request about a shadow, in bytes; larger: refused with code 413.
pub const SHADOW_REQUEST_BYTES: usize = 64 * 1024;
/// Shadows of one loop's devices; more: new ones are refused with code 503.
pub const SHADOWS: usize = 500_000;
/// Time for which the version of a deleted shadow is remembered, so that a new one's goes on from it.
pub const SHADOW_DELETED_KEPT: Duration = Duration::from_secs(48 * 3_600);

// ---- HTTP and viewers

/// HTTP connections of the node; more: 503.
pub const HTTP_CONNECTIONS: usize = 8_192;
/// Connections of the admin socket; more: 503.
pub const ADMIN_CONNECTIONS: usize = 64;
/// Largest HTTP body, in bytes; larger: 413.
pub const HTTP_BODY_BYTES: usize = 1024 * 1024;
/// Time that a client has to send its request head.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a request's body may take to arrive; longer: 408.
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of updates that wait for one viewer one by one; more: conflated to the latest of each device.
pub const VIEWER_BUFFER_BYTES: usize = 256 * 1024;
/// Time after which a viewer that does not read is dropped.
pub const VIEWER_STALL: Duration = Duration::from_secs(30);
/// Device ids and prefixes of one viewer's filter.
pub const VIEWER_FILTERS: usize = 1_000;
/// Viewers of one node; more: 503.
pub const VIEWERS: usize = 2_000;
/// Devices of one page of `GET /devices`.
pub const PAGE_DEVICES: usize = 1_000;

// ---- identity and authorization

/// Largest users' file, rules' file or key file, in bytes; larger: refused.
pub const AUTH_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Topics per connection whose answer from the rules is remembered; more: all are forgotten and asked for again.
pub const AUTH_DECISIONS: usize = 256;
/// Credentials that count as verified without a hash; more: they are forgotten, and cost a hash again.
pub const AUTH_VERIFIED: usize = 100_000;
/// Credentials that wait to be verified; more: refused (MQTT 0x89, HTTP 503).
pub const AUTH_WAITING: usize = 1_024;
/// Addresses, and clients, that are watched for bans; more: those that are not banned are forgotten.
pub const AUTH_BAN_ENTRIES: usize = 10_000;
/// Sessions of the dashboard; more: the oldest ends.
pub const AUTH_SESSIONS: usize = 1_000;
/// Lines that wait for the audit log's file; more: dropped, counted.
pub const AUDIT_QUEUE: usize = 4_096;
/// Lines of logins and denials that the audit log takes at once, and then a second; more: left out, and their number is told.
pub const AUDIT_BURST: u32 = 1_000;
/// See [`AUDIT_BURST`].
pub const AUDIT_RATE: u32 = 100;
/// Longest detail of an audit line, in bytes; longer: cut.
pub const AUDIT_DETAIL_BYTES: usize = 512;
