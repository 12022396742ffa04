//! Keeps a flood out of the log: a few lines in a while, and then how many were left out. For what strangers can cause at will.

use std::cell::Cell;

/// Lines of one kind in one window.
const LINES: u32 = 5;
/// The window, in milliseconds.
const WINDOW_MS: u64 = 10_000;

/// The lines of one kind on one loop.
#[derive(Debug, Default)]
pub(crate) struct Hush {
    since: Cell<u64>,
    said: Cell<u32>,
    left_out: Cell<u64>,
}

/// What strangers can cause at will.
#[derive(Debug, Default)]
pub(crate) struct Hushes {
    /// Connections that were closed at a limit.
    pub(crate) turned_away: Hush,
    /// TLS handshakes that failed.
    pub(crate) handshakes: Hush,
}

impl Hush {
    /// May a line be written? Then the number of those that were left out before it.
    pub(crate) fn may_say(&self, now_ms: u64) -> Option<u64> {
        if now_ms.saturating_sub(self.since.get()) >= WINDOW_MS {
            self.since.set(now_ms);
            self.said.set(0);
        }
        if self.said.get() >= LINES {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.said.set(self.said.get() + 1);
        Some(self.left_out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_then_silence_then_the_number_of_those_left_out() {
        let hush = Hush::default();
        assert_eq!((0..5).map(|now| hush.may_say(now)).collect::<Vec<_>>(), vec![Some(0); 5]);
        assert!((5..1_000).all(|now| hush.may_say(now).is_none()));
        assert_eq!(hush.may_say(WINDOW_MS + 5), Some(995));
        assert_eq!(hush.may_say(WINDOW_MS + 6), Some(0));
    }
}
