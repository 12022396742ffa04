//! What all devices of one swarm share: the checked configuration, the counts, and the two signals "begin" and "stop".

use std::{net::SocketAddr, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{config::SwarmConfig, faults::Class, schedule::Start, stats::Stats, watch_probe::SendTimes};

/// A reading that goes out later than this after its time counts as behind schedule.
pub(crate) const BEHIND: Duration = Duration::from_millis(100);

/// Time after the end of the run in which readings that were due before it may still go out.
pub(crate) const OVERTIME: Duration = Duration::from_secs(1);

/// The signal to stop: true stops the swarm. A sender that is dropped without a word does not.
pub type Stop = watch::Receiver<bool>;

/// What all devices share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: SwarmConfig,
    /// Where the devices send.
    pub(crate) target: SocketAddr,
    pub(crate) stats: Stats,
    pub(crate) start: watch::Receiver<Option<Start>>,
    pub(crate) stop: Stop,
    /// When each reading was sent, if a dashboard is watched.
    pub(crate) send_times: Option<SendTimes>,
}

impl Shared {
    /// Waits until the readings begin; none when the swarm is stopped before.
    pub(crate) async fn started(&self) -> Option<Start> {
        let mut start = self.start.clone();
        tokio::select! {
            biased;
            () = self.stopped() => None,
            start = start.wait_for(Option::is_some) => start.ok().and_then(|start| *start),
        }
    }

    /// Waits until the swarm is stopped.
    pub(crate) async fn stopped(&self) {
        if self.stop.clone().wait_for(|stop| *stop).await.is_err() {
            // Nobody is left who could stop it.
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// A reading of this device goes out now.
    pub(crate) fn sending(&self, device: usize, seq: u64) {
        if let Some(times) = &self.send_times {
            times.sending(device, seq, Instant::now());
        }
    }
}

impl Stats {
    /// A message goes out for the first time.
    pub(crate) fn count_send(&self, class: Class) {
        match class {
            Class::Reading => self.sent.one(),
            Class::Late => {
                self.sent.one();
                self.late.one();
            }
            Class::Duplicate => self.duplicates.one(),
            Class::Garbage => self.garbage.one(),
        }
    }

    /// A message was acknowledged.
    pub(crate) fn count_ack(&self, class: Class, sent: Instant, due: Instant) {
        match class {
            Class::Reading | Class::Late => {
                self.acked.one();
                self.ack.record(sent.elapsed());
                // A late one is late on purpose.
                if class == Class::Reading {
                    self.due_to_ack.record(due.elapsed());
                }
            }
            Class::Duplicate => {}
            Class::Garbage => self.garbage_acked.one(),
        }
    }

    /// The node refused a message, with a reason.
    pub(crate) fn count_refusal(&self, class: Class, reason: &str) {
        match class {
            Class::Garbage => self.garbage_refused.one(),
            _ => self.count_failure(class, reason),
        }
    }

    /// A message was never answered.
    pub(crate) fn count_failure(&self, class: Class, reason: &str) {
        match class {
            Class::Reading | Class::Late => self.failed.add(reason, 1),
            // Not readings of their own: nothing is owed for them.
            Class::Duplicate | Class::Garbage => {}
        }
    }
}
