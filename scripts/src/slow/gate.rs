//! How much of the blocking pool scripts may hold: so many threads at once, of which long work (the network, tasks) may not have the
//! last one; the rest waits here, in order, in a queue of its own. So neither a slow host nor a task keeps the node's own jobs or
//! hashes from the pool.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use tidegate_actors::{blocking::BlockingPool, limits};

use super::{
    error::{Done, LIMIT, SlowError},
    tasks::TaskStatus,
};
use crate::operation::Operation;

/// A piece of work that may run.
pub(super) struct Job {
    pub(super) operation: Operation,
    /// Does somebody still wait for it?
    pub(super) is_wanted: Box<dyn Fn() -> bool + Send + Sync>,
    pub(super) work: Box<dyn FnOnce() -> Done + Send>,
    pub(super) answer: Box<dyn FnOnce(Done) + Send>,
}

/// Who may use the pool.
pub(super) struct Gate {
    pool: Arc<BlockingPool>,
    /// Threads that scripts may hold.
    most: usize,
    /// Of those, the ones that long work may have.
    most_long: usize,
    state: Mutex<State>,
    counts: [Counts; Operation::ALL.len()],
}

#[derive(Default)]
struct State {
    running: usize,
    long: usize,
    /// By how long they may take: [`Operation::is_long`].
    waiting: [VecDeque<Job>; 2],
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

/// The slow work of scripts, as it is shown.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowStatus {
    /// Pieces that hold a thread of the pool or stand in its queue.
    pub running: usize,
    /// The most that may.
    pub threads: usize,
    /// Pieces that wait for that.
    pub waiting: usize,
    /// The most that may.
    pub limit: usize,
    /// What came of it, by operation.
    pub operations: Vec<SlowCounts>,
    /// How tasks (`new Worker`) ended.
    pub tasks: TaskStatus,
}

/// What came of the pieces of one operation.
#[derive(Debug, Clone, Serialize)]
pub struct SlowCounts {
    /// Its name.
    pub name: &'static str,
    /// It was done.
    pub done: u64,
    /// It failed.
    pub failed: u64,
    /// It was not begun: a limit was met, or it is not allowed here.
    pub refused: u64,
}

impl Gate {
    /// Lets scripts hold `threads` of the pool's, if it has more than that.
    pub(super) fn new(pool: Arc<BlockingPool>, threads: usize) -> Self {
        let most = threads.min(pool.threads().saturating_sub(1)).max(1);
        let most_long = (most - 1).max(1);
        Self { pool, most, most_long, state: Mutex::default(), counts: Default::default() }
    }

    /// Has the work done, now or later; it answers in any case.
    pub(super) fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        if self.may_start(&state, job.operation) {
            state.take(job.operation);
            drop(state);
            self.start(job);
            // The pool may have refused it.
            self.start_waiting();
            return;
        }
        if state.waiting.iter().map(VecDeque::len).sum::<usize>() < limits::SCRIPT_POOL_QUEUE {
            state.waiting[usize::from(job.operation.is_long())].push_back(job);
            return;
        }
        drop(state);
        let most = limits::SCRIPT_POOL_QUEUE;
        let message = format!("{most} pieces of slow work of scripts wait already (limit script_pool_queue)");
        self.refuse(job.operation);
        (job.answer)(Err(SlowError::new(LIMIT, message)));
    }

    /// Lets go of what waits and nobody waits for any more.
    pub(super) fn purge(&self) {
        let gone: Vec<Job> = {
            let mut state = self.state();
            let unwanted = |waiting: &mut VecDeque<Job>| {
                let all = std::mem::take(waiting).into_iter();
                let (kept, gone): (VecDeque<Job>, VecDeque<Job>) = all.partition(|job| (job.is_wanted)());
                *waiting = kept;
                gone
            };
            state.waiting.iter_mut().flat_map(unwanted).collect()
        };
        // Their arguments and answers go with them, outside of the lock.
        drop(gone);
    }

    /// A piece was refused before it came here.
    pub(super) fn refuse(&self, operation: Operation) {
        self.counts[operation as usize].refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn status(&self, tasks: TaskStatus) -> SlowStatus {
        let state = self.state();
        let counts = Operation::ALL.iter().zip(&self.counts).map(|(operation, counts)| SlowCounts {
            name: operation.name(),
            done: counts.done.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
        });
        SlowStatus {
            running: state.running,
            threads: self.most,
            waiting: state.waiting.iter().map(VecDeque::len).sum(),
            limit: limits::SCRIPT_POOL_QUEUE,
            operations: counts.collect(),
            tasks,
        }
    }

    fn may_start(&self, state: &State, operation: Operation) -> bool {
        state.running < self.most && (!operation.is_long() || state.long < self.most_long)
    }

    /// Hands a job to the pool, which it has room for.
    fn start(self: &Arc<Self>, job: Job) {
        let Job { operation, is_wanted, work, answer } = job;
        let answer = Arc::new(Mutex::new(Some(answer)));
        let (gate, of) = (Arc::clone(self), Arc::clone(&answer));
        let started = self.pool.try_run(move || {
            // Freed even if the work panics; the pool catches that.
            let _slot = Slot { gate: &gate, operation };
            let done = if is_wanted() { Some(work()) } else { None };
            let Some(done) = done else { return };
            let counts = &gate.counts[operation as usize];
            let counter = if done.is_ok() { &counts.done } else { &counts.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            give(&of, done);
        });
        if let Err(full) = started {
            self.state().give_back(operation);
            self.refuse(operation);
            give(&answer, Err(SlowError::new(LIMIT, full.to_string())));
        }
    }

    /// Starts what waits, as far as there is room.
    fn start_waiting(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let next = [false, true].into_iter().find(|long| {
                let first = state.waiting[usize::from(*long)].front();
                first.is_some_and(|job| self.may_start(&state, job.operation))
            });
            let Some(job) = next.and_then(|long| state.waiting[usize::from(long)].pop_front()) else { return };
            if !(job.is_wanted)() {
                continue;
            }
            state.take(job.operation);
            drop(state);
            self.start(job);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, operation: Operation) {
        self.running += 1;
        self.long += usize::from(operation.is_long());
    }

    fn give_back(&mut self, operation: Operation) {
        self.running -= 1;
        self.long -= usize::from(operation.is_long());
    }
}

type Answer = Mutex<Option<Box<dyn FnOnce(Done) + Send>>>;

fn give(answer: &Answer, done: Done) {
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(answer) = answer {
        answer(done);
    }
}

/// A thread of the pool that a script holds.
struct Slot<'a> {
    gate: &'a Arc<Gate>,
    operation: Operation,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.gate.state().give_back(self.operation);
        self.gate.start_waiting();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{super::error::Reply, *};

    struct Rig {
        gate: Arc<Gate>,
        answers: flume::Receiver<Done>,
        sender: flume::Sender<Done>,
    }

    impl Rig {
        fn status(&self) -> SlowStatus {
            self.gate.status(TaskStatus { started: 0, ended: Vec::new(), us: 0 })
        }

        fn new(threads: usize, jobs: usize, share: usize) -> Self {
            let pool = Arc::new(BlockingPool::new(threads, jobs).expect("threads"));
            let (sender, answers) = flume::bounded(64);
            Self { gate: Arc::new(Gate::new(pool, share)), answers, sender }
        }

        fn submit(&self, operation: Operation, work: impl FnOnce() -> Done + Send + 'static) {
            let sender = self.sender.clone();
            let answer = Box::new(move |done| drop(sender.send(done)));
            self.gate.submit(Job { operation, is_wanted: Box::new(|| true), work: Box::new(work), answer });
        }

        /// Work that goes on until the sender is dropped.
        fn hold(&self, operation: Operation) -> mpsc::Sender<()> {
            let (release, released) = mpsc::channel::<()>();
            self.submit(operation, move || {
                let _ = released.recv();
                Ok(Reply::default())
            });
            release
        }
    }

    #[test]
    fn the_network_leaves_a_thread_to_other_work_and_scripts_leave_one_to_the_node() {
        let rig = Rig::new(4, 8, 9);
        assert_eq!((rig.gate.most, rig.gate.most_long), (3, 2));
        let held: Vec<_> = (0..5).map(|_| rig.hold(Operation::Fetch)).collect();
        let status = rig.status();
        assert_eq!((status.running, status.waiting), (2, 3));
        rig.submit(Operation::Zlib, || Ok(Reply::default()));
        assert!(rig.answers.recv().expect("an answer").is_ok(), "it does not wait for the network");
        drop(held);
        assert!((0..5).all(|_| rig.answers.recv().expect("an answer").is_ok()));
    }

    #[test]
    fn what_nobody_waits_for_any_more_leaves_the_queue() {
        let rig = Rig::new(2, 8, 1);
        let held = rig.hold(Operation::Fetch);
        for is_wanted in [true, false, true] {
            let sender = rig.sender.clone();
            let answer = Box::new(move |done| drop(sender.send(done)));
            let work = Box::new(|| Ok(Reply::default()));
            rig.gate.submit(Job { operation: Operation::Zlib, is_wanted: Box::new(move || is_wanted), work, answer });
        }
        assert_eq!(rig.status().waiting, 3);
        rig.gate.purge();
        assert_eq!(rig.status().waiting, 2);
        drop(held);
        assert!((0..3).all(|_| rig.answers.recv().expect("an answer").is_ok()));
    }

    #[test]
    fn a_full_pool_refuses_by_name_and_a_panic_frees_its_thread() {
        let rig = Rig::new(2, 1, 1);
        let own = [0, 1, 2].map(|n| {
            let (release, released) = mpsc::channel::<()>();
            let (started, has_started) = mpsc::channel();
            let job = rig.gate.pool.try_run(move || {
                let _ = started.send(());
                let _ = released.recv();
            });
            assert!(job.is_ok(), "{n}");
            if n < 2 {
                has_started.recv().expect("it runs");
            }
            release
        });
        rig.submit(Operation::Zlib, || Ok(Reply::default()));
        let refused = rig.answers.recv().expect("an answer").expect_err("the pool is full");
        assert!(refused.message.contains("limit blocking_jobs") && refused.code == LIMIT, "{refused:?}");
        drop(own);
        while rig.gate.pool.queued() > 0 {
            std::thread::yield_now();
        }
        rig.submit(Operation::Zlib, || panic!("a defect"));
        rig.submit(Operation::Pbkdf2, || Ok(Reply::default()));
        assert!(rig.answers.recv().expect("an answer").is_ok());
        let counts = rig.status().operations;
        let zlib = counts.iter().find(|counts| counts.name == "zlib").expect("it is known");
        assert_eq!((zlib.done, zlib.refused), (0, 1));
    }
}
