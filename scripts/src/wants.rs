//! What a handler wants, by its exports: which devices and topics, which events, which timers, and how soon.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tidegate_actors::{ids::DeviceId, limits, reading::Channel, script::ScriptTimer};

use crate::{frame::Exports, matching::Match};

/// What one handler wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wants {
    matching: Match,
    /// By the number of a channel.
    channels: u8,
    timers: Vec<ScriptTimer>,
    /// Its readings go before those that only others want.
    pub(crate) is_urgent: bool,
}

impl Wants {
    /// Reads the exports of the handler of that file name.
    ///
    /// # Errors
    /// Says what is wrong with which of them.
    pub(crate) fn read(name: &str, exports: &Exports) -> Result<Self, String> {
        let timers = exports.timers.as_deref().map_or(Ok(Vec::new()), |json| timers(name, json))?;
        let takes_timers = exports.channels >> (Channel::Timer as u8) & 1 == 1;
        if takes_timers && timers.is_empty() {
            return Err("it exports onTimer, but no timers: export const timers = { name: \"5m\" }".to_owned());
        }
        if !takes_timers && !timers.is_empty() {
            return Err("it exports timers, but no function onTimer".to_owned());
        }
        Ok(Self {
            matching: Match::read(exports.matching.as_deref())?,
            channels: exports.channels,
            timers,
            is_urgent: exports.priority.as_deref().map_or(Ok(false), priority)?,
        })
    }

    /// Does it want what comes of this device on this channel?
    pub(crate) fn wants(&self, device: &DeviceId, channel: Channel) -> bool {
        if self.channels >> (channel as u8) & 1 == 0 {
            return false;
        }
        match channel {
            // A timer is the handler's own, whatever it matches.
            Channel::Timer => self.timers.iter().any(|timer| timer.device == *device),
            channel if channel.is_event() => self.matching.wants_device(device),
            channel => self.matching.wants(device, channel),
        }
    }

    pub(crate) fn timers(&self) -> &[ScriptTimer] {
        &self.timers
    }
}

fn priority(json: &[u8]) -> Result<bool, String> {
    match serde_json::from_slice(json) {
        Ok(Value::String(text)) if text == "high" => Ok(true),
        Ok(Value::String(text)) if text == "normal" => Ok(false),
        _ => Err(format!("its export priority must be \"high\" or \"normal\", not {}", String::from_utf8_lossy(json))),
    }
}

/// One entry of `timers` with a device.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    every: Value,
    device: Option<String>,
}

fn timers(script: &str, json: &[u8]) -> Result<Vec<ScriptTimer>, String> {
    let wrong =
        |why: String| format!("its export timers must be {{name: \"5m\"}} or {{name: {{every, device}}}}: {why}");
    let entries: serde_json::Map<String, Value> =
        serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    if entries.len() > limits::SCRIPT_SCHEDULES {
        let most = limits::SCRIPT_SCHEDULES;
        return Err(format!("it exports {} timers; at most {most} (limit script_schedules)", entries.len()));
    }
    let own = format!("script-{}", script.split('.').next().unwrap_or(script));
    let timer = |(name, value): (String, Value)| {
        let Entry { every, device } = match value {
            every @ (Value::String(_) | Value::Number(_)) => Entry { every, device: None },
            value => serde_json::from_value(value).map_err(|error| wrong(format!("{name}: {error}")))?,
        };
        let every = time(&every).ok_or_else(|| {
            wrong(format!(
                "{name}: {every} is no time like \"30s\", \"5m\", \"12h\", \"1d\", or a number of milliseconds"
            ))
        })?;
        if every < limits::SCRIPT_SCHEDULE_MIN {
            let least = limits::SCRIPT_SCHEDULE_MIN.as_millis();
            return Err(format!("its timer {name} comes more often than every {least} ms (limit script_schedule_min)"));
        }
        let device = device.as_deref().unwrap_or(&own);
        let device =
            DeviceId::new(device).map_err(|error| format!("its timer {name}: the device {device:?}: {error}"))?;
        Ok(ScriptTimer { script: script.into(), name: name.into(), device, every })
    };
    entries.into_iter().map(timer).collect()
}

fn time(value: &Value) -> Option<Duration> {
    if let Some(millis) = value.as_u64() {
        return Some(Duration::from_millis(millis));
    }
    let text = value.as_str()?.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: u8 = 0b11;
    const TIMER: u8 = 1 << Channel::Timer as u8;

    fn exports(channels: u8, timers: Option<&str>, priority: Option<&str>) -> Exports {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let matching = Some(br#"{"devices":["pump-*"],"topics":["devices/+/metrics"]}"#.to_vec());
        Exports { channels, matching, timers: bytes(timers), priority: bytes(priority) }
    }

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).expect("an id")
    }

    #[test]
    fn a_handler_gets_what_it_has_a_function_for() {
        let connected = 1 << Channel::Connected as u8;
        let wants = Wants::read("a.js", &exports(METRIC | connected, None, None)).expect("good exports");
        assert!(wants.wants(&id("pump-1"), Channel::Metrics) && !wants.wants(&id("pump-1"), Channel::Telemetry));
        assert!(wants.wants(&id("pump-1"), Channel::Connected), "topics are those of readings");
        assert!(!wants.wants(&id("fan-1"), Channel::Connected) && !wants.wants(&id("pump-1"), Channel::Disconnected));
        assert!(!wants.is_urgent);
    }

    #[test]
    fn timers_have_a_device_of_their_own_or_the_one_they_name() {
        let text = r#"{"sweep":"90s","nightly":{"every":"1d","device":"plant"},"often":1500}"#;
        let wants = Wants::read("10-watch.mjs", &exports(TIMER, Some(text), Some("\"high\""))).expect("good exports");
        let times: Vec<_> = wants.timers().iter().map(|t| (&*t.name, t.device.as_str(), t.every.as_secs())).collect();
        assert_eq!(
            times,
            [("nightly", "plant", 86_400), ("often", "script-10-watch", 1), ("sweep", "script-10-watch", 90)]
        );
        assert!(wants.wants(&id("plant"), Channel::Timer) && wants.wants(&id("script-10-watch"), Channel::Timer));
        assert!(!wants.wants(&id("pump-1"), Channel::Timer) && wants.is_urgent);
    }

    #[test]
    fn bad_exports_are_refused_with_words() {
        for (channels, timers, priority, expected) in [
            (TIMER, None, None, "no timers"),
            (METRIC, Some(r#"{"a":"5m"}"#), None, "no function onTimer"),
            (TIMER, Some(r#"["5m"]"#), None, "its export timers must be"),
            (TIMER, Some(r#"{"a":"5 minutes"}"#), None, "is no time"),
            (TIMER, Some(r#"{"a":""}"#), None, "is no time"),
            (TIMER, Some(r#"{"a":{"every":"5m","dev":"x"}}"#), None, "unknown field"),
            (TIMER, Some(r#"{"a":"10ms"}"#), None, "script_schedule_min"),
            (TIMER, Some(r#"{"a":{"every":"5m","device":"a/b"}}"#), None, "the device \"a/b\""),
            (METRIC, None, Some("7"), "\"high\" or \"normal\""),
        ] {
            let error = Wants::read("a.js", &exports(channels, timers, priority)).expect_err("bad exports");
            assert!(error.contains(expected), "{error}");
        }
        let many: Vec<_> = (0..=limits::SCRIPT_SCHEDULES).map(|n| format!("\"t{n}\":\"5m\"")).collect();
        let many = format!("{{{}}}", many.join(","));
        let error = Wants::read("a.js", &exports(TIMER, Some(&many), None)).expect_err("too many");
        assert!(error.contains("script_schedules"), "{error}");
    }
}
