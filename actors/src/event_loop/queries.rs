//! What a loop does besides readings: an operator's commands, viewers, queries, and who is connected.

use std::sync::Arc;

use bytes::Bytes;

use super::{EventLoop, LoopHealth};
use crate::{
    device::DeviceActor,
    fanout::{Filter, Viewer, encode_state},
    fold::Imported,
    ids::{DeviceId, Position},
    placement,
    reading::Channel,
    state::DeviceState,
    turn::{Memory, ReplyTo, ToImport, Written},
};

impl EventLoop {
    /// Takes a state that was brought in from elsewhere.
    pub(crate) fn import(&mut self, state: DeviceState, overwrite: bool, reply: ReplyTo<Imported>) {
        if self.turn.is_over_limit()
            || self.turn.journal_failed
            || self.turn.gate_closed
            || self.turn.memory != Memory::Enough
        {
            let _ = reply.send(Imported::Overloaded);
            return;
        }
        let record = state.clone();
        let written = Written::Imported(Box::new(ToImport { state, overwrite, reply }));
        if let Err(error) = self.turn.journal_command(written, |batch| batch.push_imported(&record, overwrite)) {
            tracing::error!(device = %record.device, %error, "refused a state that the journal cannot hold");
        }
    }

    /// Takes an operator's dropping of a parked reading.
    pub(crate) fn unpark(&mut self, device: &DeviceId, position: Position, reply: ReplyTo<()>) {
        let written = Written::Unparked(position, reply);
        // It always fits.
        let _ = self.turn.journal_command(written, |batch| batch.push_unparked(device, position));
    }

    pub(super) fn watch(&mut self, viewer: &Arc<Viewer>, filter: &Filter) {
        let (id, loops) = (self.turn.id, self.services.loops());
        self.turn.watchers.add(viewer, filter, |device| placement::owner(device.as_str(), loops) == id);
        let offer = |device: &DeviceActor| {
            if let Some(state) = device.state() {
                viewer.offer(&encode_state(state, self.turn.is_connected(&state.device)), self.turn.now);
            }
        };
        if filter.fleet || !filter.prefixes.is_empty() {
            self.devices.iter().map(|(_, device)| device).filter(|d| filter.wants(d.device().as_str())).for_each(offer);
        } else {
            filter.devices.iter().filter_map(|id| self.device(id.as_str())).for_each(offer);
        }
    }

    /// Stored states of devices that are not active here: an active one has been shown already.
    pub(super) fn snapshot(&mut self, viewer: &Arc<Viewer>, states: &[DeviceState]) {
        for state in
            states.iter().filter(|state| self.device(state.device.as_str()).is_none_or(|d| d.state().is_none()))
        {
            viewer.offer(&encode_state(state, self.turn.is_connected(&state.device)), self.turn.now);
        }
    }

    pub(crate) fn device(&self, id: &str) -> Option<&DeviceActor> {
        self.by_id.get(id).and_then(|key| self.devices.get(*key as usize))
    }

    /// The first `limit` active devices after `after` whose ids start with `prefix`, with a state.
    pub(crate) fn page(&self, after: Option<&str>, prefix: &str, limit: usize) -> Vec<&DeviceState> {
        use std::ops::Bound;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.by_order
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|id| id.as_str().starts_with(prefix))
            .filter_map(|id| self.device(id.as_str()).and_then(DeviceActor::state))
            .take(limit)
            .collect()
    }

    /// A connection of the device came or went.
    pub(crate) fn connected(&mut self, device: &DeviceId, here: bool) {
        let before = self.turn.is_connected(device);
        if here {
            *self.turn.connected.entry(device.clone()).or_insert(0) += 1;
        } else if let Some(count) = self.turn.connected.get_mut(device) {
            *count -= 1;
            if *count == 0 {
                self.turn.connected.remove(device);
            }
        }
        if before == self.turn.is_connected(device) {
            return;
        }
        let channel = if here { Channel::Connected } else { Channel::Disconnected };
        self.happened(device, channel, || Bytes::from_static(b"{}"));
        if let Some(key) = self.by_id.get(device)
            && let Some(actor) = self.devices.get(*key as usize)
        {
            actor.show(&mut self.turn);
            // It happens outside of a turn: MQTT subscribers would hear of it at the next tick only.
            self.turn.wake();
        }
    }

    pub(crate) fn health(&self) -> LoopHealth {
        LoopHealth {
            id: self.turn.id.0,
            lag_ms: self.lag_ms,
            devices: self.devices.len(),
            connected: self.turn.connected.len(),
            new_devices: self.turn.new_devices,
        }
    }
}
