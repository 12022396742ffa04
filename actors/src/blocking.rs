//! The shared blocking pool: own threads behind a bounded queue, for files, names, compression and hashes. Never on a loop.
//!
//! It must not grow: at [`crate::limits::BLOCKING_JOBS`] a job is refused, and the queue's depth is there to be seen.

use std::{
    any::Any,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread::JoinHandle,
};

use tokio::sync::oneshot;

use crate::lock::{lock, read, write};

type Job = Box<dyn FnOnce() + Send>;

/// Threads that may block, for jobs that must not run on a loop.
pub struct BlockingPool {
    queue: RwLock<Option<flume::Sender<Job>>>,
    limit: usize,
    threads: usize,
    running: Arc<AtomicUsize>,
    refused: AtomicU64,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

/// The pool takes no more jobs for now, or has been stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the blocking pool is full: {limit} jobs wait (limit blocking_jobs, setting runtime.blocking_jobs)")]
pub struct PoolFull {
    /// The jobs that may wait.
    pub limit: usize,
}

/// A job panicked; its thread goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a blocking job panicked: {message}")]
pub struct JobPanicked {
    /// What the panic said.
    pub message: String,
}

/// A job that was handed over. Dropping it does not take the job back.
#[derive(Debug)]
pub struct Running<T>(oneshot::Receiver<Result<T, JobPanicked>>);

impl<T> Future for Running<T> {
    type Output = Result<T, JobPanicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| Err(JobPanicked { message: "it was dropped without an answer".to_owned() }))
        })
    }
}

impl BlockingPool {
    /// Starts `threads` threads behind a queue of `jobs` jobs.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn new(threads: usize, jobs: usize) -> std::io::Result<Self> {
        let (queue, waiting) = flume::bounded::<Job>(jobs);
        let mut handles = Vec::with_capacity(threads);
        let running = Arc::new(AtomicUsize::new(0));
        for number in 0..threads {
            let (waiting, running) = (waiting.clone(), Arc::clone(&running));
            let thread = std::thread::Builder::new().name(format!("blocking-{number}"));
            handles.push(thread.spawn(move || {
                for job in waiting {
                    running.fetch_add(1, Ordering::Relaxed);
                    // Its panics are caught within.
                    job();
                    running.fetch_sub(1, Ordering::Relaxed);
                }
            })?);
        }
        Ok(Self {
            queue: RwLock::new(Some(queue)),
            limit: jobs,
            threads,
            running,
            refused: AtomicU64::new(0),
            handles: Mutex::new(handles),
        })
    }

    /// Hands a job over. Never blocks; the future resolves when the job has run.
    ///
    /// # Errors
    /// [`PoolFull`]; the job has not run and will not.
    pub fn try_run<T, F>(&self, job: F) -> Result<Running<T>, PoolFull>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, running) = oneshot::channel();
        let job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| JobPanicked { message: message(&*panic) });
            // Nobody may wait any more.
            let _ = answer.send(result);
        });
        let full = PoolFull { limit: self.limit };
        let sent = read(&self.queue).as_ref().is_some_and(|queue| queue.try_send(job).is_ok());
        if !sent {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(full);
        }
        Ok(Running(running))
    }

    /// Jobs that wait for a thread.
    #[must_use]
    pub fn queued(&self) -> usize {
        read(&self.queue).as_ref().map_or(0, flume::Sender::len)
    }

    /// Jobs that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Jobs that were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Jobs that may wait.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs what waits, and ends. Blocks; never call it on a loop.
    pub fn stop(&self) {
        drop(write(&self.queue).take());
        let own = std::thread::current().id();
        for handle in lock(&self.handles).drain(..) {
            // Whoever held the pool last may have been a job of it, and no thread can wait for itself.
            if handle.thread().id() != own {
                // A job's panic is caught; the threads end by themselves.
                let _ = handle.join();
            }
        }
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingPool").field("threads", &self.threads).field("queued", &self.queued()).finish()
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn wait<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_job_answers_and_a_panic_is_told() {
        let pool = BlockingPool::new(2, 8).unwrap();
        assert_eq!(wait(pool.try_run(|| 6 * 7).unwrap()), Ok(42));
        let panicked = wait(pool.try_run(|| -> u8 { panic!("boom {}", 1) }).unwrap());
        assert_eq!(panicked, Err(JobPanicked { message: "boom 1".to_owned() }));
        assert_eq!(wait(pool.try_run(|| "the thread lives").unwrap()), Ok("the thread lives"));
        assert_eq!((pool.threads(), pool.limit()), (2, 8));
    }

    #[test]
    fn a_job_may_be_the_last_that_holds_the_pool() {
        let pool = Arc::new(BlockingPool::new(2, 8).unwrap());
        let (release, released) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        let held = Arc::clone(&pool);
        let job = pool.try_run(move || {
            released.recv().unwrap();
            drop(held);
            ended.send(()).unwrap();
        });
        drop(pool);
        release.send(()).unwrap();
        has_ended.recv_timeout(std::time::Duration::from_secs(60)).expect("it does not wait for itself");
        assert_eq!(wait(job.unwrap()), Ok(()));
    }

    #[test]
    fn a_full_pool_refuses_by_name_and_stop_runs_what_waits() {
        let pool = BlockingPool::new(1, 2).unwrap();
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let first = pool
            .try_run(move || {
                started.send(()).unwrap();
                released.recv().unwrap();
                1
            })
            .unwrap();
        has_started.recv().unwrap();
        let waiting = [pool.try_run(|| 2).unwrap(), pool.try_run(|| 3).unwrap()];
        assert_eq!((pool.queued(), pool.running(), pool.refused()), (2, 1, 0));
        let full = pool.try_run(|| 4).unwrap_err();
        assert_eq!(
            full.to_string(),
            "the blocking pool is full: 2 jobs wait (limit blocking_jobs, setting runtime.blocking_jobs)"
        );
        assert_eq!(pool.refused(), 1);
        release.send(()).unwrap();
        pool.stop();
        assert_eq!(wait(first), Ok(1));
        for (waiting, expected) in waiting.into_iter().zip([2, 3]) {
            assert_eq!(wait(waiting), Ok(expected));
        }
        assert!(pool.try_run(|| 5).is_err());
    }
}
