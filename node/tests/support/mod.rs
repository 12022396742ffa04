//! What the black-box tests share: a node in a process of its own, and small clients that talk to it from outside.
//!
//! Nothing here waits for luck: every wait is for a condition, with a deadline ([`eventually`]). Everything that is started
//! is stopped by its own handle, also when a test fails.

#![allow(dead_code, reason = "every test binary takes its own part of the harness")]

pub(crate) mod auth;
pub(crate) mod authority;
pub(crate) mod driver;
pub(crate) mod http;
pub(crate) mod jwt;
pub(crate) mod memory;
pub(crate) mod mosquitto;
pub(crate) mod mqtt;
pub(crate) mod node;
pub(crate) mod pty;
pub(crate) mod published;
pub(crate) mod raw;
pub(crate) mod small_disk;
pub(crate) mod sse;
pub(crate) mod tools;
pub(crate) mod websocket;

use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "not every test names the type")]
pub(crate) use node::{House, Node};

/// The longest that anything may take that should happen at once; generous, for a busy machine with two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again until there is an answer; fails the test after [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// As [`eventually`], with a deadline of its own.
#[track_caller]
pub(crate) fn eventually_within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number generator (SplitMix64) whose runs can be repeated from the seed that a test prints.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both possible.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}
