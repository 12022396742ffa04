//! What the node says of itself under `$SYS/broker/`, in mosquitto's names: the values and the load averages.
//!
//! A name stands here only if the node knows its value. It publishes nothing and reads no clock.

use std::fmt::Write as _;

/// What is the node's own.
pub(crate) const ROOT: &str = "$SYS/";
/// What the topics begin with.
pub(crate) const PREFIX: &str = "$SYS/broker/";

/// Could the filter match any of them?
pub(crate) fn may_match(filter: &str) -> bool {
    filter.split('/').next() == Some("$SYS")
}

/// The counters that the values are made of, all since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) messages_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) publish_received: u64,
    pub(crate) publish_sent: u64,
    pub(crate) publish_dropped: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    /// CONNECTs that were accepted.
    pub(crate) connections: u64,
}

/// What there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    pub(crate) uptime_s: u64,
    pub(crate) connected: u64,
    /// Sessions without a connection.
    pub(crate) disconnected: u64,
    /// Most that were connected at a time.
    pub(crate) maximum: u64,
    pub(crate) subscriptions: u64,
    pub(crate) shared_subscriptions: u64,
    pub(crate) retained: u64,
}

/// The minutes of the averages, as in the topics.
const MINUTES: [u32; 3] = [1, 5, 15];

/// The load averages: per minute, weighted so that what is older counts less.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    last: Totals,
    averages: [[f64; 3]; LOADS.len()],
}

type Count = fn(&Totals) -> u64;

/// The topics below `load/`, and what they count.
const LOADS: [(&str, Count); 8] = [
    ("messages/received", |totals| totals.messages_received),
    ("messages/sent", |totals| totals.messages_sent),
    ("publish/received", |totals| totals.publish_received),
    ("publish/sent", |totals| totals.publish_sent),
    ("publish/dropped", |totals| totals.publish_dropped),
    ("bytes/received", |totals| totals.bytes_received),
    ("bytes/sent", |totals| totals.bytes_sent),
    ("connections", |totals| totals.connections),
];

impl Load {
    /// Takes in what happened in the last `seconds`.
    pub(crate) fn advance(&mut self, totals: &Totals, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        for ((_, count), averages) in LOADS.iter().zip(&mut self.averages) {
            #[expect(clippy::cast_precision_loss, reason = "an average for people")]
            let rate = count(totals).saturating_sub(count(&self.last)) as f64 * 60.0 / seconds;
            for (average, minutes) in averages.iter_mut().zip(MINUTES) {
                let weight = (-seconds / (60.0 * f64::from(minutes))).exp();
                *average = rate + weight * (*average - rate);
            }
        }
        self.last = *totals;
    }
}

/// Calls `each` with every topic and its value.
pub(crate) fn each(totals: &Totals, gauges: &Gauges, load: &Load, mut each: impl FnMut(&str, &str)) {
    let mut topic = String::from(PREFIX);
    let mut say = |name: &str, value: &str| {
        topic.truncate(PREFIX.len());
        topic.push_str(name);
        each(&topic, value);
    };
    say("version", concat!("tidegate version ", env!("CARGO_PKG_VERSION")));
    say("uptime", &format!("{} seconds", gauges.uptime_s));
    let numbers = [
        ("clients/total", gauges.connected + gauges.disconnected),
        ("clients/connected", gauges.connected),
        ("clients/disconnected", gauges.disconnected),
        ("clients/maximum", gauges.maximum),
        ("messages/received", totals.messages_received),
        ("messages/sent", totals.messages_sent),
        ("publish/messages/received", totals.publish_received),
        ("publish/messages/sent", totals.publish_sent),
        ("publish/messages/dropped", totals.publish_dropped),
        ("bytes/received", totals.bytes_received),
        ("bytes/sent", totals.bytes_sent),
        ("subscriptions/count", gauges.subscriptions),
        ("shared_subscriptions/count", gauges.shared_subscriptions),
        ("retained messages/count", gauges.retained),
    ];
    let mut value = String::new();
    for (name, number) in numbers {
        value.clear();
        let _ = write!(value, "{number}");
        say(name, &value);
    }
    for ((name, _), averages) in LOADS.iter().zip(&load.averages) {
        for (average, minutes) in averages.iter().zip(MINUTES) {
            say(&format!("load/{name}/{minutes}min"), &format!("{average:.2}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::mqtt::topic::check_topic_name;

    #[test]
    fn a_steady_load_becomes_its_average_and_fades() {
        let mut load = Load::default();
        let mut totals = Totals::default();
        for _ in 0..60 {
            totals.publish_received += 100;
            load.advance(&totals, 10.0);
        }
        let [one, five, fifteen] = load.averages[2];
        assert!((one - 600.0).abs() < 0.1, "{one}");
        assert!(one > five && five > fifteen && fifteen > 250.0, "{five} {fifteen}");
        load.advance(&totals, 60.0);
        assert!((load.averages[2][0] - 600.0 / std::f64::consts::E).abs() < 0.1, "a minute of silence");
    }

    #[test]
    fn every_topic_is_valid_and_comes_once() {
        let totals = Totals { publish_received: 7, ..Totals::default() };
        let gauges = Gauges { connected: 2, disconnected: 3, uptime_s: 61, ..Gauges::default() };
        let mut said = BTreeMap::new();
        each(&totals, &gauges, &Load::default(), |topic, value| {
            assert_eq!(check_topic_name(topic), Ok(()));
            assert!(said.insert(topic.to_owned(), value.to_owned()).is_none(), "{topic}");
        });
        assert_eq!(said["$SYS/broker/clients/total"], "5");
        assert_eq!(said["$SYS/broker/uptime"], "61 seconds");
        assert_eq!(said["$SYS/broker/publish/messages/received"], "7");
        assert_eq!(said["$SYS/broker/load/publish/received/1min"], "0.00");
        assert_eq!(said.len(), 2 + 14 + 3 * LOADS.len());
    }
}
