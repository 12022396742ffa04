//! The event loop of the scripts of one context, in the order of Node.js: `process.nextTick`, promise microtasks, then turns of
//! timers → pending → poll → check → close. (Pending and close have nothing to do: a handler has no sockets. Poll is where the
//! worker waits for the next timer or frame, `work`, and where the answers to slow work come in, [`asks`].)
//!
//! Each call has timers and a time of its own ([`timers`]), so that what it sees does not depend on the calls beside it. Ticks and
//! microtasks have one queue each for all, since they are run to their end before anything else. Whose a callback is was noted
//! when it was handed over; before it runs, the host is made to show that call ([`EventLoop::enter`]).

mod asks;
mod natives;
#[cfg(test)]
mod ordering_tests;
mod saved;
mod timers;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use boa_engine::{
    Context, JsObject, JsResult, JsValue, Module,
    builtins::promise::PromiseState,
    job::{Job, JobExecutor},
    object::builtins::{JsArray, JsFunction, JsPromise},
};
use hashbrown::HashMap;
use tidegate_actors::limits;

pub(super) use self::{asks::AskId, natives::NATIVES, saved::Saved};
use self::{
    asks::{Asks, Given, Stand},
    timers::{Arrived, Next, Timers},
};
use super::{host::Host, job, live::LOOP_ITERATIONS, local::Local};
use crate::{frame::Answer, operation::Operation};

/// A call that waits for pure work is not woken by its own clock.
const UNTIL_ANSWERED: Duration = Duration::from_secs(3_600);

/// The number of a call; 0: none is under way. Never used twice in a process.
pub(super) type CallId = u64;

/// What calls may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Timers do not wait: when everything waits for them, their time has come.
    pub(super) virtual_time: bool,
    /// Callbacks of one call.
    pub(super) jobs: usize,
    /// Times that one loop may go round in one call.
    pub(super) loops: u64,
    /// May they ask for slow work? Without a node at the other end nobody would answer.
    pub(super) asks: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { virtual_time: false, jobs: limits::SCRIPT_JOBS, loops: LOOP_ITERATIONS, asks: true }
    }
}

/// The event loop of a context.
pub(super) struct EventLoop {
    /// The handler that lives in the context.
    script: u8,
    host: Rc<Host>,
    local: Rc<Local>,
    manner: Manner,
    /// Has anything been queued since the call under way began? The one question of a call that queues nothing.
    touched: Cell<bool>,
    ticks: RefCell<VecDeque<(CallId, Task)>>,
    microtasks: RefCell<VecDeque<Job>>,
    /// The call that the host shows.
    current: Cell<CallId>,
    own: RefCell<Own>,
    /// The calls that wait.
    others: RefCell<HashMap<CallId, (Saved, Own)>>,
    /// Emits an event of `process`, once a script has asked for that.
    emit: RefCell<Option<JsFunction>>,
}

/// What the loop knows of one call.
#[derive(Default)]
struct Own {
    timers: Timers<Task>,
    /// The slow work that it waits for.
    asks: Asks,
    /// Tasks that it has made so far.
    tasks: u32,
    /// Callbacks so far.
    ran: usize,
    rejections: Vec<(JsObject, JsValue)>,
    /// Rejections that were told as unhandled.
    told: Vec<JsObject>,
    /// Those of them that got a handler after that.
    handled: Vec<JsObject>,
    /// Why the call fails whatever comes.
    failed: Option<Failed>,
    /// What the handler returned: a promise, or the result of a call that goes on until nothing of it is left.
    returned: Option<JsValue>,
    /// The moment that is the call's time 0, once it waits.
    began: Option<Instant>,
}

/// A callback and what it is called with.
#[derive(Clone)]
struct Task {
    callback: JsFunction,
    this: JsValue,
    args: Vec<JsValue>,
}

/// Why a call fails at once.
#[derive(Clone)]
pub(super) enum Failed {
    /// A callback threw, or a rejection was not handled.
    Threw(JsValue),
    /// More callbacks than [`Manner::jobs`].
    RanAway,
}

/// How a call stands.
pub(super) enum Standing {
    Done(JsValue),
    /// Its promise was rejected.
    Rejected(JsValue),
    Failed(Failed),
    /// It goes on at this moment.
    Waits(Instant),
    /// It waits for what is later than its time allows ([`limits::SCRIPT_ASYNC_WALL`]), perhaps for this.
    TooLong(Option<Operation>),
    /// Its promise is pending and nothing of its own is left that could settle it.
    Stuck,
}

impl EventLoop {
    pub(super) fn new(script: u8, host: Rc<Host>, local: Rc<Local>, manner: Manner) -> Self {
        Self {
            script,
            host,
            local,
            manner,
            touched: Cell::default(),
            ticks: RefCell::default(),
            microtasks: RefCell::default(),
            current: Cell::default(),
            own: RefCell::default(),
            others: RefCell::default(),
            emit: RefCell::default(),
        }
    }

    /// The loop of a context.
    pub(super) fn of(context: &Context) -> Rc<Self> {
        context.downcast_job_executor().expect("every context of a worker has this loop")
    }

    pub(super) fn manner(&self) -> Manner {
        self.manner
    }

    /// Begins a call, which the host shows already.
    pub(super) fn begin(&self) {
        self.drop_own();
        self.current.set(self.host.next_call());
        self.host.may_ask.set(false);
        self.local.thrown.take();
    }

    /// Did the call under way queue nothing at all?
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched.get()
    }

    /// The call under way is over: what it left is dropped.
    pub(super) fn end(&self) {
        self.current.set(0);
        self.drop_own();
    }

    fn drop_own(&self) {
        if self.touched.replace(false) {
            let own = self.own.take();
            own.asks.ids().for_each(|id| self.host.forget_ask(id));
        }
    }

    /// An answer has come for a call. The call, if it still waits for it.
    pub(super) fn answered(&self, call: CallId, answer: &Answer<'_>) -> Option<CallId> {
        let mut others = self.others.borrow_mut();
        let (_, own) = others.get_mut(&call)?;
        own.asks.answer(answer.id, Given::from(answer));
        Some(call)
    }

    /// Did calls that are over leave jobs behind?
    pub(super) fn has_left(&self) -> bool {
        !self.microtasks.borrow().is_empty() || !self.ticks.borrow().is_empty()
    }

    /// Takes what calls that are over left behind out of the queues, so that it is not counted against the next.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn sweep(&self, context: &mut Context) -> JsResult<()> {
        if self.others.borrow().is_empty() {
            self.ticks.take();
            self.microtasks.take();
        } else {
            self.drain(context)?;
            self.leave();
        }
        Ok(())
    }

    /// Do calls wait?
    pub(super) fn has_waiting(&self) -> bool {
        !self.others.borrow().is_empty()
    }

    /// The handler of the call under way has returned: runs what it queued, and says how the call stands.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn returned(&self, value: JsValue, allowed: Duration, context: &mut Context) -> JsResult<Standing> {
        let call = self.current.get();
        self.touched.set(true);
        self.own.borrow_mut().returned = Some(value);
        self.drain(context)?;
        self.enter_again(call);
        Ok(self.standing(allowed))
    }

    /// The number of the call under way, which is put aside.
    pub(super) fn put_aside(&self) -> CallId {
        let call = self.current.get();
        self.leave();
        call
    }

    /// Goes on with a call that waits: its turn, if its time has come.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn go_on(&self, call: CallId, allowed: Duration, context: &mut Context) -> JsResult<Standing> {
        self.enter(call);
        self.touched.set(true);
        let is_due = matches!(self.standing(allowed), Standing::Waits(at) if at <= Instant::now());
        if is_due {
            self.turn(call, context)?;
        }
        self.enter_again(call);
        Ok(self.standing(allowed))
    }

    /// The context is about to go: its scripts are told, one by one (the host shows whose turn it is). What `beforeExit` begins is
    /// done first.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn exit(&self, allowed: Duration, context: &mut Context) -> JsResult<()> {
        self.begin();
        loop {
            self.emit(&[natives::text("beforeExit"), 0.into()], context)?;
            if !self.work_off(allowed, context)? {
                break;
            }
        }
        self.emit(&[natives::text("exit"), 0.into()], context)?;
        self.end();
        Ok(())
    }

    /// Tells the listeners of `exit` that the call under way ends by itself.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn tell_exit(&self, context: &mut Context) -> JsResult<()> {
        self.emit(&[natives::text("exit"), 0.into()], context).map(drop)
    }

    /// Runs what the call under way has queued, and its turns until nothing keeps it going. `true`: there were any.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn work_off(&self, allowed: Duration, context: &mut Context) -> JsResult<bool> {
        let call = self.current.get();
        let mut any = false;
        self.drain(context)?;
        self.enter(call);
        while let Standing::Waits(at) = self.standing(allowed) {
            any = true;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            self.turn(call, context)?;
            self.enter(call);
        }
        Ok(any)
    }

    /// What is to settle before the call under way is done.
    pub(super) fn await_settled(&self, promise: JsObject) {
        self.touched.set(true);
        self.own.borrow_mut().returned = Some(promise.into());
    }

    /// The call under way is done when nothing of it is left, whatever it waited for until now.
    pub(super) fn await_nothing(&self) {
        self.own.borrow_mut().returned = None;
    }

    /// What nobody caught in the call under way.
    pub(super) fn failure(&self) -> Option<Failed> {
        self.own.borrow().failed.clone()
    }

    fn standing(&self, allowed: Duration) -> Standing {
        let own = &mut *self.own.borrow_mut();
        if let Some(failed) = own.failed.clone() {
            return Standing::Failed(failed);
        }
        let (next, asks) = (own.timers.next(), own.asks.stand());
        let asks_nothing = asks == Stand::Nothing;
        let returned = own.returned.clone().unwrap_or_default();
        match promise(&returned).map(|promise| promise.state()) {
            Some(PromiseState::Fulfilled(value)) => return Standing::Done(value),
            Some(PromiseState::Rejected(reason)) => return Standing::Rejected(reason),
            Some(PromiseState::Pending) if next == Next::Never && asks_nothing => return Standing::Stuck,
            None if !own.timers.hold() && asks_nothing => return Standing::Done(returned),
            Some(PromiseState::Pending) | None => {}
        }
        let now = Instant::now();
        let began = *own.began.get_or_insert(now);
        match asks {
            Stand::Nothing => {}
            Stand::Pure => return Standing::Waits(now + UNTIL_ANSWERED),
            Stand::PureDone | Stand::Done => return Standing::Waits(now),
            Stand::Out(operation) => {
                // What comes first: the next timer or the end of its time. The answer may come before both.
                let due = match next {
                    Next::Now => return Standing::Waits(now),
                    Next::At(due) => Duration::from_millis(due).min(allowed),
                    Next::Never => allowed,
                };
                let is_over = due >= allowed && began + allowed <= now;
                return if is_over { Standing::TooLong(Some(operation)) } else { Standing::Waits(began + due) };
            }
        }
        match next {
            Next::At(due) if Duration::from_millis(due) > allowed => Standing::TooLong(None),
            Next::At(_) if self.manner.virtual_time => Standing::Waits(now),
            Next::At(due) => Standing::Waits(began + Duration::from_millis(due)),
            Next::Now | Next::Never => Standing::Waits(now),
        }
    }

    /// One turn of a call's loop.
    fn turn(&self, call: CallId, context: &mut Context) -> JsResult<()> {
        {
            let own = &mut *self.own.borrow_mut();
            let now = Instant::now();
            let arrived = match own.asks.stand() {
                Stand::PureDone => Arrived::Pure,
                Stand::Done => {
                    let since = own.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
                    Arrived::At(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
                }
                Stand::Nothing | Stand::Pure | Stand::Out(_) => Arrived::Nothing,
            };
            own.timers.begin_turn(arrived);
            let time = own.timers.now();
            // A callback that comes late moves what follows: each wait lasts as long as it says.
            own.began = now.checked_sub(Duration::from_millis(time)).max(own.began);
            self.host.now.set(self.host.received.get().saturating_add_unsigned(time));
        }
        // Timers.
        while self.enter(call) {
            let Some((id, every, holds, task)) = self.own.borrow_mut().timers.due() else { break };
            self.run(&task, context)?;
            self.drain(context)?;
            if self.enter(call) {
                self.own.borrow_mut().timers.fired(id, every, holds, task);
            }
        }
        // Poll.
        while self.enter(call) {
            let next = self.own.borrow_mut().asks.next();
            let Some((callback, answer)) = next else { break };
            let task = answer.task(callback, context);
            self.run(&task, context)?;
            self.drain(context)?;
        }
        // Check.
        let last = self.own.borrow().timers.last_immediate();
        while self.enter(call) {
            let Some(task) = self.own.borrow_mut().timers.next_immediate(last) else { break };
            self.run(&task, context)?;
            self.drain(context)?;
        }
        Ok(())
    }

    /// Runs ticks and microtasks until none is left, then tells of rejections that nobody handles.
    fn drain(&self, context: &mut Context) -> JsResult<()> {
        loop {
            while let Some((call, task)) = self.next_tick() {
                if self.enter(call) {
                    self.run(&task, context)?;
                }
            }
            while let Some(job) = self.next_microtask() {
                self.count();
                job::run(job, context)?;
            }
            if !self.ticks.borrow().is_empty() {
                continue;
            }
            if !self.tell_rejection(context)? {
                return Ok(());
            }
        }
    }

    /// Loads a module and what it imports, without running what else is queued.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn load_now(&self, module: &Module, context: &mut Context) -> JsResult<JsPromise> {
        let aside = self.microtasks.take();
        let loading = module.load(context);
        let mut ran = Ok(());
        while ran.is_ok()
            && let Some(job) = self.next_microtask()
        {
            ran = job::run(job, context);
        }
        *self.microtasks.borrow_mut() = aside;
        ran.map(|()| loading)
    }

    fn next_tick(&self) -> Option<(CallId, Task)> {
        self.ticks.borrow_mut().pop_front()
    }

    fn next_microtask(&self) -> Option<Job> {
        self.microtasks.borrow_mut().pop_front()
    }

    /// Runs a callback of the call under way.
    fn run(&self, task: &Task, context: &mut Context) -> JsResult<()> {
        self.count();
        if self.own.borrow().failed.is_some() {
            return Ok(());
        }
        let Task { callback, this, args } = task;
        let values = JsArray::from_iter(args.iter().cloned(), context);
        let arguments = [callback.clone().into(), this.clone(), values.into()];
        self.local.bridge().callback.call(&JsValue::undefined(), &arguments, context)?;
        let thrown = self.local.thrown.borrow_mut().take();
        thrown.map_or(Ok(()), |thrown| self.uncaught(thrown, "uncaughtException", context))
    }

    fn count(&self) {
        if self.current.get() == 0 {
            return;
        }
        let own = &mut *self.own.borrow_mut();
        own.ran += 1;
        if own.ran > self.manner.jobs {
            own.failed.get_or_insert(Failed::RanAway);
        }
    }

    /// Nobody caught this: it is for the script's `process.on('uncaughtException')`, or it fails the call.
    fn uncaught(&self, thrown: JsValue, origin: &str, context: &mut Context) -> JsResult<()> {
        let event = natives::text("uncaughtException");
        if !self.emit(&[event, thrown.clone(), natives::text(origin)], context)? {
            self.own.borrow_mut().failed.get_or_insert(Failed::Threw(thrown));
        }
        Ok(())
    }

    /// Emits an event of `process` to the listeners of the script under way. `false`: it has none.
    fn emit(&self, event: &[JsValue], context: &mut Context) -> JsResult<bool> {
        let emit = self.emit.borrow().clone();
        // Without it no script has asked for `process`, and so none listens.
        let Some(emit) = emit else { return Ok(false) };
        let heard = emit.call(&JsValue::undefined(), event, context)?;
        // What a listener throws is not told to the listeners again.
        if let Some(thrown) = self.local.thrown.borrow_mut().take() {
            self.own.borrow_mut().failed.get_or_insert(Failed::Threw(thrown));
        }
        Ok(heard.to_boolean())
    }

    /// Tells of a rejection that nobody handles, or that somebody handles after all. `false`: there is none.
    fn tell_rejection(&self, context: &mut Context) -> JsResult<bool> {
        let handled = self.own.borrow_mut().handled.pop();
        if let Some(promise) = handled {
            self.emit(&[natives::text("rejectionHandled"), promise.into()], context)?;
            return Ok(true);
        }
        let (promise, reason) = {
            let own = &mut *self.own.borrow_mut();
            let returned = own.returned.as_ref().and_then(JsValue::as_object);
            own.rejections.retain(|(promise, _)| !returned.as_ref().is_some_and(|own| JsObject::equals(promise, own)));
            if own.rejections.is_empty() || own.failed.is_some() {
                return Ok(false);
            }
            let (promise, reason) = own.rejections.remove(0);
            own.told.push(promise.clone());
            (promise, reason)
        };
        let event = [natives::text("unhandledRejection"), reason.clone(), promise.into()];
        if !self.emit(&event, context)? {
            self.uncaught(reason, "unhandledRejection", context)?;
        }
        Ok(true)
    }

    /// A promise of the call under way was rejected, and nobody handles it yet.
    pub(super) fn rejected(&self, promise: JsObject, reason: JsValue) {
        self.touched.set(true);
        self.own.borrow_mut().rejections.push((promise, reason));
    }

    /// A rejected promise has got a handler after all.
    pub(super) fn handled(&self, promise: &JsObject) {
        let own = &mut *self.own.borrow_mut();
        own.rejections.retain(|(of, _)| !JsObject::equals(of, promise));
        let Some(at) = own.told.iter().position(|of| JsObject::equals(of, promise)) else { return };
        own.told.swap_remove(at);
        own.handled.push(promise.clone());
    }

    /// The call under way.
    pub(super) fn current(&self) -> CallId {
        self.current.get()
    }

    /// Makes the host show this call. `false`: it is over.
    pub(super) fn enter(&self, call: CallId) -> bool {
        if self.current.get() == call {
            return call != 0 && self.own.borrow().failed.is_none();
        }
        let Some((saved, own)) = self.others.borrow_mut().remove(&call) else { return false };
        self.leave();
        saved.put(&self.host);
        let failed = own.failed.is_some();
        self.own.replace(own);
        self.current.set(call);
        self.touched.set(true);
        self.host.entered.borrow_mut().push(call);
        !failed
    }

    /// Enters the call that is worked on: only others have to be looked at for that.
    fn enter_again(&self, call: CallId) {
        self.enter(call);
        self.host.entered.borrow_mut().retain(|entered| *entered != call);
    }

    /// Puts the call under way aside.
    fn leave(&self) {
        let call = self.current.replace(0);
        if call != 0 {
            self.touched.set(false);
            self.others.borrow_mut().insert(call, (Saved::take(&self.host), self.own.take()));
        }
    }
}

impl JobExecutor for EventLoop {
    fn enqueue_job(self: Rc<Self>, job: Job, _: &mut Context) {
        self.touched.set(true);
        self.microtasks.borrow_mut().push_back(job);
    }

    /// What the engine and the loading of modules call: runs what is queued, without waiting for timers.
    fn run_jobs(self: Rc<Self>, context: &mut Context) -> JsResult<()> {
        self.drain(context)
    }
}

fn promise(value: &JsValue) -> Option<JsPromise> {
    value.as_object().and_then(|object| JsPromise::from_object(object).ok())
}
