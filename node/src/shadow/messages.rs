//! Shadows over MQTT: `devices/{id}/shadow/get|update|delete` come in, `…/accepted`, `…/rejected`, `…/update/delta` and
//! `…/update/documents` go out. A request goes to no subscriber: its answer does.

use std::rc::Rc;

use serde_json::Value;
use tidegate_actors::ids::DeviceId;

use super::{Ask, Rejection, Update, bare, serve};
use crate::{
    edge::EdgeLoop,
    mqtt::{
        connections::Link,
        later::Later,
        packet::{Publish, QoS},
        reason::ReasonCode,
        router::{self, Message},
    },
};

/// What a request's topic asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Update,
    Delete,
}

impl Verb {
    /// The verb of a topic's last level.
    pub(crate) fn of(level: &str) -> Option<Self> {
        match level {
            "get" => Some(Self::Get),
            "update" => Some(Self::Update),
            "delete" => Some(Self::Delete),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    fn ask(self, payload: &[u8]) -> Result<Ask, Rejection> {
        Ok(match self {
            Self::Get => Ask::Get(bare(payload)?),
            Self::Update => Ask::Update(Update::parse(payload)?),
            Self::Delete => Ask::Delete(bare(payload)?),
        })
    }
}

/// What subscribers are told of a change.
#[derive(Debug)]
pub(super) enum Told {
    Accepted(Value),
    Delta(Value),
    Documents(Value),
    Deleted(Value),
}

/// Takes a request; its PUBACK goes out with its answer.
pub(crate) fn take(edge: &Rc<EdgeLoop>, link: &Link, publish: &Publish<'_>, device: &str, verb: Verb) {
    let device = match DeviceId::new(device) {
        Ok(device) => device,
        Err(error) => {
            let text = format!("the topic's device: {error}");
            tracing::warn!(client = %link.client_id, topic = publish.topic, "refused a request about a shadow: {text}");
            link.answer(publish.packet_id, ReasonCode::TOPIC_NAME_INVALID, &text);
            return;
        }
    };
    let ask = verb.ask(publish.payload);
    let later = Later::new(edge, link, publish.packet_id);
    let owner = edge.handle.owner_of(device.as_str());
    let serve_there = move |owner: &Rc<EdgeLoop>| match ask {
        Ok(ask) => {
            let named = device.clone();
            serve(owner, device, &ask, move |owner, answer| answered(owner, &named, verb, answer, later));
        }
        Err(rejection) => {
            owner.shared.shadows.rejected.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            answered(owner, &device, verb, Err(rejection), later);
        }
    };
    if !edge.at_loop(owner, serve_there) {
        link.answer(publish.packet_id, ReasonCode::QUOTA_EXCEEDED, "the device's loop is busy (limit loop_inbox)");
    }
}

/// Publishes the answer to a request of an MQTT client, and acknowledges the request.
fn answered(edge: &Rc<EdgeLoop>, device: &DeviceId, verb: Verb, answer: Result<Value, Rejection>, later: Later) {
    match answer {
        // The others publish what they changed themselves, whoever asked.
        Ok(document) if verb == Verb::Get => send(edge, device, "get/accepted", &document),
        Ok(_) => {}
        Err(rejection) => {
            let now = edge.handle.services().clock.now() / 1_000;
            send(edge, device, &format!("{}/rejected", verb.name()), &rejection.json(now));
        }
    }
    later.answer(edge, ReasonCode::SUCCESS, String::new());
}

/// Publishes what subscribers are told of a change.
pub(super) fn publish(edge: &EdgeLoop, device: &DeviceId, told: &Told) {
    let (topic, body) = match told {
        Told::Accepted(body) => ("update/accepted", body),
        Told::Delta(body) => ("update/delta", body),
        Told::Documents(body) => ("update/documents", body),
        Told::Deleted(body) => ("delete/accepted", body),
    };
    send(edge, device, topic, body);
}

fn send(edge: &EdgeLoop, device: &DeviceId, topic: &str, body: &Value) {
    if !edge.router.borrow().is_empty() {
        let topic = format!("devices/{device}/shadow/{topic}");
        router::publish(edge, Message::of_node(topic, body.to_string(), QoS::AtLeastOnce), None);
    }
}
