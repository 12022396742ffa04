//! What one worker process has asked for: what is under way, and the answers that wait to be sent to it. It ends with the process,
//! and what it had not begun by then is not begun any more.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};
use tidegate_actors::limits;

use super::{
    Charge, SlowWork,
    error::{BROKEN, Done, LIMIT, REPLAY, SlowError},
    gate::Job,
    tools::Caller,
};
use crate::{frame::Ask, operation::Operation, source::SourceSet};

/// A worker's desk.
pub(crate) struct Desk {
    work: Arc<SlowWork>,
    /// The files of its set.
    sources: Arc<SourceSet>,
    has_effects: bool,
    /// Dropped or set: nobody waits for it any more.
    open: HashMap<u64, Arc<AtomicBool>>,
    inbox: Arc<Inbox>,
    /// Runs that were refused what has an effect, since they were last asked for.
    refused: HashSet<u32>,
}

struct Inbox {
    answers: Mutex<VecDeque<(u64, Done, Option<Charge>)>>,
    /// Written to for each answer.
    event: OwnedFd,
}

impl Desk {
    /// `sources`: the set that the worker has loaded. `has_effects`: it is no shadow's.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn new(work: &Arc<SlowWork>, sources: &Arc<SourceSet>, has_effects: bool) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            work: Arc::clone(work),
            sources: Arc::clone(sources),
            has_effects: has_effects && work.has_effects,
            open: HashMap::new(),
            inbox: Arc::new(Inbox { answers: Mutex::default(), event }),
            refused: HashSet::new(),
        })
    }

    /// Readable when there are answers.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.inbox.event.as_fd()
    }

    /// Takes an ask. Its answer comes in any case, unless it is forgotten.
    pub(crate) fn ask(&mut self, ask: Ask) {
        let Ask { id, run, script, operation, arguments, bytes } = ask;
        let wanted = Arc::new(AtomicBool::new(true));
        let under_way = self.open.len();
        self.open.insert(id, Arc::clone(&wanted));
        let size = arguments.len() + bytes.iter().map(Vec::len).sum::<usize>();
        let (charge, script) = match self.admit(run, script, operation, under_way, size) {
            Ok(admitted) => admitted,
            Err(error) => {
                self.work.gate.refuse(operation);
                self.inbox.put(id, Err(error), None);
                return;
            }
        };
        let (tools, inbox, sources) =
            (Arc::clone(&self.work.tools), Arc::clone(&self.inbox), Arc::clone(&self.sources));
        let mut answer = Answer { id, inbox, wanted: Arc::clone(&wanted), charge: Some(charge) };
        let waits = Arc::clone(&wanted);
        self.work.gate.submit(Job {
            operation,
            is_wanted: Box::new(move || wanted.load(Ordering::Relaxed)),
            work: Box::new(move || {
                let is_wanted = || waits.load(Ordering::Relaxed);
                let caller = Caller { script: &script, sources: &sources, is_wanted: &is_wanted };
                tools.work(operation, &caller, &arguments, bytes)
            }),
            answer: Box::new(move |done| answer.give(done)),
        });
    }

    fn admit(
        &mut self,
        run: u32,
        script: u8,
        operation: Operation,
        under_way: usize,
        size: usize,
    ) -> Result<(Charge, Box<str>), SlowError> {
        if operation.has_effect() && !self.has_effects {
            self.refused.insert(run);
            let what = operation.name();
            let message =
                format!("{what} is not done here: a replay, a test or the trial of new handlers must have no effects");
            return Err(SlowError::new(REPLAY, message));
        }
        if under_way >= limits::SCRIPT_WORKER_JOBS {
            let most = limits::SCRIPT_WORKER_JOBS;
            let message = format!("{most} pieces of slow work of one worker are under way (limit script_worker_jobs)");
            return Err(SlowError::new(LIMIT, message));
        }
        if size > limits::SCRIPT_JOB_BYTES {
            let most = limits::SCRIPT_JOB_BYTES;
            let message = format!("{size} bytes for one piece of slow work: {most} at most (limit script_job_bytes)");
            return Err(SlowError::new(LIMIT, message));
        }
        let charge = self.work.charge(size).ok_or_else(|| {
            let most = limits::SCRIPT_POOL_BYTES;
            SlowError::new(
                LIMIT,
                format!("{most} bytes of slow work of scripts are under way (limit script_pool_bytes)"),
            )
        })?;
        let script = self.sources.handlers.get(usize::from(script)).map(|handler| Box::from(handler.name.as_str()));
        let script = script.ok_or_else(|| SlowError::new(BROKEN, "there is no such script"))?;
        Ok((charge, script))
    }

    /// Nobody waits for these any more.
    pub(crate) fn forget(&mut self, ids: &[u64]) {
        for id in ids {
            if let Some(wanted) = self.open.remove(id) {
                wanted.store(false, Ordering::Relaxed);
            }
        }
        self.work.gate.purge();
    }

    /// The answers that are there: id, did it fail, JSON, bytes.
    pub(crate) fn take_answers(&mut self) -> Vec<(u64, bool, String, Vec<u8>)> {
        let mut count = [0; 8];
        // Nothing is in it if nobody wrote since: that is well, too.
        let _ = rustix::io::read(&self.inbox.event, &mut count);
        let answers = std::mem::take(&mut *self.inbox.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let wanted = answers.into_iter().filter(|(id, ..)| self.open.remove(id).is_some());
        let shown = wanted.map(|(id, done, _charge)| match done {
            Ok(reply) => (id, false, reply.about.to_string(), reply.bytes),
            Err(error) => (id, true, error.about(), Vec::new()),
        });
        shown.collect()
    }

    /// Was this run refused something that has an effect? Asked once for each of its answers.
    pub(crate) fn take_refused(&mut self, run: u32) -> bool {
        self.refused.remove(&run)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.open.values().for_each(|wanted| wanted.store(false, Ordering::Relaxed));
        self.work.gate.purge();
    }
}

impl Inbox {
    fn put(&self, id: u64, done: Done, charge: Option<Charge>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back((id, done, charge));
        // It is full only if 2^64 answers wait.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

/// The way back of one piece: dropped without an answer, the work broke.
struct Answer {
    id: u64,
    inbox: Arc<Inbox>,
    wanted: Arc<AtomicBool>,
    charge: Option<Charge>,
}

impl Answer {
    fn give(&mut self, done: Done) {
        let Some(mut charge) = self.charge.take() else { return };
        // One that nobody waits for must not lie here until somebody looks.
        if self.wanted.load(Ordering::Relaxed) {
            charge.set(done.as_ref().map_or(0, |reply| reply.bytes.len()));
            self.inbox.put(self.id, done, Some(charge));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Err(SlowError::new(BROKEN, "the node failed at it: its log may say more")));
    }
}
