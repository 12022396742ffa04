//! One job of the engine: a promise's reaction, or the loading of a module. Whose it is and when its turn comes is the executors' business.

use std::{
    cell::RefCell,
    pin::pin,
    task::{Poll, Waker},
};

use boa_engine::{Context, JsResult, job::Job};

/// Runs it.
///
/// # Errors
/// The engine's own.
pub(crate) fn run(job: Job, context: &mut Context) -> JsResult<()> {
    match job {
        Job::PromiseJob(job) => job.call(context).map(drop),
        Job::GenericJob(job) => job.call(context).map(drop),
        Job::AsyncJob(job) => {
            // Only module loaders make these, and theirs are ready at once.
            let context = RefCell::new(&mut *context);
            let future = pin!(job.call(&context));
            match future.poll(&mut std::task::Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => result.map(drop),
                Poll::Pending => Ok(()),
            }
        }
        // Timers go another way, and there are no finalizers.
        _ => Ok(()),
    }
}
