//! States that are changed and not yet in the store: the latest of each device, bounded in number and in bytes.

use hashbrown::HashMap;

use crate::{ids::DeviceId, state::DeviceState};

/// States at which they should be written: with small states this bounds the time of the write.
pub(crate) const STATES: usize = 100_000;
/// Bytes at which they should be written: with large states this bounds the memory.
const BYTES: usize = 64 * 1024 * 1024;
/// What a state takes up besides its texts.
const OVERHEAD: usize = 256;

/// The latest changed state of each device.
#[derive(Debug, Default)]
pub(crate) struct DirtyStates {
    states: HashMap<DeviceId, DeviceState>,
    bytes: usize,
}

impl DirtyStates {
    /// Puts a state in the place of the device's last one.
    pub(crate) fn insert(&mut self, state: DeviceState) {
        self.bytes += size(&state);
        if let Some(last) = self.states.insert(state.device.clone(), state) {
            self.bytes -= size(&last);
        }
    }

    pub(crate) fn get(&self, device: &DeviceId) -> Option<&DeviceState> {
        self.states.get(device)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Should they be written now, whatever the time?
    pub(crate) fn is_full(&self) -> bool {
        self.states.len() >= STATES || self.bytes >= BYTES
    }

    /// The states, for a write that may fail. Handles only: their texts are shared.
    pub(crate) fn to_vec(&self) -> Vec<DeviceState> {
        self.states.values().cloned().collect()
    }

    /// Forgets them: they are in the store.
    pub(crate) fn clear(&mut self) {
        self.states.clear();
        self.bytes = 0;
    }
}

fn size(state: &DeviceState) -> usize {
    let scripts = state.script_state.iter().map(|(name, json)| name.len() + json.len() + OVERHEAD / 4).sum::<usize>();
    OVERHEAD + state.device.as_str().len() + state.state.len() + scripts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::tests::state;

    #[test]
    fn many_or_large_states_are_full_and_an_overwritten_one_counts_once() {
        let mut dirty = DirtyStates::default();
        for position in 0..1_000 {
            let large = Bytes::from(vec![b'x'; BYTES / 100]);
            dirty.insert(DeviceState { state: large, ..state(1, position) });
        }
        assert!(!dirty.is_full(), "it is one device");
        for device in 0..100 {
            let large = Bytes::from(vec![b'x'; BYTES / 100]);
            dirty.insert(DeviceState { state: large, ..state(device, 1) });
        }
        assert!(dirty.is_full());
        dirty.clear();
        assert!(dirty.is_empty() && dirty.bytes == 0);
        for device in 0..STATES as u64 - 1 {
            dirty.insert(state(device, 0));
        }
        assert!(!dirty.is_full());
        dirty.insert(state(STATES as u64, 0));
        assert!(dirty.is_full());
        assert_eq!(dirty.to_vec().len(), STATES);
    }
}
