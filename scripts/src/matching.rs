//! Which devices and topics a handler wants: its `match` export.

use serde::Deserialize;
use tidegate_actors::{ids::DeviceId, reading::Channel};

/// Patterns of one list; more: the handler is broken.
const PATTERNS: usize = 1_000;

/// A handler's `match`: globs of device ids and MQTT topic filters. A list that is absent matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Match {
    #[serde(default)]
    devices: Option<Vec<String>>,
    #[serde(default)]
    topics: Option<Vec<String>>,
}

impl Match {
    /// Reads a `match` export's JSON; `None`: there is none, everything matches.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn read(json: Option<&[u8]>) -> Result<Self, String> {
        let Some(json) = json else { return Ok(Self::default()) };
        let wrong =
            |why: String| format!("its export match must be {{devices: [globs], topics: [MQTT filters]}}: {why}");
        // serde would read a list as a struct's fields in order.
        if json.first() != Some(&b'{') {
            return Err(wrong("it is no object".to_owned()));
        }
        let read: Self = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
        for list in [&read.devices, &read.topics].into_iter().flatten() {
            if list.len() > PATTERNS {
                return Err(format!("its export match has a list of more than {PATTERNS} patterns"));
            }
        }
        for filter in read.topics.iter().flatten() {
            if !is_filter(filter) {
                return Err(format!("its export match has {filter:?} in topics, which is not an MQTT topic filter"));
            }
        }
        Ok(read)
    }

    /// Does the handler want this device's readings on this channel?
    pub(crate) fn wants(&self, device: &DeviceId, channel: Channel) -> bool {
        self.wants_device(device) && any(&self.topics, |filter| filter_matches(filter, &channel.topic(device)))
    }

    /// Does it want this device, whatever the topic?
    pub(crate) fn wants_device(&self, device: &DeviceId) -> bool {
        any(&self.devices, |glob| glob_matches(glob, device.as_str()))
    }
}

/// Does one of the patterns match, or is there no list?
fn any(list: &Option<Vec<String>>, matches: impl Fn(&str) -> bool) -> bool {
    list.as_ref().is_none_or(|list| list.iter().any(|pattern| matches(pattern)))
}

/// `*` stands for any characters, `?` for one.
fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t) = (0, 0);
    // Where to go back to: behind the last star, and the text that it has eaten so far.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match (glob.get(g), back) {
            (Some('*'), _) => {
                g += 1;
                back = Some((g, t));
            }
            (Some(&c), _) if c == '?' || c == text[t] => {
                g += 1;
                t += 1;
            }
            (_, Some((behind, eaten))) => {
                g = behind;
                t = eaten + 1;
                back = Some((behind, t));
            }
            (_, None) => return false,
        }
    }
    glob[g..].iter().all(|&c| c == '*')
}

/// MQTT 5 section 4.7: `#` only as the last level, `+` only as a whole level.
fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    !filter.is_empty()
        && !filter.contains('\0')
        && levels.iter().enumerate().all(|(at, level)| match *level {
            "+" => true,
            "#" => at + 1 == levels.len(),
            other => !other.contains(['+', '#']),
        })
}

fn filter_matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("pump-*", "pump-7", true),
            ("pump-*", "pump-", true),
            ("pump-*", "apump-7", false),
            ("*", "", true),
            ("*", "anything", true),
            ("?", "ü", true),
            ("?", "", false),
            ("a*b*c", "aXXbYYbc", true),
            ("a*b*c", "aXXbYYb", false),
            ("pump-??", "pump-12", true),
            ("pump-??", "pump-123", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob_matches(glob, text), expected, "{glob} {text}");
        }
        assert!(!glob_matches(&"*a".repeat(50), &"a".repeat(49)), "linear enough to end");
    }

    #[test]
    fn filters() {
        for (filter, topic, expected) in [
            ("devices/+/metrics", "devices/d1/metrics", true),
            ("devices/#", "devices/d1/metrics", true),
            ("devices/d1/metrics/#", "devices/d1/metrics", true),
            ("#", "v1/devices/me/telemetry", true),
            ("devices/+", "devices/d1/metrics", false),
            ("devices/d2/metrics", "devices/d1/metrics", false),
        ] {
            assert_eq!(filter_matches(filter, topic), expected, "{filter} {topic}");
        }
        for bad in ["", "a/#/b", "a+/b", "a#", "a\0"] {
            assert!(!is_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_match_is_read_or_refused_with_words() {
        let device = DeviceId::new("pump-1").expect("an id");
        let all = Match::read(None).expect("no match");
        assert!(all.wants(&device, Channel::Metrics) && all.wants(&device, Channel::Telemetry));
        let some = Match::read(Some(br#"{"devices":["pump-*"],"topics":["devices/+/metrics"]}"#)).expect("a match");
        assert!(some.wants(&device, Channel::Metrics) && !some.wants(&device, Channel::Telemetry));
        let none = Match::read(Some(br#"{"devices":[]}"#)).expect("a match");
        assert!(!none.wants(&device, Channel::Metrics));
        for bad in [r#"{"device":["x"]}"#, r#"{"devices":"x"}"#, "[]", "7", r#"{"topics":["a/#/b"]}"#] {
            assert!(Match::read(Some(bad.as_bytes())).is_err(), "{bad}");
        }
    }
}
