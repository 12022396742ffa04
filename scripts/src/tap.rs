//! Where a canary sees the readings: copies of the runs of a share of the devices, as the workers take them. It never holds a worker
//! up; what it has no room for it does not see.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use flume::{Receiver, Sender};
use tidegate_actors::{ids::DeviceId, limits, reading::Channel, script::ScriptRun};

use crate::scripts::Scripts;

/// Closed unless a canary runs.
#[derive(Default)]
pub(crate) struct Tap {
    is_open: AtomicBool,
    open: RwLock<Option<Open>>,
}

struct Open {
    /// Percent of the devices.
    share: u32,
    /// The scripts of the new set.
    candidate: Arc<Scripts>,
    runs: Sender<ScriptRun>,
}

impl Tap {
    /// Opens it.
    pub(crate) fn open(&self, share: u32, candidate: Arc<Scripts>) -> Receiver<ScriptRun> {
        let (sender, runs) = flume::bounded(limits::SCRIPT_CANARY_QUEUE);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Open { share, candidate, runs: sender });
        self.is_open.store(true, Ordering::Release);
        runs
    }

    /// Closes it.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::Release);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Shows a run to the canary, if it is one of its devices.
    pub(crate) fn show(&self, run: &ScriptRun) {
        if !self.is_open.load(Ordering::Acquire) {
            return;
        }
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_ref().filter(|open| shares(&run.device, open.share)) {
            // Full, or the canary has seen enough.
            let _ = open.runs.try_send(run.clone());
        }
    }

    /// Does the canary want this device's readings, whether or not the running set does?
    pub(crate) fn wants(&self, device: &DeviceId, channel: Channel) -> bool {
        if !self.is_open.load(Ordering::Acquire) {
            return false;
        }
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().filter(|open| shares(device, open.share));
        open.is_some_and(|open| !open.candidate.route(device, channel).is_empty())
    }
}

/// Is the device among this share of all?
fn shares(device: &DeviceId, percent: u32) -> bool {
    let mut hash = DefaultHasher::new();
    device.as_str().hash(&mut hash);
    hash.finish() % 100 < percent.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_always_the_same_devices_and_about_as_many_as_it_says() {
        let devices: Vec<_> = (0..10_000).map(|n| DeviceId::new(&format!("d{n}")).expect("an id")).collect();
        let share = |percent| devices.iter().filter(|device| shares(device, percent)).collect::<Vec<_>>();
        let ten = share(10);
        assert!((800..1_200).contains(&ten.len()), "{}", ten.len());
        assert_eq!(ten, share(10));
        assert!(ten.iter().all(|device| shares(device, 20)), "a greater share has those of a smaller one");
        assert_eq!((share(0).len(), share(100).len()), (0, 10_000));
    }
}
