//! The load on the node while it lives: readings over MQTT (QoS 1) and HTTP (`ack=committed`), until the connection breaks.
//! It notes what was sent before it can be sent, and what was acknowledged after it was.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
use serde_json::{Value, json};

use super::tally::Device;
use crate::http_client::HttpClient;

/// Unacknowledged readings of one MQTT connection.
const WINDOW: usize = 64;

/// What was sent and acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) acked: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.acked += other.acked;
    }
}

/// Publishes readings of the devices in turn.
pub(super) async fn over_mqtt(to: SocketAddr, client_id: &str, devices: &mut [Device], padding: &str) -> Counts {
    let mut counts = Counts::default();
    let mut options = MqttOptions::new(client_id, to.ip().to_string(), to.port());
    options.set_inflight(WINDOW as u16);
    let (client, mut events) = AsyncClient::new(options, WINDOW);
    let (mut queued, mut under_way) = (VecDeque::new(), HashMap::new());
    let (mut connected, mut turn) = (false, 0);
    loop {
        while connected && queued.len() + under_way.len() < WINDOW {
            let index = turn % devices.len();
            turn += 1;
            let sequence = devices[index].send_next();
            let topic = format!("devices/{}/metrics", devices[index].id);
            let payload = json!({"seq": sequence, "padding": padding}).to_string();
            if client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_err() {
                return counts;
            }
            counts.sent += 1;
            queued.push_back((index, sequence));
        }
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => connected = true,
            Ok(Event::Outgoing(Outgoing::Publish(packet))) => {
                under_way.extend(queued.pop_front().map(|reading| (packet, reading)));
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                if let Some((index, sequence)) = under_way.remove(&ack.pkid) {
                    devices[index].ack(sequence);
                    counts.acked += 1;
                }
            }
            Ok(_) => {}
            Err(_) => return counts,
        }
    }
}

/// Posts readings, one request after the other: of one device, or of all in one body.
pub(super) async fn over_http(to: SocketAddr, devices: &mut [Device], padding: &str) -> Counts {
    let mut counts = Counts::default();
    let mut http = HttpClient::new(to, None);
    for turn in 0.. {
        let whole = turn % 4 == 0;
        let chosen = if whole { &mut *devices } else { std::slice::from_mut(&mut devices[turn % devices.len()]) };
        let sent: Vec<u64> = chosen.iter_mut().map(Device::send_next).collect();
        counts.sent += sent.len() as u64;
        let readings: Vec<Value> = chosen
            .iter()
            .zip(&sent)
            .map(|(device, sequence)| json!({"deviceId": device.id, "seq": sequence, "padding": padding}))
            .collect();
        let body = Value::Array(readings).to_string();
        let Ok(answer) = http.post("/metrics?ack=committed", body.into()).await else { break };
        let accepted =
            serde_json::from_slice::<Value>(&answer.body).ok().and_then(|answer| answer["accepted"].as_u64());
        if answer.status != 200 || accepted != Some(sent.len() as u64) {
            // Refused, perhaps in part: nobody knows which of them it has, so these devices are silent until the next start.
            break;
        }
        chosen.iter_mut().zip(&sent).for_each(|(device, sequence)| device.ack(*sequence));
        counts.acked += sent.len() as u64;
    }
    counts
}
