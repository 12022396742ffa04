//! Which session gets a message: the subscriptions of this loop's sessions, and what other loops are interested in.
//!
//! Every loop has its own index, so a publish takes no lock. A loop tells the others each filter that its first session
//! subscribes to; they keep it under the loop's number, and send it a matching message once, whatever the number of its
//! subscribers. Messages for other loops are collected and leave at the end of the turn.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::SmallVec;
use tidegate_actors::{event_loop::LoopMessage, ids::LoopId, limits, turn::Shown};

use super::{
    connections::ConnectionKey, delivery::Delivery, drops::DropReason, filters::FilterTrie, keeping, packet::QoS,
    receipt::Receipt, session::SessionKey,
};
use crate::edge::EdgeLoop;

/// A message on its way to subscribers; shared by all of them.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Box<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// MQTT 5 properties as on the wire.
    pub(crate) properties: Box<[u8]>,
    /// When it is worthless, in milliseconds of uptime.
    pub(crate) deadline: Option<u64>,
    /// The session that published it, for subscriptions with no local.
    pub(crate) from: Option<(LoopId, SessionKey)>,
    /// Names a message with QoS 2 of a stored session; 0: it has no name.
    pub(crate) origin: u64,
    /// Was the message, under its name, routed before?
    pub(crate) again: Again,
}

/// See [`Message::again`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Again {
    /// No.
    #[default]
    No,
    /// Perhaps, before a crash: who has it already does not get it again.
    BeforeACrash,
    /// Yes: nobody gets it again, and who stores it still has to make it durable.
    SinceTheStart,
}

impl Message {
    /// An empty message.
    pub(crate) fn new(topic: impl Into<Box<str>>, qos: QoS) -> Self {
        Self {
            topic: topic.into(),
            payload: Bytes::new(),
            qos,
            retain: false,
            properties: Box::default(),
            deadline: None,
            from: None,
            origin: 0,
            again: Again::No,
        }
    }

    /// Has its message expiry interval passed?
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Seconds that it has left to live ([MQTT-3.3.2-6]), rounded up.
    pub(crate) fn seconds_left(&self, now: impl FnOnce() -> u64) -> Option<u32> {
        let left = self.deadline?.saturating_sub(now()).div_ceil(1_000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

/// The options of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_id: SmallVec<[NonZeroU32; 1]>,
}

/// Who has subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subscriber {
    Here(SessionKey),
    Loop(LoopId),
}

/// A message on its way to another loop, with the receipt that its publisher waits for.
type Outbound = (Arc<Message>, Option<Arc<Receipt>>);

/// The index of one loop.
pub(crate) struct Router {
    me: LoopId,
    trie: FilterTrie<Subscriber, Options>,
    /// How many sessions of this loop have each filter.
    filters: HashMap<Box<str>, u32>,
    outbox: Vec<Vec<Outbound>>,
    /// Filters, here and elsewhere, that may match what the node itself publishes.
    listeners: usize,
}

impl Router {
    pub(crate) fn new(me: LoopId, loops: usize) -> Self {
        let outbox = (0..loops).map(|_| Vec::new()).collect();
        Self { me, trie: FilterTrie::new(), filters: HashMap::new(), outbox, listeners: 0 }
    }

    /// Is there any subscription at all?
    pub(crate) fn is_empty(&self) -> bool {
        self.trie.is_empty()
    }

    /// Adds a session's subscription. Returns whether its filter is new on this loop, so that the others must hear of it.
    fn subscribe(&mut self, filter: &str, key: SessionKey, options: Options) -> bool {
        if self.trie.insert(filter, Subscriber::Here(key), options).is_some() {
            return false;
        }
        self.listeners += usize::from(may_match_shown(filter));
        let count = self.filters.entry_ref(filter).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Takes a subscription away. `None`: there was none; else whether it was the loop's last with this filter.
    fn unsubscribe(&mut self, filter: &str, key: SessionKey) -> Option<bool> {
        self.trie.remove(filter, &Subscriber::Here(key))?;
        self.listeners -= usize::from(may_match_shown(filter));
        let count = self.filters.get_mut(filter)?;
        *count -= 1;
        if *count > 0 {
            return Some(false);
        }
        self.filters.remove(filter);
        Some(true)
    }

    /// Another loop gains or loses interest in a filter.
    fn interest(&mut self, filter: &str, id: LoopId, gained: bool) {
        if gained {
            let options = Options {
                qos: QoS::ExactlyOnce,
                no_local: false,
                retain_as_published: true,
                subscription_id: SmallVec::new(),
            };
            if self.trie.insert(filter, Subscriber::Loop(id), options).is_none() {
                self.listeners += usize::from(may_match_shown(filter));
            }
        } else if self.trie.remove(filter, &Subscriber::Loop(id)).is_some() {
            self.listeners -= usize::from(may_match_shown(filter));
        }
    }
}

/// Could the filter match `devices/{id}/state` or `devices/{id}/events/{name}`?
fn may_match_shown(filter: &str) -> bool {
    let mut levels = filter.split('/');
    match levels.next() {
        Some("#") => true,
        Some("devices" | "+") => {
            levels.next();
            matches!(levels.next(), None | Some("#" | "+" | "state" | "events"))
        }
        _ => false,
    }
}

/// Subscribes a session. `done` runs once every loop knows of the filter: then a SUBACK may promise it.
pub(crate) fn subscribe(edge: &Rc<EdgeLoop>, filter: &str, key: SessionKey, options: Options) -> bool {
    let is_new = edge.router.borrow_mut().subscribe(filter, key, options);
    update_listening(edge);
    is_new
}

/// Tells every other loop that this loop wants (or no longer wants) messages for `filters`; `done` runs here when all know.
pub(crate) fn announce(edge: &Rc<EdgeLoop>, filters: Vec<Box<str>>, gained: bool, done: impl FnOnce() + 'static) {
    if filters.is_empty() || edge.others().next().is_none() {
        done();
        return;
    }
    let announcements = &edge.announcements;
    announcements.waiting.borrow_mut().push_back(Announcement {
        filters: filters.into(),
        gained,
        done: Box::new(done),
    });
    announcements.under_way.set(announcements.under_way.get() + 1);
    if !announcements.sending.replace(true) {
        actix_rt::spawn(send_announcements(Rc::clone(edge)));
    }
}

/// What a loop has to tell the others about its subscriptions. One task sends it in order: a filter that is lost and gained
/// again must arrive so.
#[derive(Default)]
pub(crate) struct Announcements {
    waiting: RefCell<VecDeque<Announcement>>,
    /// The task is there.
    sending: Cell<bool>,
    /// Announcements that not every loop has heard.
    under_way: Cell<usize>,
}

struct Announcement {
    filters: Arc<[Box<str>]>,
    gained: bool,
    done: Box<dyn FnOnce()>,
}

impl Announcements {
    /// Is there any that not every loop has heard?
    pub(crate) fn are_under_way(&self) -> bool {
        self.under_way.get() > 0
    }
}

async fn send_announcements(edge: Rc<EdgeLoop>) {
    let me = edge.handle.id();
    loop {
        let next = edge.announcements.waiting.borrow_mut().pop_front();
        let Some(Announcement { filters, gained, done }) = next else { break };
        let mut answers = Vec::new();
        for id in edge.others() {
            let filters = Arc::clone(&filters);
            let (reply, answer) = tokio::sync::oneshot::channel::<()>();
            let task = Box::new(move |_: &_| {
                let other = crate::edge::here();
                filters.iter().for_each(|filter| other.router.borrow_mut().interest(filter, me, gained));
                update_listening(&other);
                drop(reply);
            });
            let outlet = &edge.handle.services().outlets[id.index()];
            let mut message = LoopMessage::Task(task);
            // An interest must not get lost: a full inbox is tried again.
            while let Err(back) = outlet.try_send(message) {
                message = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            answers.push(answer);
        }
        // The next one need not wait for the answers: inboxes keep the order.
        let edge = Rc::clone(&edge);
        actix_rt::spawn(async move {
            futures_util::future::join_all(answers).await;
            edge.announcements.under_way.set(edge.announcements.under_way.get() - 1);
            done();
        });
    }
    edge.announcements.sending.set(false);
}

/// Ends a session's subscription; returns whether it existed.
pub(crate) fn unsubscribe(edge: &Rc<EdgeLoop>, filter: &str, key: SessionKey) -> bool {
    let removed = edge.router.borrow_mut().unsubscribe(filter, key);
    if removed == Some(true) {
        announce(edge, vec![filter.into()], false, || {});
    }
    update_listening(edge);
    removed.is_some()
}

fn update_listening(edge: &EdgeLoop) {
    edge.handle.listen(edge.router.borrow().listeners > 0);
}

/// Delivers a message to the subscribers of this loop and collects it for the others. `publisher`: the connection and the packet
/// id that are answered. Returns whether the answer must wait for a receipt too, because stored sessions get the message.
pub(crate) fn publish(edge: &EdgeLoop, message: Message, publisher: Option<(ConnectionKey, NonZeroU16)>) -> bool {
    let mut receipt = None;
    route(edge, &Arc::new(message), publisher, &mut receipt, true);
    receipt.is_some()
}

fn route(
    edge: &EdgeLoop,
    message: &Arc<Message>,
    publisher: Option<(ConnectionKey, NonZeroU16)>,
    receipt: &mut Option<Arc<Receipt>>,
    also_others: bool,
) {
    let mut loops = SmallVec::<[LoopId; 8]>::new();
    let mut here = SmallVec::<[(SessionKey, Options); 4]>::new();
    let router = &mut *edge.router.borrow_mut();
    router.trie.for_each_match(&message.topic, |subscriber, options| match *subscriber {
        Subscriber::Loop(id) if also_others && !loops.contains(&id) => loops.push(id),
        Subscriber::Loop(_) => {}
        Subscriber::Here(key) if options.no_local && message.from == Some((router.me, key)) => {}
        // A client with overlapping subscriptions gets the message once, at the highest QoS ([MQTT-3.3.4-3]).
        Subscriber::Here(key) => match here.iter_mut().find(|(other, _)| *other == key) {
            Some((_, merged)) => {
                merged.qos = merged.qos.max(options.qos);
                merged.retain_as_published |= options.retain_as_published;
                merged.subscription_id.extend_from_slice(&options.subscription_id);
            }
            None => here.push((key, options.clone())),
        },
    });
    let new_receipt = || publisher.map(|(connection, id)| Receipt::new(edge, connection, id));
    for id in loops {
        if edge.shared.stored_sessions.are_on(id) && receipt.is_none() {
            *receipt = new_receipt();
        }
        let outbox = &mut router.outbox[id.index()];
        if outbox.len() < limits::HANDOVER {
            if outbox.is_empty() {
                edge.handle.wake();
            }
            outbox.push((Arc::clone(message), receipt.clone()));
        } else {
            edge.shared.counters.mqtt_dropped.count(DropReason::Loop, 1);
            if let Some(receipt) = receipt {
                receipt.fail();
            }
        }
    }
    if here.is_empty() {
        return;
    }
    let mut is_stored = false;
    for (key, options) in here {
        let session = edge.sessions.borrow().get(key);
        is_stored |= session.is_some_and(|session| session.deliver(edge, message, &options) == Delivery::Stored);
    }
    if is_stored && receipt.is_none() {
        *receipt = new_receipt();
    }
    if let Some(receipt) = receipt.clone().filter(|_| is_stored) {
        keeping::when_durable(edge, move || drop(receipt));
    }
    edge.handle.wake();
}

/// A device's new state, or an event of its handlers, as the MQTT message that subscribers see.
pub(crate) fn publish_shown(edge: &EdgeLoop, shown: &Shown) {
    let device = &shown.update.device;
    let topic = match &shown.event {
        None => format!("devices/{device}/state"),
        Some(name) => format!("devices/{device}/events/{}", name.replace(['/', '+', '#', '\0'], "_")),
    };
    publish(edge, Message { payload: shown.update.json(), ..Message::new(topic, QoS::AtMostOnce) }, None);
}

/// Sends what was collected for other loops.
pub(crate) fn forward(edge: &EdgeLoop) {
    for id in edge.others() {
        let messages = std::mem::take(&mut edge.router.borrow_mut().outbox[id.index()]);
        if messages.is_empty() {
            continue;
        }
        let count = messages.len() as u64;
        let receipts: SmallVec<[_; 8]> = messages.iter().filter_map(|(_, receipt)| receipt.clone()).collect();
        let delivered = edge.on_loop(id, move |other| {
            for (message, mut receipt) in messages {
                route(other, &message, None, &mut receipt, false);
            }
        });
        if !delivered {
            edge.shared.counters.mqtt_dropped.count(DropReason::Loop, count);
            receipts.iter().for_each(|receipt| receipt.fail());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_that_can_match_make_the_node_publish() {
        for (filter, may) in [
            ("#", true),
            ("devices/#", true),
            ("devices/+/state", true),
            ("devices/d1/events/alarm", true),
            ("+/+/+", true),
            ("devices/+/metrics", false),
            ("v1/devices/me/telemetry", false),
            ("plant/#", false),
        ] {
            assert_eq!(may_match_shown(filter), may, "{filter}");
        }
    }

    #[test]
    fn the_other_loops_hear_of_a_filter_once() {
        let options = Options {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            subscription_id: SmallVec::new(),
        };
        let mut router = Router::new(LoopId(0), 2);
        assert!(router.subscribe("a/+", 1, options.clone()));
        assert!(!router.subscribe("a/+", 2, options.clone()));
        assert!(!router.subscribe("a/+", 2, options), "subscribing again replaces the options");
        assert_eq!(router.unsubscribe("a/+", 1), Some(false));
        assert_eq!(router.unsubscribe("a/+", 1), None);
        assert_eq!(router.unsubscribe("a/+", 2), Some(true));
        assert!(router.is_empty());
    }
}
