//! Which session gets a message: the subscriptions of this loop's sessions, and what other loops are interested in.
//!
//! Every loop has its own index, so a publish takes no lock. A loop tells the others each filter that its first session
//! subscribes to ([`super::announcements`]); they keep it under the loop's number, and send it a matching message once, whatever
//! the number of its subscribers. Of a shared subscription each loop knows how many members the others have, and the
//! publisher's loop chooses one ([`super::shared`]). What becomes of a message is in [`super::route`].

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use hashbrown::HashMap;
use tidegate_actors::ids::LoopId;

use super::{
    announcements::{self, Change},
    filters::FilterTrie,
    packet::QoS,
    route::Outbound,
    session::{Session, SessionKey, Subscription},
    shared::{ShareId, Shares},
    sys,
    topic::{self, SHARE},
};
pub(crate) use super::{
    message::{Again, Message, Options},
    route::{forward, hand_on, publish, publish_shown},
};
use crate::edge::EdgeLoop;

/// Who has subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subscriber {
    Here(SessionKey),
    Loop(LoopId),
    Share(ShareId),
}

/// What is kept of a subscriber that is no session.
const ANY: Subscription = Subscription { qos: QoS::ExactlyOnce, no_local: false, retain_as_published: true, id: None };

/// The index of one loop.
pub(crate) struct Router {
    pub(super) me: LoopId,
    pub(super) trie: FilterTrie<Subscriber, Subscription>,
    pub(super) shares: Shares<SessionKey, Subscription>,
    /// How many sessions of this loop have each filter.
    filters: HashMap<Box<str>, u32>,
    pub(super) outbox: Vec<Vec<Outbound>>,
    /// Filters, here and elsewhere, that may match what the node itself publishes.
    listeners: usize,
    /// Those below `$SYS`.
    sys_listeners: usize,
    /// The sessions that a message matches: kept for its memory.
    pub(super) matched: Vec<(SessionKey, Subscription)>,
}

impl Router {
    pub(crate) fn new(me: LoopId, loops: usize) -> Self {
        Self {
            me,
            trie: FilterTrie::new(),
            shares: Shares::new(),
            filters: HashMap::new(),
            outbox: (0..loops).map(|_| Vec::new()).collect(),
            listeners: 0,
            sys_listeners: 0,
            matched: Vec::new(),
        }
    }

    /// Is there any subscription at all?
    pub(crate) fn is_empty(&self) -> bool {
        self.trie.is_empty()
    }

    /// Does anybody want to know how the node fares?
    pub(crate) fn wants_sys(&self) -> bool {
        self.sys_listeners > 0
    }

    /// Shared subscriptions that this loop knows of, with members here or elsewhere.
    pub(crate) fn shares(&self) -> usize {
        self.shares.len()
    }

    /// Adds a session's subscription. Returns whether it is new, and what the other loops must hear of it.
    fn subscribe(
        &mut self,
        filter: &str,
        key: SessionKey,
        subscription: Subscription,
        is_connected: bool,
    ) -> (bool, Option<Change>) {
        if let Some((_, shared)) = topic::split_share(filter) {
            let (id, is_new, replaced) = self.shares.join(filter, key, subscription, is_connected);
            if is_new {
                self.insert(shared, Subscriber::Share(id), ANY);
            }
            return (replaced.is_none(), self.share_change(filter));
        }
        if !self.insert(filter, Subscriber::Here(key), subscription) {
            return (false, None);
        }
        let count = self.filters.entry_ref(filter).or_insert(0);
        *count += 1;
        let change = (*count == 1).then(|| Change::Interest { filter: filter.into(), gained: true });
        (true, change)
    }

    /// Takes a subscription away. `None`: there was none; else what the other loops must hear of it.
    fn unsubscribe(&mut self, filter: &str, key: SessionKey) -> Option<Option<Change>> {
        if topic::split_share(filter).is_some() {
            self.shares.leave(filter, key)?;
            let change = self.share_change(filter);
            self.drop_empty_share(filter);
            return Some(change);
        }
        if !self.remove(filter, Subscriber::Here(key)) {
            return None;
        }
        let count = self.filters.get_mut(filter)?;
        *count -= 1;
        if *count > 0 {
            return Some(None);
        }
        self.filters.remove(filter);
        Some(Some(Change::Interest { filter: filter.into(), gained: false }))
    }

    /// A loop has told of a change.
    fn hear(&mut self, id: LoopId, change: &Change) {
        match change {
            Change::Interest { filter, gained: true } => {
                self.insert(filter, Subscriber::Loop(id), ANY);
            }
            Change::Interest { filter, gained: false } => {
                self.remove(filter, Subscriber::Loop(id));
            }
            Change::Share { name, members } => match (self.shares.hear(name, id, *members), topic::split_share(name)) {
                (Some((share, true)), Some((_, filter))) => {
                    self.insert(filter, Subscriber::Share(share), ANY);
                }
                (Some(_), _) => self.drop_empty_share(name),
                (None, _) => {}
            },
        }
    }

    fn share_change(&self, name: &str) -> Option<Change> {
        let id = self.shares.id(name)?;
        let members = self.shares.members_here(id);
        Some(Change::Share { name: Arc::clone(self.shares.name(id)?), members })
    }

    fn drop_empty_share(&mut self, name: &str) {
        if let Some(id) = self.shares.id(name)
            && let Some((_, filter)) = topic::split_share(name)
            && self.shares.drop_if_empty(id)
        {
            self.remove(filter, Subscriber::Share(id));
        }
    }

    fn insert(&mut self, filter: &str, subscriber: Subscriber, subscription: Subscription) -> bool {
        let is_new = self.trie.insert(filter, subscriber, subscription).is_none();
        self.listeners += usize::from(is_new && may_match_shown(filter));
        self.sys_listeners += usize::from(is_new && sys::may_match(filter));
        is_new
    }

    fn remove(&mut self, filter: &str, subscriber: Subscriber) -> bool {
        let removed = self.trie.remove(filter, &subscriber).is_some();
        self.listeners -= usize::from(removed && may_match_shown(filter));
        self.sys_listeners -= usize::from(removed && sys::may_match(filter));
        removed
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

// ---- subscriptions

/// Subscribes a session, to a shared subscription too. Returns whether that is new to it, and what must be announced before a
/// SUBACK may promise it.
pub(crate) fn subscribe(
    edge: &EdgeLoop,
    filter: &str,
    session: &Session,
    subscription: Subscription,
) -> (bool, Option<Change>) {
    let is_connected = session.link.borrow().is_some();
    let (is_new, change) = edge.router.borrow_mut().subscribe(filter, session.key, subscription, is_connected);
    edge.shared.subscriptions.fetch_add(usize::from(is_new), Ordering::Relaxed);
    update_listening(edge);
    // Known here is not yet known everywhere while an announcement is on its way.
    let again = || Change::Interest { filter: filter.into(), gained: true };
    let is_known = !edge.announcements.are_under_way() || filter.starts_with(SHARE);
    (is_new, change.or_else(|| (!is_known).then(again)))
}

/// Ends a session's subscription; returns whether it existed.
pub(crate) fn unsubscribe(edge: &Rc<EdgeLoop>, filter: &str, key: SessionKey) -> bool {
    let Some(change) = edge.router.borrow_mut().unsubscribe(filter, key) else { return false };
    edge.shared.subscriptions.fetch_sub(1, Ordering::Relaxed);
    announcements::announce(edge, change.into_iter().collect(), || {});
    update_listening(edge);
    true
}

/// A session's connection has come or gone: members of shared subscriptions that are connected come first.
pub(crate) fn presence(edge: &Rc<EdgeLoop>, session: &Session, is_connected: bool) {
    let mut changes = Vec::new();
    let router = &mut *edge.router.borrow_mut();
    for filter in session.subscriptions.borrow().keys().filter(|filter| filter.starts_with(SHARE)) {
        if router.shares.set_connected(filter, session.key, is_connected) {
            changes.extend(router.share_change(filter));
        }
    }
    if !changes.is_empty() {
        announcements::announce(edge, changes, || {});
    }
}

/// Another loop has told of its subscriptions.
pub(crate) fn hear(edge: &EdgeLoop, id: LoopId, changes: &[Change]) {
    let mut router = edge.router.borrow_mut();
    changes.iter().for_each(|change| router.hear(id, change));
    drop(router);
    update_listening(edge);
}

fn update_listening(edge: &EdgeLoop) {
    edge.handle.listen(edge.router.borrow().listeners > 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::shared::Members;

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

    fn interest(filter: &str, gained: bool) -> Option<Change> {
        Some(Change::Interest { filter: filter.into(), gained })
    }

    fn share(name: &str, connected: u32, away: u32) -> Option<Change> {
        Some(Change::Share { name: name.into(), members: Members { connected, away } })
    }

    #[test]
    fn the_other_loops_hear_of_a_filter_once() {
        let mut router = Router::new(LoopId(0), 2);
        assert_eq!(router.subscribe("a/+", 1, ANY, true), (true, interest("a/+", true)));
        assert_eq!(router.subscribe("a/+", 2, ANY, true), (true, None));
        assert_eq!(router.subscribe("a/+", 2, ANY, true), (false, None), "subscribing again replaces the options");
        assert_eq!(router.unsubscribe("a/+", 1), Some(None));
        assert_eq!(router.unsubscribe("a/+", 1), None);
        assert_eq!(router.unsubscribe("a/+", 2), Some(interest("a/+", false)));
        assert!(router.is_empty() && router.filters.is_empty());
    }

    #[test]
    fn the_other_loops_hear_of_every_member_and_nothing_is_left_of_a_share() {
        const NAME: &str = "$share/g/devices/#";
        let mut router = Router::new(LoopId(0), 2);
        assert_eq!(router.subscribe(NAME, 1, ANY, true), (true, share(NAME, 1, 0)));
        assert_eq!(router.subscribe(NAME, 2, ANY, false), (true, share(NAME, 1, 1)));
        assert_eq!(router.listeners, 1, "one for the share");
        router.hear(LoopId(1), &share(NAME, 3, 0).unwrap());
        assert_eq!(router.unsubscribe(NAME, 1), Some(share(NAME, 0, 1)));
        assert_eq!(router.unsubscribe(NAME, 2), Some(share(NAME, 0, 0)));
        assert_eq!(router.unsubscribe(NAME, 2), None);
        assert!(!router.is_empty(), "loop 1 has members");
        router.hear(LoopId(1), &share(NAME, 0, 0).unwrap());
        assert!(router.is_empty());
        assert_eq!((router.listeners, router.shares()), (0, 0));
        router.hear(LoopId(1), &share(NAME, 1, 0).unwrap());
        assert_eq!(router.subscribe(NAME, 1, ANY, true), (true, share(NAME, 1, 0)));
        assert_eq!(router.shares(), 1);
    }
}
