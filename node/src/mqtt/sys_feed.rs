//! Publishes what the node says of itself (`$SYS/broker/`, see [`super::sys`]): every `mqtt.sys_interval_s` what has changed, while
//! anybody has subscribed to it, and everything to who subscribes, as if it were retained. Nothing of it is stored.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use hashbrown::HashMap;

use super::{
    drops::DropReason,
    packet::QoS,
    router::{self, Message, Options},
    session::Session,
    sys::{self, Gauges, Load, Totals},
    topic,
};
use crate::edge::{EdgeLoop, Shared};

/// What the loops share of it: the averages, and what was published last.
#[derive(Debug, Default)]
pub(crate) struct Feed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    load: Load,
    /// When the averages were advanced last, in milliseconds of uptime.
    advanced: u64,
    said: HashMap<Box<str>, Box<str>>,
}

/// Runs once a second on one loop, which publishes for all.
pub(crate) fn tick(edge: &EdgeLoop) {
    let interval = edge.shared.settings.mqtt_sys_interval.as_millis();
    let now = edge.uptime_ms();
    let mut state = edge.shared.sys_feed.state();
    let passed = now - state.advanced;
    // The timer that calls this is itself up to a second early or late.
    if interval == 0 || u128::from(passed) + 500 < interval {
        return;
    }
    let (totals, gauges) = sample(edge);
    state.load.advance(&totals, passed as f64 / 1e3);
    state.advanced = now;
    if !edge.router.borrow().wants_sys() {
        state.said = HashMap::new();
        return;
    }
    let State { load, said, .. } = &mut *state;
    let mut changed = Vec::new();
    sys::each(&totals, &gauges, load, |topic, value| {
        let old = said.entry_ref(topic).or_default();
        if **old != *value {
            *old = value.into();
            changed.push(message(topic, value));
        }
    });
    drop(state);
    for message in changed {
        router::publish(edge, message, None);
    }
}

/// Sends a session what its new subscription matches.
pub(crate) fn show(edge: &EdgeLoop, session: &std::rc::Rc<Session>, filter: &str, options: &Options) {
    if edge.shared.settings.mqtt_sys_interval.is_zero() || !sys::may_match(filter) {
        return;
    }
    let options = Options { retain_as_published: true, ..options.clone() };
    let (totals, gauges) = sample(edge);
    let load = edge.shared.sys_feed.state().load.clone();
    sys::each(&totals, &gauges, &load, |topic, value| {
        if topic::matches(filter, topic) {
            let message = Message { retain: true, ..message(topic, value) };
            session.deliver(edge, &Arc::new(message), &options);
        }
    });
}

fn message(topic: &str, value: &str) -> Message {
    Message { payload: value.to_owned().into(), ..Message::new(topic, QoS::AtMostOnce) }
}

fn sample(edge: &EdgeLoop) -> (Totals, Gauges) {
    let Shared { counters, .. } = &*edge.shared;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let totals = Totals {
        messages_received: load(&counters.mqtt_packets_in),
        messages_sent: load(&counters.mqtt_packets_out),
        publish_received: load(&counters.mqtt_received),
        publish_sent: load(&counters.mqtt_sent),
        publish_dropped: DropReason::ALL.iter().map(|reason| counters.mqtt_dropped.of(*reason)).sum(),
        bytes_received: load(&counters.mqtt_bytes_in),
        bytes_sent: load(&counters.mqtt_bytes_out),
        connections: load(&counters.mqtt_accepted),
    };
    let connected = counters.mqtt_connections.load(Ordering::Relaxed) as u64;
    let gauges = Gauges {
        uptime_s: edge.uptime_ms() / 1_000,
        connected,
        disconnected: (counters.mqtt_sessions.load(Ordering::Relaxed) as u64).saturating_sub(connected),
        maximum: counters.mqtt_most_connections.load(Ordering::Relaxed) as u64,
        subscriptions: edge.shared.subscriptions.load(Ordering::Relaxed) as u64,
        shared_subscriptions: edge.router.borrow().shares() as u64,
        retained: edge.shared.retained.size().messages as u64,
    };
    (totals, gauges)
}

impl Feed {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
