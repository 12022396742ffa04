//! Topic aliases of one connection (section 3.3.2.3.4): the client's, and those that the node gives to a subscriber who takes them.

use std::{hash::BuildHasher, num::NonZeroU16, rc::Rc};

use hashbrown::DefaultHashBuilder;
use tidegate_actors::limits;

use super::reason::{CodecError, ReasonCode};

/// The client's aliases.
#[derive(Debug, Default)]
pub(crate) struct InboundAliases {
    topics: Vec<Option<Rc<str>>>,
    bytes: usize,
}

impl InboundAliases {
    /// The topic of a PUBLISH that has an alias: its own, which the alias stands for from now on, or if it has none the one that
    /// the alias stands for. `most` is what the CONNACK said.
    ///
    /// # Errors
    /// An alias that is above `most`, or that stands for nothing, or topics that are too long together.
    pub(crate) fn resolve(&mut self, alias: NonZeroU16, topic: &str, most: u16) -> Result<Rc<str>, CodecError> {
        let index = usize::from(alias.get()) - 1;
        if alias.get() > most {
            let detail = format!("topic alias {alias}, but the CONNACK says Topic Alias Maximum {most} [MQTT-3.3.2-9]");
            return Err(CodecError::new(ReasonCode::TOPIC_ALIAS_INVALID, detail));
        }
        if topic.is_empty() {
            return self.topics.get(index).cloned().flatten().ok_or_else(|| {
                CodecError::protocol(format!("topic alias {alias} stands for no topic yet [MQTT-3.3.4]"))
            });
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        let before = self.topics[index].as_ref().map_or(0, |topic| topic.len());
        if self.topics[index].as_deref() != Some(topic) {
            let bytes = self.bytes - before + topic.len();
            if bytes > limits::MQTT_TOPIC_ALIAS_BYTES {
                let most = limits::MQTT_TOPIC_ALIAS_BYTES;
                let detail = format!(
                    "the topics of all aliases take {bytes} bytes, at most {most} (limit mqtt_topic_alias_bytes)"
                );
                return Err(CodecError::new(ReasonCode::QUOTA_EXCEEDED, detail));
            }
            self.bytes = bytes;
            self.topics[index] = Some(topic.into());
        }
        Ok(self.topics[index].clone().expect("it has just been set"))
    }
}

/// The aliases that the node gives.
#[derive(Debug)]
pub(crate) struct OutboundAliases {
    most: u16,
    hasher: DefaultHashBuilder,
    topics: Vec<(u64, Box<str>)>,
    /// Whose alias is given away next, when all are in use.
    next: usize,
    /// Hashes of topics that were sent without an alias lately: once all are in use, a topic gets one the second time.
    recent: [u64; RECENT],
    oldest: usize,
}

/// Topics that are remembered, in case they come again.
const RECENT: usize = 8;
/// Longer topics get no alias: it would hold their text.
const LONGEST: usize = 1_024;

/// How a topic is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As it is.
    Full,
    /// As it is, and from now on the alias stands for it.
    Given(NonZeroU16),
    /// By its alias alone.
    Short(NonZeroU16),
}

impl OutboundAliases {
    /// For a client that takes `most` aliases.
    pub(crate) fn new(most: u16) -> Self {
        Self {
            most: most.min(limits::MQTT_OUTBOUND_ALIASES),
            hasher: DefaultHashBuilder::default(),
            topics: Vec::new(),
            next: 0,
            recent: [0; RECENT],
            oldest: 0,
        }
    }

    /// How to write a topic. [`OutboundAliases::written`] must follow if it was.
    pub(crate) fn spell(&self, topic: &str) -> Spelling {
        if topic.len() > LONGEST || self.most == 0 {
            return Spelling::Full;
        }
        let hash = self.hasher.hash_one(topic);
        if let Some(index) = self.topics.iter().position(|(of, text)| *of == hash && **text == *topic) {
            return Spelling::Short(alias(index));
        }
        if self.topics.len() < usize::from(self.most) {
            return Spelling::Given(alias(self.topics.len()));
        }
        if self.recent.contains(&hash) { Spelling::Given(alias(self.next)) } else { Spelling::Full }
    }

    /// A topic was written so.
    pub(crate) fn written(&mut self, topic: &str, spelling: Spelling) {
        let hash = self.hasher.hash_one(topic);
        match spelling {
            Spelling::Short(_) => {}
            Spelling::Full => {
                self.recent[self.oldest] = hash;
                self.oldest = (self.oldest + 1) % RECENT;
            }
            Spelling::Given(alias) => {
                let index = usize::from(alias.get()) - 1;
                if index == self.topics.len() {
                    self.topics.push((hash, topic.into()));
                } else {
                    self.topics[index] = (hash, topic.into());
                    self.next = (index + 1) % self.topics.len();
                }
            }
        }
    }
}

fn alias(index: usize) -> NonZeroU16 {
    u16::try_from(index + 1).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).expect("not 0")
    }

    #[test]
    fn an_alias_stands_for_the_last_topic_that_it_came_with() {
        let mut aliases = InboundAliases::default();
        assert_eq!(aliases.resolve(id(1), "", 2).expect_err("no topic yet").reason, ReasonCode::PROTOCOL_ERROR);
        assert_eq!(&*aliases.resolve(id(2), "a", 2).expect("allowed"), "a");
        assert_eq!(&*aliases.resolve(id(2), "", 2).expect("known"), "a");
        assert_eq!(&*aliases.resolve(id(2), "b", 2).expect("allowed"), "b");
        assert_eq!(&*aliases.resolve(id(2), "", 2).expect("known"), "b");
        assert_eq!(aliases.resolve(id(3), "a", 2).expect_err("above").reason, ReasonCode::TOPIC_ALIAS_INVALID);
        assert_eq!(aliases.resolve(id(1), "", 2).expect_err("a gap").reason, ReasonCode::PROTOCOL_ERROR);
    }

    #[test]
    fn the_topics_of_all_aliases_have_a_bound() {
        let mut aliases = InboundAliases::default();
        let long = "x".repeat(limits::MQTT_TOPIC_ALIAS_BYTES / 2);
        for round in 0..3 {
            assert!(
                aliases.resolve(id(1), &format!("{round}{}", &long[1..]), 9).is_ok(),
                "it takes the former's place"
            );
        }
        assert!(aliases.resolve(id(2), &long, 9).is_ok());
        assert_eq!(aliases.resolve(id(3), "x", 9).expect_err("too much").reason, ReasonCode::QUOTA_EXCEEDED);
    }

    #[test]
    fn a_topic_gets_an_alias_while_there_are_some_and_then_when_it_comes_again() {
        let mut aliases = OutboundAliases::new(2);
        let mut write = |topic: &str| {
            let spelling = aliases.spell(topic);
            aliases.written(topic, spelling);
            spelling
        };
        assert_eq!(write("a"), Spelling::Given(id(1)));
        assert_eq!(write("a"), Spelling::Short(id(1)));
        assert_eq!((write("b"), write("b")), (Spelling::Given(id(2)), Spelling::Short(id(2))));
        assert_eq!(
            (write("c"), write("c")),
            (Spelling::Full, Spelling::Given(id(1))),
            "the oldest one's is given away"
        );
        assert_eq!((write("a"), write("a")), (Spelling::Full, Spelling::Given(id(2))));
        assert_eq!((write("c"), write("b")), (Spelling::Short(id(1)), Spelling::Full));
        assert_eq!(OutboundAliases::new(0).spell("a"), Spelling::Full);
    }

    #[test]
    fn topics_that_come_once_take_no_alias_away() {
        let mut aliases = OutboundAliases::new(1);
        aliases.written("often", aliases.spell("often"));
        for number in 0..1_000 {
            let topic = format!("t/{number}");
            assert_eq!(aliases.spell(&topic), Spelling::Full);
            aliases.written(&topic, Spelling::Full);
        }
        assert_eq!(aliases.spell("t/1"), Spelling::Full, "it is long ago");
        assert_eq!(aliases.spell("often"), Spelling::Short(id(1)));
    }
}
