//! What the node counts by itself, in `GET /metrics` and below `$SYS`, beside what it must have.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Plan;
use super::visits::{self, KEEP_ALIVE_S, Next, Visit};
use crate::scenario::PATIENCE;
use crate::{http, mqtt};

/// The filter below which a node says what it has.
const FILTER: &str = "$SYS/broker/#";

/// Time between two looks at who is connected.
const LOOK: Duration = Duration::from_millis(20);

/// The node's own counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// `/metrics`.
    pub(crate) sessions: u64,
    pub(crate) subscriptions: u64,
    pub(crate) retained: u64,
    /// Messages that subscribers did not get, for whatever reason, and those that were not retained.
    pub(crate) dropped: u64,
    /// `$SYS`: sessions without a connection, and retained messages.
    pub(crate) sys_disconnected: u64,
    pub(crate) sys_retained: u64,
}

impl Counts {
    /// What there must be, while nobody is connected.
    pub(crate) fn wanted(plan: &Plan) -> Self {
        let (sessions, retained) = (plan.sessions as u64, plan.retained as u64);
        Self {
            sessions,
            subscriptions: sessions,
            retained,
            dropped: 0,
            sys_disconnected: sessions,
            sys_retained: retained,
        }
    }

    /// Asks the node.
    ///
    /// # Errors
    /// No answer, or one without these figures.
    pub(crate) fn of(mqtt: SocketAddr, http: SocketAddr) -> Result<Self> {
        let text = metrics(http)?;
        let mut asking = Asking::default();
        visits::run(mqtt, 1, 1, &mut asking)?;
        let sys = |name: &Option<u64>| name.context("$SYS has not said all");
        Ok(Self {
            sessions: sum(&text, "tidegate_mqtt_sessions_stored")?,
            subscriptions: sum(&text, "tidegate_mqtt_subscriptions")?,
            retained: sum(&text, "tidegate_mqtt_retained_messages")?,
            dropped: sum(&text, "tidegate_mqtt_messages_dropped_total")?
                + sum(&text, "tidegate_mqtt_messages_not_retained_total")?,
            sys_disconnected: sys(&asking.disconnected)?,
            sys_retained: sys(&asking.retained)?,
        })
    }
}

/// # Errors
/// When somebody still is after 20 s.
pub(crate) fn wait_until_nobody_is_connected(http: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connected = sum(&metrics(http)?, "tidegate_mqtt_connections")?;
        if connected == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{connected} clients are still connected after {PATIENCE:?}");
        thread::sleep(LOOK);
    }
}

fn metrics(http: SocketAddr) -> Result<String> {
    Ok(String::from_utf8(http::get(http, "/metrics")?)?)
}

/// The sum of all values of a metric in Prometheus' text format.
fn sum(text: &str, name: &str) -> Result<u64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then_some(value)
    });
    let values: Vec<u64> = values.map(str::parse).collect::<Result<_, _>>().with_context(|| name.to_owned())?;
    ensure!(!values.is_empty(), "/metrics has no {name}");
    Ok(values.iter().sum())
}

/// Subscribes below `$SYS` and waits for the figures.
#[derive(Default)]
struct Asking {
    disconnected: Option<u64>,
    retained: Option<u64>,
}

impl Visit for Asking {
    type State = ();

    fn begin(&self, _: usize) -> ((), Vec<u8>) {
        ((), mqtt::connect("stored-asks", KEEP_ALIVE_S))
    }

    fn on_packet(&mut self, (): &mut (), first: u8, body: &[u8], out: &mut Vec<u8>) -> Result<Next> {
        match (first >> 4, body) {
            (mqtt::CONNACK, [0, 0]) => out.extend_from_slice(&mqtt::subscribe(FILTER)),
            (mqtt::SUBACK, [_, _, 0]) => {}
            (mqtt::PUBLISH, body) => {
                let message = mqtt::message(first, body)?;
                let count = match message.topic {
                    b"$SYS/broker/clients/disconnected" => &mut self.disconnected,
                    b"$SYS/broker/retained messages/count" => &mut self.retained,
                    _ => return Ok(Next::More),
                };
                *count = Some(std::str::from_utf8(message.payload)?.parse()?);
                if self.disconnected.is_some() && self.retained.is_some() {
                    return Ok(Next::Over);
                }
            }
            (kind, body) => bail!("who asks below $SYS got a packet of type {kind}: {body:?}"),
        }
        Ok(Next::More)
    }

    fn give_up(&mut self, (): ()) -> Result<()> {
        bail!("$SYS has not said all: {:?}, {:?}", self.disconnected, self.retained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Publish;

    #[test]
    fn values_of_a_metric_are_added_up_and_those_of_its_namesakes_are_not() {
        let text = "# HELP a_total Of a.\n# TYPE a_total counter\na_total{reason=\"x y\"} 3\na_total{reason=\"z\"} 4\na_total_more 9\nb 5\n";
        assert_eq!(sum(text, "a_total").expect("there"), 7);
        assert_eq!(sum(text, "b").expect("there"), 5);
        assert!(sum(text, "c").is_err(), "not there");
        assert!(sum("b 0.5", "b").is_err(), "no count");
    }

    #[test]
    fn who_asks_leaves_with_both_figures() {
        let mut asking = Asking::default();
        let mut take = |topic: &str, value: &str| {
            let packet = Publish::new(topic, value.as_bytes(), false).bytes(0).to_vec();
            asking.on_packet(&mut (), packet[0], &packet[2..], &mut Vec::new()).expect("a figure")
        };
        assert_eq!(take("$SYS/broker/clients/disconnected", "50000"), Next::More);
        assert_eq!(take("$SYS/broker/version", "tidegate"), Next::More);
        assert_eq!(take("$SYS/broker/retained messages/count", "1000000"), Next::Over);
        assert_eq!((asking.disconnected, asking.retained), (Some(50_000), Some(1_000_000)));
    }
}
