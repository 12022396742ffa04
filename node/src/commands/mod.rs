//! Commands to devices: taken over HTTP and from handlers, sent over MQTT, answered by the device.
//!
//! A command's way: `order` (what is asked) → `queue` (the loop that owns the device: which wait, which are under way) → `deliver`
//! (the message, in Tidegate's shape or ThingsBoard's) → the device → `reply` → whoever waits. `ears` is what of a session's
//! subscriptions takes commands; `command` is one of them, `stored` how it is kept. Only a device's own connection
//! answers for it.

mod command;
mod deliver;
mod ears;
mod order;
mod queue;
mod reply;
mod stored;

use std::{
    rc::Rc,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tidegate_actors::{ids::DeviceId, script::ScriptCommand};

pub(crate) use command::{Ended, Failure, Order, RequestId, Status};
pub(crate) use deliver::{Addressed, keep_time};
pub(crate) use order::{BadOrder, Request};
pub(crate) use queue::{Commands, Created, Listening, NotCancelled, Refusal};
pub(crate) use reply::{Reply, take as take_reply};
pub(crate) use stored::PREFIX;

use crate::{edge::EdgeLoop, kept, mqtt::session::Session};

/// What is counted of all commands.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// By the number of a [`Status`]: how many ever came to it. `Queued` is every command that was taken.
    pub(crate) by_status: [AtomicU64; Status::ALL.len()],
    /// Commands that are not over.
    pub(crate) under_way: AtomicUsize,
    /// Commands that were refused at a limit or because the device was not there.
    pub(crate) refused: AtomicU64,
    /// Commands of handlers that were refused: nobody is told, they are logged.
    pub(crate) handler_refused: AtomicU64,
    /// Replies that no command waited for.
    pub(crate) replies_unknown: AtomicU64,
    /// Replies of somebody else than the device.
    pub(crate) replies_refused: AtomicU64,
}

/// Takes a command for a device of this loop. `taken` is told at once, or, if the command is kept, once it is durable.
pub(crate) fn create(
    edge: &Rc<EdgeLoop>,
    device: &DeviceId,
    order: Order,
    waiter: Option<command::Waiter>,
    taken: impl FnOnce(Result<Created, Refusal>) + 'static,
) {
    let may_wait = order.may_wait();
    let created = deliver::with(edge, |commands, now| commands.create(device, order, None, waiter, now));
    if created.is_err() {
        edge.shared.commands.refused.fetch_add(1, Ordering::Relaxed);
    }
    if may_wait && created.is_ok() {
        kept::when_durable(edge, move || taken(created));
    } else {
        taken(created);
    }
}

/// Sends what handlers of this loop's devices want, once their outcomes are durable: a crash before that has the handlers run
/// again, and one after it may lose the command, but never send it twice.
pub(crate) fn of_handlers(edge: &Rc<EdgeLoop>, wanted: Vec<(String, ScriptCommand)>) {
    let home = Rc::clone(edge);
    kept::when_durable(edge, move || {
        for (id, command) in wanted {
            of_handler(&home, id, command);
        }
    });
}

fn of_handler(edge: &Rc<EdgeLoop>, id: String, command: ScriptCommand) {
    let refuse = |edge: &EdgeLoop, id: &str, device: &str, reason: &str| {
        edge.shared.commands.handler_refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(device, request = id, reason, "dropped a handler's command");
    };
    let ScriptCommand { device, name, params } = command;
    // The worker has checked all of it; what it says is checked all the same.
    let params = String::from_utf8_lossy(&params);
    let (device, order) = match (DeviceId::new(&device), Order::of_handler(&name, &params)) {
        (Ok(device), Ok(order)) => (device, order),
        (Err(error), _) => return refuse(edge, &id, &device, &error.to_string()),
        (_, Err(bad)) => return refuse(edge, &id, &device, &bad.detail),
    };
    edge.at_loop_surely(edge.handle.owner_of(device.as_str()), move |owner| {
        let created =
            deliver::with(owner, |commands, now| commands.create(&device, order, Some((&*id).into()), None, now));
        match created {
            Ok(_) => {}
            Err(Refusal::QueueFull) => refuse(owner, &id, device.as_str(), "limit command_queue"),
            Err(Refusal::Full) => refuse(owner, &id, device.as_str(), "limit command_bytes"),
            Err(Refusal::Offline) => refuse(owner, &id, device.as_str(), "the device is not there"),
        }
    });
}

/// Takes a command back. `done` is told once that is durable.
pub(crate) fn cancel(
    edge: &Rc<EdgeLoop>,
    device: &DeviceId,
    id: &str,
    done: impl FnOnce(Result<String, NotCancelled>) + 'static,
) {
    let cancelled = deliver::with(edge, |commands, now| commands.cancel(device, id, now));
    if cancelled.is_ok() {
        kept::when_durable(edge, move || done(cancelled));
    } else {
        done(cancelled);
    }
}

/// The subscriptions of a device's own session, which has a connection, are what they are from now on.
pub(crate) fn listens(edge: &Rc<EdgeLoop>, session: &Session) {
    let Some(device) = session.device.borrow().clone() else { return };
    let listening = listening(session, &device);
    if listening == Listening::default() {
        return left(edge, session);
    }
    let (home, key) = (edge.handle.id(), session.key);
    edge.at_loop_surely(edge.handle.owner_of(device.as_str()), move |owner| {
        deliver::with(owner, |commands, now| commands.listens(&device, (home, key), listening, now));
    });
}

fn listening(session: &Session, device: &DeviceId) -> Listening {
    let subscriptions = session.subscriptions.borrow();
    Listening::of(device, subscriptions.iter().map(|(filter, subscription)| (&**filter, subscription.qos)))
}

/// The device's own session has lost its connection, or no more takes commands.
pub(crate) fn left(edge: &Rc<EdgeLoop>, session: &Session) {
    let Some(device) = session.device.borrow().clone() else { return };
    let (home, key) = (edge.handle.id(), session.key);
    edge.at_loop_surely(edge.handle.owner_of(device.as_str()), move |owner| {
        deliver::with(owner, |commands, now| commands.left(&device, (home, key), now));
    });
}

/// A device's own session has acknowledged a command: the device has it.
pub(crate) fn acknowledged(edge: &Rc<EdgeLoop>, message: &Addressed) {
    let (device, id) = (message.device.clone(), RequestId::clone(&message.id));
    edge.at_loop_surely(edge.handle.owner_of(device.as_str()), move |owner| {
        deliver::with(owner, |commands, now| commands.delivered(&device, &id, now));
    });
}

/// A command as the last run of the node left it; it belongs to this loop.
pub(crate) fn recovered(edge: &Rc<EdgeLoop>, key: &[u8], value: &[u8]) {
    let Some((device, id)) = stored::names_of(key) else {
        tracing::error!(key = %key.escape_ascii(), "left out a command whose key names none");
        return;
    };
    let read = deliver::with(edge, |commands, now| commands.recovered(&device, id, value, now));
    if let Err(error) = read {
        tracing::error!(%device, request = id, error, "left out a command that cannot be read");
    }
}

/// The device whose loop a command's key belongs to.
pub(crate) fn device_of(key: &[u8]) -> Option<DeviceId> {
    stored::names_of(key).map(|(device, _)| device)
}
