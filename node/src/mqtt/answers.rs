//! The PUBLISHes of a connection that wait for their PUBACK or PUBREC, which go out in the order of the PUBLISHes
//! ([MQTT-4.6.0-2], [MQTT-4.6.0-3]). What has come of each is decided elsewhere; here is only when it may be said.

use std::{collections::VecDeque, num::NonZeroU16};

use super::reason::ReasonCode;

/// The waiting PUBLISHes of one connection, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    waiting: VecDeque<Waiting>,
    /// What answers say in words, beside the reason code; hardly any connection has one.
    #[expect(clippy::box_collection, reason = "an idle connection pays 8 bytes for it, not 24")]
    remarks: Option<Box<Vec<Remark>>>,
}

type Remark = (NonZeroU16, Box<str>);

#[derive(Debug)]
struct Waiting {
    id: NonZeroU16,
    /// Is it answered by a PUBREC?
    exactly_once: bool,
    /// Answers that are still to come: the device's, and the receipt of those who have stored the message.
    missing: u8,
    /// The worst of those that have come.
    reason: ReasonCode,
}

/// An answer that may go out now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) id: NonZeroU16,
    /// A PUBREC, not a PUBACK.
    pub(crate) exactly_once: bool,
    pub(crate) reason: ReasonCode,
    /// The reason string, or empty.
    pub(crate) remark: Box<str>,
}

impl Answers {
    /// How many PUBLISHes wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A PUBLISH that has come: it waits for one answer.
    pub(crate) fn expect(&mut self, id: NonZeroU16, exactly_once: bool) {
        self.waiting.push_back(Waiting { id, exactly_once, missing: 1, reason: ReasonCode::SUCCESS });
    }

    /// The latest PUBLISH with this packet id waits for one answer more.
    pub(crate) fn expect_more(&mut self, id: NonZeroU16) {
        if let Some(latest) = self.waiting.iter_mut().rev().find(|waiting| waiting.id == id) {
            latest.missing += 1;
        }
    }

    /// An answer has come.
    pub(crate) fn answer(&mut self, id: NonZeroU16, reason: ReasonCode) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.id == id && waiting.missing > 0) {
            waiting.missing -= 1;
            waiting.reason = waiting.reason.max(reason);
        }
    }

    /// Adds to what an answer will say in words.
    pub(crate) fn remark(&mut self, id: NonZeroU16, text: &str) {
        let remarks = self.remarks.get_or_insert_default();
        match remarks.iter_mut().find(|(of, _)| *of == id) {
            Some((_, said)) => *said = format!("{said}; {text}").into(),
            None => remarks.push((id, text.into())),
        }
    }

    /// Takes the next answer that may go out.
    pub(crate) fn due(&mut self) -> Option<Due> {
        let Waiting { id, exactly_once, reason, .. } = self.waiting.pop_front_if(|first| first.missing == 0)?;
        let mut remark = None;
        if let Some(remarks) = &mut self.remarks {
            remark = remarks.iter().position(|(of, _)| *of == id).map(|at| remarks.remove(at).1);
            if remarks.is_empty() {
                self.remarks = None;
            }
        }
        Some(Due { id, exactly_once, reason, remark: remark.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).expect("not 0")
    }

    #[test]
    fn answers_go_out_in_order_and_when_the_last_part_has_come() {
        let mut answers = Answers::default();
        answers.expect(id(1), false);
        answers.expect_more(id(1));
        answers.expect(id(2), true);
        answers.answer(id(2), ReasonCode::SUCCESS);
        assert_eq!(answers.due(), None, "the first one is still waiting");
        answers.answer(id(1), ReasonCode::QUOTA_EXCEEDED);
        assert_eq!(answers.due(), None, "half of its answer has come");
        answers.remark(id(1), "a");
        answers.remark(id(1), "b");
        answers.answer(id(1), ReasonCode::SUCCESS);
        let first = answers.due().expect("its answer is complete");
        assert_eq!((first.id, first.exactly_once, first.reason), (id(1), false, ReasonCode::QUOTA_EXCEEDED));
        assert_eq!(&*first.remark, "a; b");
        let second = answers.due().expect("it was answered before");
        assert_eq!((second.id, second.exactly_once, &*second.remark), (id(2), true, ""));
        assert_eq!((answers.due(), answers.len()), (None, 0));
    }

    #[test]
    fn one_packet_id_twice_is_answered_twice() {
        let mut answers = Answers::default();
        answers.expect(id(5), false);
        answers.expect(id(5), false);
        answers.answer(id(5), ReasonCode::SUCCESS);
        assert!(answers.due().is_some() && answers.due().is_none());
        answers.answer(id(5), ReasonCode::SUCCESS);
        assert!(answers.due().is_some());
    }
}
