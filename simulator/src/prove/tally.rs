//! What a device has sent and what was promised to it, and the judgement on what the node says later. Pure.
//!
//! A device numbers its readings 1, 2, 3, …, and after a crash it goes on after the one that the node still has. So a node that
//! neither loses nor doubles anything has kept exactly as many readings as the last one's number says.

/// One device's account, over all rounds.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) id: String,
    /// The last reading that the node was found to have, after the last crash.
    found: u64,
    /// Readings of it that the node had kept by then.
    kept: u64,
    /// The last reading that was handed to the network since.
    sent: u64,
    /// The last reading that was acknowledged since.
    acked: u64,
}

/// What the node says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// The number of the reading that made the state.
    pub(super) sequence: u64,
    /// Readings that were kept.
    pub(super) version: u64,
    /// What the handler has counted in its `ctx.state`, where there is one.
    pub(super) counted: Option<u64>,
}

/// What is wrong with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// So many acknowledged readings are not there.
    Lost(u64),
    /// The state has a reading that was never sent.
    Unsent,
    /// Readings were folded twice, left out, or not seen by the handler.
    Miscounted,
}

impl Device {
    pub(super) fn new(id: String) -> Self {
        Self { id, found: 0, kept: 0, sent: 0, acked: 0 }
    }

    /// The number of the next reading, which counts as sent from here on: a node may have it before the call returns.
    pub(super) fn send_next(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// A reading was acknowledged.
    pub(super) fn ack(&mut self, sequence: u64) {
        self.acked = self.acked.max(sequence);
    }

    /// Judges what the node has after a crash, and goes on from there, whatever it is. On a disk that lost power an unsynced
    /// reading may be gone while a later one is there (`holes`); otherwise what is there is complete.
    pub(super) fn judge(&mut self, found: Option<Found>, holes: bool) -> Result<(), Wrong> {
        let there = found.unwrap_or_default();
        let promised = self.acked.max(self.found);
        let verdict = if there.sequence < promised {
            Err(Wrong::Lost(promised - there.sequence))
        } else if there.sequence > self.sent {
            Err(Wrong::Unsent)
        } else {
            let more = there.version.checked_sub(self.kept);
            // Acknowledgements come in order, so nothing at or before the last acknowledged reading may be missing.
            let (least, most) = (promised - self.found, there.sequence - self.found);
            let least = if holes { least } else { most };
            let right = more.is_some_and(|more| (least..=most).contains(&more))
                && there.counted.is_none_or(|counted| counted == there.version);
            if right { Ok(()) } else { Err(Wrong::Miscounted) }
        };
        (self.found, self.kept, self.sent, self.acked) = (there.sequence, there.version, there.sequence, 0);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of which `before` readings were found, that then sent up to `sent` and got an ack for `acked`.
    fn device(before: u64, sent: u64, acked: u64) -> Device {
        let mut device = Device::new("d".to_owned());
        device.sent = before;
        assert_eq!(device.judge(Some(Found { sequence: before, version: before, counted: None }), false), Ok(()));
        device.sent = sent;
        device.ack(acked);
        device
    }

    #[track_caller]
    fn check(found: Option<(u64, u64, Option<u64>)>, whole: Result<(), Wrong>, with_holes: Result<(), Wrong>) {
        let found = found.map(|(sequence, version, counted)| Found { sequence, version, counted });
        assert_eq!(device(3, 10, 6).judge(found, false), whole);
        assert_eq!(device(3, 10, 6).judge(found, true), with_holes);
    }

    #[test]
    fn judgements() {
        // All that was acknowledged, all that was sent, something in between.
        check(Some((6, 6, None)), Ok(()), Ok(()));
        check(Some((10, 10, Some(10))), Ok(()), Ok(()));
        // Lost: the device, the state, the last one.
        check(None, Err(Wrong::Lost(6)), Err(Wrong::Lost(6)));
        check(Some((3, 3, None)), Err(Wrong::Lost(3)), Err(Wrong::Lost(3)));
        check(Some((5, 5, None)), Err(Wrong::Lost(1)), Err(Wrong::Lost(1)));
        check(Some((11, 11, None)), Err(Wrong::Unsent), Err(Wrong::Unsent));
        // Folded twice, and one left out: of the unacknowledged, or of the acknowledged.
        check(Some((8, 9, None)), Err(Wrong::Miscounted), Err(Wrong::Miscounted));
        check(Some((8, 7, None)), Err(Wrong::Miscounted), Ok(()));
        check(Some((8, 5, None)), Err(Wrong::Miscounted), Err(Wrong::Miscounted));
        // The handler ran twice for one.
        check(Some((8, 8, Some(9))), Err(Wrong::Miscounted), Err(Wrong::Miscounted));
    }

    #[test]
    fn a_device_goes_on_from_what_was_found() {
        let mut device = device(3, 10, 6);
        assert_eq!(device.judge(Some(Found { sequence: 7, version: 7, counted: None }), false), Ok(()));
        assert_eq!(device.send_next(), 8);
        assert_eq!(device.judge(Some(Found { sequence: 6, version: 6, counted: None }), false), Err(Wrong::Lost(1)));
    }
}
