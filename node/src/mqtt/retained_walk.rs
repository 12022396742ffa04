//! A walk over the retained messages that match a filter, in steps: the loop turns and others write between two steps.
//!
//! Where a wildcard leaves no doubt, the walk jumps over what cannot match, so that a filter such as `+/state` costs two looks for each
//! first level, whatever lies below it. A step looks at [`LOOKS`] topics at most and holds the index's lock only for that long.

use std::ops::Bound;

use super::{
    retained::Retained,
    retained_entry::{Entry, SEPARATOR, key_of},
};

/// Topics that one step looks at.
pub(crate) const LOOKS: usize = 512;

/// Looks that a SUBSCRIBE costs at once.
const FEW_LOOKS: usize = 4;

/// Where a walk is.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    /// A valid filter, not shared.
    filter: Box<str>,
    /// The next key to look at is this one or the one after it.
    at: Vec<u8>,
    /// `at` itself has been taken.
    beyond: bool,
    /// What came after this change is not the walk's.
    until: u64,
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There may be more.
    More,
    /// `take` had no room.
    Full,
    Done,
}

/// What a key means to a filter.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Match,
    /// The next match may be the next key.
    Next,
    /// No key before this one matches.
    Seek(Vec<u8>),
    /// No key from here on matches.
    Done,
}

impl Walk {
    /// A walk over what is retained now.
    pub(crate) fn new(filter: &str, retained: &Retained) -> Self {
        // Nothing before the filter's literal beginning can match; `a/#` matches `a`.
        let literal = match filter.find(['+', '#']) {
            None => filter,
            Some(wildcard) => filter[..wildcard].strip_suffix('/').unwrap_or_default(),
        };
        let at = key_of(literal);
        Self { filter: filter.into(), at, beyond: false, until: retained.read().serial }
    }

    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    /// Is it plain after a few looks that nothing matches?
    pub(crate) fn finds_nothing(&self, retained: &Retained, now: u64) -> bool {
        self.clone().look(retained, now, FEW_LOOKS, |_| false) == Step::Done
    }

    /// Looks at the next topics. `take` gets each message that matches and says whether it took it; if not, the walk stays
    /// before it.
    pub(crate) fn step(&mut self, retained: &Retained, now: u64, take: impl FnMut(&Entry) -> bool) -> Step {
        self.look(retained, now, LOOKS, take)
    }

    fn look(&mut self, retained: &Retained, now: u64, most: usize, mut take: impl FnMut(&Entry) -> bool) -> Step {
        let index = retained.read();
        let mut looks = 0;
        'seek: loop {
            let from = if self.beyond { Bound::Excluded(&self.at[..]) } else { Bound::Included(&self.at[..]) };
            let mut last: Option<&Entry> = None;
            for entry in index.entries.range::<[u8], _>((from, Bound::Unbounded)) {
                let key = entry.key();
                if looks == most {
                    self.move_to(last.map(Entry::key), true);
                    return Step::More;
                }
                looks += 1;
                match judge(&self.filter, key) {
                    Verdict::Done => return Step::Done,
                    Verdict::Next => {}
                    Verdict::Seek(to) => {
                        debug_assert!(to[..] > *key, "a walk goes forward");
                        self.move_to(Some(&to), false);
                        continue 'seek;
                    }
                    Verdict::Match if entry.serial() > self.until || entry.is_expired(now) => {}
                    Verdict::Match if take(entry) => {}
                    Verdict::Match => {
                        self.move_to(Some(key), false);
                        return Step::Full;
                    }
                }
                last = Some(entry);
            }
            return Step::Done;
        }
    }

    fn move_to(&mut self, key: Option<&[u8]>, beyond: bool) {
        if let Some(key) = key {
            self.at.clear();
            self.at.extend_from_slice(key);
            self.beyond = beyond;
        }
    }
}

/// Compares a key with a filter, level by level.
fn judge(filter: &str, key: &[u8]) -> Verdict {
    let mut rest = Some(key);
    // Where the level begins, and whether the filter had no wildcard before it.
    let (mut begin, mut literal) = (0, true);
    for wanted in filter.split('/') {
        let is_wildcard = matches!(wanted, "+" | "#");
        if is_wildcard && begin == 0 && key.first() == Some(&b'$') {
            // [MQTT-4.7.2-1]: wildcards do not match a first level that begins with '$'.
            return Verdict::Seek(vec![b'$' + 1]);
        }
        if wanted == "#" {
            return Verdict::Match;
        }
        let Some(now) = rest else {
            // The key ends above the filter: what matches lies below it.
            if is_wildcard {
                return Verdict::Next;
            }
            let mut to = key.to_vec();
            to.push(SEPARATOR);
            to.extend_from_slice(wanted.as_bytes());
            return Verdict::Seek(to);
        };
        let end = memchr::memchr(SEPARATOR, now).unwrap_or(now.len());
        if is_wildcard {
            literal = false;
        } else {
            match now[..end].cmp(wanted.as_bytes()) {
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Less => return Verdict::Seek([&key[..begin], wanted.as_bytes()].concat()),
                std::cmp::Ordering::Greater if literal => return Verdict::Done,
                std::cmp::Ordering::Greater => return beyond(&key[..begin - 1]),
            }
        }
        rest = now.get(end + 1..);
        begin += end + 1;
    }
    match rest {
        None => Verdict::Match,
        Some(_) if literal => Verdict::Done,
        Some(_) => beyond(&key[..begin - 1]),
    }
}

/// To the first key that is neither `key` nor below it.
fn beyond(key: &[u8]) -> Verdict {
    Verdict::Seek([key, &[SEPARATOR + 1]].concat())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::mqtt::{
        packet::QoS,
        retained::Limits,
        retained_entry::Parts,
        topic::{check_filter, check_topic_name, matches},
    };

    fn retained(topics: &[String]) -> Retained {
        let retained = Retained::new(Limits { messages: usize::MAX, bytes: usize::MAX });
        for topic in topics {
            set(&retained, topic);
        }
        retained
    }

    fn set(retained: &Retained, topic: &str) {
        let parts = Parts { topic, payload: b"1", qos: QoS::AtMostOnce, properties: &[], deadline: None };
        retained.set(&parts).unwrap();
    }

    fn levels() -> impl Strategy<Value = &'static str> {
        select(vec!["a", "b", "", "$x", "a-", "ä", "%", "\u{1}", "+"])
    }

    fn filter() -> impl Strategy<Value = String> {
        (vec(levels(), 1..5), any::<bool>()).prop_filter_map("not a filter", |(levels, hash)| {
            let filter = levels.join("/") + if hash { "/#" } else { "" };
            let filter = if filter == "a/#" { "#".to_owned() } else { filter };
            check_filter(&filter).ok().map(|_| filter.clone())
        })
    }

    fn topics() -> impl Strategy<Value = Vec<String>> {
        let topic = vec(levels(), 1..5).prop_filter_map("not a topic", |levels| {
            let topic = levels.join("/");
            check_topic_name(&topic).ok().map(|()| topic.clone())
        });
        vec(topic, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// In whatever portions it is taken.
        #[test]
        fn a_walk_finds_what_matches_once_and_in_order(topics in topics(), filter in filter(), portion in 1..5_usize) {
            let retained = retained(&topics);
            let mut walk = Walk::new(&filter, &retained);
            let mut found = Vec::new();
            loop {
                let mut room = portion;
                let step = walk.step(&retained, 0, |entry| {
                    let takes = room > 0;
                    if takes {
                        room -= 1;
                        found.push(entry.topic());
                    }
                    takes
                });
                match step {
                    Step::Done => break,
                    Step::Full => prop_assert_eq!(room, 0),
                    Step::More => {}
                }
            }
            let mut expected: Vec<_> = topics.iter().filter(|topic| matches(&filter, topic)).cloned().collect();
            expected.sort_by_key(|topic| crate::mqtt::retained_entry::key_of(topic));
            expected.dedup();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_walk_does_not_see_what_comes_after_it_began() {
        let retained = retained(&["a/1", "a/2", "a/3"].map(str::to_owned));
        let mut walk = Walk::new("a/#", &retained);
        for topic in ["a/2", "a/4"] {
            set(&retained, topic);
        }
        let mut found = Vec::new();
        let step = walk.step(&retained, 0, |entry| {
            found.push(entry.topic());
            true
        });
        assert_eq!((step, found), (Step::Done, vec!["a/1".to_owned(), "a/3".to_owned()]));
    }

    #[test]
    fn a_walk_jumps_over_what_cannot_match() {
        let topics: Vec<_> = (0..100).flat_map(|d| (0..100).map(move |n| format!("d{d}/x/{n}"))).collect();
        let retained = retained(&topics);
        set(&retained, "d50/state");
        let mut walk = Walk::new("+/state", &retained);
        let mut steps = 0;
        let mut found = 0;
        while walk.step(&retained, 0, |_| {
            found += 1;
            true
        }) != Step::Done
        {
            steps += 1;
        }
        assert_eq!((found, steps), (1, 0), "10,000 topics within {LOOKS} looks");
    }
}
