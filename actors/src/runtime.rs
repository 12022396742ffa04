//! The runtime as the node sees it from any thread: the services that the loops share, starting and stopping the loops, and
//! asking them.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use actix_rt::Arbiter;
use tokio::sync::oneshot;

use crate::{
    blocking::{BlockingPool, PoolFull},
    checkpoint::Checkpointer,
    clock::Clock,
    company,
    event_loop::{LoopHealth, LoopMessage},
    fanout::{Filter, Viewer},
    fold::Imported,
    gather,
    handover::Handover,
    ids::{DeviceId, LoopId, Position},
    inbox::{Inbox, Outlet},
    journal::Journal,
    ledger::{DeviceLedger, Ledger},
    lifetime::Lifetime,
    loop_handle::LoopHandle,
    placement,
    recovery::Unfinished,
    script::ScriptEngine,
    state::{DeviceState, ParkedReading},
    store::{EachPair, ParkedChanges, StateStore, StoreError},
};

/// What the loops share.
pub struct Services {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where readings become durable.
    pub journal: Arc<dyn Journal>,
    /// The operators' handlers.
    pub scripts: Arc<dyn ScriptEngine>,
    /// The latest states.
    pub store: Arc<dyn StateStore>,
    /// Who writes them.
    pub checkpointer: Arc<Checkpointer>,
    /// Where slow work goes.
    pub pool: Arc<BlockingPool>,
    /// The loops' inboxes, by loop.
    pub outlets: Vec<Outlet<LoopMessage>>,
    /// The readings on their way to the loops that own their devices, by loop.
    pub handovers: Vec<Handover>,
    /// Longest wait for company of a batch that nobody waits for.
    pub commit_max_delay: Duration,
    /// Longest time from one wake-up of a loop to the next while sockets have something for it all the time; zero: no wait.
    pub gather: Duration,
    /// Time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// Turns that panicked.
    pub panics: AtomicU64,
    /// When each loop last ticked, in milliseconds since the start.
    pub heartbeats: Vec<AtomicU64>,
    /// When the node started.
    pub started: Instant,
}

impl Services {
    /// The number of loops.
    #[must_use]
    pub fn loops(&self) -> u16 {
        u16::try_from(self.outlets.len()).unwrap_or(u16::MAX)
    }

    /// When the loops hand over next what nobody waits for: a tick that they have in common, so that one commit serves all.
    #[must_use]
    pub fn next_commit_tick(&self) -> tokio::time::Instant {
        let now = Instant::now();
        (now + company::next_tick(now, self.commit_max_delay, Duration::ZERO).1).into()
    }

    /// Milliseconds since the start, whatever becomes of the time of day.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        self.clock.uptime().0
    }
}

/// Which devices a page shows.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// Only devices after this id.
    pub after: Option<String>,
    /// Only devices whose ids start so.
    pub prefix: String,
    /// At most so many.
    pub limit: usize,
}

/// Why the runtime did not answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The blocking pool is full.
    #[error(transparent)]
    PoolFull(#[from] PoolFull),
    /// A loop's inbox is full, or the loop does not answer.
    #[error("loop {0} does not answer: its inbox (limit loop_inbox) is full or it is stopping")]
    LoopBusy(u16),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A job of the blocking pool panicked.
    #[error("the query failed inside the node (a panic, see its log)")]
    Panicked,
}

/// A handle to the running runtime, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct RuntimeHandle {
    services: Arc<Services>,
    known_at_start: u64,
    lifetime_at_start: Lifetime,
}

/// The loops, running.
pub struct Runtime {
    arbiters: Vec<Arbiter>,
    handle: RuntimeHandle,
}

impl Runtime {
    /// Starts a loop a core on arbiters of their own. `on_loop` runs on each loop's thread, once, to attach the edge.
    /// Needs a running actix system.
    ///
    /// # Errors
    /// More loops than a [`LoopId`] can number.
    pub fn start(
        handle: RuntimeHandle,
        inboxes: Vec<Inbox<LoopMessage>>,
        on_loop: impl Fn(LoopHandle) + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut arbiters = Vec::new();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let gather = handle.services.gather;
            let arbiter = Arbiter::with_tokio_rt(move || loop_runtime(gather));
            let (services, on_loop) = (Arc::clone(&handle.services), on_loop.clone());
            let id = LoopId(u16::try_from(index).map_err(std::io::Error::other)?);
            arbiter.spawn_fn(move || on_loop(LoopHandle::start(id, services, inbox)));
            arbiters.push(arbiter);
        }
        Ok(Self { arbiters, handle })
    }

    /// Waits until nothing is under way, at most `patience`: every reading that was taken in is folded and answered.
    /// Nothing new may come in by then. Returns whether it was.
    pub async fn drain(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let is_drained = |handle: &LoopHandle| {
            let mut event_loop = handle.event_loop();
            event_loop.take_handed_over();
            event_loop.send_batch();
            event_loop.is_drained()
        };
        // Twice: what one loop handed over while it was asked came to the other one after that had answered.
        loop {
            if !self.until(deadline, is_drained).await {
                return false;
            }
            if self.handle.on_every_loop(is_drained).await.is_ok_and(|drained| drained.into_iter().all(|done| done)) {
                return true;
            }
        }
    }

    /// Writes the last checkpoint, closes the journal, and ends the loops and the services. Drain first.
    /// Returns whether every state was handed to the checkpoint thread.
    pub async fn stop(self) -> bool {
        self.handle.services.scripts.stop();
        let checkpointed = self.until(Instant::now() + Duration::from_secs(5), |handle| {
            let mut event_loop = handle.event_loop();
            let turn = &event_loop.turn;
            let unwritten = !turn.dirty.is_empty() || !turn.parked.is_empty() || !turn.kept.is_empty();
            event_loop.tick(handle.services().clock.uptime(), unwritten);
            event_loop.is_checkpointed()
        });
        let checkpointed = checkpointed.await;
        // The position goes out once more, so that the next start has nothing to replay.
        let last = |handle: &LoopHandle| handle.event_loop().tick(handle.services().clock.uptime(), true);
        let last = self.handle.on_every_loop(last).await.is_ok();
        let services = &self.handle.services;
        services.journal.close();
        if let Err(error) = services.checkpointer.stop() {
            tracing::error!(%error, "the last checkpoint was not written; the next start replays more of the journal");
        }
        services.pool.stop();
        for arbiter in self.arbiters {
            arbiter.stop();
            let _ = arbiter.join();
        }
        checkpointed && last
    }

    async fn until(&self, deadline: Instant, done: impl Fn(&LoopHandle) -> bool + Clone + Send + 'static) -> bool {
        loop {
            let answers = self.handle.on_every_loop(done.clone()).await;
            if answers.is_ok_and(|answers| answers.into_iter().all(|done| done)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One loop's tokio runtime. Blocking work has its own pool: tokio's would be one more a loop, without a bound on its queue.
fn loop_runtime(gather: Duration) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(1);
    if !gather.is_zero() {
        builder.on_thread_park(move || gather::before_sleep(gather)).on_thread_unpark(gather::after_sleep);
    }
    builder.build().expect("a thread can have an event loop: epoll and a timer are all it takes")
}

impl RuntimeHandle {
    /// A handle to the runtime of these services; its loops answer once [`Runtime::start`] has run.
    #[must_use]
    pub fn new(services: Arc<Services>, lifetime: Lifetime) -> Self {
        let known_at_start = services.store.count();
        Self { services, known_at_start, lifetime_at_start: lifetime }
    }

    /// What the loops share.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Runs `ask` on one loop and gives its answer.
    ///
    /// # Errors
    /// [`QueryError::LoopBusy`] when the loop's inbox is full or the loop ends meanwhile.
    pub async fn on_loop<T: Send + 'static>(
        &self,
        id: LoopId,
        ask: impl FnOnce(&LoopHandle) -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let (reply, answer) = oneshot::channel();
        // Nobody waits for the answer any more when the request was dropped.
        let task = LoopMessage::Task(Box::new(move |handle| drop(reply.send(ask(handle)))));
        self.services.outlets[id.index()].try_send(task).map_err(|_| QueryError::LoopBusy(id.0))?;
        answer.await.map_err(|_| QueryError::LoopBusy(id.0))
    }

    /// Runs `ask` on every loop and gives the answers, by loop.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`].
    pub async fn on_every_loop<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&LoopHandle) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, QueryError> {
        let asked = (0..self.services.loops()).map(|id| self.on_loop(LoopId(id), ask.clone()));
        futures_util::future::try_join_all(asked).await
    }

    /// Waits until the journal durably has everything that the loops have done before this call, handlers' outcomes included, and
    /// gives a position of the journal from which on that is so. It waits for as long as the journal cannot write.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`].
    pub async fn journaled(&self) -> Result<Position, QueryError> {
        let pause = Duration::from_millis(5);
        let needed: Vec<u64> = loop {
            let needed = self.on_every_loop(|handle| handle.event_loop().commits_needed()).await?;
            match needed.into_iter().collect() {
                Some(needed) => break needed,
                None => tokio::time::sleep(pause).await,
            }
        };
        loop {
            let commits = self.on_every_loop(|handle| handle.event_loop().commits()).await?;
            if commits.iter().zip(&needed).all(|(commits, needed)| commits >= needed) {
                return Ok(self.services.journal.status().committed);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The node's ledger.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`].
    pub async fn ledger(&self) -> Result<Ledger, QueryError> {
        let mut total = Ledger::default();
        self.on_every_loop(LoopHandle::ledger).await?.iter().for_each(|ledger| total.add(ledger));
        Ok(total)
    }

    /// What became of every reading that the data directory ever took in.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`].
    pub async fn lifetime(&self) -> Result<Lifetime, QueryError> {
        let mut total = self.lifetime_at_start;
        self.on_every_loop(LoopHandle::lifetime).await?.iter().for_each(|lifetime| total.add(lifetime));
        Ok(total)
    }

    /// What became of one device's readings; `None`: no reading of it was ever taken in or refused.
    ///
    /// # Errors
    /// As [`RuntimeHandle::device`].
    pub async fn device_ledger(&self, device: DeviceId) -> Result<Option<DeviceLedger>, QueryError> {
        let id = device.clone();
        let by_loop = self.on_every_loop(move |handle| handle.device_ledger(id.as_str())).await?;
        let mut total = DeviceLedger::default();
        for one in by_loop {
            total.state = total.state.or(one.state);
            total.in_flight += one.in_flight;
            total.rejected.iter_mut().zip(one.rejected).for_each(|(sum, count)| *sum += count);
        }
        if total.state.is_none() {
            let store = Arc::clone(&self.services.store);
            let stored = self.services.pool.try_run(move || store.get(device.as_str()))?;
            let stored = stored.await.map_err(|_| QueryError::Panicked)??;
            total.state = stored.map(|state| (state.version, state.counts.reasons()));
        }
        let known = total.state.is_some() || total.in_flight > 0 || total.rejected.iter().any(|count| *count > 0);
        Ok(known.then_some(total))
    }

    /// How the loops fare, and how many devices the node knows.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`].
    pub async fn health(&self) -> Result<(Vec<LoopHealth>, u64), QueryError> {
        let loops = self.on_every_loop(LoopHandle::health).await?;
        let known = self.known_at_start + loops.iter().map(|health| health.new_devices).sum::<u64>();
        Ok((loops, known))
    }

    /// The Device object of one device, active or not.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`], or the store's.
    pub async fn device(&self, device: DeviceId) -> Result<Option<Vec<u8>>, QueryError> {
        let owner = placement::owner(device.as_str(), self.services.loops());
        let id = device.clone();
        let (json, connected) = self.on_loop(owner, move |handle| handle.device_json(id.as_str())).await?;
        if json.is_some() {
            return Ok(json);
        }
        let store = Arc::clone(&self.services.store);
        let stored = self.services.pool.try_run(move || store.get(device.as_str()))?;
        Ok(stored.await.map_err(|_| QueryError::Panicked)??.map(|state| {
            let mut out = Vec::new();
            state.put_json(&mut out, connected);
            out
        }))
    }

    /// One page of devices, sorted by id: each with its Device object.
    ///
    /// # Errors
    /// As [`RuntimeHandle::device`].
    pub async fn page(&self, query: PageQuery) -> Result<Vec<(DeviceId, Vec<u8>)>, QueryError> {
        let (store, ask) = (Arc::clone(&self.services.store), query.clone());
        let stored = self.services.pool.try_run(move || store.page(ask.after.as_deref(), &ask.prefix, ask.limit))?;
        let mut by_loop: Vec<Vec<DeviceState>> = self.services.outlets.iter().map(|_| Vec::new()).collect();
        for state in stored.await.map_err(|_| QueryError::Panicked)?? {
            by_loop[placement::owner(state.device.as_str(), self.services.loops()).index()].push(state);
        }
        let asked = (0..).zip(by_loop).map(|(id, stored)| {
            let query = query.clone();
            self.on_loop(LoopId(id), move |handle| handle.page(&query, &stored))
        });
        let mut page: Vec<_> = futures_util::future::try_join_all(asked).await?.into_iter().flatten().collect();
        page.sort_by(|(a, _), (b, _)| a.cmp(b));
        page.truncate(query.limit);
        Ok(page)
    }

    /// The last `limit` parked readings before a position, of one device or (`None`) of all, newest first: all that were
    /// answered as parked, whether or not the store has them yet.
    ///
    /// # Errors
    /// As [`RuntimeHandle::device`].
    pub async fn parked(
        &self,
        device: Option<DeviceId>,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<ParkedReading>, QueryError> {
        // The loops first: what they hold no more by now is in the store by then.
        let unwritten = self.unwritten_parked().await?;
        let store = Arc::clone(&self.services.store);
        let listed = self.services.pool.try_run(move || unwritten.over(&*store, device.as_ref(), before, limit))?;
        Ok(listed.await.map_err(|_| QueryError::Panicked)??)
    }

    /// The parked reading at a position.
    ///
    /// # Errors
    /// As [`RuntimeHandle::device`].
    pub async fn parked_at(&self, position: Position) -> Result<Option<ParkedReading>, QueryError> {
        if let Some(known) = self.unwritten_parked().await?.at(position) {
            return Ok(known.cloned());
        }
        let store = Arc::clone(&self.services.store);
        let parked = self.services.pool.try_run(move || store.parked_at(position))?;
        Ok(parked.await.map_err(|_| QueryError::Panicked)??)
    }

    async fn unwritten_parked(&self) -> Result<ParkedChanges, QueryError> {
        let mut all = ParkedChanges::default();
        self.on_every_loop(LoopHandle::unwritten_parked).await?.into_iter().for_each(|changes| all.append(changes));
        Ok(all)
    }

    /// The kept pairs as recovery left them, in the order of their keys, of those whose keys begin with `prefix`; until `each`
    /// breaks. For boot, before anything comes in: what is kept from then on may not be in the store yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kept(&self, prefix: &[u8], each: &mut EachPair<'_>) -> Result<(), StoreError> {
        self.services.store.kept(prefix, each)
    }

    /// Drops a parked reading for good: done when it returns, and durable.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`].
    pub async fn unpark(&self, device: DeviceId, position: Position) -> Result<(), QueryError> {
        let owner = placement::owner(device.as_str(), self.services.loops());
        let (reply, done) = oneshot::channel();
        self.on_loop(owner, move |handle| handle.event_loop().unpark(&device, position, reply)).await?;
        done.await.map_err(|_| QueryError::LoopBusy(owner.0))
    }

    /// Brings states in from elsewhere, and says what became of each, in their order; durable when it returns.
    ///
    /// # Errors
    /// As [`RuntimeHandle::on_loop`]; some of them may have been brought in: bring them all again.
    pub async fn import(&self, states: Vec<DeviceState>, overwrite: bool) -> Result<Vec<Imported>, QueryError> {
        let mut by_loop: Vec<Vec<_>> = self.services.outlets.iter().map(|_| Vec::new()).collect();
        let mut answers = Vec::with_capacity(states.len());
        for state in states {
            let owner = placement::owner(state.device.as_str(), self.services.loops());
            let (reply, answer) = oneshot::channel();
            by_loop[owner.index()].push((state, reply));
            answers.push((owner, answer));
        }
        for (id, states) in (0..).zip(by_loop).filter(|(_, states)| !states.is_empty()) {
            let import = move |handle: &LoopHandle| {
                let mut event_loop = handle.event_loop();
                states.into_iter().for_each(|(state, reply)| event_loop.import(state, overwrite, reply));
            };
            self.on_loop(LoopId(id), import).await?;
        }
        let mut results = Vec::with_capacity(answers.len());
        for (owner, answer) in answers {
            results.push(answer.await.map_err(|_| QueryError::LoopBusy(owner.0))?);
        }
        Ok(results)
    }

    /// Subscribes a viewer: every loop shows its share of the snapshot and every update from then on.
    /// The viewer must have been made with as many sources as there are loops, and is subscribed once: a viewer with another
    /// filter is another viewer, or what is still on its way for the old filter would come to it.
    ///
    /// # Errors
    /// [`QueryError::PoolFull`].
    pub fn watch(&self, viewer: &Arc<Viewer>, filter: Filter) -> Result<(), QueryError> {
        let (services, viewer, filter) =
            (Arc::clone(&self.services), Arc::clone(viewer), Arc::new(filter.normalized()));
        self.services.pool.try_run(move || show_snapshot(&services, &viewer, &filter))?;
        Ok(())
    }

    /// Hands the readings whose handlers had not run at the last stop to their loops. Call it before [`Runtime::start`]: a loop
    /// that does not have them yet would say that it is folded beyond them.
    pub fn resume(&self, unfinished: Vec<Unfinished>) {
        let mut by_loop: Vec<Vec<Unfinished>> = self.services.outlets.iter().map(|_| Vec::new()).collect();
        for one in unfinished {
            by_loop[placement::owner(one.device().as_str(), self.services.loops()).index()].push(one);
        }
        for (outlet, readings) in self.services.outlets.iter().zip(by_loop) {
            let _ = outlet.send(LoopMessage::Resume(readings));
        }
    }
}

/// First every loop registers the viewer and shows what is active, then the stored states follow in pages: an update between
/// the two is shown by the loop, and the page of an active device is left out by it.
fn show_snapshot(services: &Services, viewer: &Arc<Viewer>, filter: &Arc<Filter>) {
    let send = |loop_id: LoopId, message: LoopMessage| drop(services.outlets[loop_id.index()].send(message));
    for id in 0..services.loops() {
        send(LoopId(id), LoopMessage::Watch(Arc::clone(viewer), Arc::clone(filter)));
    }
    let show = |states: Vec<DeviceState>| {
        let mut by_loop: Vec<Vec<DeviceState>> = services.outlets.iter().map(|_| Vec::new()).collect();
        for state in states {
            by_loop[placement::owner(state.device.as_str(), services.loops()).index()].push(state);
        }
        for (id, states) in (0..).zip(by_loop).filter(|(_, states)| !states.is_empty()) {
            send(LoopId(id), LoopMessage::Snapshot(Arc::clone(viewer), states));
        }
    };
    let pages = if filter.fleet { vec![Box::<str>::from("")] } else { filter.prefixes.clone() };
    let stored = pages.iter().try_for_each(|prefix| {
        let mut after: Option<String> = None;
        while !viewer.is_closed() {
            let page = services.store.page(after.as_deref(), prefix, 1_000)?;
            let Some(last) = page.last() else { break };
            after = Some(last.device.as_str().to_owned());
            show(page);
        }
        Ok::<(), StoreError>(())
    });
    let singles: Result<Vec<_>, _> = filter.devices.iter().map(|id| services.store.get(id.as_str())).collect();
    match stored.and(singles) {
        Ok(singles) => show(singles.into_iter().flatten().collect()),
        Err(error) => tracing::error!(%error, "a viewer's snapshot is incomplete: the store could not be read"),
    }
    for id in 0..services.loops() {
        send(LoopId(id), LoopMessage::Synced(Arc::clone(viewer)));
    }
}
