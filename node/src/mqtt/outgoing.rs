//! The messages with QoS 1 and 2 that a session has for its client: those under way with their packet ids, and those that wait
//! behind them, in order ([MQTT-4.6.0-6]); and the names of the last ones with QoS 2 that are over.
//!
//! This is the bookkeeping alone; [`super::delivery`] writes and stores what follows from it.

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use smallvec::SmallVec;
use tidegate_actors::limits;

use super::{packet::QoS, router::Message, session::SessionKey, stored::Progress};
use crate::edge::EdgeLoop;

/// A message for one session.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) message: Arc<Message>,
    /// The lower of the message's and the subscriptions'.
    pub(crate) qos: QoS,
    /// The flag that the client sees.
    pub(crate) retain: bool,
    pub(crate) subscription_ids: SmallVec<[NonZeroU32; 1]>,
    /// The shared subscription that it came by.
    pub(crate) share: Option<Arc<str>>,
}

/// A message and the shared subscription that it came by.
pub(crate) type Shared = (Arc<str>, Arc<Message>);

/// A message that has its packet id.
#[derive(Debug)]
pub(crate) struct Inflight {
    /// Its place in the session's order.
    pub(crate) seq: u64,
    pub(crate) id: NonZeroU16,
    /// The message's name, see [`Message::origin`].
    pub(crate) origin: u64,
    pub(crate) phase: Phase,
    /// Has it been written, to this connection or an earlier one? Then it is written again with DUP.
    pub(crate) written: bool,
    /// What to write again: a session that ends with its connection keeps nothing, nor does one that waits for a PUBCOMP.
    pub(crate) parcel: Option<Parcel>,
}

/// How far a message under way has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its packet id is not durable yet, so it has not left (QoS 2 of a stored session), or it is behind one of which that is so.
    Held,
    /// It waits for its PUBACK or PUBREC.
    Sent,
    /// It has had its PUBREC and waits for its PUBCOMP.
    Released,
}

/// The messages of one session.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    last_id: u16,
    next_seq: u64,
    /// Oldest first; by rising `seq`.
    inflight: VecDeque<Inflight>,
    /// How many of `inflight`, from the front, have been taken up over this connection. They fill the client's window.
    current: usize,
    waiting: VecDeque<(u64, Parcel)>,
    waiting_bytes: usize,
    /// Messages that are over and may come again after a crash: their publisher's exchange can end after the client's. Oldest
    /// first, at most [`limits::MQTT_REMEMBERED`].
    done: VecDeque<Done>,
}

/// What is left of a message that is over.
#[derive(Debug)]
struct Done {
    seq: u64,
    origin: u64,
    /// When it was over, by the node's uptime; `None`: before this start.
    at: Option<u64>,
}

/// How much may wait in one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Parcel {
    /// Is it a command to the device whose session has this key, on this loop?
    pub(crate) fn is_command_to(&self, edge: &EdgeLoop, key: SessionKey) -> bool {
        self.message.command.as_ref().is_some_and(|to| to.is_for(edge.handle.id(), key))
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.message.topic.len() + self.message.payload.len() + self.message.properties.len()
    }
}

impl Outgoing {
    /// Messages that are not acknowledged and would go out again, and that wait.
    pub(crate) fn len(&self) -> usize {
        self.inflight.len() + self.waiting.len()
    }

    /// Messages that the client may not have had.
    pub(crate) fn undelivered(&self) -> usize {
        self.waiting.len() + self.inflight.iter().filter(|sent| sent.parcel.is_some()).count()
    }

    /// May another message wait? One of any size may if none does.
    pub(crate) fn has_room(&self, bytes: usize, limit: QueueLimit) -> bool {
        self.waiting.is_empty() || (self.waiting.len() < limit.messages && self.waiting_bytes + bytes <= limit.bytes)
    }

    /// Messages that this connection has been given and that are not over.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// Is nothing before a new message?
    pub(crate) fn is_level(&self) -> bool {
        self.waiting.is_empty() && self.current == self.inflight.len()
    }

    /// Has this connection something to be written?
    pub(crate) fn is_behind(&self) -> bool {
        !self.is_level()
    }

    /// Is the last message under way held? Then the next one is, too: they leave in order.
    pub(crate) fn is_holding(&self) -> bool {
        self.inflight.back().is_some_and(|last| last.phase == Phase::Held)
    }

    /// The number of the next message.
    pub(crate) fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    /// Lets a message wait.
    pub(crate) fn wait(&mut self, seq: u64, parcel: Parcel) {
        self.waiting_bytes += parcel.bytes();
        self.waiting.push_back((seq, parcel));
    }

    /// The next one that waits.
    pub(crate) fn next_waiting(&mut self) -> Option<(u64, Parcel)> {
        let next = self.waiting.pop_front()?;
        self.waiting_bytes -= next.1.bytes();
        if self.waiting.is_empty() {
            self.waiting.shrink_to(16);
        }
        Some(next)
    }

    /// Gives the next message a packet id; it belongs to this connection's window.
    pub(crate) fn begin(&mut self, seq: u64, (id, origin): (NonZeroU16, u64), phase: Phase, parcel: Option<Parcel>) {
        debug_assert_eq!(self.current, self.inflight.len());
        self.inflight.push_back(Inflight { seq, id, origin, phase, written: false, parcel });
        self.current += 1;
    }

    /// The next packet id that is not in use; there is one, for far fewer are under way than there are ids.
    pub(crate) fn take_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id).filter(|id| self.inflight.iter().all(|sent| sent.id != *id))
            {
                return id;
            }
        }
    }

    /// The next message under way that this connection has not been given yet; it has now.
    pub(crate) fn take_up(&mut self) -> Option<&mut Inflight> {
        let next = self.inflight.get_mut(self.current)?;
        self.current += 1;
        Some(next)
    }

    /// The message under way with this packet id.
    pub(crate) fn find(&mut self, id: NonZeroU16) -> Option<&mut Inflight> {
        self.inflight.iter_mut().take(self.current).find(|sent| sent.id == id)
    }

    /// The message under way with this number.
    pub(crate) fn by_seq(&mut self, seq: u64) -> Option<&mut Inflight> {
        let at = self.inflight.binary_search_by_key(&seq, |sent| sent.seq).ok()?;
        self.inflight.get_mut(at)
    }

    /// A message is over: acknowledged, refused, or not to be written.
    pub(crate) fn finish(&mut self, seq: u64) -> Option<Inflight> {
        let at = self.inflight.binary_search_by_key(&seq, |sent| sent.seq).ok()?;
        self.current -= usize::from(at < self.current);
        self.inflight.remove(at)
    }

    /// The connection has ended: the next one is given everything anew, but for what `is_over`.
    pub(crate) fn rewind(&mut self, is_over: impl Fn(&Parcel) -> bool) {
        self.current = 0;
        self.inflight.retain(|sent| !sent.parcel.as_ref().is_some_and(&is_over));
        self.waiting.retain(|(_, parcel)| !is_over(parcel));
        self.waiting_bytes = self.waiting.iter().map(|(_, parcel)| parcel.bytes()).sum();
    }

    /// Has the session this message already?
    pub(crate) fn has_origin(&self, origin: u64) -> bool {
        let mut waiting = self.waiting.iter().map(|(_, parcel)| parcel.message.origin);
        waiting.any(|of| of == origin)
            || self.inflight.iter().any(|sent| sent.origin == origin)
            || self.done.iter().any(|done| done.origin == origin)
    }

    /// Remembers the name of a message that is over, since `at` (by the node's uptime; `None`: since before this start).
    /// Returns the number of the one that is forgotten for it.
    pub(crate) fn remember(&mut self, seq: u64, origin: u64, at: Option<u64>) -> Option<u64> {
        self.next_seq = self.next_seq.max(seq);
        let forgotten = if self.done.len() >= limits::MQTT_REMEMBERED { self.done.pop_front() } else { None };
        self.done.push_back(Done { seq, origin, at });
        forgotten.map(|done| done.seq)
    }

    /// Forgets the names of the messages that were over before `moment`. Returns their numbers.
    pub(crate) fn forget_done_before(&mut self, moment: u64) -> Vec<u64> {
        let mut forgotten = Vec::new();
        self.done.retain(|done| {
            let is_old = done.at.is_some_and(|at| at < moment);
            if is_old {
                forgotten.push(done.seq);
            }
            !is_old
        });
        if self.done.is_empty() {
            self.done = VecDeque::new();
        }
        forgotten
    }

    /// Is there a name that time will make forgotten?
    pub(crate) fn will_forget(&self) -> bool {
        self.done.iter().any(|done| done.at.is_some())
    }

    /// The session is over. Returns how many messages are lost, and those that another member of their shared subscription may
    /// have: what was not sent, and what was sent with QoS 1 and not acknowledged ([MQTT-4.8.2-4], [MQTT-4.8.2-5]).
    pub(crate) fn into_shared(self) -> (usize, Vec<Shared>) {
        let all = self.undelivered();
        let may_go = |sent: &Inflight| {
            let qos = sent.parcel.as_ref().map(|parcel| parcel.qos);
            sent.phase == Phase::Held || (sent.phase == Phase::Sent && qos == Some(QoS::AtLeastOnce))
        };
        let sent = self.inflight.into_iter().filter(may_go).filter_map(|sent| sent.parcel);
        let parcels = sent.chain(self.waiting.into_iter().map(|(_, parcel)| parcel));
        let shared: Vec<_> = parcels.filter_map(|parcel| Some((parcel.share?, parcel.message))).collect();
        (all - shared.len(), shared)
    }

    /// The numbers of all messages.
    pub(crate) fn seqs(&self) -> impl Iterator<Item = u64> {
        let done = self.done.iter().map(|done| done.seq);
        done.chain(self.inflight.iter().map(|sent| sent.seq)).chain(self.waiting.iter().map(|(seq, _)| *seq))
    }

    /// Puts a message back that was stored, or how far it has come, which may follow the message itself; by rising numbers.
    pub(crate) fn restore(&mut self, seq: u64, progress: Option<Progress>, parcel: Option<Parcel>) {
        self.next_seq = self.next_seq.max(seq);
        let Some(Progress { id, released, origin }) = progress else {
            if let Some(parcel) = parcel {
                self.wait(seq, parcel);
            }
            return;
        };
        let mut parcel = parcel;
        if self.waiting.back().is_some_and(|(last, _)| *last == seq)
            && let Some((_, last)) = self.waiting.pop_back()
        {
            self.waiting_bytes -= last.bytes();
            parcel = Some(last);
        }
        if let Some(last) = self.inflight.back_mut().filter(|last| last.seq == seq) {
            parcel = last.parcel.take();
            self.inflight.pop_back();
        }
        self.last_id = id.get();
        let phase = if released { Phase::Released } else { Phase::Sent };
        let parcel = parcel.filter(|_| !released);
        self.inflight.push_back(Inflight { seq, id, origin, phase, written: true, parcel });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(bytes: usize, origin: u64) -> Parcel {
        let message = Message { payload: vec![0; bytes].into(), origin, ..Message::new("t", QoS::AtLeastOnce) };
        Parcel {
            message: Arc::new(message),
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: SmallVec::new(),
            share: None,
        }
    }

    #[test]
    fn what_waits_has_a_bound_by_number_and_by_bytes_and_one_always_may() {
        let limit = QueueLimit { messages: 2, bytes: 100 };
        let mut outgoing = Outgoing::default();
        assert!(outgoing.has_room(1_000, limit));
        outgoing.wait(1, parcel(50, 0));
        assert!(outgoing.has_room(49, limit) && !outgoing.has_room(50, limit));
        outgoing.wait(2, parcel(1, 0));
        assert!(!outgoing.has_room(1, limit));
        assert_eq!(outgoing.next_waiting().map(|(seq, _)| seq), Some(1));
        assert!(outgoing.has_room(98, limit) && !outgoing.has_room(99, limit));
    }

    #[test]
    fn a_later_connection_takes_up_everything_in_order_under_the_same_ids() {
        let mut outgoing = Outgoing::default();
        let ids: Vec<_> = (0..3)
            .map(|_| {
                let (seq, id) = (outgoing.next_seq(), outgoing.take_id());
                outgoing.begin(seq, (id, seq), Phase::Sent, Some(parcel(1, seq)));
                id
            })
            .collect();
        let seq = outgoing.next_seq();
        outgoing.wait(seq, parcel(1, 9));
        assert!(outgoing.is_behind() && outgoing.has_origin(9) && outgoing.has_origin(2) && !outgoing.has_origin(7));
        let second = outgoing.find(ids[1]).map(|sent| sent.seq).expect("it is under way");
        assert!(outgoing.finish(second).is_some() && outgoing.finish(second).is_none());
        assert_eq!(outgoing.current(), 2);
        outgoing.rewind(|_| false);
        assert!(outgoing.find(ids[0]).is_none(), "this connection was not given it yet");
        let mut again = Vec::new();
        while let Some(next) = outgoing.take_up() {
            again.push(next.id);
        }
        assert_eq!(again, [ids[0], ids[2]]);
        assert_ne!(outgoing.take_id(), ids[2]);
        assert_eq!(outgoing.seqs().collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(outgoing.len(), 3);
    }

    #[test]
    fn what_was_stored_comes_back_as_it_was() {
        let (one, two) = (NonZeroU16::MIN, NonZeroU16::new(2).expect("not 0"));
        let mut outgoing = Outgoing::default();
        let progress = |id, released| Some(Progress { id, released, origin: 0 });
        outgoing.restore(4, progress(one, false), Some(parcel(1, 4)));
        outgoing.restore(4, progress(one, true), None);
        outgoing.restore(5, None, Some(parcel(1, 5)));
        outgoing.restore(5, progress(two, false), None);
        outgoing.restore(6, progress(NonZeroU16::MAX, true), None);
        outgoing.restore(9, None, Some(parcel(7, 9)));
        let inflight: Vec<_> =
            outgoing.inflight.iter().map(|sent| (sent.seq, sent.id, sent.phase, sent.parcel.is_some())).collect();
        let last = (6, NonZeroU16::MAX, Phase::Released, false);
        assert_eq!(inflight, [(4, one, Phase::Released, false), (5, two, Phase::Sent, true), last]);
        assert_eq!((outgoing.waiting.len(), outgoing.waiting_bytes, outgoing.next_seq()), (1, 8, 10));
        assert_eq!(outgoing.take_id().get(), 3, "1 and 2 are in use");
    }

    #[test]
    fn the_names_of_the_last_messages_that_are_over_are_remembered() {
        let mut outgoing = Outgoing::default();
        let most = limits::MQTT_REMEMBERED as u64;
        for seq in 1..=most {
            assert_eq!(outgoing.remember(seq, 1_000 + seq, None), None);
        }
        assert_eq!(outgoing.next_seq(), most + 1);
        assert!(outgoing.has_origin(1_001) && !outgoing.has_origin(1));
        assert_eq!(outgoing.remember(most + 1, 7, None), Some(1), "the oldest one goes");
        assert!(outgoing.has_origin(7) && !outgoing.has_origin(1_001));
        assert_eq!((outgoing.seqs().min(), outgoing.seqs().count() as u64, outgoing.len()), (Some(2), most, 0));
    }

    #[test]
    fn names_are_forgotten_in_time_but_for_those_from_before_the_start() {
        let mut outgoing = Outgoing::default();
        outgoing.remember(1, 10, None);
        assert!(!outgoing.will_forget());
        outgoing.remember(2, 20, Some(5));
        outgoing.remember(3, 30, Some(9));
        assert!(outgoing.forget_done_before(5).is_empty() && outgoing.will_forget());
        assert_eq!(outgoing.forget_done_before(9), [2]);
        assert!(!outgoing.has_origin(20) && outgoing.has_origin(30));
        assert_eq!(outgoing.forget_done_before(u64::MAX), [3]);
        assert!(outgoing.has_origin(10) && !outgoing.will_forget());
    }

    #[test]
    fn packet_ids_go_round_and_are_never_0_or_in_use() {
        let mut outgoing = Outgoing { last_id: u16::MAX - 1, ..Outgoing::default() };
        outgoing.begin(1, (NonZeroU16::MIN, 0), Phase::Sent, None);
        assert_eq!(outgoing.take_id().get(), u16::MAX);
        assert_eq!(outgoing.take_id().get(), 2);
    }
}
