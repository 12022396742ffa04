//! The parked readings that an operator works on now, so that two operators do not run or drop the same one.
//!
//! It keeps positions only. What becomes of a parked reading is decided by its device and is durable; this is not.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tidegate_actors::ids::Position;

/// The positions that are taken, of the whole node.
#[derive(Debug, Default)]
pub(crate) struct Retries(Mutex<HashSet<Position>>);

/// A position that is this operator's until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    retries: Arc<Retries>,
    position: Position,
}

impl Retries {
    /// Readings whose retries were in the journal when the node started: they are run again as it is, and a position is
    /// never used twice, so they stay taken.
    pub(crate) fn under_way(positions: impl IntoIterator<Item = Position>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(positions.into_iter().collect())))
    }

    /// Takes a position, unless it is taken.
    pub(crate) fn take(self: &Arc<Self>, position: Position) -> Option<Taken> {
        let is_free = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(position);
        is_free.then(|| Taken { retries: Arc::clone(self), position })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.retries.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_one_operators_at_a_time() {
        let retries = Retries::under_way([Position(3)]);
        let taken = retries.take(Position(7)).unwrap();
        assert!(retries.take(Position(7)).is_none());
        assert!(retries.take(Position(8)).is_some());
        drop(taken);
        assert!(retries.take(Position(7)).is_some());
        assert!(retries.take(Position(3)).is_none(), "the node itself is at it");
    }
}
