//! Messages on their way to the client of a session: written at once, held until they are durable, or waiting in the session's
//! queue; and the client's acknowledgements.
//!
//! A stored session stores a message with QoS 1 or 2 before or as it is sent, and forgets it when it is acknowledged. With QoS 2
//! nothing leaves before the node would remember it after a crash: the packet id before the PUBLISH, the PUBREC before the PUBREL.

use std::{num::NonZeroU16, rc::Rc, sync::Arc};

use super::{
    connections::Link,
    drops::DropReason,
    encode, keeping,
    outgoing::{Parcel, Phase},
    packet::{Ack, QoS},
    reason::ReasonCode,
    remembered,
    router::{Again, Message, Options},
    session::Session,
    shared::Room,
    stored::Progress,
};
use crate::{commands, edge::EdgeLoop};

/// What became of a message for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is in the connection's buffer, or held, or waits.
    Taken,
    /// The same, and it is on its way to the disk: who published it must not be told before it is there.
    Stored,
    /// It is not delivered. It has been counted.
    Dropped,
}

impl Session {
    /// Delivers a message, at most at the subscription's QoS.
    pub(crate) fn deliver(self: &Rc<Self>, edge: &EdgeLoop, message: &Arc<Message>, options: &Options) -> Delivery {
        let parcel = Parcel {
            message: Arc::clone(message),
            qos: message.qos.min(options.qos),
            retain: options.retain_as_published && message.retain,
            subscription_ids: options.subscription_id.clone(),
            share: options.share.clone(),
        };
        match self.take(edge, parcel) {
            Ok(delivery) => delivery,
            Err(reason) => {
                edge.shared.counters.mqtt_dropped.count(reason, 1);
                Delivery::Dropped
            }
        }
    }

    /// How many messages with QoS 1 and 2 the client's window has room for, and whether nothing waits in front of a new one.
    pub(crate) fn window(&self, link: &Link) -> (usize, bool) {
        let most = usize::from(link.receive_maximum);
        match &*self.outgoing.borrow() {
            None => (most, true),
            Some(outgoing) => (most.saturating_sub(outgoing.current()), outgoing.is_level()),
        }
    }

    /// What it can take as a member of a shared subscription.
    pub(crate) fn room(&self, edge: &EdgeLoop) -> Room {
        let Some(link) = self.live_link() else { return Room::Away };
        let (window, is_level) = self.window(&link);
        let has_room = window > 0 && is_level && link.has_room(0, edge.shared.settings.mqtt_outbound_bytes);
        if has_room { Room::Ready } else { Room::Full }
    }

    /// Takes a message for the client: to be written, or to wait.
    ///
    /// # Errors
    /// Why it is dropped; it has not been counted.
    pub(crate) fn take(self: &Rc<Self>, edge: &EdgeLoop, parcel: Parcel) -> Result<Delivery, DropReason> {
        let settings = &edge.shared.settings;
        let link = self.live_link();
        if parcel.message.again != Again::No {
            let origin = parcel.message.origin;
            let has = self.outgoing.borrow().as_ref().is_some_and(|outgoing| outgoing.has_origin(origin));
            if has || parcel.message.again == Again::SinceTheStart {
                return Ok(if self.is_stored() && has { Delivery::Stored } else { Delivery::Taken });
            }
        }
        if parcel.qos == QoS::AtMostOnce {
            let link = link.ok_or(DropReason::Offline)?;
            if !link.has_room(parcel.message.payload.len(), settings.mqtt_outbound_bytes) {
                return Err(DropReason::Slow);
            }
            link.publish(edge, &parcel, None, false).map_err(|_| DropReason::TooLarge)?;
            edge.connections.borrow_mut().mark_dirty(&link);
            return Ok(Delivery::Taken);
        }
        let mut slot = self.outgoing.borrow_mut();
        let outgoing = slot.get_or_insert_default();
        if !outgoing.has_room(parcel.bytes(), settings.mqtt_queue) {
            return Err(DropReason::Queue);
        }
        let at_once = link.filter(|link| {
            outgoing.is_level()
                && outgoing.current() < usize::from(link.receive_maximum)
                && link.has_room(parcel.message.payload.len(), settings.mqtt_outbound_bytes)
        });
        let seq = outgoing.next_seq();
        let id = at_once.as_ref().map(|_| outgoing.take_id());
        if self.stores(edge, &parcel) {
            keeping::message(edge, self, seq, &parcel, id).map_err(|_| DropReason::TooLarge)?;
        }
        let taken = if self.is_stored() { Delivery::Stored } else { Delivery::Taken };
        match (at_once, id) {
            (Some(link), Some(id)) => {
                drop(slot);
                if !self.send(edge, &link, seq, id, parcel) {
                    return Err(DropReason::TooLarge);
                }
                edge.connections.borrow_mut().mark_dirty(&link);
            }
            _ => outgoing.wait(seq, parcel),
        }
        Ok(taken)
    }

    /// Sends a message for the first time: now, or once its packet id is durable. Returns whether the client takes it at all.
    fn send(self: &Rc<Self>, edge: &EdgeLoop, link: &Rc<Link>, seq: u64, id: NonZeroU16, parcel: Parcel) -> bool {
        let mut slot = self.outgoing.borrow_mut();
        let outgoing = slot.get_or_insert_default();
        let named = (id, parcel.message.origin);
        if self.is_stored() && (parcel.qos == QoS::ExactlyOnce || outgoing.is_holding()) {
            outgoing.begin(seq, named, Phase::Held, Some(parcel));
            let (session, link) = (Rc::clone(self), Rc::clone(link));
            keeping::when_durable(edge, move || session.send_held(&crate::edge::here(), &link, seq));
            return true;
        }
        // A message above the client's maximum packet size counts as sent ([MQTT-3.1.2-25]).
        if link.publish(edge, &parcel, Some(id), false).is_err() {
            if self.is_stored() {
                keeping::forget_message(edge, self, seq, true);
            }
            return false;
        }
        // What came by a shared subscription is another member's if the session ends.
        let is_kept = self.is_stored() || parcel.share.is_some() || parcel.is_command_to(edge, self.key);
        outgoing.begin(seq, named, Phase::Sent, is_kept.then_some(parcel));
        if let Some(sent) = outgoing.by_seq(seq) {
            sent.written = true;
        }
        true
    }

    /// A message's packet id is durable: now it may leave.
    fn send_held(self: &Rc<Self>, edge: &EdgeLoop, link: &Rc<Link>, seq: u64) {
        // A later connection has sent it already.
        if !self.is_linked_to(link) {
            return;
        }
        let mut slot = self.outgoing.borrow_mut();
        let Some(outgoing) = slot.as_deref_mut() else { return };
        let Some(held) = outgoing.by_seq(seq).filter(|sent| sent.phase == Phase::Held) else { return };
        held.phase = Phase::Sent;
        held.written = true;
        let (id, parcel) = (held.id, held.parcel.clone());
        let written = parcel.is_some_and(|parcel| link.publish(edge, &parcel, Some(id), false).is_ok());
        if !written {
            outgoing.finish(seq);
            drop(slot);
            edge.shared.counters.mqtt_dropped.count(DropReason::TooLarge, 1);
            keeping::forget_message(edge, self, seq, true);
            self.pump(edge, link);
        }
        link.wake();
    }

    /// Writes what the client's window and the connection's buffer have room for: what an earlier connection has left, then
    /// what waits. Returns whether anything was written.
    pub(crate) fn pump(self: &Rc<Self>, edge: &EdgeLoop, link: &Rc<Link>) -> bool {
        let before = link.out.borrow().len();
        while let Some(seq_id_parcel) = self.next_to_send(edge, link) {
            let (seq, id, parcel) = seq_id_parcel;
            if !self.send(edge, link, seq, id, parcel) {
                edge.shared.counters.mqtt_dropped.count(DropReason::TooLarge, 1);
            }
        }
        link.out.borrow().len() > before
    }

    /// The next message that has not been sent; what is sent again on the way to it, is.
    fn next_to_send(&self, edge: &EdgeLoop, link: &Link) -> Option<(u64, NonZeroU16, Parcel)> {
        let mut slot = self.outgoing.borrow_mut();
        let outgoing = slot.as_deref_mut()?;
        loop {
            let is_full = outgoing.current() >= usize::from(link.receive_maximum);
            if is_full || !link.has_room(0, edge.shared.settings.mqtt_outbound_bytes) {
                return None;
            }
            let Some(again) = outgoing.take_up() else { break };
            let (seq, id, dup) = (again.seq, again.id, again.written);
            again.written = true;
            match (again.phase, &again.parcel) {
                (Phase::Released, _) | (_, None) => {
                    encode::pubrel(&mut link.out.borrow_mut(), &link.peer, id, ReasonCode::SUCCESS);
                }
                (Phase::Held | Phase::Sent, Some(parcel)) => {
                    again.phase = Phase::Sent;
                    if link.publish(edge, parcel, Some(id), dup).is_err() {
                        outgoing.finish(seq);
                        edge.shared.counters.mqtt_dropped.count(DropReason::TooLarge, 1);
                        keeping::forget_message(edge, self, seq, true);
                    }
                }
            }
        }
        let now = edge.uptime_ms();
        loop {
            let (seq, parcel) = outgoing.next_waiting()?;
            if parcel.message.is_expired(now) {
                edge.shared.counters.mqtt_dropped.count(DropReason::Expired, 1);
                if self.is_stored() {
                    keeping::forget_message(edge, self, seq, false);
                }
                continue;
            }
            let id = outgoing.take_id();
            if self.stores(edge, &parcel) {
                let origin = parcel.message.origin;
                keeping::progress(edge, self, seq, Progress { id, released: false, origin });
            }
            return Some((seq, id, parcel));
        }
    }

    /// Has the session something that waits for room in the connection's buffer?
    pub(crate) fn is_behind(&self, link: &Link) -> bool {
        let outgoing = self.outgoing.borrow();
        outgoing
            .as_ref()
            .is_some_and(|outgoing| outgoing.is_behind() && outgoing.current() < usize::from(link.receive_maximum))
    }

    /// Does the session remember this message over a crash and another connection? A command to its own device is
    /// remembered, and sent again, by [`crate::commands`].
    fn stores(&self, edge: &EdgeLoop, parcel: &Parcel) -> bool {
        self.is_stored() && !parcel.is_command_to(edge, self.key)
    }

    /// A PUBACK or PUBCOMP: the message is over, and the next may go. `taken`: the client has taken it.
    pub(crate) fn acked(self: &Rc<Self>, edge: &EdgeLoop, link: &Rc<Link>, id: NonZeroU16, taken: bool) {
        let mut slot = self.outgoing.borrow_mut();
        let Some(outgoing) = slot.as_deref_mut() else { return };
        let Some(seq) = outgoing.find(id).filter(|sent| sent.phase != Phase::Held).map(|sent| sent.seq) else { return };
        let Some(finished) = outgoing.finish(seq) else { return };
        let (origin, parcel) = (finished.origin, finished.parcel);
        let is_empty = outgoing.len() == 0;
        drop(slot);
        let command = parcel.as_ref().and_then(|parcel| parcel.message.command.as_deref());
        let command = command.filter(|to| to.is_for(edge.handle.id(), self.key));
        if let Some(command) = command.filter(|_| taken) {
            commands::acknowledged(&crate::edge::here(), command);
        }
        if self.is_stored() && command.is_none() {
            remembered::is_over(edge, self, seq, origin);
        }
        if !is_empty {
            self.pump(edge, link);
        }
    }

    /// A PUBREC: the message is the client's. The PUBREL follows when that is durable.
    pub(crate) fn on_pubrec(self: &Rc<Self>, edge: &EdgeLoop, link: &Rc<Link>, ack: Ack) {
        let id = ack.packet_id;
        let mut slot = self.outgoing.borrow_mut();
        let sent = slot.as_deref_mut().and_then(|outgoing| outgoing.find(id)).filter(|sent| sent.phase != Phase::Held);
        let Some(sent) = sent else {
            encode::pubrel(&mut link.out.borrow_mut(), &link.peer, id, ReasonCode::PACKET_ID_NOT_FOUND);
            return;
        };
        // A refusal ends the exchange (section 4.3.3).
        if ack.reason.is_error() {
            drop(slot);
            self.acked(edge, link, id, false);
            return;
        }
        let (seq, origin) = (sent.seq, sent.origin);
        sent.phase = Phase::Released;
        sent.parcel = None;
        drop(slot);
        if !self.is_stored() {
            encode::pubrel(&mut link.out.borrow_mut(), &link.peer, id, ReasonCode::SUCCESS);
            return;
        }
        keeping::progress(edge, self, seq, Progress { id, released: true, origin });
        let (session, link) = (Rc::clone(self), Rc::clone(link));
        keeping::when_durable(edge, move || {
            // A later connection has sent it already.
            if session.is_linked_to(&link) {
                encode::pubrel(&mut link.out.borrow_mut(), &link.peer, id, ReasonCode::SUCCESS);
                link.wake();
            }
        });
    }
}
