//! Which topics are for the node: readings, answers to commands, requests about shadows.

use tidegate_actors::reading::Channel;

use crate::{commands::Reply, shadow::messages::Verb};

/// What a PUBLISH on a topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// A reading of the named device; `None`: of the device whose connection it is.
    Reading(Option<&'a str>, Channel),
    /// A device's answer to a command.
    Reply(Reply<'a>),
    /// A request about the named device's shadow.
    Shadow(&'a str, Verb),
    /// A message for whoever subscribed.
    Plain,
}

impl<'a> Target<'a> {
    pub(crate) fn of(topic: &'a str) -> Self {
        let target = if let Some(rest) = topic.strip_prefix("devices/") {
            rest.split_once('/').and_then(|(device, rest)| of_device(device, rest))
        } else {
            topic.strip_prefix("v1/devices/me/").and_then(of_me)
        };
        target.unwrap_or(Self::Plain)
    }

    /// Is it for the node alone, and for no subscriber?
    pub(crate) fn is_consumed(self) -> bool {
        match self {
            Self::Reply(_) | Self::Shadow(..) => true,
            Self::Reading(..) | Self::Plain => false,
        }
    }
}

/// The levels behind `devices/{id}/`.
fn of_device<'a>(device: &'a str, rest: &'a str) -> Option<Target<'a>> {
    if rest == "metrics" {
        return Some(Target::Reading(Some(device), Channel::Metrics));
    }
    if let Some(verb) = rest.strip_prefix("shadow/") {
        return Verb::of(verb).map(|verb| Target::Shadow(device, verb));
    }
    let request = rest.strip_prefix("commands/")?.strip_suffix("/reply")?;
    (!request.contains('/')).then_some(Target::Reply(Reply::Native { device, request }))
}

/// The levels behind `v1/devices/me/`, where ThingsBoard's devices speak of themselves.
fn of_me(rest: &str) -> Option<Target<'_>> {
    if rest == "telemetry" {
        return Some(Target::Reading(None, Channel::Telemetry));
    }
    let number = rest.strip_prefix("rpc/response/")?;
    (!number.contains('/')).then_some(Target::Reply(Reply::ThingsBoard(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_told_apart() {
        for (topic, target) in [
            ("devices/d1/metrics", Target::Reading(Some("d1"), Channel::Metrics)),
            ("devices//metrics", Target::Reading(Some(""), Channel::Metrics)),
            ("v1/devices/me/telemetry", Target::Reading(None, Channel::Telemetry)),
            ("devices/d1/commands/7/reply", Target::Reply(Reply::Native { device: "d1", request: "7" })),
            ("v1/devices/me/rpc/response/7", Target::Reply(Reply::ThingsBoard("7"))),
            ("devices/d1/shadow/get", Target::Shadow("d1", Verb::Get)),
            ("devices/d1/shadow/update", Target::Shadow("d1", Verb::Update)),
            ("devices/d1/shadow/delete", Target::Shadow("d1", Verb::Delete)),
            ("devices/metrics", Target::Plain),
            ("devices/a/b/metrics", Target::Plain),
            ("devices/d1/state", Target::Plain),
            ("devices/d1/commands/7", Target::Plain),
            ("devices/d1/commands/7/8/reply", Target::Plain),
            ("devices/d1/shadow/update/accepted", Target::Plain),
            ("devices/d1/shadow", Target::Plain),
            ("v1/devices/me/rpc/request/7", Target::Plain),
            ("plant/1", Target::Plain),
        ] {
            assert_eq!(Target::of(topic), target, "{topic}");
        }
    }
}
