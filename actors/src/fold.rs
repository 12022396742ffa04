//! The fold: how one handled reading changes a device's state. Pure: no clock, no queue, no I/O, so that recovery, replay and
//! the tests call the very function that the live path calls.

use bytes::Bytes;

use crate::{
    ids::Position,
    ledger::ConflateReason,
    reading::Reading,
    script::{ParkReason, Verdict},
    state::DeviceState,
};

/// What became of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// The device has a new state.
    Committed(DeviceState),
    /// The reading gave way; the state as it is now, if its bookkeeping (position, `ctx.state`) moved on.
    Conflated(ConflateReason, Option<DeviceState>),
    /// A handler dropped it; likewise.
    Dropped(Option<DeviceState>),
    /// It is parked; likewise.
    Parked(ParkReason, Option<DeviceState>),
}

impl Folded {
    /// The state to keep, if anything in it changed.
    #[must_use]
    pub fn into_state(self) -> Option<DeviceState> {
        match self {
            Self::Committed(state) => Some(state),
            Self::Conflated(_, state) | Self::Dropped(state) | Self::Parked(_, state) => state,
        }
    }
}

/// Folds a reading at `position` into the state before it.
///
/// The greatest [`Reading::effective_time`] wins; of equal times the later position. A position that the state already has
/// changes nothing, so that replaying a journal twice is the same as replaying it once.
#[must_use]
pub fn fold(
    previous: Option<&DeviceState>,
    position: Position,
    reading: &Reading,
    verdict: &Verdict,
    script_state: &[(Box<str>, Bytes)],
) -> Folded {
    if previous.is_some_and(|state| position <= state.position) {
        return Folded::Conflated(ConflateReason::Duplicate, None);
    }
    let moved_on = || previous.map(|state| advance(state, position, script_state));
    let kept = match verdict {
        Verdict::Dropped { .. } => return Folded::Dropped(moved_on()),
        Verdict::Parked { reason, .. } => return Folded::Parked(*reason, moved_on()),
        Verdict::Unchanged => reading.payload.clone(),
        Verdict::Keep(state) => state.clone(),
    };
    let Some(state) = previous else {
        return Folded::Committed(DeviceState {
            device: reading.device.clone(),
            state: kept,
            device_time: reading.device_time,
            received: reading.received,
            version: 1,
            position,
            script_state: script_state.to_vec(),
        });
    };
    if reading.effective_time() < state.device_time.unwrap_or(state.received) {
        return Folded::Conflated(ConflateReason::Late, moved_on());
    }
    let mut next = advance(state, position, script_state);
    next.state = kept;
    next.device_time = reading.device_time;
    next.received = reading.received;
    next.version = state.version + 1;
    Folded::Committed(next)
}

/// The state with its bookkeeping moved on: the position, and the `ctx.state` of the scripts that changed theirs.
fn advance(state: &DeviceState, position: Position, script_state: &[(Box<str>, Bytes)]) -> DeviceState {
    let mut next = DeviceState { position, ..state.clone() };
    for (script, value) in script_state {
        match next.script_state.iter_mut().find(|(name, _)| name == script) {
            Some((_, old)) => *old = value.clone(),
            None => next.script_state.push((script.clone(), value.clone())),
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::DeviceId, reading::Channel};

    fn reading(time: Option<i64>, received: i64, payload: &'static str) -> Reading {
        let device = DeviceId::new("d1").unwrap();
        Reading {
            device,
            channel: Channel::Metrics,
            device_time: time,
            received,
            payload: Bytes::from_static(payload.as_bytes()),
        }
    }

    fn committed(folded: Folded) -> DeviceState {
        match folded {
            Folded::Committed(state) => state,
            other => panic!("not committed: {other:?}"),
        }
    }

    #[test]
    fn late_data_never_overwrites_newer_data() {
        let first = committed(fold(None, Position(1), &reading(Some(100), 500, "{\"a\":1}"), &Verdict::Unchanged, &[]));
        assert_eq!((first.version, &first.state[..]), (1, &b"{\"a\":1}"[..]));

        let late = fold(Some(&first), Position(2), &reading(Some(99), 501, "{\"a\":2}"), &Verdict::Unchanged, &[]);
        let Folded::Conflated(ConflateReason::Late, Some(after)) = late else { panic!("{late:?}") };
        assert_eq!((after.version, after.position, &after.state[..]), (1, Position(2), &b"{\"a\":1}"[..]));

        let same_time =
            fold(Some(&after), Position(3), &reading(Some(100), 502, "{\"a\":3}"), &Verdict::Unchanged, &[]);
        assert_eq!(committed(same_time).version, 2);
    }

    #[test]
    fn a_position_is_folded_once() {
        let first = committed(fold(None, Position(7), &reading(None, 1, "{}"), &Verdict::Unchanged, &[]));
        let again = fold(Some(&first), Position(7), &reading(None, 9, "{\"b\":1}"), &Verdict::Unchanged, &[]);
        assert_eq!(again, Folded::Conflated(ConflateReason::Duplicate, None));
    }

    #[test]
    fn a_dropped_reading_still_moves_the_scripts_state() {
        let scripts = [(Box::<str>::from("a.js"), Bytes::from_static(b"{\"n\":1}"))];
        let first = committed(fold(None, Position(1), &reading(None, 1, "{}"), &Verdict::Unchanged, &scripts));
        let scripts = [(Box::<str>::from("a.js"), Bytes::from_static(b"{\"n\":2}"))];
        let verdict = Verdict::Dropped { script: "a.js".into() };
        let Folded::Dropped(Some(next)) = fold(Some(&first), Position(2), &reading(None, 2, "{}"), &verdict, &scripts)
        else {
            panic!("not dropped")
        };
        assert_eq!((next.version, next.script_state), (1, scripts.to_vec()));
    }
}
