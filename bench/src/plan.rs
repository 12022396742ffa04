//! The scenarios of the side-by-side table: which load, which servers, which goals.

use crate::meter::Measure;
use crate::scenario::fanout::FanoutLoad;
use crate::scenario::http::HttpLoad;
use crate::scenario::mqtt::MqttLoad;
use crate::scenario::mqtt_fanout::MqttFanoutLoad;
use crate::server::Peer;

/// What a scenario does in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Publishers, for so many messages.
    Mqtt(MqttLoad, u64),
    /// `POST /metrics`, for so many readings.
    Http(HttpLoad, u64),
    /// WebSocket viewers, for so many updates.
    Fanout(FanoutLoad, u64),
    /// MQTT subscribers of one topic, for so many messages.
    MqttFanout(MqttFanoutLoad, u64),
    /// So many idle MQTT connections.
    Idle(usize),
}

/// Readings that warm a server up at least: a just-in-time compiler must have seen enough of them.
const WARM_UP: u64 = 30_000;

impl Work {
    /// The same load for warming up: flat out, and long enough.
    pub(crate) fn warm_up(self) -> Self {
        match self {
            Self::Mqtt(load, messages) => Self::Mqtt(MqttLoad { rate: None, ..load }, messages.max(WARM_UP)),
            Self::Http(load, messages) => Self::Http(HttpLoad { rate: None, ..load }, messages.max(WARM_UP)),
            other => other,
        }
    }
}

/// A limit that is wanted of Tidegate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At most so many times the figure of the peer.
    Ratio(Measure, Peer, f64),
    /// At most this figure.
    AtMost(Measure, f64),
}

/// One block of the table.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Its name for `--only`.
    pub(crate) name: &'static str,
    /// What it is, in a line.
    pub(crate) title: String,
    /// The load.
    pub(crate) work: Work,
    /// Whether the servers run the common handler.
    pub(crate) with_handler: bool,
    /// Whom Tidegate is compared with.
    pub(crate) against: &'static [Peer],
    /// What is wanted.
    pub(crate) goals: &'static [Goal],
    /// The figures that say something here.
    pub(crate) measures: &'static [Measure],
}

const ALL_BROKERS: &[Peer] = &[Peer::Mosquitto, Peer::Aedes];
const BOTH_BROKERS: &[Peer] = &[Peer::Mosquitto, Peer::MosquittoPersistent, Peer::Aedes];
const REFERENCE: &[Peer] = &[Peer::Reference];
const HANDLERS: &[Peer] = &[Peer::Reference, Peer::NodeRed];
const NODE_RED: &[Peer] = &[Peer::NodeRed];

const PACED: &[Measure] = &[Measure::CpuPerMessageUs];
const PACED_WITH_LATENCY: &[Measure] = &[Measure::CpuPerMessageUs, Measure::P50Us, Measure::P99Us];
const FLAT: &[Measure] = &[Measure::CpuPerMessageUs, Measure::PerSecond];
const FLAT_WITH_LATENCY: &[Measure] = &[Measure::CpuPerMessageUs, Measure::PerSecond, Measure::P99Us, Measure::RssMib];

const MESSAGE_GOAL: &[Goal] = &[Goal::Ratio(Measure::CpuPerMessageUs, Peer::Mosquitto, 1.0)];
const DELIVERY_GOAL: &[Goal] = &[Goal::Ratio(Measure::CpuPerMessageUs, Peer::Mosquitto, 0.8)];
const POST_GOAL: &[Goal] = &[Goal::Ratio(Measure::CpuPerMessageUs, Peer::Reference, 0.5)];
const HANDLER_GOAL: &[Goal] = &[
    Goal::Ratio(Measure::CpuPerMessageUs, Peer::Reference, 0.7),
    Goal::Ratio(Measure::CpuPerMessageUs, Peer::NodeRed, NODE_RED_PART),
];
const NODE_RED_GOAL: &[Goal] = &[Goal::Ratio(Measure::CpuPerMessageUs, Peer::NodeRed, NODE_RED_PART)];
const IDLE_GOAL: &[Goal] = &[Goal::AtMost(Measure::BytesPerConnection, 2.5 * 1024.0)];

/// Of what Node-RED needs for the same function.
const NODE_RED_PART: f64 = 1.0 / 3.0;

const MQTT_RATE: u32 = 10_000;
const HTTP_RATE: u32 = 2_000;
const UPDATE_RATE: u32 = 200;

/// All scenarios; with `quick` in a fraction of the time and with fewer connections.
pub(crate) fn scenarios(quick: bool) -> Vec<Scenario> {
    let count = |full: u64| if quick { full / 4 } else { full };
    let flat =
        MqttLoad { publishers: 50, devices: 50, with_ack: false, subscriber: false, rate: None, burst: 1, window: 32 };
    let paced = MqttLoad { rate: Some(MQTT_RATE), ..flat };
    let mqtt = |name, title: &str, load: MqttLoad, messages| Scenario {
        name,
        title: format!("MQTT QoS {}, 50 publishers, {title}", u8::from(load.with_ack)),
        work: Work::Mqtt(load, count(messages)),
        with_handler: false,
        against: if load.with_ack { BOTH_BROKERS } else { ALL_BROKERS },
        goals: MESSAGE_GOAL,
        measures: match (load.rate, load.with_ack) {
            (Some(_), true) => PACED_WITH_LATENCY,
            (Some(_), false) => PACED,
            (None, true) => FLAT_WITH_LATENCY,
            (None, false) => FLAT,
        },
    };
    let http = |name, title: &str, rate: Option<u32>, messages, with_handler| Scenario {
        name,
        title: format!("POST /metrics, 32 connections, {title}"),
        work: Work::Http(HttpLoad { connections: 32, rate }, count(messages)),
        with_handler,
        against: if with_handler { HANDLERS } else { REFERENCE },
        goals: if with_handler { HANDLER_GOAL } else { POST_GOAL },
        measures: if rate.is_some() { PACED_WITH_LATENCY } else { FLAT_WITH_LATENCY },
    };
    let idle = |name, connections| Scenario {
        name,
        title: format!("{connections} idle MQTT connections"),
        work: Work::Idle(connections),
        with_handler: false,
        against: ALL_BROKERS,
        goals: IDLE_GOAL,
        measures: &[Measure::BytesPerConnection, Measure::RssMib],
    };
    let subscribers = if quick { 200 } else { 1_000 };
    let mut all = vec![
        mqtt("mqtt-qos0-paced", "10,000 messages/s", paced, 50_000),
        mqtt("mqtt-qos0-flat", "flat out, a write per message", flat, 200_000),
        mqtt("mqtt-qos0-burst", "flat out, 16 messages a write", MqttLoad { burst: 16, ..flat }, 800_000),
        Scenario {
            against: BOTH_BROKERS,
            ..mqtt(
                "mqtt-qos0-sub-paced",
                "10,000 messages/s to one subscriber",
                MqttLoad { subscriber: true, ..paced },
                50_000,
            )
        },
        mqtt("mqtt-qos0-sub-flat", "flat out to one subscriber", MqttLoad { subscriber: true, ..flat }, 200_000),
        mqtt("mqtt-qos1-paced", "5,000 messages/s", MqttLoad { with_ack: true, rate: Some(5_000), ..flat }, 25_000),
        mqtt("mqtt-qos1-flat", "flat out, 16 in flight", MqttLoad { with_ack: true, window: 16, ..flat }, 200_000),
        http("http-paced", "2,000 readings/s", Some(HTTP_RATE), 10_000, false),
        http("http-flat", "flat out", None, 60_000, false),
        http("http-handler-paced", "2,000 readings/s, with the handler", Some(HTTP_RATE), 10_000, true),
        http("http-handler-flat", "flat out, with the handler", None, 60_000, true),
        Scenario {
            with_handler: true,
            against: NODE_RED,
            goals: NODE_RED_GOAL,
            ..mqtt(
                "mqtt-handler-paced",
                "2,000 messages/s, with the handler",
                MqttLoad { rate: Some(HTTP_RATE), ..flat },
                10_000,
            )
        },
        Scenario {
            with_handler: true,
            against: NODE_RED,
            goals: NODE_RED_GOAL,
            ..mqtt("mqtt-handler-flat", "flat out, with the handler", flat, 60_000)
        },
        Scenario {
            name: "mqtt-fanout",
            title: format!("MQTT fan-out, 1 publisher, {subscribers} subscribers, 20 messages/s, per delivery"),
            work: Work::MqttFanout(MqttFanoutLoad { subscribers, rate: 20 }, count(200)),
            with_handler: false,
            against: ALL_BROKERS,
            goals: DELIVERY_GOAL,
            measures: PACED_WITH_LATENCY,
        },
        Scenario {
            name: "ws-fanout",
            title: "WebSocket fan-out, 100 viewers of one device, 200 updates/s, per delivery".to_owned(),
            work: Work::Fanout(FanoutLoad { viewers: 100, rate: UPDATE_RATE }, count(1_000)),
            with_handler: false,
            against: REFERENCE,
            goals: &[],
            measures: &[Measure::CpuPerMessageUs, Measure::P50Us, Measure::P99Us, Measure::LeftOut],
        },
    ];
    all.extend(if quick {
        vec![idle("idle-2000", 2_000)]
    } else {
        vec![idle("idle-5000", 5_000), idle("idle-10000", 10_000), idle("idle-15000", 15_000)]
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_about_a_figure_and_a_peer_of_its_scenario() {
        for scenario in scenarios(true) {
            for goal in scenario.goals {
                match *goal {
                    Goal::Ratio(measure, peer, _) => {
                        assert!(scenario.measures.contains(&measure) && scenario.against.contains(&peer));
                    }
                    Goal::AtMost(measure, _) => assert!(scenario.measures.contains(&measure)),
                }
            }
        }
    }
}
