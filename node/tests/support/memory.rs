//! What an attack does to the node: whether it stays ready and serves others meanwhile, and what memory it leaves behind.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    Node,
    mqtt::{Raw, Version, publish},
};

/// The longest that an honest client may wait for its PUBACK while somebody attacks: it shares two cores with the attacker, and the disk
/// with whatever else the machine does, which has been seen to keep an `fdatasync` of two nodes waiting for 5 s at the same time.
const PROMPT: Duration = Duration::from_secs(20);

/// The longest that a node may take to let go of what an attack made it hold.
const RETURN: Duration = Duration::from_secs(60);

/// What an allocator with an arena a thread keeps back more at one time than at another. A node that has just started holds some 17 MiB, so
/// that 10 % of it are less: on a busy machine floods left between 0 and 2.3 MiB, whatever their size.
const ALLOCATOR_KIB: u64 = 4 * 1024;

/// A node's resident memory at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    kib: u64,
}

impl Memory {
    /// Once it has come to rest: what was closed a moment ago is being let go of.
    #[track_caller]
    pub(crate) fn of(node: &Node) -> Self {
        let mut last = resident_kib(node);
        let mut still_since = Instant::now();
        let deadline = Instant::now() + RETURN;
        while still_since.elapsed() < Duration::from_secs(2) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            let now = resident_kib(node);
            if now.abs_diff(last) > 64 {
                (last, still_since) = (now, Instant::now());
            }
        }
        Self { kib: last }
    }

    /// The node's memory comes back to within 10 % of this, or [`ALLOCATOR_KIB`] where that is more.
    #[track_caller]
    pub(crate) fn returns(self, node: &Node, after: &str) {
        let (most, deadline) = (self.kib + (self.kib / 10).max(ALLOCATOR_KIB), Instant::now() + RETURN);
        let mut now = resident_kib(node);
        let peak = now;
        while now > most && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            now = resident_kib(node);
        }
        eprintln!("memory: {} KiB before, {peak} KiB right after {after}, {now} KiB at rest", self.kib);
        assert!(now <= most, "the node holds {now} KiB after {after}; it held {} KiB before", self.kib);
    }
}

/// The node's resident memory.
#[track_caller]
pub(crate) fn resident_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("the node runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Does something. All the while the node must say that it is ready, and acknowledge an honest client's readings promptly.
#[track_caller]
pub(crate) fn while_ready<T>(node: &Node, attack: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    // Before the attack: a node that is full may refuse who comes later.
    let mut honest = Raw::connect(node.mqtt, Version::V5, "honest-throughout");
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut slowest, mut id) = ([Duration::ZERO; 2], 0_u16);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let response = node.get("/readyz");
                assert_eq!(response.status, 200, "not ready during the attack: {}", response.text());
                let sent = Instant::now();
                id = id % 60_000 + 1;
                honest.send(&publish(Version::V5, "devices/honest/metrics", 1, id, &[], br#"{"t":1}"#));
                assert_eq!(honest.expect(0x40).puback(), (id, 0), "an honest client's reading");
                slowest = [slowest[0].max(sent - asked), slowest[1].max(sent.elapsed())];
                assert!(slowest[1] < PROMPT, "an honest client waited {:?} for its PUBACK", slowest[1]);
                std::thread::sleep(Duration::from_millis(100));
            }
            slowest
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
        over.store(true, Ordering::Relaxed);
        let [ready, acked] = watch.join().unwrap_or_else(|failed| std::panic::resume_unwind(failed));
        eprintln!("ready throughout: within {ready:?}; an honest client's PUBACKs came within {acked:?}");
        done.unwrap_or_else(|failed| std::panic::resume_unwind(failed))
    })
}
