//! What waits to run in a console: promise jobs, and promises that an operation of the host or a time will settle. It is the
//! engine's executor, and the console's natives find it there.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Instant,
};

use boa_engine::{
    Context, JsResult, JsValue,
    builtins::promise::ResolvingFunctions,
    job::{Job, JobExecutor},
};
use hashbrown::HashMap;

use super::{ConsoleHost, source::Places};
use crate::worker::job;

/// Operations and pauses of one input that may be under way; more: refused, by the name `console_operations`.
pub(super) const OPERATIONS: usize = 1_024;

/// What waits.
pub(super) struct Jobs {
    pub(super) host: RefCell<Box<dyn ConsoleHost>>,
    queue: RefCell<VecDeque<Job>>,
    /// Operations under way, by their numbers.
    operations: RefCell<HashMap<u64, ResolvingFunctions>>,
    pauses: RefCell<Vec<(Instant, ResolvingFunctions)>>,
    last: Cell<u64>,
    /// Places of the last inputs.
    pub(super) places: RefCell<HashMap<u32, Places>>,
}

impl Jobs {
    pub(super) fn new(host: Box<dyn ConsoleHost>) -> Self {
        Self {
            host: RefCell::new(host),
            queue: RefCell::default(),
            operations: RefCell::default(),
            pauses: RefCell::default(),
            last: Cell::default(),
            places: RefCell::default(),
        }
    }

    /// Those of a context.
    pub(super) fn of(context: &Context) -> Rc<Self> {
        context.downcast_job_executor().expect("every context of a console has these")
    }

    /// The number of a new operation.
    pub(super) fn number(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    pub(super) fn under_way(&self) -> usize {
        self.operations.borrow().len() + self.pauses.borrow().len()
    }

    pub(super) fn add_operation(&self, number: u64, settle: ResolvingFunctions) {
        self.operations.borrow_mut().insert(number, settle);
    }

    /// What an answer settles; `None`: nobody waits for it any more.
    pub(super) fn answered(&self, number: u64) -> Option<ResolvingFunctions> {
        self.operations.borrow_mut().remove(&number)
    }

    pub(super) fn add_pause(&self, until: Instant, settle: ResolvingFunctions) {
        self.pauses.borrow_mut().push((until, settle));
    }

    /// When the next pause is over.
    pub(super) fn next_pause(&self) -> Option<Instant> {
        self.pauses.borrow().iter().map(|(until, _)| *until).min()
    }

    /// A pause that is over, the first of them.
    pub(super) fn over(&self, now: Instant) -> Option<ResolvingFunctions> {
        let mut pauses = self.pauses.borrow_mut();
        let (at, _) = pauses.iter().enumerate().min_by_key(|(_, (until, _))| *until)?;
        (pauses[at].0 <= now).then(|| pauses.remove(at).1)
    }

    /// Runs the next job. `false`: there is none.
    ///
    /// # Errors
    /// The engine's own.
    pub(super) fn run_one(&self, context: &mut Context) -> JsResult<bool> {
        let Some(job) = self.queue.borrow_mut().pop_front() else { return Ok(false) };
        job::run(job, context).map(|()| true)
    }

    /// Forgets all that waits.
    pub(super) fn forget(&self) {
        self.queue.borrow_mut().clear();
        self.operations.borrow_mut().clear();
        self.pauses.borrow_mut().clear();
    }

    /// Settles a promise with a value.
    pub(super) fn settle(settle: &ResolvingFunctions, value: JsValue, context: &mut Context) -> JsResult<()> {
        settle.resolve.call(&JsValue::undefined(), &[value], context).map(drop)
    }
}

impl JobExecutor for Jobs {
    fn enqueue_job(self: Rc<Self>, job: Job, _: &mut Context) {
        self.queue.borrow_mut().push_back(job);
    }

    fn run_jobs(self: Rc<Self>, context: &mut Context) -> JsResult<()> {
        while self.run_one(context)? {}
        Ok(())
    }
}
