//! Shared subscriptions (`$share/{group}/{filter}`): which one of a group's members gets a message.
//!
//! Each loop knows its own members, and of every other loop how many it has, connected and not. The loop on which a message came
//! in chooses the loop, that loop chooses the member. Both go round, so that members get the same share wherever they live.
//! Connected members come first, and among those of the chosen loop the ones with room in their window; who is away gets a
//! message only while nobody is connected.
//!
//! It keeps no message and knows no trie; keys are the caller's.

use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;
use tidegate_actors::ids::LoopId;

/// Names a shared subscription in its loop's index.
pub(crate) type ShareId = u32;

/// How many members a loop has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) connected: u32,
    /// With a stored session and no connection.
    pub(crate) away: u32,
}

/// What a member can take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// It has no connection.
    Away,
    /// Its window is full.
    Full,
    Ready,
}

/// Who gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    Here,
    Loop(LoopId),
}

/// The shared subscriptions that one loop knows of.
#[derive(Debug)]
pub(crate) struct Shares<K, V> {
    shares: Slab<Share<K, V>>,
    by_name: HashMap<Arc<str>, ShareId>,
}

/// One shared subscription.
#[derive(Debug)]
struct Share<K, V> {
    /// As it was subscribed to: `$share/{group}/{filter}`.
    name: Arc<str>,
    here: Vec<Member<K, V>>,
    elsewhere: SmallVec<[(LoopId, Members); 1]>,
    /// Counts the messages, to go round among the loops' members.
    turn: u32,
    /// The member of this loop whose turn it is.
    next: usize,
}

#[derive(Debug)]
struct Member<K, V> {
    key: K,
    value: V,
    is_connected: bool,
}

impl Members {
    /// Are there any?
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

impl<K: Copy + Eq, V> Shares<K, V> {
    pub(crate) fn new() -> Self {
        Self { shares: Slab::new(), by_name: HashMap::new() }
    }

    /// Adds a member, or changes what it subscribed with. Returns the share, whether it is new here, and what was replaced.
    pub(crate) fn join(&mut self, name: &str, key: K, value: V, is_connected: bool) -> (ShareId, bool, Option<V>) {
        let (id, is_new) = self.id_or_new(name);
        let here = &mut self.shares[id as usize].here;
        let replaced = match here.iter_mut().find(|member| member.key == key) {
            Some(member) => Some(std::mem::replace(&mut member.value, value)),
            None => {
                here.push(Member { key, value, is_connected });
                None
            }
        };
        (id, is_new, replaced)
    }

    /// Takes a member away. `None`: it was none.
    pub(crate) fn leave(&mut self, name: &str, key: K) -> Option<V> {
        let id = self.id(name)?;
        let share = &mut self.shares[id as usize];
        let at = share.here.iter().position(|member| member.key == key)?;
        let member = share.here.remove(at);
        // Whose turn it was, stays so.
        share.next -= usize::from(share.next > at);
        Some(member.value)
    }

    /// A member's connection came or went. Returns whether that changes anything.
    pub(crate) fn set_connected(&mut self, name: &str, key: K, is_connected: bool) -> bool {
        let Some(id) = self.id(name) else { return false };
        let member = self.shares[id as usize].here.iter_mut().find(|member| member.key == key);
        member.is_some_and(|member| std::mem::replace(&mut member.is_connected, is_connected) != is_connected)
    }

    /// Another loop has so many members now. Returns the share and whether it is new here.
    pub(crate) fn hear(&mut self, name: &str, id: LoopId, members: Members) -> Option<(ShareId, bool)> {
        let (share_id, is_new) = match self.id(name) {
            Some(id) => (id, false),
            None if !members.any() => return None,
            None => self.id_or_new(name),
        };
        let elsewhere = &mut self.shares[share_id as usize].elsewhere;
        elsewhere.retain(|(other, _)| *other != id);
        if members.any() {
            elsewhere.push((id, members));
            elsewhere.sort_unstable_by_key(|(id, _)| id.0);
        }
        Some((share_id, is_new))
    }

    /// Forgets a share that nobody, here or elsewhere, is a member of. Returns whether it did.
    pub(crate) fn drop_if_empty(&mut self, id: ShareId) -> bool {
        let Some(share) = self.shares.get(id as usize) else { return false };
        let is_empty = share.here.is_empty() && share.elsewhere.is_empty();
        if is_empty {
            let share = self.shares.remove(id as usize);
            self.by_name.remove(&share.name);
        }
        is_empty
    }

    pub(crate) fn id(&self, name: &str) -> Option<ShareId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, id: ShareId) -> Option<&Arc<str>> {
        self.shares.get(id as usize).map(|share| &share.name)
    }

    /// How many members of this loop a share has.
    pub(crate) fn members_here(&self, id: ShareId) -> Members {
        self.shares.get(id as usize).map(Share::members_here).unwrap_or_default()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shares.len()
    }

    /// Which loop's turn it is; `room` tells what a member of this loop can take. `None`: the share has no member.
    pub(crate) fn choose_loop(&mut self, id: ShareId, room: impl Fn(K) -> Room) -> Option<Choice> {
        let share = self.shares.get_mut(id as usize)?;
        let mine = share.members_here();
        let connected = mine.connected + share.elsewhere.iter().map(|(_, members)| members.connected).sum::<u32>();
        let away = mine.away + share.elsewhere.iter().map(|(_, members)| members.away).sum::<u32>();
        let among = |members: Members| if connected > 0 { members.connected } else { members.away };
        let all = if connected > 0 { connected } else { away };
        if all == 0 {
            return None;
        }
        let mut place = share.turn % all;
        share.turn = share.turn.wrapping_add(1);
        let choice = if place < among(mine) {
            Choice::Here
        } else {
            place -= among(mine);
            let chosen = share.elsewhere.iter().find(|(_, members)| {
                let found = place < among(*members);
                place = place.wrapping_sub(if found { 0 } else { among(*members) });
                found
            });
            chosen.map_or(Choice::Here, |(id, _)| Choice::Loop(*id))
        };
        // Of the others' windows nothing is known, of those here everything.
        if choice == Choice::Here && connected > mine.connected && !share.has_room(room) {
            let others = || share.elsewhere.iter().filter(|(_, members)| members.connected > 0);
            let other = others().nth(share.turn as usize % others().count().max(1));
            return other.map(|(id, _)| Choice::Loop(*id));
        }
        Some(choice)
    }

    /// Has a member of this loop room now?
    pub(crate) fn has_room(&self, id: ShareId, room: impl Fn(K) -> Room) -> bool {
        self.shares.get(id as usize).is_some_and(|share| share.has_room(room))
    }

    /// Which member of this loop gets a message, and what it subscribed with.
    pub(crate) fn choose_here(&mut self, id: ShareId, room: impl Fn(K) -> Room) -> Option<(K, &V)> {
        let share = self.shares.get_mut(id as usize)?;
        let count = share.here.len();
        let mut best: Option<(Room, usize)> = None;
        for at in (0..count).map(|step| (share.next + step) % count) {
            let room = room(share.here[at].key);
            if best.is_none_or(|(other, _)| room > other) {
                best = Some((room, at));
            }
            if room == Room::Ready {
                break;
            }
        }
        let (_, at) = best?;
        share.next = (at + 1) % count;
        let member = &share.here[at];
        Some((member.key, &member.value))
    }

    fn id_or_new(&mut self, name: &str) -> (ShareId, bool) {
        if let Some(id) = self.id(name) {
            return (id, false);
        }
        let name: Arc<str> = name.into();
        let share = Share { name: Arc::clone(&name), here: Vec::new(), elsewhere: SmallVec::new(), turn: 0, next: 0 };
        let id = ShareId::try_from(self.shares.insert(share)).expect("4 billion shares do not fit the memory limit");
        self.by_name.insert(name, id);
        (id, true)
    }
}

impl<K: Copy, V> Share<K, V> {
    fn has_room(&self, room: impl Fn(K) -> Room) -> bool {
        self.here.iter().any(|member| room(member.key) == Room::Ready)
    }

    fn members_here(&self) -> Members {
        let connected = self.here.iter().filter(|member| member.is_connected).count();
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Members { connected: count(connected), away: count(self.here.len() - connected) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    type TestShares = Shares<u8, &'static str>;
    const NAME: &str = "$share/g/a/#";

    fn group(members: &[(u8, bool)]) -> (TestShares, ShareId) {
        let mut shares = TestShares::new();
        let mut id = 0;
        for &(key, is_connected) in members {
            id = shares.join(NAME, key, "options", is_connected).0;
        }
        (shares, id)
    }

    fn chosen(shares: &mut TestShares, id: ShareId, room: impl Fn(u8) -> Room) -> u8 {
        shares.choose_here(id, room).unwrap().0
    }

    #[test]
    fn members_take_turns_and_those_with_room_come_first() {
        let (mut shares, id) = group(&[(1, true), (2, true), (3, true)]);
        let ready = |_| Room::Ready;
        assert_eq!([0; 4].map(|_| chosen(&mut shares, id, ready)), [1, 2, 3, 1]);
        let two_is_full = |key| if key == 2 { Room::Full } else { Room::Ready };
        assert_eq!([0; 3].map(|_| chosen(&mut shares, id, two_is_full)), [3, 1, 3]);
        let one_is_here = |key| if key == 1 { Room::Full } else { Room::Away };
        assert_eq!([0; 2].map(|_| chosen(&mut shares, id, one_is_here)), [1, 1]);
        assert_eq!([0; 3].map(|_| chosen(&mut shares, id, |_| Room::Away)), [2, 3, 1]);
    }

    #[test]
    fn loops_get_their_members_share() {
        let (mut shares, id) = group(&[(1, true), (2, true)]);
        assert_eq!(shares.hear(NAME, LoopId(2), Members { connected: 1, away: 5 }), Some((id, false)));
        shares.hear(NAME, LoopId(1), Members { connected: 3, away: 0 });
        let mut counts = [0; 3];
        for _ in 0..600 {
            match shares.choose_loop(id, |_| Room::Ready).unwrap() {
                Choice::Here => counts[0] += 1,
                Choice::Loop(id) => counts[id.index()] += 1,
            }
        }
        assert_eq!(counts, [200, 300, 100]);
        // Nobody here has room: somebody elsewhere may have.
        assert!((0..6).all(|_| shares.choose_loop(id, |_| Room::Full) != Some(Choice::Here)));
    }

    #[test]
    fn who_is_away_waits_until_nobody_is_connected() {
        let (mut shares, id) = group(&[(1, false)]);
        shares.hear(NAME, LoopId(1), Members { connected: 1, away: 0 });
        assert!((0..4).all(|_| shares.choose_loop(id, |_| Room::Away) == Some(Choice::Loop(LoopId(1)))));
        shares.hear(NAME, LoopId(1), Members { connected: 0, away: 1 });
        let choices = [0; 2].map(|_| shares.choose_loop(id, |_| Room::Away).unwrap());
        assert!(choices.contains(&Choice::Here) && choices.contains(&Choice::Loop(LoopId(1))));
        shares.hear(NAME, LoopId(1), Members::default());
        assert_eq!(shares.choose_loop(id, |_| Room::Away), Some(Choice::Here));
        assert_eq!(shares.leave(NAME, 1), Some("options"));
        assert_eq!(shares.choose_loop(id, |_| Room::Away), None);
        assert!(shares.drop_if_empty(id) && shares.id(NAME).is_none());
        assert_eq!(
            shares.hear(NAME, LoopId(1), Members::default()),
            None,
            "nothing is kept of a share without members"
        );
    }

    proptest! {
        /// Whoever comes and goes: a message finds a member if there is one, connected if one is, and nothing is left over.
        #[test]
        fn a_message_finds_a_member(steps in vec((0..4_u8, 0..4_u8, any::<bool>()), 1..80)) {
            let (mut shares, mut members) = (TestShares::new(), std::collections::BTreeMap::new());
            for (what, key, flag) in steps {
                match what {
                    0 => {
                        let replaced = shares.join(NAME, key, "options", flag).2.is_some();
                        prop_assert_eq!(replaced, members.contains_key(&key));
                        members.entry(key).or_insert(flag);
                    }
                    1 => {
                        prop_assert_eq!(shares.leave(NAME, key).is_some(), members.remove(&key).is_some());
                        if let Some(id) = shares.id(NAME) {
                            prop_assert_eq!(shares.drop_if_empty(id), members.is_empty());
                        }
                    }
                    _ => {
                        let changes = members.get_mut(&key).is_some_and(|old| std::mem::replace(old, flag) != flag);
                        prop_assert_eq!(shares.set_connected(NAME, key, flag), changes);
                    }
                }
                let room = |key: u8| if members[&key] { Room::Ready } else { Room::Away };
                let Some(id) = shares.id(NAME) else {
                    prop_assert!(members.is_empty());
                    continue;
                };
                prop_assert_eq!(shares.choose_loop(id, room), Some(Choice::Here));
                let (key, _) = shares.choose_here(id, room).unwrap();
                prop_assert_eq!(members[&key], members.values().any(|connected| *connected));
            }
        }
    }
}
