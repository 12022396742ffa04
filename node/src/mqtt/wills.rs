//! A will as the message that it becomes ([MQTT 3.1.1 and 5], section 3.1.2.5). When it is published is the session's business.

use std::rc::Rc;

use super::{
    packet::Will,
    properties::{self, Place, Properties, Property, id},
    router::{self, Message},
    session::Session,
};
use crate::edge::EdgeLoop;

/// Publishes a session's will.
pub(crate) fn publish(edge: &Rc<EdgeLoop>, session: &Session, will: Will) {
    let expiry =
        Properties::new(&will.properties, Place::Will).filter_map(Result::ok).find_map(|property| match property {
            Property::MessageExpiry(seconds) => Some(seconds),
            _ => None,
        });
    let properties = if expiry.is_some() {
        let mut kept = Vec::with_capacity(will.properties.len());
        properties::copy_without(&will.properties, Place::Will, &[id::MESSAGE_EXPIRY], &mut kept);
        kept
    } else {
        will.properties
    };
    let message = Message {
        payload: will.payload,
        retain: will.retain,
        properties: properties.into(),
        deadline: expiry.map(|seconds| edge.uptime_ms() + u64::from(seconds) * 1_000),
        from: Some((edge.handle.id(), session.key)),
        ..Message::new(will.topic, will.qos)
    };
    router::publish(edge, message, None);
}
