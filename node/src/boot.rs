//! Starts the node, runs it until it is told to stop, and stops it in order. All the wiring is here.
//!
//! Start: file descriptors → sockets → recovery → journal, checkpoints, handlers → loops → unfinished readings → stored sessions, commands and shadows → accept → bridges.
//! Stop: accept no more → read no more → drain → goodbye to brokers and clients → last checkpoint → end.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_actors::{
    blocking::BlockingPool,
    checkpoint::{CheckpointConfig, Checkpointer},
    clock::SystemClock,
    fanout::ViewerLimits,
    fold::fold_state,
    handover::Handover,
    ids::LoopId,
    inbox::{self, Inbox},
    journal::{FileJournal, Journal, JournalConfig, JournalError, Retention},
    limits,
    loop_handle::LoopHandle,
    loop_sink::LoopSink,
    recovery::{self, Recovered, RecoveryError, Unfinished},
    runtime::{Runtime, RuntimeHandle, Services},
    script::ScriptEngine,
    store::{SledConfig, StateStore, StoreError},
};
use tidegate_scripts::{CanaryConfig, LoadError, PoolConfig, ScriptLimits, SlowConfig, WorkerPool};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    auth::{self, Auth, AuthError},
    bridge::Bridges,
    commands,
    config::Config,
    edge::{self, Counters, EdgeLoop, KeyMemory, Retries, Settings, Shared},
    http, kept,
    listeners::{self, Door, ListenError},
    mqtt::{
        self,
        outgoing::QueueLimit,
        reason::ReasonCode,
        receipt::Receipts,
        retained::{self, Retained},
        retaining::Notes,
        sys_feed::Feed,
    },
    output, script, shadow,
    transport::{
        admission::{Admission, Bounds},
        certificates::{self, BadFile, Certificates, Files},
    },
    vitals,
    vitals::Vitals,
};

/// How long a stop waits for readings under way.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// File descriptors that are kept for everything but clients: segments, sled, workers.
pub(crate) const RESERVED_FDS: u64 = 512;
/// Of those, what HTTP connections may have when MQTT has taken all others.
const HTTP_FDS: usize = 256;

/// Why the node could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// A socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What the edge has kept.
    #[error("cannot bring commands and shadows back: {0}")]
    Recover(#[from] kept::RecoverError),
    /// What is kept in the state.
    #[error("cannot read what is kept: {0}")]
    Store(#[from] StoreError),
    /// The stored sessions.
    #[error("cannot bring the stored MQTT sessions back: {0}")]
    Sessions(#[from] mqtt::restore::RestoreError),
    /// The handlers' directory or workers.
    #[error("cannot load the handlers: {0}")]
    Scripts(#[from] LoadError),
    /// The handlers' directory is something else.
    #[error("cannot load the handlers: {} is not a directory; name the directory that they are in with --handlers", .0.display())]
    HandlersNoDir(PathBuf),
    /// Users, rules or keys.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Certificates and keys.
    #[error(transparent)]
    Tls(#[from] BadFile),
    /// Threads, signals.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
    /// The stop was not clean.
    #[error("stopped before everything was through: {0}")]
    Unclean(&'static str),
}

/// Where the node listens: the first address of each kind.
#[derive(Debug, Clone)]
pub(crate) struct Addresses(Vec<(Door, SocketAddr)>);

impl Addresses {
    /// The first address where `door` is spoken.
    pub(crate) fn of(&self, door: Door) -> Option<SocketAddr> {
        self.0.iter().find(|(of, _)| *of == door).map(|(_, address)| *address)
    }

    /// The line that says that the node is ready.
    fn ready_line(&self) -> String {
        let word = |(door, address): &(Door, SocketAddr)| match door {
            Door::Http | Door::Https => format!(" {0}={0}://{address}/", door.name()),
            door => format!(" {}={address}", door.name()),
        };
        format!("tidegate ready{}\n", self.0.iter().map(word).collect::<String>())
    }
}

/// Serves until the process is told to stop.
///
/// # Errors
/// The node could not start, or its stop was not clean.
pub(crate) fn serve(config: &Config) -> Result<(), ServeError> {
    run(config, |_| {})
}

/// As [`serve`]; `when_ready` runs once the node accepts.
///
/// # Errors
/// As [`serve`].
pub(crate) fn run(config: &Config, when_ready: impl FnOnce(&Addresses)) -> Result<(), ServeError> {
    let fds = raise_fd_limit();
    let auth = Auth::open(config)?;
    let certificates =
        |files: Option<Files>| files.map(Certificates::load).transpose().map(|loaded| loaded.map(Arc::new));
    let (mqtt_tls, http_tls) = (certificates(config.mqtt_tls())?, certificates(config.http_tls())?);
    let doors = Doors::open(config)?;
    let recovered = recover(config)?;
    let admin = http::admin::Door::open(&config.data.dir);
    let (outlets, inboxes): (Vec<_>, Vec<_>) =
        (0..config.runtime.loops).map(|_| inbox::inbox(limits::LOOP_INBOX)).unzip();
    let sink = LoopSink::new(outlets.clone());
    let pool = Arc::new(BlockingPool::new(config.runtime.blocking_threads, config.runtime.blocking_jobs)?);
    let scripts = start_scripts(config, &sink, &pool)?;

    let Recovered { store, next, unfinished, lifetime, data, lock, .. } = recovered;
    let retention = retention(config);
    let journal_config = JournalConfig {
        segment_bytes: config.data.segment_bytes,
        // The loops hand over what nobody waits for on a common tick: the journal waits just for the last of them.
        commit_max_delay: limits::COMMIT_COMPANY.min(config.data.commit_max_delay),
        gather: config.runtime.gather,
        segment_age: retention.segment_age(),
    };
    let journal: Arc<dyn Journal> = FileJournal::open(&data.journal(), journal_config, next, Arc::new(sink))?;
    let checkpoints = CheckpointConfig {
        // The loops set the pace: what they hand in is written soon.
        interval: config.data.checkpoint_interval,
        snapshot_dir: data.snapshots(),
        retention,
        loops: config.runtime.loops,
    };
    let checkpointer =
        Checkpointer::start(Arc::clone(&store) as Arc<dyn StateStore>, Arc::clone(&journal), checkpoints)?;
    let services = Arc::new(Services {
        clock: Arc::new(SystemClock),
        journal,
        scripts: Arc::clone(&scripts) as Arc<dyn ScriptEngine>,
        store,
        checkpointer,
        pool,
        outlets,
        handovers: (0..config.runtime.loops).map(|_| Handover::default()).collect(),
        commit_max_delay: config.data.commit_max_delay,
        gather: config.runtime.gather,
        checkpoint_interval: config.data.checkpoint_interval,
        panics: AtomicU64::new(0),
        heartbeats: inboxes.iter().map(|_| AtomicU64::new(0)).collect(),
        started: Instant::now(),
    });
    let shared = Arc::new(Shared {
        runtime: RuntimeHandle::new(Arc::clone(&services), lifetime),
        settings: settings(config),
        counters: Counters::default(),
        auth: Arc::clone(&auth),
        admin,
        scripts,
        admission: Admission::new(bounds(config, fds)),
        mqtt_tls,
        http_tls,
        keys: KeyMemory::new(limits::IDEMPOTENCY_KEYS),
        retries: Retries::under_way(unfinished.iter().filter_map(Unfinished::retry_of)),
        vitals: Arc::new(Vitals::default()),
        bridges: Bridges::new(&config.bridges, config.runtime.loops, &services.clock),
        exporting: http::state::Exporting::default(),
        commands: commands::Counters::default(),
        shadows: shadow::Counters::default(),
        retained: Retained::new(retained_limits(config)),
        notes: (0..config.runtime.loops).map(|_| Notes::default()).collect(),
        subscriptions: AtomicUsize::new(0),
        sys_feed: Feed::default(),
        stored_sessions: edge::StoredSessions::new(config.runtime.loops),
        receipts: (0..config.runtime.loops).map(|_| Receipts::default()).collect(),
        origins: AtomicU64::new(edge::first_origin()),
        stopping: AtomicBool::new(false),
    });
    mqtt::retaining::load(&shared)?;
    let watchdog = Arc::new(AtomicBool::new(false));
    vitals::watchdog(services, Arc::clone(&watchdog))?;
    let system = actix::System::new();
    let served = system.block_on(live(shared, inboxes, doors, unfinished, when_ready));
    watchdog.store(true, Ordering::Relaxed);
    auth.audit.stop();
    http::admin::remove(&config.data.dir);
    drop(lock);
    served
}

/// The life of the node, on the main thread's own loop.
async fn live(
    shared: Arc<Shared>,
    inboxes: Vec<Inbox<tidegate_actors::event_loop::LoopMessage>>,
    doors: Doors,
    unfinished: Vec<recovery::Unfinished>,
    when_ready: impl FnOnce(&Addresses),
) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let hangup_of_scripts = signal(SignalKind::hangup())?;
    let addresses = doors.addresses;
    // Readings from before the stop come first: they are in the loops' inboxes before the loops turn.
    shared.runtime.resume(unfinished);
    let runtime = Runtime::start(shared.runtime.clone(), inboxes, attach(Arc::clone(&shared), doors.sockets))?;
    kept::recover(&shared).await?;
    let sessions = mqtt::restore::restore(&shared).await?;
    tracing::info!(sessions, "MQTT sessions are back");
    let open = shared.runtime.on_every_loop(|_| edge::here().accept()).await;
    open.map_err(|_| ServeError::Unclean("a loop did not start"))?;
    shared.bridges.start()?;
    script::reload_on(hangup_of_scripts, Arc::clone(&shared.scripts));
    actix_rt::spawn(vitals::sample(Arc::clone(&shared)));
    actix_rt::spawn(auth::revoke::watch(Arc::clone(&shared)));

    let certificates = shared.mqtt_tls.iter().chain(&shared.http_tls).cloned().collect();
    let runtime_of = shared.runtime.clone();
    actix_rt::spawn(certificates::watch(certificates, hangup, move || {
        let runtime = runtime_of.clone();
        async move {
            // A loop that cannot be told finds out when its connections are next heard of.
            let _ = runtime.on_every_loop(|_| edge::here().wake_connections()).await;
        }
    }));

    if let Err(error) = output::write(&addresses.ready_line()) {
        tracing::warn!(%error, "cannot say that the node is ready");
    }
    let at = |door| addresses.of(door).map(tracing::field::display);
    let dashboard = addresses.of(Door::Http).map(|at| tracing::field::display(format!("http://{at}/")));
    tracing::info!(
        mqtt = at(Door::Mqtt),
        mqtts = at(Door::Mqtts),
        ws = at(Door::Ws),
        wss = at(Door::Wss),
        https = at(Door::Https),
        dashboard,
        "ready"
    );
    when_ready(&addresses);

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping (a second signal exits at once)"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping (a second signal exits at once)"),
    }
    watch_for_a_second_signal(terminate, interrupt)?;
    stop(&shared, runtime).await
}

/// On a thread of its own: the main thread blocks while it stops, on a disk that hangs for ever.
fn watch_for_a_second_signal(terminate: Signal, interrupt: Signal) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watch = move || runtime.block_on(exit_at_once(terminate, interrupt));
    std::thread::Builder::new().name("second-signal".to_owned()).spawn(watch)?;
    Ok(())
}

async fn exit_at_once(mut terminate: Signal, mut interrupt: Signal) {
    let code = tokio::select! {
        _ = terminate.recv() => 143,
        _ = interrupt.recv() => 130,
    };
    tracing::warn!("second signal: exiting without the last checkpoint; the journal has everything");
    std::process::exit(code);
}

async fn stop(shared: &Arc<Shared>, runtime: Runtime) -> Result<(), ServeError> {
    shared.stopping.store(true, Ordering::Relaxed);
    shared.bridges.close();
    let quiet = shared.runtime.on_every_loop(|handle| {
        edge::here().stop_accepting();
        handle.close_gate();
    });
    let quiet = quiet.await.is_ok();
    let drained = runtime.drain(DRAIN_PATIENCE).await;
    shared.bridges.stop().await;
    let _ = shared.runtime.on_every_loop(|_| edge::here().say_goodbye()).await;
    // One turn for the goodbyes to leave.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let checkpointed = runtime.stop().await;
    match (quiet && drained, checkpointed) {
        (true, true) => {
            tracing::info!("stopped: everything is durable");
            Ok(())
        }
        (false, _) => {
            Err(ServeError::Unclean("readings were still under way; those that were acknowledged are in the journal"))
        }
        (true, false) => Err(ServeError::Unclean("the last checkpoint is not complete; the journal has everything")),
    }
}

/// The listening sockets of one loop.
type LoopDoors = Vec<(Door, TcpListener)>;

/// All listening sockets.
struct Doors {
    addresses: Addresses,
    sockets: Vec<LoopDoors>,
}

impl Doors {
    fn open(config: &Config) -> Result<Self, ServeError> {
        let loops = config.runtime.loops;
        let mut sockets: Vec<LoopDoors> = (0..loops).map(|_| Vec::new()).collect();
        let mut addresses = Addresses(Vec::new());
        let kinds = [
            (Door::Mqtt, &config.mqtt.bind),
            (Door::Mqtts, &config.mqtt.tls_bind),
            (Door::Ws, &config.mqtt.ws_bind),
            (Door::Wss, &config.mqtt.wss_bind),
            (Door::Http, &config.http.bind),
            (Door::Https, &config.http.tls_bind),
        ];
        for (door, binds) in kinds {
            for bind in binds {
                let bound = listeners::bind(door, *bind, loops)?;
                if addresses.of(door).is_none() {
                    addresses.0.push((door, bound.address));
                }
                sockets.iter_mut().zip(bound.sockets).for_each(|(doors, socket)| doors.push((door, socket)));
            }
        }
        Ok(Self { addresses, sockets })
    }
}

/// Attaches an edge with its sockets to each loop, on the loop's thread.
fn attach(shared: Arc<Shared>, sockets: Vec<LoopDoors>) -> impl Fn(LoopHandle) + Clone + Send + 'static {
    let sockets = Arc::new(Mutex::new(sockets.into_iter().map(Some).collect::<Vec<_>>()));
    move |handle| {
        let mine = sockets.lock().unwrap_or_else(PoisonError::into_inner)[handle.id().index()].take();
        let edge = edge::attach(&handle, Arc::clone(&shared));
        edge.doors.replace(mine.unwrap_or_default());
    }
}

impl EdgeLoop {
    /// Opens this loop's doors.
    fn accept(self: &Rc<Self>) {
        let mut accepting = self.accepting.borrow_mut();
        for (door, socket) in self.doors.take() {
            let socket = match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::error!(%error, door = door.name(), "cannot accept connections on this loop");
                    continue;
                }
            };
            let edge = Rc::clone(self);
            accepting.push(match door {
                Door::Mqtt | Door::Mqtts => actix_rt::spawn(mqtt::listener::accept(edge, socket, door)),
                Door::Ws | Door::Wss | Door::Http | Door::Https => {
                    actix_rt::spawn(http::listener::accept(edge, socket, door))
                }
            });
        }
        if self.handle.id() == LoopId(0) {
            accepting.push(actix_rt::spawn(http::admin::accept(Rc::clone(self))));
        }
        self.shared.bridges.land_on(self);
        let edge = Rc::clone(self);
        accepting.push(actix_rt::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            loop {
                tick.tick().await;
                mqtt::session::sweep(&edge);
                auth::revoke::sweep(&edge);
                mqtt::sessions::sweep(&edge);
                mqtt::remembered::sweep(&edge);
                if edge.handle.id() == LoopId(0) {
                    mqtt::retaining::sweep(&edge);
                    mqtt::sys_feed::tick(&edge);
                }
                http::viewer::sweep(&edge);
                shadow::sweep(&edge);
            }
        }));
        accepting.push(actix_rt::spawn(commands::keep_time(Rc::clone(self))));
        accepting.push(actix_rt::spawn(Rc::clone(&self.lobby).share_out()));
    }

    fn stop_accepting(&self) {
        self.accepting.borrow_mut().drain(..).for_each(|task| task.abort());
    }

    /// Each connection looks at itself: what it was let in by may have changed.
    fn wake_connections(&self) {
        self.connections.borrow().iter().for_each(|link| link.wake());
    }

    fn say_goodbye(&self) {
        for link in self.connections.borrow().iter() {
            link.close(ReasonCode::SERVER_SHUTTING_DOWN, "the node is stopping");
        }
    }
}

fn recover(config: &Config) -> Result<Recovered, ServeError> {
    let sled = SledConfig { cache_bytes: config.data.sled_cache_bytes };
    let recovered = recovery::recover_with(&config.data.dir, sled, &mut fold_state)?;
    let report = &recovered.report;
    let (folded, unfinished, seconds) = (report.folded, report.unfinished, report.seconds);
    let devices = recovered.store.count();
    tracing::info!(dir = %config.data.dir.display(), devices, folded, unfinished, seconds, "recovered");
    if !report.is_clean() {
        tracing::error!(report = %serde_json::to_string(report).unwrap_or_default(), "damage was found and set aside");
    }
    Ok(recovered)
}

fn start_scripts(config: &Config, sink: &LoopSink, pool: &Arc<BlockingPool>) -> Result<Arc<WorkerPool>, ServeError> {
    if config.scripts.dir.exists() && !config.scripts.dir.is_dir() {
        return Err(ServeError::HandlersNoDir(config.scripts.dir.clone()));
    }
    if !config.scripts.dir.is_dir() {
        tracing::info!(dir = %config.scripts.dir.display(), "no handlers: readings are kept as they come");
    }
    let limits = ScriptLimits {
        call_wall: config.scripts.call_wall,
        async_wall: config.scripts.async_wall,
        task_wall: config.scripts.task_wall,
        heap_bytes: config.scripts.heap_bytes,
        breaker_failures: config.scripts.breaker_failures,
        breaker_open: config.scripts.breaker_open,
        breaker_policy: config.scripts.breaker_policy,
        max_restarts: config.scripts.max_restarts,
        ..ScriptLimits::default()
    };
    // The workers run in a directory of their own, so a relative path would not be found.
    let dir: PathBuf = std::path::absolute(&config.scripts.dir)?;
    let canary = CanaryConfig {
        share: config.scripts.canary_share,
        readings: config.scripts.canary_readings,
        time: config.scripts.canary_time,
        cost_factor: config.scripts.canary_cost_factor,
    };
    let kept_dir = Some(std::path::absolute(script::kept_scripts(&config.data.dir))?);
    let slow = slow_work(config, pool)?;
    let workers =
        PoolConfig { workers: config.scripts.workers, limits, kept_dir, canary, slow, ..PoolConfig::new(dir) };
    Ok(WorkerPool::start(workers, Arc::new(sink.clone()))?)
}

/// What handlers may do beside their worker.
fn slow_work(config: &Config, pool: &Arc<BlockingPool>) -> Result<SlowConfig, ServeError> {
    let scripts = &config.scripts;
    Ok(SlowConfig {
        pool: Some(Arc::clone(pool)),
        pool_threads: scripts.pool_threads,
        has_effects: true,
        files_dir: Some(std::path::absolute(script::files_dir(&config.data.dir))?),
        fs_bytes: scripts.fs_bytes,
        fs_files: scripts.fs_files,
        // It was checked when it was read.
        fetch_allow: scripts.fetch_allow.parse().unwrap_or_default(),
        fetch_wall: scripts.fetch_wall,
        fetch_body: usize::try_from(scripts.fetch_body).unwrap_or(usize::MAX),
        fetch_breaker_failures: scripts.fetch_breaker_failures,
        fetch_breaker_open: scripts.fetch_breaker_open,
    })
}

/// What is kept of the journal. Only whole segments are freed, so fewer bytes than one has would mean a snapshot a second.
fn retention(config: &Config) -> Retention {
    let bytes = config.data.journal_retention_bytes.max(config.data.segment_bytes);
    let hours = config.data.journal_retention_hours;
    Retention { bytes, age: (hours > 0).then(|| Duration::from_secs(hours.saturating_mul(3_600))) }
}

fn retained_limits(config: &Config) -> retained::Limits {
    retained::Limits { messages: config.mqtt.limits.retained_messages, bytes: config.mqtt.limits.retained_bytes }
}

/// How many clients may come, and how fast. Each loop has its share of the pace.
fn bounds(config: &Config, fds: u64) -> Bounds {
    let limits = &config.mqtt.limits;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred loops")]
    let loops = config.runtime.loops as f64;
    Bounds {
        sockets: usize::try_from(fds.saturating_sub(RESERVED_FDS)).unwrap_or(usize::MAX - HTTP_FDS),
        sockets_for_http: HTTP_FDS,
        pre_auth_connections: limits.pre_auth_connections,
        pre_auth_per_address: limits.pre_auth_per_address,
        connects_per_s: f64::from(limits.connects_per_s) / loops,
        http_connections: config.http.limits.connections,
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        mqtt_packet_bytes: config.mqtt.limits.packet_bytes,
        mqtt_pre_auth_bytes: config.mqtt.limits.pre_auth_packet_bytes,
        mqtt_connect_timeout: config.mqtt.limits.connect_timeout,
        mqtt_default_ack: config.mqtt.default_ack,
        mqtt_tls_device_id: config.mqtt.tls_device_id,
        mqtt_ws_origins: config
            .mqtt
            .ws_origins
            .split(',')
            .filter(|origin| !origin.is_empty())
            .map(str::to_owned)
            .collect(),
        http_body_bytes: config.http.limits.body_bytes,
        http_header_timeout: config.http.limits.header_timeout,
        http_default_ack: config.http.default_ack,
        mqtt_inflight: config.mqtt.limits.inflight,
        mqtt_subscriptions: config.mqtt.limits.subscriptions,
        mqtt_subscriptions_total: config.mqtt.limits.subscriptions_total,
        mqtt_outbound_bytes: config.mqtt.limits.outbound_bytes,
        mqtt_sys_interval: Duration::from_secs(config.mqtt.sys_interval_s),
        mqtt_receive_maximum: config.mqtt.limits.receive_maximum,
        mqtt_queue: QueueLimit { messages: config.mqtt.limits.queue, bytes: config.mqtt.limits.queue_bytes },
        mqtt_topic_aliases: config.mqtt.limits.topic_aliases,
        mqtt_longest_keep_alive: config.mqtt.limits.keep_alive_s,
        mqtt_longest_session: config.mqtt.limits.session_expiry_s,
        mqtt_sessions: config.mqtt.limits.sessions,
        viewers: config.viewers.max,
        viewer_filters: config.viewers.filters,
        viewer_limits: ViewerLimits { buffer_bytes: config.viewers.buffer_bytes, stall: config.viewers.stall_timeout },
        memory_limit: config.runtime.memory_limit_bytes,
        data_dir: recovery::DataDir::new(&config.data.dir),
    }
}

/// Raises the limit of file descriptors as far as it may go, and says where it ends.
fn raise_fd_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current }.unwrap_or(u64::MAX);
    let connections = limit.saturating_sub(RESERVED_FDS);
    tracing::info!(file_descriptors = limit, connections, "room for connections (ulimit -Hn raises it)");
    limit
}
