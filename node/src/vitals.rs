//! The node's vital signs: sampled once a second by a task of the main thread, read by health, metrics and the dashboard; and
//! the watchdog thread, which sees a loop that does not turn.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidegate_actors::{
    event_loop::LoopHealth,
    ledger::Ledger,
    lifetime::Lifetime,
    runtime::{QueryError, Services},
};

use crate::edge::Shared;

/// The last sample.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) ledger: Ledger,
    pub(crate) lifetime: Lifetime,
    pub(crate) readings_per_second: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) loops: Vec<LoopHealth>,
    pub(crate) devices_known: u64,
}

/// Where the last sample is kept.
#[derive(Debug, Default)]
pub(crate) struct Vitals(Mutex<Sample>);

impl Vitals {
    pub(crate) fn last(&self) -> Sample {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, sample: Sample) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sample;
    }
}

/// Memory use, as parts of the limit, at which the loops stop reading their sockets, and at which they go on.
const CLOSE_GATE: f64 = 0.8;
const OPEN_GATE: f64 = 0.75;

/// Samples for ever. At 80 % of the memory limit the gates close (back-pressure) until it is below 75 % or nothing is under way.
pub(crate) async fn sample(shared: Arc<Shared>) {
    let (runtime, memory_limit) = (&shared.runtime, shared.settings.memory_limit);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut received = 0;
    let (mut closed, mut unbalanced) = (false, false);
    loop {
        tick.tick().await;
        let asked = tokio::time::timeout(Duration::from_millis(900), async {
            Ok::<_, QueryError>((runtime.ledger().await?, runtime.lifetime().await?, runtime.health().await?))
        });
        let Ok(Ok((ledger, lifetime, (loops, devices_known)))) = asked.await else { continue };
        if let Err(imbalance) = ledger.check()
            && !std::mem::replace(&mut unbalanced, true)
        {
            tracing::error!(%imbalance, "the ledger does not balance: a defect, please report it");
        }
        let rate = ledger.received.saturating_sub(received);
        received = ledger.received;
        let rss_bytes = rss();
        #[expect(clippy::cast_precision_loss, reason = "shown to people; memory shares need no 53 bits")]
        let (share, readings_per_second) = (rss_bytes as f64 / memory_limit.max(1) as f64, rate as f64);
        // Once nothing is under way, staying closed would free nothing.
        let close = if closed { share > OPEN_GATE && ledger.in_flight > 0 } else { share > CLOSE_GATE };
        // A stop closes the gates for good.
        if close != closed && !shared.stopping.load(Ordering::Relaxed) {
            tracing::warn!(
                rss_bytes,
                memory_limit,
                closed = close,
                "memory: {}",
                if close { "not reading sockets" } else { "reading again" }
            );
            // A loop that could not be told would stay closed for good: it is told again with the next sample.
            if runtime.on_every_loop(move |handle| handle.close_gate(close)).await.is_ok() {
                closed = close;
            }
        }
        shared.vitals.set(Sample { ledger, lifetime, readings_per_second, rss_bytes, loops, devices_known });
    }
}

/// Resident memory of this process, in bytes; 0 where the system does not tell.
pub(crate) fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Starts the thread that watches the loops. It ends with `stop`.
pub(crate) fn watchdog(services: Arc<Services>, stop: Arc<AtomicBool>) -> std::io::Result<()> {
    const WARN: u64 = 1_000;
    let watch = move || {
        let mut hung = vec![false; services.heartbeats.len()];
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            let now = services.uptime_ms();
            for (id, (heartbeat, hung)) in services.heartbeats.iter().zip(&mut hung).enumerate() {
                let silent_ms = now.saturating_sub(heartbeat.load(Ordering::Relaxed));
                if (silent_ms > WARN) != *hung {
                    *hung = !*hung;
                    if *hung {
                        tracing::error!(r#loop = id, silent_ms, "a loop does not turn: something blocks it");
                    } else {
                        tracing::warn!(r#loop = id, "the loop turns again");
                    }
                }
            }
        }
    };
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch).map(drop)
}
