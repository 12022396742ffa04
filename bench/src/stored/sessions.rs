//! Sessions that are stored: the visits that make them, and those that ask for them again.

use anyhow::{Result, bail, ensure};

use super::messages;
use super::tally::Tally;
use super::visits::{KEEP_ALIVE_S, Next, Visit};
use crate::mqtt;

/// Makes a session: CONNECT without a clean session, SUBSCRIBE with QoS 1.
pub(crate) struct Making;

impl Visit for Making {
    /// The session's number.
    type State = usize;

    fn begin(&self, number: usize) -> (usize, Vec<u8>) {
        (number, mqtt::connect_stored(&messages::client(number), KEEP_ALIVE_S))
    }

    fn on_packet(&mut self, number: &mut usize, first: u8, body: &[u8], out: &mut Vec<u8>) -> Result<Next> {
        match (first >> 4, body) {
            (mqtt::CONNACK, [0, 0]) => out.extend_from_slice(&mqtt::subscribe_with_acks(&messages::inbox(*number))),
            (mqtt::SUBACK, [_, _, 1]) => return Ok(Next::Over),
            (kind, body) => bail!("new session {number} got a packet of type {kind}: {body:?}"),
        }
        Ok(Next::More)
    }

    fn give_up(&mut self, number: usize) -> Result<()> {
        bail!("new session {number} got no answer")
    }
}

/// Resumes a session: it is there, and so is its message, once.
#[derive(Default)]
pub(crate) struct Resuming {
    pub(crate) sessions: Tally,
    pub(crate) messages: Tally,
}

/// What a client that is back has seen.
#[derive(Debug)]
pub(crate) struct Back {
    number: usize,
    answered: bool,
    came: bool,
}

impl Visit for Resuming {
    type State = Back;

    fn begin(&self, number: usize) -> (Back, Vec<u8>) {
        let hello = mqtt::connect_stored(&messages::client(number), KEEP_ALIVE_S);
        (Back { number, answered: false, came: false }, hello)
    }

    fn on_packet(&mut self, back: &mut Back, first: u8, body: &[u8], out: &mut Vec<u8>) -> Result<Next> {
        match (first >> 4, body) {
            (mqtt::CONNACK, [present, 0]) => {
                back.answered = true;
                if *present == 1 {
                    self.sessions.came(true);
                } else {
                    // A session that begins anew has no messages.
                    self.sessions.missing += 1;
                    self.messages.missing += 1;
                    return Ok(Next::Over);
                }
            }
            (mqtt::PUBLISH, body) => {
                let message = mqtt::message(first, body)?;
                let expected = (messages::inbox(back.number), messages::queued(back.number));
                if std::mem::replace(&mut back.came, true) {
                    self.messages.extra += 1;
                } else {
                    let same = (message.topic, message.payload) == (expected.0.as_bytes(), expected.1.as_bytes());
                    self.messages.came(same && message.id.is_some() && !message.retain);
                    // The answer comes behind whatever else waits.
                    out.extend_from_slice(&mqtt::PINGREQ);
                }
                out.extend(message.id.iter().flat_map(|id| mqtt::puback(*id)));
            }
            (mqtt::PINGRESP, []) => return Ok(Next::Over),
            (kind, body) => bail!("resumed session {} got a packet of type {kind}: {body:?}", back.number),
        }
        Ok(Next::More)
    }

    fn give_up(&mut self, back: Back) -> Result<()> {
        ensure!(back.answered, "session {} got no CONNACK", back.number);
        if !back.came {
            self.messages.missing += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Publish;

    /// A resumed session number 5 gets `packets` and is given up in the end if it is not over: the tallies of the session and of
    /// its message, and what the client sent.
    fn resume(packets: &[&[u8]]) -> Result<(Tally, Tally, Vec<u8>)> {
        let mut resuming = Resuming::default();
        let (mut back, _) = resuming.begin(5);
        let (mut out, mut next) = (Vec::new(), Next::More);
        mqtt::packets_with_flags(&packets.concat(), |first, body| {
            next = resuming.on_packet(&mut back, first, body, &mut out)?;
            Ok(())
        })?;
        if next == Next::More {
            resuming.give_up(back)?;
        }
        Ok((resuming.sessions, resuming.messages, out))
    }

    const PRESENT: &[u8] = &[0x20, 2, 1, 0];
    const PINGRESP: &[u8] = &[0xD0, 0];

    fn waiting(number: usize, with_ack: bool) -> Vec<u8> {
        let topic = messages::inbox(5);
        Publish::new(&topic, messages::queued(number).as_bytes(), with_ack).bytes(9).to_vec()
    }

    #[test]
    fn a_session_that_is_as_it_was_is_acknowledged() {
        let (sessions, messages, out) = resume(&[PRESENT, &waiting(5, true), PINGRESP]).expect("no error");
        assert!(sessions.complete(1) && messages.complete(1), "{sessions:?} {messages:?}");
        assert_eq!(out, [&mqtt::PINGREQ[..], &mqtt::puback(9)].concat());
    }

    #[test]
    fn whatever_else_comes_is_counted() {
        let right = waiting(5, true);
        let one = |right, missing, wrong, extra| Tally { right, missing, wrong, extra };
        let cases: [(&[&[u8]], Tally, Tally); 6] = [
            (&[&[0x20, 2, 0, 0]], one(0, 1, 0, 0), one(0, 1, 0, 0)),
            (&[PRESENT], one(1, 0, 0, 0), one(0, 1, 0, 0)),
            (&[PRESENT, &waiting(6, true), PINGRESP], one(1, 0, 0, 0), one(0, 0, 1, 0)),
            (&[PRESENT, &waiting(5, false), PINGRESP], one(1, 0, 0, 0), one(0, 0, 1, 0)),
            (&[PRESENT, &right, &right, PINGRESP], one(1, 0, 0, 0), one(1, 0, 0, 1)),
            (&[PRESENT, &right], one(1, 0, 0, 0), one(1, 0, 0, 0)),
        ];
        for (packets, sessions, messages) in cases {
            let counted = resume(packets).expect("no error");
            assert_eq!((counted.0, counted.1), (sessions, messages), "{packets:?}");
        }
        assert!(resume(&[]).is_err(), "no CONNACK");
        assert!(resume(&[&[0x20, 2, 0, 5]]).is_err(), "refused");
    }

    #[test]
    fn a_new_session_subscribes_and_leaves() {
        let (mut number, hello) = Making.begin(5);
        assert_eq!(hello[9], 0, "no clean session");
        let mut out = Vec::new();
        assert_eq!(Making.on_packet(&mut number, 0x20, &[0, 0], &mut out).expect("accepted"), Next::More);
        assert_eq!(out, mqtt::subscribe_with_acks("stored/0000005/in"));
        assert_eq!(Making.on_packet(&mut number, 0x90, &[0, 1, 1], &mut out).expect("granted"), Next::Over);
        assert!(Making.on_packet(&mut number, 0x90, &[0, 1, 0x80], &mut out).is_err(), "refused");
        assert!(Making.on_packet(&mut number, 0x20, &[1, 0], &mut out).is_err(), "there was one already");
    }
}
