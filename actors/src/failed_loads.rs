//! Loads of devices' states that the store refused: asked again after a growing delay, and told seldom. Counts ticks of its
//! loop and reads no clock, which may jump.

use crate::{device::DeviceKey, ids::DeviceId, store::StoreError};

/// Longest delay, and least time between two log lines, in ticks (of 50 ms).
const MOST: u32 = 100;

/// What a loop has still to load.
#[derive(Debug)]
pub(crate) struct FailedLoads {
    waiting: Vec<(DeviceKey, DeviceId)>,
    /// Ticks until they are asked for.
    left: u32,
    /// Ticks that the next failure waits.
    delay: u32,
    /// Ticks without a failure.
    quiet: u32,
    /// Ticks until the next log line.
    silent: u32,
    unsaid: u64,
}

impl Default for FailedLoads {
    fn default() -> Self {
        Self { waiting: Vec::new(), left: 0, delay: 1, quiet: 0, silent: 0, unsaid: 0 }
    }
}

impl FailedLoads {
    /// A load has failed. Returns whether it was told.
    pub(crate) fn add(&mut self, key: DeviceKey, device: DeviceId, error: &StoreError) -> bool {
        let told = self.silent == 0;
        self.unsaid += 1;
        if told {
            let failures = std::mem::take(&mut self.unsaid);
            tracing::error!(%device, %error, failures, "the store did not give a device's state; asking again");
            self.silent = MOST;
        }
        if self.waiting.is_empty() {
            self.left = self.delay;
            self.delay = (self.delay * 2).min(MOST);
        }
        self.quiet = 0;
        self.waiting.push((key, device));
        told
    }

    /// A tick has passed: what is to be asked for now.
    pub(crate) fn due(&mut self) -> Vec<(DeviceKey, DeviceId)> {
        self.silent = self.silent.saturating_sub(1);
        self.left = self.left.saturating_sub(1);
        if self.waiting.is_empty() {
            self.quiet = self.quiet.saturating_add(1);
            if self.quiet > MOST {
                self.delay = 1;
            }
        }
        if self.left == 0 { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_refuses_is_asked_ever_less_often_and_told_seldom() {
        let error = StoreError::Damaged { dir: "state".into(), reason: "bad".to_owned() };
        let device = DeviceId::new("d1").unwrap();
        let mut loads = FailedLoads::default();
        let (mut told, mut asked) = (0, Vec::new());
        told += u32::from(loads.add(7, device.clone(), &error));
        for tick in 1..=2_000 {
            let due = loads.due();
            if !due.is_empty() {
                assert_eq!(due, [(7, device.clone())]);
                asked.push(tick);
                told += u32::from(loads.add(7, device.clone(), &error));
            }
        }
        assert_eq!(asked[..9], [1, 3, 7, 15, 31, 63, 127, 227, 327], "twice as long each time, at most 5 s");
        assert!((18..=21).contains(&told), "once in 5 s: {told}");
        loads.due();
        // It gives them again, and for some time nothing fails.
        while loads.due().is_empty() {}
        for _ in 0..=MOST {
            assert!(loads.due().is_empty());
        }
        loads.add(7, device, &error);
        assert_eq!(loads.due().len(), 1, "the delay begins anew");
    }
}
