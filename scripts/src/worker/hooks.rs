//! What the engine asks of its host: no `eval`, small buffers, callbacks through the prelude's `try`, a bounded job queue.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use boa_engine::{
    Context, JsError, JsNativeError, JsResult, JsString, JsValue,
    context::HostHooks,
    job::{Job, JobCallback, JobExecutor},
    object::builtins::JsArray,
    realm::Realm,
};

use super::{host::Host, memory::Memory};

/// Jobs (promise reactions) of one call; more: the call has run away.
pub(super) const JOBS: usize = 10_000;

/// The engine's questions.
pub(super) struct Hooks {
    pub(super) memory: Rc<Memory>,
    /// Largest `ArrayBuffer`, in bytes.
    pub(super) buffer_bytes: u64,
}

impl HostHooks for Hooks {
    /// Through the prelude's `try`: an exception that crosses from a JavaScript frame to the host leaks the engine's stack slots.
    fn call_job_callback(
        &self,
        job: &JobCallback,
        this: &JsValue,
        args: &[JsValue],
        context: &mut Context,
    ) -> JsResult<JsValue> {
        let host = Host::of(context);
        let values = JsArray::from_iter(args.iter().cloned(), context);
        let callback: JsValue = job.callback().clone().into();
        let arguments = [callback, this.clone(), values.into()];
        let result = host.bridge().callback.call(&JsValue::undefined(), &arguments, context)?;
        let thrown = host.thrown.borrow_mut().take();
        thrown.map_or(Ok(result), |thrown| Err(JsError::from_opaque(thrown)))
    }

    fn ensure_can_compile_strings(
        &self,
        _: Realm,
        _: &[JsString],
        _: &JsString,
        _: bool,
        _: &mut Context,
    ) -> JsResult<()> {
        Err(JsNativeError::eval().with_message("handlers cannot compile strings").into())
    }

    /// Scripts live in UTC: the same on every machine.
    fn local_timezone_offset_seconds(&self, _: i64) -> i32 {
        0
    }

    /// Called before each buffer: the collector does not count their bytes, so it is the place to look after them.
    fn max_buffer_size(&self, _: &mut Context) -> u64 {
        self.memory.on_buffer();
        self.buffer_bytes
    }
}

/// The jobs of the call under way, in order.
#[derive(Default)]
pub(super) struct Jobs {
    queue: RefCell<VecDeque<Job>>,
    ran: Cell<usize>,
}

impl Jobs {
    /// Drops what a call left behind and starts counting anew.
    pub(super) fn reset(&self) {
        self.ran.set(0);
        if !self.queue.borrow().is_empty() {
            let left = std::mem::take(&mut *self.queue.borrow_mut());
            drop(left);
        }
    }

    /// Has nothing been queued?
    pub(super) fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Did the jobs not come to an end?
    pub(super) fn ran_away(&self) -> bool {
        self.ran.get() >= JOBS
    }
}

impl JobExecutor for Jobs {
    fn enqueue_job(self: Rc<Self>, job: Job, _: &mut Context) {
        self.queue.borrow_mut().push_back(job);
    }

    fn run_jobs(self: Rc<Self>, context: &mut Context) -> JsResult<()> {
        while !self.ran_away() {
            let Some(job) = self.queue.borrow_mut().pop_front() else { break };
            self.ran.set(self.ran.get() + 1);
            match job {
                Job::PromiseJob(job) => job.call(context).map(drop)?,
                Job::GenericJob(job) => job.call(context).map(drop)?,
                Job::AsyncJob(job) => {
                    // Only the module loader makes these, and it is ready at once.
                    let context = RefCell::new(&mut *context);
                    let future = pin!(job.call(&context));
                    if let Poll::Ready(result) = future.poll(&mut std::task::Context::from_waker(Waker::noop())) {
                        result?;
                    }
                }
                // There are no timers and no finalizers here.
                _ => {}
            }
        }
        Ok(())
    }
}
