//! A message's way: to the index of retained messages if it has the flag, to the sessions of this loop that have subscribed, to a
//! member of each shared subscription, and, at the end of the turn, to the other loops that want it.
//!
//! Who wants it is [`super::router`]'s to know; a message without the retain flag takes no lock here.

use std::{num::NonZeroU16, sync::Arc};

use smallvec::SmallVec;
use tidegate_actors::{ids::LoopId, limits, turn::Shown};

use super::{
    connections::ConnectionKey,
    delivery::Delivery,
    drops::DropReason,
    keeping,
    message::{Again, Message, Options},
    packet::QoS,
    receipt::Receipt,
    retaining,
    router::Subscriber,
    session::{SessionKey, Subscription},
    shared::{Choice, Room, ShareId},
};
use crate::edge::EdgeLoop;

/// A message on its way to another loop.
pub(super) struct Outbound {
    message: Arc<Message>,
    /// What its publisher waits for.
    receipt: Option<Arc<Receipt>>,
    /// It is for one member of a shared subscription only.
    share: Option<ForMember>,
}

/// A message is for a member of a shared subscription.
#[derive(Clone)]
struct ForMember {
    share: Arc<str>,
    /// How often it has been sent to another loop.
    hops: u8,
    /// The loop that it came in on.
    home: LoopId,
}

/// How often a message for a shared subscription is sent on: to the loop whose turn it is; back, if nobody there has room; and
/// again, if members come and go faster than the loops can tell each other.
const HOPS: u8 = 4;

/// What a published message still needs.
struct Route<'a> {
    edge: &'a EdgeLoop,
    message: Arc<Message>,
    /// The connection and the packet id that are answered.
    publisher: Option<(ConnectionKey, NonZeroU16)>,
    /// Made when somebody must store the message before its publisher is told.
    receipt: Option<Arc<Receipt>>,
}

/// Retains a message if it says so, delivers it to the subscribers of this loop and collects it for the others. `publisher`:
/// the connection and the packet id that are answered. Returns whether the answer must wait for a receipt too, because
/// somebody stores the message.
pub(crate) fn publish(edge: &EdgeLoop, message: Message, publisher: Option<(ConnectionKey, NonZeroU16)>) -> bool {
    let mut route = Route { edge, message: Arc::new(message), publisher, receipt: None };
    if route.message.retain {
        route.need_receipt();
        // First here, then to the subscribers: who subscribes meanwhile misses nothing.
        retaining::try_retain(edge, &route.message, route.receipt.clone());
    }
    if !edge.router.borrow().is_empty() {
        let also_others = route.message.command.as_ref().is_none_or(|to| !to.only);
        route.send_to_subscribers(also_others);
    }
    route.receipt.is_some()
}

/// Gives a message of a session that has ended to another member of its shared subscription ([MQTT-4.8.2]).
pub(crate) fn hand_on(edge: &EdgeLoop, share: &Arc<str>, message: Arc<Message>) {
    let home = edge.handle.id();
    let member = ForMember { share: Arc::clone(share), hops: 0, home };
    Route { edge, message, publisher: None, receipt: None }.send_to_member(member);
}

impl Route<'_> {
    fn need_receipt(&mut self) {
        if self.receipt.is_none() {
            self.receipt = self.publisher.map(|(connection, id)| Receipt::new(self.edge, connection, id));
        }
    }

    fn send_to_subscribers(&mut self, also_others: bool) {
        let edge = self.edge;
        let mut loops = SmallVec::<[LoopId; 8]>::new();
        let mut shares = SmallVec::<[ShareId; 4]>::new();
        let mut router = edge.router.borrow_mut();
        let mut matched = std::mem::take(&mut router.matched);
        let is_again = self.message.again == Again::SinceTheStart;
        let (me, to) = (router.me, self.message.command.as_deref());
        let own = self.message.from.filter(|(id, _)| *id == router.me).map(|(_, key)| key);
        let filters = router.trie.for_each_match(&self.message.topic, |subscriber, subscription| match *subscriber {
            Subscriber::Here(key) if subscription.no_local && own == Some(key) => {}
            Subscriber::Here(key) if to.is_some_and(|to| to.excludes(me, key)) => {}
            Subscriber::Here(key) => matched.push((key, *subscription)),
            Subscriber::Loop(id) if also_others && !loops.contains(&id) => loops.push(id),
            // A member has had it, if it was routed before.
            Subscriber::Share(id) if also_others && !is_again => shares.push(id),
            Subscriber::Loop(_) | Subscriber::Share(_) => {}
        });
        let shares: SmallVec<[Arc<str>; 4]> =
            shares.into_iter().filter_map(|id| router.shares.name(id).cloned()).collect();
        drop(router);
        for id in loops {
            self.send_to_loop(id, None);
        }
        for share in shares {
            self.send_to_member(ForMember { share, hops: 0, home: edge.handle.id() });
        }
        if filters > 1 {
            matched.sort_unstable_by_key(|(key, _)| *key);
        }
        self.send_to_sessions(&matched);
        matched.clear();
        if matched.capacity() > limits::HANDOVER {
            matched = Vec::new();
        }
        edge.router.borrow_mut().matched = matched;
    }

    /// Delivers to sessions of this loop; the subscriptions of each come one after the other.
    fn send_to_sessions(&mut self, matched: &[(SessionKey, Subscription)]) {
        let mut is_stored = false;
        for of_session in matched.chunk_by(|(a, _), (b, _)| a == b) {
            let (key, subscription) = of_session[0];
            let mut options = Options::from(subscription);
            // A client with overlapping subscriptions gets the message once, at the highest QoS, with all their identifiers
            // ([MQTT-3.3.4-2], [MQTT-3.3.4-3]).
            for (_, other) in &of_session[1..] {
                options.qos = options.qos.max(other.qos);
                options.retain_as_published |= other.retain_as_published;
                options.subscription_id.extend(other.id);
            }
            is_stored |= self.deliver(key, &options);
        }
        if !matched.is_empty() {
            self.stored_here(is_stored);
        }
    }

    /// Returns whether the session stores the message.
    fn deliver(&self, key: SessionKey, options: &Options) -> bool {
        let session = self.edge.sessions.borrow().get(key);
        session.is_some_and(|session| session.deliver(self.edge, &self.message, options) == Delivery::Stored)
    }

    fn stored_here(&mut self, is_stored: bool) {
        if is_stored {
            self.need_receipt();
            if let Some(receipt) = self.receipt.clone() {
                keeping::when_durable(self.edge, move || drop(receipt));
            }
        }
        self.edge.handle.wake();
    }

    /// To a member of a shared subscription, here or on the loop whose turn it is.
    fn send_to_member(&mut self, to: ForMember) {
        let edge = self.edge;
        let room = |key| edge.sessions.borrow().get(key).map_or(Room::Away, |session| session.room(edge));
        let mut router = edge.router.borrow_mut();
        let Some(id) = router.shares.id(&to.share) else { return };
        let has_members = router.shares.members_here(id).any();
        let choice = match to.hops {
            0 => router.shares.choose_loop(id, room),
            // This loop was chosen. If nobody here has room, one at home may; if not there either, it waits there.
            1 if has_members && !router.shares.has_room(id, room) => Some(Choice::Loop(to.home)),
            _ if has_members => Some(Choice::Here),
            _ => router.shares.choose_loop(id, room),
        };
        match choice {
            Some(Choice::Here) => {
                let Some((key, subscription)) = router.shares.choose_here(id, room) else { return };
                let options = Options { share: Some(to.share), ..Options::from(*subscription) };
                drop(router);
                let is_stored = self.deliver(key, &options);
                self.stored_here(is_stored);
            }
            Some(Choice::Loop(id)) if to.hops < HOPS => {
                drop(router);
                self.send_to_loop(id, Some(ForMember { hops: to.hops + 1, ..to }));
            }
            Some(Choice::Loop(_)) => self.lost(),
            None => {}
        }
    }

    fn send_to_loop(&mut self, id: LoopId, share: Option<ForMember>) {
        let stored_sessions = &self.edge.shared.stored_sessions;
        // One for a member may be sent on from there, and then only the receipt that it has is waited for.
        if stored_sessions.are_on(id) || (share.is_some() && stored_sessions.count() > 0) {
            self.need_receipt();
        }
        let mut router = self.edge.router.borrow_mut();
        let outbox = &mut router.outbox[id.index()];
        if outbox.len() >= limits::HANDOVER {
            drop(router);
            return self.lost();
        }
        if outbox.is_empty() {
            self.edge.handle.wake();
        }
        outbox.push(Outbound { message: Arc::clone(&self.message), receipt: self.receipt.clone(), share });
    }

    /// The message does not reach who should have it.
    fn lost(&self) {
        self.edge.shared.counters.mqtt_dropped.count(DropReason::Loop, 1);
        if let Some(receipt) = &self.receipt {
            receipt.fail();
        }
    }
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
        let receipts: SmallVec<[_; 8]> = messages.iter().filter_map(|outbound| outbound.receipt.clone()).collect();
        let delivered = edge.on_loop(id, move |other| {
            for Outbound { message, receipt, share } in messages {
                let mut route = Route { edge: other, message, publisher: None, receipt };
                match share {
                    None => route.send_to_subscribers(false),
                    Some(member) => route.send_to_member(member),
                }
            }
        });
        if !delivered {
            edge.shared.counters.mqtt_dropped.count(DropReason::Loop, count);
            receipts.iter().for_each(|receipt| receipt.fail());
        }
    }
}
