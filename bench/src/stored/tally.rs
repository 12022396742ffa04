//! What came back of what was stored.

/// Counts of one kind of thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Came once, as it was.
    pub(crate) right: u64,
    /// Did not come.
    pub(crate) missing: u64,
    /// Came, but with another content or in another way.
    pub(crate) wrong: u64,
    /// Came again, or was never asked for.
    pub(crate) extra: u64,
}

impl Tally {
    /// Counts what came.
    pub(crate) fn came(&mut self, as_it_was: bool) {
        *(if as_it_was { &mut self.right } else { &mut self.wrong }) += 1;
    }

    /// Is it all there, and nothing else?
    pub(crate) fn complete(&self, wanted: u64) -> bool {
        *self == Self { right: wanted, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_once_and_as_it_was_makes_it_complete() {
        let mut tally = Tally::default();
        tally.came(true);
        tally.came(true);
        assert!(tally.complete(2) && !tally.complete(3) && !tally.complete(1));
        let whole = tally;
        for spoilt in [
            Tally { right: 1, wrong: 1, ..whole },
            Tally { right: 1, missing: 1, ..whole },
            Tally { missing: 1, ..whole },
            Tally { extra: 1, ..whole },
        ] {
            assert!(!spoilt.complete(2), "{spoilt:?}");
        }
    }
}
