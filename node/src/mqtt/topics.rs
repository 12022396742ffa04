//! Which topics carry readings.

use tidegate_actors::reading::Channel;

/// What a PUBLISH on a topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// A reading of the named device; `None`: of the device whose connection it is.
    Reading(Option<&'a str>, Channel),
    /// A message for whoever subscribed.
    Plain,
}

impl<'a> Target<'a> {
    pub(crate) fn of(topic: &'a str) -> Self {
        if topic == "v1/devices/me/telemetry" {
            return Self::Reading(None, Channel::Telemetry);
        }
        topic
            .strip_prefix("devices/")
            .and_then(|rest| rest.strip_suffix("/metrics"))
            .filter(|device| !device.contains('/'))
            .map_or(Self::Plain, |device| Self::Reading(Some(device), Channel::Metrics))
    }
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
            ("devices/metrics", Target::Plain),
            ("devices/a/b/metrics", Target::Plain),
            ("devices/d1/state", Target::Plain),
            ("plant/1", Target::Plain),
        ] {
            assert_eq!(Target::of(topic), target, "{topic}");
        }
    }
}
