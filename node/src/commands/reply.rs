//! A device's answer to a command. Only the device's own connection answers for it; what it says is checked here and goes to the
//! loop that owns the device.

use std::{rc::Rc, sync::atomic::Ordering};

use tidegate_actors::{ids::DeviceId, limits};

use super::{
    deliver,
    queue::{Taken, Which},
};
use crate::{
    edge::EdgeLoop,
    kept,
    mqtt::{connections::Link, later::Later, packet::Publish, reason::ReasonCode},
};

/// The topic of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// `devices/{id}/commands/{request}/reply`.
    Native { device: &'a str, request: &'a str },
    /// `v1/devices/me/rpc/response/{n}`.
    ThingsBoard(&'a str),
}

/// Takes a reply. `own` is the device whose connection it is. It goes to no subscriber.
pub(crate) fn take(edge: &Rc<EdgeLoop>, link: &Link, publish: &Publish<'_>, reply: Reply<'_>, own: Option<&DeviceId>) {
    let (device, which) = match (reply, own) {
        (Reply::Native { device, request }, Some(own)) if own.as_str() == device => (own, Ok(request)),
        (Reply::ThingsBoard(number), Some(own)) => (own, Err(number)),
        _ => {
            edge.shared.commands.replies_refused.fetch_add(1, Ordering::Relaxed);
            let text = "only the device's own connection answers its commands";
            tracing::warn!(client = %link.client_id, topic = publish.topic, "refused a reply: {text}");
            link.answer(publish.packet_id, ReasonCode::NOT_AUTHORIZED, text);
            return;
        }
    };
    let (device, payload) = (device.clone(), payload_of(publish.payload));
    let which = which.map(Box::<str>::from).map_err(|number| number.parse().unwrap_or(0));
    let later = Later::new(edge, link, publish.packet_id);
    let owner = edge.handle.owner_of(device.as_str());
    let at_owner = move |owner: &Rc<EdgeLoop>| {
        let which = match &which {
            Ok(id) => Which::Id(id),
            Err(number) => Which::Number(*number),
        };
        let taken = deliver::with(owner, |commands, now| commands.reply(&device, which, payload, now));
        match taken {
            Taken::Taken(false) => later.answer(owner, ReasonCode::SUCCESS, String::new()),
            Taken::Taken(true) => {
                let edge = Rc::clone(owner);
                kept::when_durable(owner, move || later.answer(&edge, ReasonCode::SUCCESS, String::new()));
            }
            Taken::Unknown => {
                owner.shared.commands.replies_unknown.fetch_add(1, Ordering::Relaxed);
                let text = "no such command waits for a reply: it is over, or never was".to_owned();
                later.answer(owner, ReasonCode::SUCCESS, text);
            }
        }
    };
    if !edge.at_loop(owner, at_owner) {
        link.answer(publish.packet_id, ReasonCode::QUOTA_EXCEEDED, "the device's loop is busy (limit loop_inbox)");
    }
}

/// A reply as JSON: as it is, or a text as a JSON string. Else why it cannot be taken.
fn payload_of(payload: &[u8]) -> Result<Box<str>, Box<str>> {
    if payload.len() > limits::COMMAND_REPLY_BYTES {
        let most = limits::COMMAND_REPLY_BYTES;
        return Err(format!("the reply has {} bytes (limit command_reply_bytes: {most})", payload.len()).into());
    }
    let Ok(text) = std::str::from_utf8(payload) else { return Err("the reply is neither JSON nor text".into()) };
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok("null".into());
    }
    match serde_json::from_str::<&serde_json::value::RawValue>(text) {
        Ok(_) => Ok(text.into()),
        // A str always serializes.
        Err(_) => Ok(serde_json::to_string(text).unwrap_or_default().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_a_reply() {
        for (payload, reply) in [
            (&b"{\"ok\": 1e400}"[..], "{\"ok\": 1e400}"),
            (b" true\n", "true"),
            (b"", "null"),
            (b"done", "\"done\""),
            ("\"Gerät\" bereit".as_bytes(), "\"\\\"Gerät\\\" bereit\""),
        ] {
            assert_eq!(payload_of(payload).as_deref(), Ok(reply));
        }
        assert!(payload_of(b"\xff").unwrap_err().contains("neither"));
        assert!(payload_of(&vec![b'1'; limits::COMMAND_REPLY_BYTES + 1]).unwrap_err().contains("command_reply_bytes"));
    }
}
