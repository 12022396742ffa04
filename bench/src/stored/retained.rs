//! The retained messages, asked for a filter at a time: every topic of it must come once, with its payload.

use anyhow::{Result, bail, ensure};

use super::messages::{self, GROUP};
use super::tally::Tally;
use super::visits::{KEEP_ALIVE_S, Next, Visit};
use crate::mqtt;

/// Subscribes to one filter and reads what it matches.
#[derive(Default)]
pub(crate) struct Topics {
    pub(crate) tally: Tally,
}

/// What a reader has seen of its group.
pub(crate) struct Seen {
    group: usize,
    answered: bool,
    topics: Vec<bool>,
    left: usize,
}

impl Visit for Topics {
    type State = Seen;

    fn begin(&self, group: usize) -> (Seen, Vec<u8>) {
        let hello = mqtt::connect(&format!("reader-{group:04}"), KEEP_ALIVE_S);
        (Seen { group, answered: false, topics: vec![false; GROUP], left: GROUP }, hello)
    }

    fn on_packet(&mut self, seen: &mut Seen, first: u8, body: &[u8], out: &mut Vec<u8>) -> Result<Next> {
        match (first >> 4, body) {
            (mqtt::CONNACK, [0, 0]) => {
                out.extend_from_slice(&mqtt::subscribe_with_acks(&messages::group_filter(seen.group)));
            }
            (mqtt::SUBACK, [_, _, 1]) => seen.answered = true,
            (mqtt::PUBLISH, body) => {
                let message = mqtt::message(first, body)?;
                out.extend(message.id.iter().flat_map(|id| mqtt::puback(*id)));
                let number = messages::retained_number(message.topic);
                let new = number.and_then(|number| Some((number, seen.place(number)?)));
                match new {
                    Some((number, place)) => {
                        *place = true;
                        seen.left -= 1;
                        let same = message.payload == messages::retained(number).as_bytes();
                        self.tally.came(same && message.retain && message.id.is_some());
                        if seen.left == 0 {
                            // The answer comes behind whatever else waits.
                            out.extend_from_slice(&mqtt::PINGREQ);
                        }
                    }
                    None => self.tally.extra += 1,
                }
            }
            (mqtt::PINGRESP, []) => return Ok(Next::Over),
            (kind, body) => bail!("reader {} got a packet of type {kind}: {body:?}", seen.group),
        }
        Ok(Next::More)
    }

    fn give_up(&mut self, seen: Seen) -> Result<()> {
        ensure!(seen.answered, "reader {} was not answered", seen.group);
        self.tally.missing += seen.left as u64;
        Ok(())
    }
}

impl Seen {
    /// The place of a message of this group that has not been seen.
    fn place(&mut self, number: usize) -> Option<&mut bool> {
        let item = number.checked_sub(self.group * GROUP)?;
        self.topics.get_mut(item).filter(|seen| !**seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Publish;

    fn publish(number: usize, payload: &str) -> Vec<u8> {
        Publish::retained(&messages::retained_topic(number), payload.as_bytes()).bytes(1).to_vec()
    }

    /// What is counted of a reader of group 2 that gets `packets` behind its SUBACK, and whether it was over.
    fn read(packets: &[u8]) -> (Tally, bool) {
        let mut topics = Topics::default();
        let (mut seen, _) = topics.begin(2);
        let (mut out, mut next) = (Vec::new(), Next::More);
        let whole = [&[0x20, 2, 0, 0, 0x90, 3, 0, 1, 1], packets].concat();
        mqtt::packets_with_flags(&whole, |first, body| {
            next = topics.on_packet(&mut seen, first, body, &mut out)?;
            Ok(())
        })
        .expect("no error");
        if next == Next::More {
            topics.give_up(seen).expect("answered");
        }
        (topics.tally, next == Next::Over)
    }

    #[test]
    fn a_group_that_is_whole_is_over() {
        let mut all: Vec<u8> = (2_000..3_000).flat_map(|number| publish(number, &messages::retained(number))).collect();
        all.extend([0xD0, 0]);
        assert_eq!(read(&all), (Tally { right: 1_000, ..Tally::default() }, true));
    }

    #[test]
    fn whatever_else_comes_is_counted() {
        let right = publish(2_000, &messages::retained(2_000));
        let counted = |packets: &[&[u8]]| {
            let (Tally { right, missing, wrong, extra }, over) = read(&packets.concat());
            assert!(!over);
            (right, missing, wrong, extra)
        };
        assert_eq!(counted(&[&right]), (1, 999, 0, 0));
        assert_eq!(counted(&[&right, &right]), (1, 999, 0, 1), "twice");
        assert_eq!(counted(&[&publish(2_000, &messages::retained(2_001))]), (0, 999, 1, 0), "another's payload");
        assert_eq!(counted(&[&publish(3_000, &messages::retained(3_000))]), (0, 1_000, 0, 1), "of another group");
        let mut live = right;
        live[0] = 0x32;
        assert_eq!(counted(&[&live]), (0, 999, 1, 0), "without the retain flag");
    }
}
