//! Runs a swarm: find the node, connect the devices at the ramp's pace, begin, wait for the end, verify, sum up.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tidegate_actors::clock::{Clock as _, SystemClock};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    config::{Protocol, SwarmConfig},
    error::SwarmError,
    http_fleet::HttpWorker,
    mqtt_device::MqttDevice,
    open_files,
    oracle::Oracle,
    progress,
    schedule::Start,
    shared::{Shared, Stop},
    stats::Stats,
    summary::Summary,
    verify,
    watch_probe::{SendTimes, WatchProbe},
};

/// How long the swarm waits, beyond the ramp, for its last devices before the readings begin without them.
const STRAGGLERS: Duration = Duration::from_secs(15);
/// Time for the first knock at each listener.
const KNOCK: Duration = Duration::from_secs(5);

/// Runs a swarm to its end, or until it is stopped: then it finishes what is on its way and sums up all the same. Needs a
/// tokio runtime with time and network; for one of its own see [`run_blocking`].
///
/// # Errors
/// [`SwarmError`] when the swarm cannot start. What goes wrong later is in the [`Summary`].
pub async fn run(config: SwarmConfig, stop: Stop) -> Result<Summary, SwarmError> {
    config.check()?;
    let sockets = match config.protocol {
        Protocol::Mqtt => config.devices,
        Protocol::Http => u64::from(config.connections).min(config.devices),
    };
    open_files::make_room(config.devices, sockets)?;

    let http = if config.protocol == Protocol::Http || config.verify || config.watch {
        Some(find("HTTP", &config.target_http).await?)
    } else {
        None
    };
    let target = match http {
        Some(http) if config.protocol == Protocol::Http => http,
        _ => find("MQTT", &config.target_mqtt).await?,
    };
    let (begin, start) = watch::channel(None);
    let send_times = config.watch.then(|| SendTimes::new(&config));
    let shared = Arc::new(Shared { config, target, stats: Stats::default(), start, stop, send_times });
    let probe = match http {
        Some(http) if shared.config.watch => Some(WatchProbe::open(&shared, http).await?),
        _ => None,
    };

    let (oracles, elapsed) = tokio::select! {
        done = drive(&shared, sockets, &begin) => done,
        never = progress::show(Arc::clone(&shared)) => match never {},
    };

    let dashboard = match probe {
        Some(probe) => Some(probe.close().await),
        None => None,
    };
    let mut summary = Summary::new(&shared.config, &shared.stats, elapsed, shared.is_stopped());
    summary.dashboard = dashboard;
    if let Some(http) = http.filter(|_| shared.config.verify) {
        summary.verification = Some(verify::verify(&shared.config, http, &oracles).await);
    }
    Ok(summary)
}

/// As [`run`], on a runtime of its own on this thread: for a CLI, or a thread of a demo beside its node. One thread is
/// enough for some ten thousand readings a second, and leaves the other cores to the node.
///
/// # Errors
/// As [`run`]; [`SwarmError::Runtime`] when there can be no runtime.
pub fn run_blocking(config: SwarmConfig, stop: Stop) -> Result<Summary, SwarmError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SwarmError::Runtime)?;
    runtime.block_on(run(config, stop))
}

/// As [`run_blocking`]; the first ctrl-c (SIGINT) or SIGTERM stops the swarm gracefully, a second one at once.
///
/// # Errors
/// As [`run_blocking`]; [`SwarmError::Interrupted`] after the second signal.
pub fn run_until_signal(config: SwarmConfig) -> Result<Summary, SwarmError> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SwarmError::Runtime)?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(SwarmError::Runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(SwarmError::Runtime)?;
        let (stop, stopped) = watch::channel(false);
        let mut swarm = std::pin::pin!(run(config, stopped));
        tokio::select! {
            summary = &mut swarm => return summary,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(true);
        tokio::select! {
            summary = &mut swarm => summary,
            _ = interrupt.recv() => Err(SwarmError::Interrupted),
            _ = terminate.recv() => Err(SwarmError::Interrupted),
        }
    })
}

/// Starts the devices, gives the signal to begin, and waits for them. Returns what the node owes, and the time it took.
async fn drive(shared: &Arc<Shared>, sockets: u64, begin: &watch::Sender<Option<Start>>) -> (Vec<Oracle>, Duration) {
    let mut tasks: JoinSet<Vec<Oracle>> = JoinSet::new();
    for index in 0..sockets {
        let shared = Arc::clone(shared);
        match shared.config.protocol {
            Protocol::Mqtt => {
                let device = MqttDevice::new(shared, index);
                tasks.spawn(async move { vec![device.run().await] })
            }
            Protocol::Http => tasks.spawn(HttpWorker::new(shared, index, sockets).run()),
        };
    }
    tokio::select! {
        () = all_connected(shared, sockets) => {}
        () = shared.stopped() => {}
    }
    let start = Start { at: Instant::now(), wall: SystemClock.now() };
    begin.send_replace(Some(start));

    let mut oracles = Vec::with_capacity(shared.config.devices as usize);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(owed) => oracles.extend(owed),
            // A bug of ours, which must not pass for a node that lost nothing.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    (oracles, start.at.elapsed())
}

/// Waits until all are connected, or as long as the ramp and a grace take.
async fn all_connected(shared: &Shared, sockets: u64) {
    let ramp = match shared.config.protocol {
        Protocol::Mqtt => Duration::from_secs_f64(sockets as f64 / f64::from(shared.config.ramp)),
        Protocol::Http => Duration::ZERO,
    };
    let all = async {
        while shared.stats.connected.get() < sockets {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    // Without the stragglers, then: they are in the summary as failures to connect.
    let _ = time::timeout(ramp + STRAGGLERS, all).await;
}

/// Resolves `host:port` once for all devices, and knocks there, so that a wrong address is told at once.
async fn find(what: &'static str, target: &str) -> Result<SocketAddr, SwarmError> {
    let unreachable = |source| SwarmError::Unreachable { what, target: target.to_owned(), source };
    let mut last = std::io::ErrorKind::NotFound.into();
    for addr in lookup_host(target).await.map_err(unreachable)? {
        match time::timeout(KNOCK, TcpStream::connect(addr)).await {
            Ok(Ok(_)) => return Ok(addr),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(unreachable(last))
}
