//! rumqttc behind the commands and events of [`super`]: a thread with an event loop of its own.

use std::{sync::mpsc, thread::JoinHandle, time::Duration};

use rumqttc::{
    self as v4,
    v5::{self, mqttbytes::v5 as packets},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::tunnel;

/// Of a packet: the library's own limit is 10 KiB.
const MOST_BYTES: u32 = 1 << 20;

/// A running client.
pub(crate) struct Thread {
    commands: Option<UnboundedSender<Value>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    pub(crate) fn start(say: mpsc::Sender<Value>) -> Self {
        let (commands, mut received) = unbounded_channel::<Value>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let Some(mut connect) = received.recv().await else { return };
                if !matches!(text(&connect, "transport"), "" | "tcp") {
                    let mouth = tunnel::open(&connect);
                    (connect["host"], connect["port"]) = (json!(mouth.ip().to_string()), json!(mouth.port()));
                }
                if connect["version"] == 5 {
                    Five::run(&connect, received, say).await;
                } else {
                    Four::run(&connect, received, say).await;
                }
            });
        });
        Self { commands: Some(commands), thread: Some(thread) }
    }

    pub(crate) fn command(&self, command: Value) {
        let commands = self.commands.as_ref().expect("not stopped");
        commands.send(command).expect("the client runs");
    }

    /// Drops the connection as it is.
    pub(crate) fn stop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn text<'a>(command: &'a Value, member: &str) -> &'a str {
    command[member].as_str().unwrap_or_default()
}

fn port(connect: &Value) -> u16 {
    connect["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
}

struct Four;

impl Four {
    async fn run(connect: &Value, mut commands: UnboundedReceiver<Value>, say: mpsc::Sender<Value>) {
        let mut options = v4::MqttOptions::new(text(connect, "id"), text(connect, "host"), port(connect));
        options.set_keep_alive(Duration::from_secs(60));
        options.set_max_packet_size(MOST_BYTES as usize, MOST_BYTES as usize);
        if connect["will"].is_string() {
            let (topic, payload) = (text(connect, "will"), text(connect, "willPayload"));
            options.set_last_will(v4::LastWill::new(topic, payload, v4::QoS::AtLeastOnce, false));
        }
        options.set_clean_session(connect["stored"] != true);
        if connect["user"].is_string() {
            options.set_credentials(text(connect, "user"), text(connect, "password"));
        }
        let (client, mut events) = v4::AsyncClient::new(options, 100);
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    Self::command(&client, &command);
                }
                event = events.poll() => {
                    let event = match event {
                        Ok(v4::Event::Incoming(packet)) => Self::event(&packet),
                        Ok(v4::Event::Outgoing(_)) => None,
                        Err(v4::ConnectionError::ConnectionRefused(code)) => {
                            Some(json!({"event": "lost", "code": code as u8}))
                        }
                        Err(_) => Some(json!({"event": "lost", "code": null})),
                    };
                    let Some(event) = event else { continue };
                    let over = event["event"] == "lost";
                    if say.send(event).is_err() || over {
                        return;
                    }
                }
            }
        }
    }

    fn command(client: &v4::AsyncClient, command: &Value) {
        let qos = match command["qos"].as_u64() {
            Some(2) => v4::QoS::ExactlyOnce,
            Some(1) => v4::QoS::AtLeastOnce,
            _ => v4::QoS::AtMostOnce,
        };
        let retain = command["retain"] == true;
        let done = match text(command, "op") {
            "subscribe" => client.try_subscribe(text(command, "filter"), qos),
            "unsubscribe" => client.try_unsubscribe(text(command, "filter")),
            "publish" => client.try_publish(text(command, "topic"), qos, retain, text(command, "payload")),
            _ => client.try_disconnect(),
        };
        done.expect("the client's queue has room");
    }

    fn event(packet: &v4::Packet) -> Option<Value> {
        Some(match packet {
            v4::Packet::ConnAck(ack) => {
                json!({"event": "connected", "code": ack.code as u8, "present": ack.session_present})
            }
            v4::Packet::SubAck(ack) => {
                let codes = ack.return_codes.iter().map(|code| match code {
                    v4::SubscribeReasonCode::Success(qos) => *qos as u8,
                    v4::SubscribeReasonCode::Failure => 0x80,
                });
                json!({"event": "suback", "codes": codes.collect::<Vec<_>>()})
            }
            v4::Packet::UnsubAck(_) => json!({"event": "unsuback"}),
            v4::Packet::PubAck(_) | v4::Packet::PubComp(_) => json!({"event": "puback", "code": 0}),
            v4::Packet::Publish(publish) => json!({"event": "message", "topic": publish.topic,
                "payload": String::from_utf8_lossy(&publish.payload), "qos": publish.qos as u8, "retain": publish.retain, "ids": []}),
            _ => return None,
        })
    }
}

struct Five;

impl Five {
    async fn run(connect: &Value, mut commands: UnboundedReceiver<Value>, say: mpsc::Sender<Value>) {
        let mut options = v5::MqttOptions::new(text(connect, "id"), text(connect, "host"), port(connect));
        options.set_keep_alive(Duration::from_secs(60));
        options.set_max_packet_size(Some(MOST_BYTES));
        if connect["will"].is_string() {
            let (topic, payload) = (text(connect, "will").to_owned(), text(connect, "willPayload").to_owned());
            options.set_last_will(packets::LastWill::new(topic, payload, v5::mqttbytes::QoS::AtLeastOnce, false, None));
        }
        if connect["stored"] == true {
            options.set_clean_start(false).set_session_expiry_interval(Some(7_200));
        }
        if connect["user"].is_string() {
            options.set_credentials(text(connect, "user"), text(connect, "password"));
        }
        let (client, mut events) = v5::AsyncClient::new(options, 100);
        let mut code = None;
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    Self::command(&client, &command);
                }
                event = events.poll() => {
                    let event = match event {
                        Ok(v5::Event::Incoming(packets::Packet::Disconnect(bye))) => {
                            code = Some(bye.reason_code as u8);
                            None
                        }
                        Ok(v5::Event::Incoming(packet)) => Self::event(&packet),
                        Ok(v5::Event::Outgoing(_)) => None,
                        Err(v5::ConnectionError::MqttState(v5::StateError::ServerDisconnect { reason_code, .. })) => {
                            Some(json!({"event": "lost", "code": reason_code as u8}))
                        }
                        Err(v5::ConnectionError::ConnectionRefused(code)) => {
                            Some(json!({"event": "lost", "code": connack_code(code)}))
                        }
                        Err(_) => Some(json!({"event": "lost", "code": code})),
                    };
                    let Some(event) = event else { continue };
                    let over = event["event"] == "lost";
                    if say.send(event).is_err() || over {
                        return;
                    }
                }
            }
        }
    }

    fn command(client: &v5::AsyncClient, command: &Value) {
        use v5::mqttbytes::QoS;
        let qos = match command["qos"].as_u64() {
            Some(2) => QoS::ExactlyOnce,
            Some(1) => QoS::AtLeastOnce,
            _ => QoS::AtMostOnce,
        };
        let retain = command["retain"] == true;
        let done = match text(command, "op") {
            "subscribe" => {
                let filter = packets::Filter {
                    nolocal: command["noLocal"] == true,
                    ..packets::Filter::new(text(command, "filter"), qos)
                };
                let id = command["subscriptionId"].as_u64().and_then(|id| usize::try_from(id).ok());
                let properties = packets::SubscribeProperties { id, user_properties: Vec::new() };
                client.try_subscribe_many_with_properties([filter], properties)
            }
            "unsubscribe" => client.try_unsubscribe(text(command, "filter")),
            "publish" => {
                let named = [("ack", "ack"), ("key", "idempotency-key")].into_iter();
                let user_properties = named
                    .filter_map(|(member, name)| Some((name.to_owned(), command[member].as_str()?.to_owned())))
                    .collect();
                let correlation_data = command["correlation"].as_str().map(|data| data.to_owned().into());
                let properties = packets::PublishProperties { user_properties, correlation_data, ..Default::default() };
                let payload = text(command, "payload").to_owned();
                client.try_publish_with_properties(text(command, "topic"), qos, retain, payload, properties)
            }
            _ => client.try_disconnect(),
        };
        done.expect("the client's queue has room");
    }

    fn event(packet: &packets::Packet) -> Option<Value> {
        Some(match packet {
            packets::Packet::ConnAck(ack) => {
                json!({"event": "connected", "code": ack.code as u8, "present": ack.session_present})
            }
            packets::Packet::SubAck(ack) => {
                let codes = ack.return_codes.iter().map(|code| match code {
                    packets::SubscribeReasonCode::Success(qos) => *qos as u8,
                    packets::SubscribeReasonCode::NotAuthorized => 0x87,
                    packets::SubscribeReasonCode::QuotaExceeded => 0x97,
                    _ => 0x80,
                });
                json!({"event": "suback", "codes": codes.collect::<Vec<_>>()})
            }
            packets::Packet::UnsubAck(_) => json!({"event": "unsuback"}),
            packets::Packet::PubComp(comp) => json!({"event": "puback", "code": comp.reason as u8}),
            packets::Packet::PubAck(ack) => {
                let reason = ack.properties.as_ref().and_then(|properties| properties.reason_string.clone());
                json!({"event": "puback", "code": puback_code(ack.reason), "reason": reason})
            }
            packets::Packet::Publish(publish) => {
                let mut ids = publish.properties.as_ref().map_or_else(Vec::new, |p| p.subscription_identifiers.clone());
                ids.sort_unstable();
                let properties = publish.properties.as_ref();
                let correlation = properties.and_then(|properties| properties.correlation_data.as_deref());
                json!({"event": "message", "topic": String::from_utf8_lossy(&publish.topic),
                    "payload": String::from_utf8_lossy(&publish.payload), "qos": publish.qos as u8, "retain": publish.retain, "ids": ids,
                    "replyTo": properties.and_then(|properties| properties.response_topic.as_deref()),
                    "correlation": correlation.map(String::from_utf8_lossy)})
            }
            _ => return None,
        })
    }
}

/// The reason codes of section 3.4.2.1 that the tests meet; the library's enum does not have their numbers.
fn puback_code(reason: packets::PubAckReason) -> u8 {
    match reason {
        packets::PubAckReason::Success => 0x00,
        packets::PubAckReason::NoMatchingSubscribers => 0x10,
        packets::PubAckReason::ImplementationSpecificError => 0x83,
        packets::PubAckReason::NotAuthorized => 0x87,
        packets::PubAckReason::TopicNameInvalid => 0x90,
        packets::PubAckReason::QuotaExceeded => 0x97,
        packets::PubAckReason::PayloadFormatInvalid => 0x99,
        _ => 0x80,
    }
}

/// The reason codes of section 3.2.2.2 that the tests meet.
fn connack_code(code: packets::ConnectReturnCode) -> u8 {
    match code {
        packets::ConnectReturnCode::ClientIdentifierNotValid => 0x85,
        packets::ConnectReturnCode::BadUserNamePassword => 0x86,
        packets::ConnectReturnCode::NotAuthorized => 0x87,
        _ => 0x80,
    }
}
