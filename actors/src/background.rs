//! Work that nobody waits for gives way to the loops: checkpoints, snapshots and the store's own threads.
//!
//! On a machine with few cores a checkpoint's burst would else hold up acknowledgements for as long as the kernel lets a thread run.

use std::{panic, thread};

/// How much nicer than the rest of the node (`nice(2)`).
const NICER: i32 = 10;

/// From here on this thread gives way to others. Where the kernel refuses, it goes on as before.
pub(crate) fn yield_to_others() {
    // On Linux that is the thread's own (`nice(2)`, "C library/kernel differences").
    let _ = rustix::process::nice(NICER);
}

/// Runs `work` in a thread that gives way to others, and waits for it: the threads that it starts inherit that. A thread cannot take its
/// own priority back.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            yield_to_others();
            work()
        });
        done.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).expect("a thread has a priority")
    }

    #[test]
    fn background_work_gives_way_and_so_does_what_it_starts() {
        let own = nice();
        let (there, started) = run(|| (nice(), thread::spawn(nice).join().expect("it runs")));
        assert_eq!((there, started), ((own + NICER).min(19), (own + NICER).min(19)));
        assert_eq!(nice(), own);
    }
}
