//! How the state goes from one reading of a run to the next: the one rule that the node and its workers share.

use tidegate_actors::clock::Millis;

/// Does a reading of this effective time become the state before the next? Late data never overwrites newer data.
pub(crate) fn keeps(previous: Option<Millis>, effective: Millis) -> bool {
    previous.is_none_or(|previous| effective >= previous)
}

#[cfg(test)]
mod tests {
    use super::keeps;

    #[test]
    fn late_readings_do_not_become_the_state() {
        assert!(keeps(None, -5));
        assert!(keeps(Some(10), 10));
        assert!(!keeps(Some(10), 9));
    }
}
