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
    turn::Memory,
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
    pub(crate) memory: Memory,
}

/// Where the last sample is kept.
#[derive(Debug, Default)]
pub(crate) struct Vitals(Mutex<Sample>);

impl Vitals {
    pub(crate) fn last(&self) -> Sample {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Are readings refused because memory is nearly used up?
    pub(crate) fn is_shedding(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).memory == Memory::Shedding
    }

    fn set(&self, sample: Sample) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sample;
    }
}

/// Memory use, as parts of the limit, at which the loops stop reading their sockets, and at which they go on.
const SHORT: f64 = 0.8;
const ENOUGH: f64 = 0.75;
/// Memory use at which readings are refused, and at which they are taken again.
const SHED: f64 = 0.9;
const SHED_NO_MORE: f64 = 0.85;

/// How the memory stands when `share` of the limit is used, and stood before like `before`.
fn judge(before: Memory, share: f64, in_flight: u64) -> Memory {
    let shed = if before == Memory::Shedding { SHED_NO_MORE } else { SHED };
    let short = if before == Memory::Enough { SHORT } else { ENOUGH };
    match () {
        () if share >= shed => Memory::Shedding,
        // Once nothing is under way, not reading would free nothing.
        () if share >= short && (before == Memory::Enough || in_flight > 0) => Memory::Short,
        () => Memory::Enough,
    }
}

/// Samples for ever, and tells the loops how the memory stands: at 80 % of its limit back-pressure, until it is below 75 % or nothing
/// is under way; at 90 % shedding, until it is below 85 %.
pub(crate) async fn sample(shared: Arc<Shared>) {
    let (runtime, memory_limit) = (&shared.runtime, shared.settings.memory_limit);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut received = 0;
    let (mut memory, mut unbalanced) = (Memory::Enough, false);
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
        let judged = judge(memory, share, ledger.in_flight);
        if judged != memory {
            let consequence = match judged {
                Memory::Enough => "enough again: reading sockets",
                Memory::Short => "short: not reading sockets (limit runtime.memory_limit_bytes)",
                Memory::Shedding => "nearly used up: refusing readings (limit runtime.memory_limit_bytes)",
            };
            tracing::warn!(rss_bytes, memory_limit, "memory is {consequence}");
            // A loop that could not be told would stay as it is for good: it is told again with the next sample.
            if runtime.on_every_loop(move |handle| handle.set_memory(judged)).await.is_ok() {
                memory = judged;
            }
        }
        shared.vitals.set(Sample { ledger, lifetime, readings_per_second, rss_bytes, loops, devices_known, memory });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_before_it_is_shed_and_each_has_its_way_back() {
        use Memory::{Enough, Shedding, Short};
        for (before, share, in_flight, after) in [
            (Enough, 0.79, 9, Enough),
            (Enough, 0.80, 0, Short),
            (Enough, 0.95, 0, Shedding),
            (Short, 0.76, 9, Short),
            (Short, 0.76, 0, Enough),
            (Short, 0.74, 9, Enough),
            (Short, 0.90, 9, Shedding),
            (Shedding, 0.86, 0, Shedding),
            (Shedding, 0.84, 9, Short),
            (Shedding, 0.84, 0, Enough),
            (Shedding, 0.74, 9, Enough),
        ] {
            assert_eq!(judge(before, share, in_flight), after, "{before:?} at {share}, {in_flight} under way");
        }
    }
}
