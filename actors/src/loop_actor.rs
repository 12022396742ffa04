//! The actix actor that runs a loop's turns, supervised: a panic in a turn is caught, reported and counted, and the loop goes on.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context as Task, Poll},
    time::Duration,
};

use actix::{Actor, ActorFuture, AsyncContext, Context, Supervised};
use tokio::time::{Instant, Sleep};

use crate::{
    event_loop::{Due, LoopMessage},
    gather,
    inbox::Inbox,
    limits,
    loop_handle::LoopHandle,
};

/// Time between two ticks of a loop.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// The actor of one loop. Inbox: [`LoopMessage`]; exits only with its arbiter.
pub(crate) struct LoopActor {
    pub(crate) handle: LoopHandle,
    pub(crate) inbox: std::rc::Rc<Inbox<LoopMessage>>,
}

impl Actor for LoopActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        gather::called_by(self.inbox.nap());
        ctx.spawn(Turns {
            tick: Box::pin(tokio::time::sleep(TICK)),
            commit_tick: Box::pin(tokio::time::sleep(Duration::ZERO)),
            tick_is_set: false,
            last_checkpoint: Instant::now(),
        });
    }
}

impl Supervised for LoopActor {}

/// The endless future of a loop's turns.
struct Turns {
    tick: Pin<Box<Sleep>>,
    /// When what nobody waits for has waited long enough for company.
    commit_tick: Pin<Box<Sleep>>,
    tick_is_set: bool,
    last_checkpoint: Instant,
}

impl ActorFuture<LoopActor> for Turns {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut LoopActor,
        _: &mut Context<LoopActor>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        actor.inbox.register(task.waker());
        let turn = catch_unwind(AssertUnwindSafe(|| self.turn(actor, task)));
        if turn.is_err() {
            // The panic hook has logged it with its place.
            actor.handle.services().panics.fetch_add(1, Ordering::Relaxed);
            actor.handle.event_loop().on_panic();
            task.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Turns {
    fn turn(&mut self, actor: &LoopActor, task: &mut Task<'_>) {
        let handle = &actor.handle;
        handle.begin_turn(task.waker());
        let mut taken = 0;
        while taken < limits::YIELD_AFTER {
            let message = actor.inbox.take();
            // Before each message: who asks the loop sees what had been received when he asked.
            handle.event_loop().take_handed_over();
            let Some(message) = message else { break };
            taken += 1;
            match message {
                LoopMessage::Task(run) => run(handle),
                message => handle.event_loop().on_message(message),
            }
        }
        if taken == limits::YIELD_AFTER {
            task.waker().wake_by_ref();
        }
        // Before the batch leaves: what they journal goes with it.
        handle.run_durable();
        self.tick(handle, task);
        self.send_collected(handle, task);
        handle.end_turn();
    }

    fn tick(&mut self, handle: &LoopHandle, task: &mut Task<'_>) {
        while self.tick.as_mut().poll(task).is_ready() {
            let now = Instant::now();
            let late = now.saturating_duration_since(self.tick.deadline());
            let services = handle.services();
            let checkpoint = now.duration_since(self.last_checkpoint) >= services.checkpoint_interval;
            if checkpoint {
                self.last_checkpoint = now;
            }
            {
                let mut event_loop = handle.event_loop();
                event_loop.lag_ms = late.as_secs_f64() * 1e3;
                event_loop.tick(services.clock.uptime(), checkpoint);
            }
            services.heartbeats[handle.id().index()].store(services.uptime_ms(), Ordering::Relaxed);
            self.tick.as_mut().reset(now + TICK);
        }
    }

    /// Hands the batch to the journal and wakes the loops that have readings from here: now, or at the commit tick.
    fn send_collected(&mut self, handle: &LoopHandle, task: &mut Task<'_>) {
        let mut event_loop = handle.event_loop();
        if event_loop.batch_due() == Due::Now {
            event_loop.send_batch();
        }
        if event_loop.handover_due() == Due::Now {
            event_loop.wake_owners();
        }
        if event_loop.batch_due() != Due::Soon && event_loop.handover_due() != Due::Soon {
            self.tick_is_set = false;
            return;
        }
        if !std::mem::replace(&mut self.tick_is_set, true) {
            self.commit_tick.as_mut().reset(handle.services().next_commit_tick());
        }
        if self.commit_tick.as_mut().poll(task).is_ready() {
            self.tick_is_set = false;
            event_loop.send_batch();
            event_loop.wake_owners();
        }
    }
}
