//! The replay: the journal's records, folded in each device's order, on their way into the store.

use std::{collections::VecDeque, ops::ControlFlow};

use bytes::Bytes;
use hashbrown::HashMap;

use super::{Fold, RecoveryReport, Unfinished};
use crate::{
    dirty::DirtyStates,
    fold::fold_import,
    ids::{DeviceId, Position},
    journal::{OutcomeRecord, Record},
    kept::KeptChanges,
    lifetime::Lifetime,
    script::{ParkReason, Verdict},
    state::{DeviceState, ParkedReading},
    store::{ParkedChanges, StateStore, StoreError},
};

/// The journal's records on their way into the store.
pub(super) struct Replay<'a, 'f> {
    store: &'a dyn StateStore,
    fold: &'a mut Fold<'f>,
    states: DirtyStates,
    parked: ParkedChanges,
    /// In the order of the journal, whatever the devices wait for.
    kept: KeptChanges,
    /// Readings that wait for an outcome, and those of the same device behind them: what the loops had in flight.
    waiting: HashMap<DeviceId, VecDeque<Unfinished>>,
    /// The last position that was seen.
    seen: Position,
    /// How the devices' counts have changed.
    lifetime: Lifetime,
    /// By how many readings states that were brought in have changed them.
    brought: i128,
    folded: u64,
    orphaned: u64,
    /// The store failed: it ends here.
    failed: Option<StoreError>,
}

impl<'a, 'f> Replay<'a, 'f> {
    pub(super) fn new(store: &'a dyn StateStore, fold: &'a mut Fold<'f>) -> Self {
        Self {
            store,
            fold,
            states: DirtyStates::default(),
            parked: ParkedChanges::default(),
            kept: KeptChanges::default(),
            lifetime: Lifetime::default(),
            brought: 0,
            waiting: HashMap::new(),
            seen: store.folded(),
            folded: 0,
            orphaned: 0,
            failed: None,
        }
    }

    /// Takes the journal's next record. Breaks when the store fails; [`Replay::finish`] tells how.
    pub(super) fn feed(&mut self, position: Position, record: Record) -> ControlFlow<()> {
        self.failed = self.record(position, record).err();
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn record(&mut self, position: Position, record: Record) -> Result<(), StoreError> {
        match record {
            Record::Reading { reading, routed } => self.take(Unfinished::Reading { position, reading, routed })?,
            Record::Outcome(outcome) => self.outcome(&outcome)?,
            Record::Unparked { position, .. } => self.parked.unpark(position),
            Record::Imported { state, overwrite } => self.take(Unfinished::Brought { position, state, overwrite })?,
            Record::Kept(change) => self.kept.insert(change),
        }
        self.seen = position;
        if self.states.is_full() || self.parked.is_full() || self.kept.is_full() {
            self.write()?;
        }
        Ok(())
    }

    /// Readings of one device fold in their order: one that follows a reading without an outcome waits behind it.
    fn take(&mut self, new: Unfinished) -> Result<(), StoreError> {
        if let Some(queue) = self.waiting.get_mut(new.device()) {
            queue.push_back(new);
        } else if new.is_routed() {
            self.waiting.insert(new.device().clone(), VecDeque::from([new]));
        } else {
            self.apply(&new, &Verdict::Unchanged, &[])?;
        }
        Ok(())
    }

    fn outcome(&mut self, outcome: &OutcomeRecord) -> Result<(), StoreError> {
        // None waits when the reading is before the replay's start: then it is folded, or the start would be before it.
        let Some(mut queue) = self.waiting.remove(&outcome.device) else { return Ok(()) };
        if queue.iter().any(|waiting| waiting.is_routed() && waiting.position() == outcome.reading) {
            while let Some(first) = queue.pop_front() {
                if first.position() == outcome.reading {
                    self.apply(&first, &outcome.verdict, &outcome.script_state)?;
                    break;
                }
                self.pass_over(&first)?;
            }
            while queue.front().is_some_and(|next| !next.is_routed()) {
                if let Some(next) = queue.pop_front() {
                    self.apply(&next, &Verdict::Unchanged, &[])?;
                }
            }
        }
        if !queue.is_empty() {
            self.waiting.insert(outcome.device.clone(), queue);
        }
        Ok(())
    }

    /// A later reading of the device has its outcome, and this one has none: outcomes come in order, so this one's was lost in
    /// a damaged place. It is parked, for an operator to see.
    fn pass_over(&mut self, waiting: &Unfinished) -> Result<(), StoreError> {
        if !waiting.is_routed() {
            return self.apply(waiting, &Verdict::Unchanged, &[]);
        }
        self.orphaned += 1;
        let verdict = Verdict::Parked {
            script: "".into(),
            reason: ParkReason::Crashed,
            message: "what the handlers made of it was lost in a damaged place of the journal".into(),
        };
        self.apply(waiting, &verdict, &[])
    }

    fn apply(
        &mut self,
        what: &Unfinished,
        verdict: &Verdict,
        script_state: &[(Box<str>, Bytes)],
    ) -> Result<(), StoreError> {
        let (position, reading) = match what {
            Unfinished::Reading { position, reading, .. } => (position, reading),
            Unfinished::Brought { position, state, overwrite } => return self.import(*position, state, *overwrite),
        };
        if let Verdict::Parked { script, reason, message } = verdict {
            self.parked.park(ParkedReading {
                position: *position,
                reading: reading.clone(),
                script: script.clone(),
                reason: *reason,
                message: message.clone(),
            });
        }
        if let Some(parked) = reading.retry_of {
            self.parked.unpark(parked);
        }
        let previous = self.state(&reading.device)?;
        // The store may be ahead of its own folded position, device by device.
        if previous.as_ref().is_some_and(|state| state.position >= *position) {
            return Ok(());
        }
        self.folded += 1;
        if let Some(state) = (self.fold)(previous.as_ref(), *position, reading, verdict, script_state) {
            self.lifetime.change(previous.as_ref(), &state);
            self.states.insert(state);
        }
        Ok(())
    }

    fn import(&mut self, position: Position, state: &DeviceState, overwrite: bool) -> Result<(), StoreError> {
        let previous = self.state(&state.device)?;
        let (_, state) = fold_import(previous.as_ref(), position, state, overwrite);
        if let Some(state) = state {
            let counted = |state: &DeviceState| i128::from(state.version) + i128::from(state.counts.reasons().total());
            self.brought += counted(&state) - previous.as_ref().map_or(0, counted);
            self.lifetime.change(previous.as_ref(), &state);
            self.states.insert(state);
        }
        Ok(())
    }

    fn state(&self, device: &DeviceId) -> Result<Option<DeviceState>, StoreError> {
        match self.states.get(device) {
            Some(state) => Ok(Some(state.clone())),
            None => self.store.get(device.as_str()),
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let first_waiting = self.waiting.values().flatten().map(|waiting| waiting.position().0).min();
        let folded = first_waiting.map_or(self.seen, |first| Position(first - 1)).max(self.store.folded());
        let nothing = self.states.is_empty() && self.parked.is_empty() && self.kept.is_empty();
        if nothing && folded == self.store.folded() {
            return Ok(());
        }
        self.store.write(&self.parked.with(self.states.to_vec(), self.kept.to_vec()), folded)?;
        self.states.clear();
        self.parked.clear();
        self.kept.clear();
        Ok(())
    }

    /// By how many readings imported states have changed the counts: those readings are in no journal here.
    pub(super) fn brought(&self) -> i128 {
        self.brought
    }

    /// Writes what is left, and gives the readings that are still to be folded.
    pub(super) fn finish(mut self, report: &mut RecoveryReport) -> Result<(Vec<Unfinished>, Lifetime), StoreError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.write()?;
        let mut unfinished = Vec::new();
        for (device, queue) in self.waiting {
            // A store of an older build may have what the journal lacks: it was given outcomes before they were durable.
            let position = self.store.get(device.as_str())?.map_or(Position(0), |state| state.position);
            unfinished.extend(queue.into_iter().filter(|waiting| waiting.position() > position));
        }
        unfinished.sort_unstable_by_key(Unfinished::position);
        report.folded = self.folded;
        report.orphaned = self.orphaned;
        report.unfinished = unfinished.len() as u64;
        Ok((unfinished, self.lifetime))
    }
}
