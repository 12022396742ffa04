//! The fold: how one handled reading changes a device's state. Pure: no clock, no queue, no I/O, so that recovery, replay and
//! the tests call the very function that the live path calls.

use bytes::Bytes;

use crate::{
    ids::Position,
    ledger::ConflateReason,
    reading::Reading,
    script::{ParkReason, Verdict},
    state::DeviceState,
    submission::Disposition,
};

/// What became of a reading, and the device's state after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// It made the state.
    Committed(DeviceState),
    /// It gave way; only the state's bookkeeping moved on, or nothing at all.
    Conflated(ConflateReason, Option<DeviceState>),
    /// A handler dropped it; only the state's bookkeeping moved on.
    Dropped(DeviceState),
    /// It is parked; likewise.
    Parked(ParkReason, DeviceState),
}

impl Folded {
    /// The state to keep, if anything in it changed.
    #[must_use]
    pub fn into_state(self) -> Option<DeviceState> {
        match self {
            Self::Committed(state) | Self::Dropped(state) | Self::Parked(_, state) => Some(state),
            Self::Conflated(_, state) => state,
        }
    }

    /// What became of the reading.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Committed(_) => Disposition::Kept,
            Self::Conflated(reason, _) => Disposition::Conflated(*reason),
            Self::Dropped(_) => Disposition::Dropped,
            Self::Parked(reason, _) => Disposition::Parked(*reason),
        }
    }
}

/// Folds a reading at `position` into the state before it.
///
/// The greatest [`Reading::ordering_time`] wins; of equal times, and without one, the later position. A position that the
/// state already has changes nothing, so that replaying a journal twice is the same as replaying it once. A reading that its
/// request had brought before changes no more than the bookkeeping, nor does an event of which no handler made a state.
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
    let mut next = match previous {
        Some(state) => state.clone(),
        None => DeviceState::empty(reading.device.clone(), reading.received),
    };
    next.position = position;
    if is_retry(&next, reading) {
        next.counts.settle(Disposition::Conflated(ConflateReason::IdempotentRetry));
        return Folded::Conflated(ConflateReason::IdempotentRetry, Some(next));
    }
    if let Some(idempotency) = &reading.idempotency {
        next.requests.add(idempotency);
    }
    for (script, value) in script_state {
        match next.script_state.iter_mut().find(|(name, _)| name == script) {
            Some((_, old)) => *old = value.clone(),
            None => next.script_state.push((script.clone(), value.clone())),
        }
    }
    let kept = match verdict {
        Verdict::Dropped { .. } => {
            next.counts.settle(Disposition::Dropped);
            return Folded::Dropped(next);
        }
        Verdict::Parked { reason, .. } => {
            next.counts.settle(Disposition::Parked(*reason));
            return Folded::Parked(*reason, next);
        }
        Verdict::Unchanged if reading.channel.is_event() => {
            next.counts.settle(Disposition::Conflated(ConflateReason::Event));
            return Folded::Conflated(ConflateReason::Event, Some(next));
        }
        Verdict::Unchanged => reading.payload.clone(),
        Verdict::Keep(state) => state.clone(),
    };
    let time = reading.ordering_time(next.newest_device_time);
    if time.zip(next.newest_device_time).is_some_and(|(time, newest)| time < newest) || is_overtaken(&next, reading) {
        next.counts.settle(Disposition::Conflated(ConflateReason::Late));
        return Folded::Conflated(ConflateReason::Late, Some(next));
    }
    next.state = kept;
    next.device_time = reading.device_time;
    next.newest_device_time = next.newest_device_time.max(time);
    next.received = reading.received;
    next.version += 1;
    Folded::Committed(next)
}

/// The state after [`fold`], if anything in it changed: what a recovery, an audit and an export fold with.
#[must_use]
pub fn fold_state(
    previous: Option<&DeviceState>,
    position: Position,
    reading: &Reading,
    verdict: &Verdict,
    script_state: &[(Box<str>, Bytes)],
) -> Option<DeviceState> {
    fold(previous, position, reading, verdict, script_state).into_state()
}

/// Is this another attempt at a reading that has been overtaken while it was parked? Its order of arrival is that of its first
/// attempt, so where no device time orders it, the times of arrival do.
fn is_overtaken(state: &DeviceState, reading: &Reading) -> bool {
    let unordered = reading.device_time.is_none() || state.newest_device_time.is_none();
    reading.retry_of.is_some() && unordered && state.version > 0 && reading.received < state.received
}

/// Has the request of this reading brought it before? Then its handlers do not run again.
#[must_use]
pub fn is_retry(state: &DeviceState, reading: &Reading) -> bool {
    reading.idempotency.as_ref().is_some_and(|idempotency| state.requests.has(idempotency))
}

/// What became of a state that was brought in from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Imported {
    /// It is the device's state now.
    Imported,
    /// The device had the very same.
    Unchanged,
    /// The device has a newer one, which stays.
    Older,
    /// The node is at one of its limits and took nothing; again later.
    Overloaded,
}

/// Folds a state that was brought in from elsewhere, at `position`. A device without a reading of its own becomes just what
/// was brought; another one keeps its counts, and its version goes on growing. Without `overwrite` the newer state stays.
#[must_use]
pub fn fold_import(
    previous: Option<&DeviceState>,
    position: Position,
    imported: &DeviceState,
    overwrite: bool,
) -> (Imported, Option<DeviceState>) {
    let next = DeviceState { position, ..imported.clone() };
    let Some(before) = previous else { return (Imported::Imported, Some(next)) };
    if position <= before.position {
        return (Imported::Unchanged, None);
    }
    let content = |state: &DeviceState| {
        (state.state.clone(), state.device_time, state.newest_device_time, state.received, state.script_state.clone())
    };
    if content(before) == content(imported) {
        return (Imported::Unchanged, Some(DeviceState { position, ..before.clone() }));
    }
    let is_newer = match before.newest_device_time.zip(imported.newest_device_time) {
        Some((own, brought)) => own > brought,
        None => before.received > imported.received,
    };
    if before.version > 0 && is_newer && !overwrite {
        return (Imported::Older, Some(DeviceState { position, ..before.clone() }));
    }
    let version = imported.version.max(before.version + 1);
    let (counts, requests) = (before.counts.clone(), before.requests.clone());
    (Imported::Imported, Some(DeviceState { version, counts, requests, ..next }))
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
            idempotency: None,
            retry_of: None,
        }
    }

    fn committed(folded: Folded) -> DeviceState {
        match folded {
            Folded::Committed(state) => state,
            other => panic!("not committed: {other:?}"),
        }
    }

    #[test]
    fn an_event_makes_a_state_only_if_a_handler_does() {
        let before =
            committed(fold(None, Position(1), &reading(Some(100), 500, "{\"t\":1}"), &Verdict::Unchanged, &[]));
        let event = Reading { channel: Channel::Disconnected, ..reading(None, 900, "{}") };
        let ctx_state = [(Box::from("a.js"), Bytes::from_static(b"{\"n\":1}"))];
        let noted = fold(Some(&before), Position(2), &event, &Verdict::Unchanged, &ctx_state);
        let Folded::Conflated(ConflateReason::Event, Some(after)) = noted else { panic!("{noted:?}") };
        let kept = |state: &DeviceState| (state.state.clone(), state.version, state.received, state.device_time);
        assert_eq!(kept(&after), kept(&before));
        assert_eq!((after.position, after.script_state.len()), (Position(2), 1), "ctx.state and the bookkeeping go on");
        let made = fold(Some(&after), Position(3), &event, &Verdict::Keep(Bytes::from_static(b"{\"on\":false}")), &[]);
        let made = committed(made);
        assert_eq!((&made.state[..], made.version, made.received), (&b"{\"on\":false}"[..], 2, 900));
        assert_eq!(made.newest_device_time, Some(100), "older readings of the device stay late");
    }

    #[test]
    fn another_attempt_does_not_overwrite_what_came_meanwhile() {
        let again = |device_time| Reading { retry_of: Some(Position(1)), ..reading(device_time, 500, "{\"old\":1}") };
        let parked = DeviceState::empty(DeviceId::new("d1").unwrap(), 500);
        for time in [None, Some(100)] {
            let kept = fold(Some(&parked), Position(9), &again(time), &Verdict::Unchanged, &[]);
            assert_eq!(committed(kept).version, 1, "nothing came meanwhile");
            let newer =
                committed(fold(Some(&parked), Position(2), &reading(None, 501, "{}"), &Verdict::Unchanged, &[]));
            let late = fold(Some(&newer), Position(9), &again(time), &Verdict::Unchanged, &[]);
            assert!(matches!(late, Folded::Conflated(ConflateReason::Late, _)), "{late:?}");
        }
        // A device time still wins over the order of arrival.
        let newer = committed(fold(None, Position(2), &reading(Some(90), 501, "{}"), &Verdict::Unchanged, &[]));
        assert_eq!(committed(fold(Some(&newer), Position(9), &again(Some(100)), &Verdict::Unchanged, &[])).version, 2);
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
        let Folded::Dropped(next) = fold(Some(&first), Position(2), &reading(None, 2, "{}"), &verdict, &scripts) else {
            panic!("not dropped")
        };
        assert_eq!((next.version, next.script_state), (1, scripts.to_vec()));
    }

    #[test]
    fn the_nodes_clock_orders_nothing_and_a_devices_fast_clock_heals() {
        let year = 365 * 24 * 3_600_000;
        let first = committed(fold(None, Position(1), &reading(None, year, "{}"), &Verdict::Unchanged, &[]));
        // The node's clock jumps back by a year: what arrives is newer all the same.
        let next = committed(fold(Some(&first), Position(2), &reading(None, 5, "{}"), &Verdict::Unchanged, &[]));
        assert_eq!((next.version, next.received), (2, 5));
        // A device that is a year ahead counts as a day ahead, so its right time wins a day later.
        let ahead = committed(fold(None, Position(1), &reading(Some(year), 1_000, "{}"), &Verdict::Unchanged, &[]));
        assert_eq!(ahead.device_time, Some(year));
        let day = 24 * 3_600_000;
        let soon = reading(Some(2_000), 2_000, "{}");
        let soon = fold(Some(&ahead), Position(2), &soon, &Verdict::Unchanged, &[]);
        assert!(matches!(soon, Folded::Conflated(ConflateReason::Late, _)), "{soon:?}");
        let healed = reading(Some(day + 1_000), day + 1_000, "{}");
        assert_eq!(committed(fold(Some(&ahead), Position(3), &healed, &Verdict::Unchanged, &[])).version, 2);
        // The node's clock jumps back by a year: a device that keeps good time is not late for it.
        let before = committed(fold(None, Position(1), &reading(Some(year), year, "{}"), &Verdict::Unchanged, &[]));
        let jumped = reading(Some(year + 1), 7, "{}");
        let jumped = committed(fold(Some(&before), Position(2), &jumped, &Verdict::Unchanged, &[]));
        assert_eq!((jumped.version, jumped.newest_device_time), (2, Some(year)));
        let really_late = fold(Some(&jumped), Position(3), &reading(Some(year - 1), 8, "{}"), &Verdict::Unchanged, &[]);
        assert!(matches!(really_late, Folded::Conflated(ConflateReason::Late, _)), "{really_late:?}");
        // A reading without a time in between does not let late data in.
        let timed = committed(fold(None, Position(1), &reading(Some(100), 500, "{}"), &Verdict::Unchanged, &[]));
        let untimed = committed(fold(Some(&timed), Position(2), &reading(None, 501, "{}"), &Verdict::Unchanged, &[]));
        let late = fold(Some(&untimed), Position(3), &reading(Some(50), 502, "{}"), &Verdict::Unchanged, &[]);
        assert!(matches!(late, Folded::Conflated(ConflateReason::Late, _)), "{late:?}");
    }

    #[test]
    fn a_request_that_comes_again_is_no_second_reading_even_if_the_first_was_dropped() {
        let idempotency = Some(crate::idempotency::Idempotency { request: [1; 16], index: 0 });
        let once = Reading { idempotency, ..reading(None, 1, "{\"n\":1}") };
        let dropped = Verdict::Dropped { script: "a.js".into() };
        let Folded::Dropped(state) = fold(None, Position(1), &once, &dropped, &[]) else { panic!("not dropped") };
        assert_eq!((state.version, &state.state[..]), (0, &b"{}"[..]));
        let again = fold(Some(&state), Position(2), &once, &Verdict::Unchanged, &[]);
        let Folded::Conflated(ConflateReason::IdempotentRetry, Some(state)) = again else { panic!("{again:?}") };
        assert_eq!(state.counts.reasons().total(), 2);
        let other = Reading { idempotency: None, ..once };
        assert_eq!(committed(fold(Some(&state), Position(3), &other, &Verdict::Unchanged, &[])).version, 1);
    }

    #[test]
    fn an_imported_state_is_what_it_was_and_never_goes_over_a_newer_one_unasked() {
        let elsewhere = DeviceState {
            version: 41,
            ..committed(fold(None, Position(900), &reading(Some(100), 500, "{\"a\":1}"), &Verdict::Unchanged, &[]))
        };
        let (what, state) = fold_import(None, Position(3), &elsewhere, false);
        let fresh = state.unwrap();
        assert_eq!((what, &fresh), (Imported::Imported, &DeviceState { position: Position(3), ..elsewhere.clone() }));
        assert_eq!(fold_import(Some(&fresh), Position(4), &elsewhere, false).0, Imported::Unchanged);

        let newer = reading(Some(101), 501, "{\"a\":2}");
        let newer = committed(fold(Some(&fresh), Position(5), &newer, &Verdict::Unchanged, &[]));
        let (what, state) = fold_import(Some(&newer), Position(6), &elsewhere, false);
        assert_eq!((what, state.unwrap().state), (Imported::Older, newer.state.clone()));
        let (what, state) = fold_import(Some(&newer), Position(6), &elsewhere, true);
        let state = state.unwrap();
        assert_eq!((what, state.version, state.state), (Imported::Imported, 43, elsewhere.state.clone()));
        assert_eq!(fold_import(Some(&newer), Position(5), &elsewhere, true), (Imported::Unchanged, None));
    }
}
