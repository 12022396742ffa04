//! The readings of a journal in the order in which their devices folded them, each with its outcome, and the states before them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::ControlFlow,
    path::Path,
};

use tidegate_actors::{
    fold::{fold_import, fold_state},
    ids::{DeviceId, Position},
    journal::{self, OutcomeRecord, Record, ScanError},
    script::Verdict,
    state::DeviceState,
};

use super::{
    Since,
    side::{Chunk, Item},
};

/// Readings that are run through the handlers in one go.
const CHUNK: usize = 20_000;

/// What was read, and what the node made of it.
#[derive(Default)]
pub(super) struct Journaled {
    /// The states as the node had them.
    pub(super) live: HashMap<DeviceId, DeviceState>,
    /// As they were before the first wanted reading of their device.
    pub(super) before: HashMap<DeviceId, DeviceState>,
    /// Devices with a wanted reading so far.
    pub(super) devices: HashSet<DeviceId>,
    /// Readings whose outcome is not in the journal.
    pub(super) unfinished: u64,
    waiting: HashMap<DeviceId, VecDeque<Waiting>>,
    chunk: Chunk,
    count: usize,
}

struct Waiting {
    item: Item,
    /// It waits for its outcome.
    is_open: bool,
}

impl Journaled {
    /// Reads it, and gives chunks of the wanted readings to `work`.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) fn read(
        dir: &Path,
        device: Option<&DeviceId>,
        since: Since,
        mut work: impl FnMut(&Chunk, &Self),
    ) -> Result<Self, ScanError> {
        let mut all = Self::default();
        journal::read(dir, Position(0), |position, record| {
            all.take(position, record, device, since);
            if all.count >= CHUNK {
                all.hand_over(&mut work);
            }
            ControlFlow::Continue(())
        })?;
        all.hand_over(&mut work);
        all.unfinished += all.waiting.values().map(|waiting| waiting.len() as u64).sum::<u64>();
        Ok(all)
    }

    fn hand_over(&mut self, work: &mut impl FnMut(&Chunk, &Self)) {
        let chunk = std::mem::take(&mut self.chunk);
        self.count = 0;
        if !chunk.is_empty() {
            work(&chunk, self);
        }
    }

    fn take(&mut self, position: Position, record: Record, only: Option<&DeviceId>, since: Since) {
        let is_wanted = |device: &DeviceId| only.is_none_or(|only| only == device);
        match record {
            Record::Reading { reading, routed } if is_wanted(&reading.device) => {
                let device = reading.device.clone();
                let waiting = self.waiting.entry(device.clone()).or_default();
                let item = Item { position, reading, outcome: None };
                waiting.push_back(Waiting { item, is_open: routed });
                self.settle(&device, since);
            }
            Record::Outcome(outcome) if is_wanted(&outcome.device) => {
                let device = outcome.device.clone();
                self.answer(outcome);
                self.settle(&device, since);
            }
            Record::Imported { state, overwrite } if is_wanted(&state.device) => {
                let device = state.device.clone();
                if let (_, Some(state)) = fold_import(self.live.get(&device), position, &state, overwrite) {
                    self.live.insert(device, state);
                }
            }
            _ => {}
        }
    }

    /// An outcome closes its reading. Those before it that are open have lost theirs: a device's outcomes come in order.
    fn answer(&mut self, outcome: OutcomeRecord) {
        let Some(waiting) = self.waiting.get_mut(&outcome.device) else { return };
        let Some(at) = waiting.iter().position(|waiting| waiting.item.position == outcome.reading) else { return };
        let lost = waiting.iter().take(at).filter(|waiting| waiting.is_open).count();
        self.unfinished += lost as u64;
        waiting[at].item.outcome = Some(outcome);
        waiting[at].is_open = false;
        let mut index = 0;
        waiting.retain(|waiting| {
            index += 1;
            index > at || !waiting.is_open
        });
    }

    /// Folds what is closed, in order.
    fn settle(&mut self, device: &DeviceId, since: Since) {
        let Some(waiting) = self.waiting.get_mut(device) else { return };
        while let Some(Waiting { item, .. }) = waiting.pop_front_if(|first| !first.is_open) {
            let before = self.live.get(device);
            if before.is_some_and(|state| item.position <= state.position) {
                continue;
            }
            let unchanged = (&Verdict::Unchanged, &[][..]);
            let (verdict, script_state) =
                item.outcome.as_ref().map_or(unchanged, |outcome| (&outcome.verdict, &outcome.script_state[..]));
            let after = fold_state(before, item.position, &item.reading, verdict, script_state);
            if since.holds(item.position, item.reading.received) {
                if self.devices.insert(device.clone())
                    && let Some(before) = before
                {
                    self.before.insert(device.clone(), before.clone());
                }
                self.chunk.entry(device.clone()).or_default().push(item);
                self.count += 1;
            }
            if let Some(after) = after {
                self.live.insert(device.clone(), after);
            }
        }
    }
}
