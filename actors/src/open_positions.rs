//! Which committed readings of a loop are not folded yet. They open in the order of the journal and close in any order.

use std::collections::VecDeque;

use crate::ids::Position;

/// The open positions, oldest first; closed ones are removed once everything before them is closed.
#[derive(Debug, Default)]
pub(crate) struct OpenPositions(VecDeque<(Position, bool)>);

impl OpenPositions {
    /// A reading was committed. Positions only grow.
    pub(crate) fn open(&mut self, position: Position) {
        debug_assert!(self.0.back().is_none_or(|(last, _)| *last < position), "positions grow");
        self.0.push_back((position, false));
    }

    /// A reading was folded.
    pub(crate) fn close(&mut self, position: Position) {
        if let Ok(index) = self.0.binary_search_by_key(&position, |(open, _)| *open) {
            self.0[index].1 = true;
        }
        while self.0.front().is_some_and(|(_, closed)| *closed) {
            self.0.pop_front();
        }
    }

    /// The oldest position that is not folded.
    pub(crate) fn first(&self) -> Option<Position> {
        self.0.front().map(|(position, _)| *position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_open_position_holds_the_rest() {
        let mut open = OpenPositions::default();
        for n in [2, 5, 9] {
            open.open(Position(n));
        }
        open.close(Position(5));
        assert_eq!(open.first(), Some(Position(2)));
        open.close(Position(2));
        assert_eq!(open.first(), Some(Position(9)));
        open.close(Position(9));
        open.close(Position(77));
        assert_eq!(open.first(), None);
    }
}
