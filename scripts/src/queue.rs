//! The runs that wait for the workers: one bounded queue for all of them, with a lane for urgent ones, and a bell for a worker's
//! thread that has to listen to its process at the same time.
//!
//! Urgent runs go first, but of [`URGENT_IN_A_ROW`] and one that are taken one is not urgent if such a one waits: however many alarms
//! there are, telemetry goes on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering, fence},
    },
    time::Duration,
};

use flume::{Receiver, Selector, Sender, TrySendError};
use rustix::event::{EventfdFlags, eventfd};
use tidegate_actors::script::ScriptRun;

/// How often a thread that waits looks again. flume's selector takes one signal each time it is woken: of two that come at once (a run
/// that another worker is faster to take, and the channel that closes) it would sleep on the second for ever.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Urgent runs that are taken one after the other while others wait.
pub(crate) const URGENT_IN_A_ROW: usize = 8;

/// The pool's end.
#[derive(Debug)]
pub(crate) struct RunSender {
    urgent: Sender<ScriptRun>,
    runs: Sender<ScriptRun>,
    bell: Arc<Bell>,
}

/// A worker's end. All workers take from the same queue.
#[derive(Debug, Clone)]
pub(crate) struct RunReceiver {
    urgent: Receiver<ScriptRun>,
    runs: Receiver<ScriptRun>,
    /// Urgent runs that were taken since the last one that was not, by whichever worker.
    in_a_row: Arc<AtomicUsize>,
    bell: Arc<Bell>,
}

/// The queue is closed, or the pool stops.
#[derive(Debug)]
pub(crate) struct Closed;

/// Rung for each run as long as somebody listens.
#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    listeners: AtomicUsize,
}

/// Somebody who listens to the bell.
#[derive(Debug)]
pub(crate) struct Listener<'a>(&'a Bell);

/// A queue of at most `limit` runs, and as many urgent ones.
///
/// # Errors
/// The system has no descriptor left.
pub(crate) fn queue(limit: usize) -> io::Result<(RunSender, RunReceiver)> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let bell = Arc::new(Bell { event, listeners: AtomicUsize::new(0) });
    let (sender, receiver) = flume::bounded(limit);
    let (urgent_sender, urgent) = flume::bounded(limit);
    let sender = RunSender { urgent: urgent_sender, runs: sender, bell: Arc::clone(&bell) };
    Ok((sender, RunReceiver { urgent, runs: receiver, in_a_row: Arc::default(), bell }))
}

impl RunSender {
    /// Queues a run, or gives it back if there is no room.
    pub(crate) fn try_send(&self, run: ScriptRun, is_urgent: bool) -> Result<(), ScriptRun> {
        let lane = if is_urgent { &self.urgent } else { &self.runs };
        match lane.try_send(run) {
            Ok(()) => {
                self.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(run) | TrySendError::Disconnected(run)) => Err(run),
        }
    }
}

impl RunReceiver {
    /// Waits for a run until `stop` or `leave` closes.
    pub(crate) fn recv(&self, stop: &Receiver<()>, leave: &Receiver<()>) -> Result<ScriptRun, Closed> {
        loop {
            if stop.is_disconnected() || leave.is_disconnected() {
                return Err(Closed);
            }
            if let Some(run) = self.try_recv() {
                return Ok(run);
            }
            let waited = Selector::new()
                .recv(&self.urgent, |run| run.map_err(|_| Closed))
                .recv(&self.runs, |run| run.map_err(|_| Closed))
                .recv(stop, |_| Err(Closed))
                .recv(leave, |_| Err(Closed))
                .wait_timeout(LOOK_AGAIN);
            if let Ok(found) = waited {
                return found;
            }
        }
    }

    /// Takes a run that is there.
    pub(crate) fn try_recv(&self) -> Option<ScriptRun> {
        let urgent = |lane: &Self| {
            let run = lane.urgent.try_recv().ok();
            run.inspect(|_| {
                lane.in_a_row.fetch_add(1, Ordering::Relaxed);
            })
        };
        let other = |lane: &Self| {
            let run = lane.runs.try_recv().ok();
            run.inspect(|_| lane.in_a_row.store(0, Ordering::Relaxed))
        };
        if self.in_a_row.load(Ordering::Relaxed) >= URGENT_IN_A_ROW {
            other(self).or_else(|| urgent(self))
        } else {
            urgent(self).or_else(|| other(self))
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.runs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on the bell rings for each run. What was queued before has to be looked for once.
    pub(crate) fn listen(&self) -> Listener<'_> {
        self.bell.listeners.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Listener(&self.bell)
    }
}

impl Bell {
    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.listeners.load(Ordering::SeqCst) > 0 {
            // It can only be full, and then it rings already.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl Listener<'_> {
    /// Readable once the bell has rung.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    /// Rings for another listener: this one takes no run.
    pub(crate) fn pass_on(&self) {
        self.0.ring();
    }

    /// Silences the bell until the next run.
    pub(crate) fn heard(&self) {
        // Another listener may have been faster.
        let _ = rustix::io::read(&self.0.event, &mut [0_u8; 8]);
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use tidegate_actors::ids::{DeviceId, LoopId};

    use super::*;

    fn run() -> ScriptRun {
        let device = DeviceId::new("d").expect("an id");
        ScriptRun {
            owner: LoopId(0),
            device,
            previous: None,
            script_state: Vec::new(),
            generation: 1,
            calls: Vec::new(),
        }
    }

    fn rings(listener: &Listener<'_>) -> bool {
        let bell = listener.bell();
        let mut fds = [PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("polled") > 0
    }

    #[test]
    fn the_bell_rings_for_a_run_only_while_somebody_listens() {
        let (sender, receiver) = queue(2).expect("a queue");
        sender.try_send(run(), false).expect("room");
        let listener = receiver.listen();
        assert!(!rings(&listener) && receiver.try_recv().is_some());
        sender.try_send(run(), false).expect("room");
        assert!(rings(&listener));
        listener.heard();
        assert!(!rings(&listener) && receiver.len() == 1);
        drop(listener);
        sender.try_send(run(), false).expect("room");
        assert!(!rings(&receiver.listen()) && sender.try_send(run(), false).is_err(), "full");
    }

    fn named(device: &str) -> ScriptRun {
        ScriptRun { device: DeviceId::new(device).expect("an id"), ..run() }
    }

    #[test]
    fn urgent_runs_go_first_and_starve_nobody() {
        let (sender, receiver) = queue(100).expect("a queue");
        for n in 0..4 {
            sender.try_send(named(&format!("telemetry-{n}")), false).expect("room");
        }
        for n in 0..20 {
            sender.try_send(named(&format!("alarm-{n}")), true).expect("room");
        }
        let taken: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).map(|run| run.device.to_string()).collect();
        let places: Vec<_> = (0..taken.len()).filter(|at| taken[*at].starts_with("telemetry")).collect();
        assert_eq!(taken.len(), 24);
        assert_eq!(places, [URGENT_IN_A_ROW, 2 * URGENT_IN_A_ROW + 1, 22, 23], "{taken:?}");
    }

    #[test]
    fn a_full_lane_leaves_room_in_the_other() {
        let (sender, receiver) = queue(1).expect("a queue");
        sender.try_send(run(), false).expect("room");
        assert!(sender.try_send(run(), false).is_err());
        sender.try_send(run(), true).expect("room for an urgent one");
        assert!(sender.try_send(run(), true).is_err() && receiver.len() == 2);
    }
}
