//! Commands to devices: over HTTP and from handlers, to devices that are there and to devices that are not, in Tidegate's shape and
//! in ThingsBoard's.

mod support;

use std::{net::SocketAddr, thread::JoinHandle, time::Duration};

use serde_json::{Value, json};
use support::{
    House, Node,
    driver::{Client, Library},
    eventually,
    http::{self, Response},
    mqtt::{
        Packet, Raw,
        Version::{self, V3, V5},
        publish, subscribe,
    },
};

#[test]
fn rumqttc_v3() {
    scenario(Library::Rumqttc, V3);
}

#[test]
fn rumqttc_v5() {
    scenario(Library::Rumqttc, V5);
}

#[test]
fn paho_v3() {
    scenario(Library::Paho, V3);
}

#[test]
fn paho_v5() {
    scenario(Library::Paho, V5);
}

/// Several devices, so that some live on another loop than the request's.
const DEVICES: [&str; 3] = ["valve-1", "valve-2", "Ventil 3"];

fn scenario(library: Library, version: Version) {
    let house = House::new();
    let mut node = house.start();
    for id in DEVICES {
        let mut device = Client::connect(library, node.mqtt, version, id);
        assert_eq!(device.subscribe(&format!("devices/{id}/commands/+"), 1), 1);
        // There and back.
        let request = send(&node, id, "", &json!({"name": "open", "params": {"angle": 30}}));
        let message = device.message();
        let body: Value = serde_json::from_str(&message.payload).expect("JSON");
        assert_eq!((&body["name"], &body["params"], message.qos), (&json!("open"), &json!({"angle": 30}), 1));
        assert_eq!(message.topic, format!("devices/{id}/commands/{}", body["id"].as_str().expect("an id")));
        assert_eq!(device.publish(&format!("{}/reply", message.topic), r#"{"angle":29}"#), 0);
        let answer = request.join().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let command = answer.json();
        assert_eq!((&command["status"], &command["reply"]), (&json!("replied"), &json!({"angle": 29})), "{command}");
        assert_eq!((&command["request"], &command["deviceId"]), (&body["id"], &json!(id)));
        assert!(command["deliveredTime"].is_i64(), "{command}");

        // No reply wanted: the acknowledgement is the end.
        let request = send(&node, id, "", &json!({"name": "blink", "oneway": true}));
        let message: Value = serde_json::from_str(&device.message().payload).expect("JSON");
        assert_eq!((&message["oneway"], &message["params"]), (&json!(true), &json!({})));
        assert_eq!(request.join().expect("an answer").json()["status"], "delivered");
        device.leave();

        // ThingsBoard's topics.
        let mut device = Client::connect(library, node.mqtt, version, id);
        assert_eq!(device.subscribe("v1/devices/me/rpc/request/+", 1), 1);
        let mut other = Client::connect(library, node.mqtt, version, "somebody-else");
        other.subscribe("v1/devices/me/rpc/request/+", 1);
        let request = send(&node, id, "", &json!({"name": "getValue", "params": [1]}));
        let message = device.message();
        let number = message.topic.strip_prefix("v1/devices/me/rpc/request/").expect("ThingsBoard's topic");
        assert!(number.parse::<i32>().is_ok_and(|number| number > 0), "{number}");
        assert_eq!(message.payload, r#"{"method":"getValue","params":[1]}"#);
        assert_eq!(device.publish(&format!("v1/devices/me/rpc/response/{number}"), "12.5"), 0);
        assert_eq!(request.join().expect("an answer").json()["reply"], 12.5);
        assert!(other.is_quiet(), "a command goes to its own device only");
        device.leave();
        other.leave();

        // Not there: it waits, and goes out when the device has subscribed.
        let answer = send(&node, id, "", &json!({"name": "later", "expiryMs": 60_000})).join().expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.text());
        let place = answer.header("location").expect("a place to look at").to_owned();
        assert_eq!(node.get(&place).json()["status"], "queued");
        let mut device = Client::connect(library, node.mqtt, version, id);
        device.subscribe(&format!("devices/{id}/commands/+"), 1);
        let message = device.message();
        assert_eq!(place.rsplit('/').next(), message.topic.rsplit('/').next());
        status(&node, &place, "delivered");
        assert_eq!(device.publish(&format!("{}/reply", message.topic), "done"), 0);
        assert_eq!(status(&node, &place, "replied")["reply"], "done");
        let commands = node.get(&format!("/devices/{}/commands", http::escape(id))).json();
        let names: Vec<&str> = commands["commands"].as_array().expect("a list").iter().map(name).collect();
        assert_eq!(names, ["open", "blink", "getValue", "later"]);
        device.leave();
    }
    assert_eq!(node.metric("tidegate_commands_total{status=\"replied\"}") as usize, 3 * DEVICES.len());
    node.assert_alive();
    assert_eq!(node.stop(), Some(0));
}

fn name(command: &Value) -> &str {
    command["name"].as_str().expect("a name")
}

#[test]
fn an_mqtt_5_device_is_told_where_to_answer() {
    let house = House::new();
    let node = house.start();
    let mut device = listening(&node, V5, "d1");
    let request = send(&node, "d1", "", &json!({"name": "n", "expiryMs": 7_500}));
    let message = device.expect(0x32);
    let (topic, id, properties) = taken_apart(&message);
    let correlation = topic.strip_prefix("devices/d1/commands/").expect("its topic").as_bytes();
    let mut expected = property(0x08, format!("{topic}/reply").as_bytes());
    expected.extend(property(0x09, correlation));
    // At most as long as it was to wait; the last property, as it is written anew when it shrinks.
    let (expiry, rest) = (&properties[expected.len()..], &properties[..expected.len()]);
    assert_eq!((rest, expiry[0]), (&expected[..], 0x02));
    assert!((1..=10).contains(&expiry[4]), "{expiry:?}");
    device.send(&acknowledge(id));
    device.send(&publish(V5, &format!("{topic}/reply"), 1, 1, &property(0x09, correlation), b"true"));
    assert_eq!(device.expect(0x40).puback(), (1, 0));
    assert_eq!(request.join().expect("an answer").json()["reply"], true);
    // Once more: nobody waits for it, and the device learns so.
    device.send(&publish(V5, &format!("{topic}/reply"), 1, 2, &[], b"true"));
    let puback = device.expect(0x40);
    assert_eq!(puback.puback(), (2, 0));
    assert!(puback.reason_string().contains("no such command"), "{puback:?}");
    assert_eq!(node.metric("tidegate_command_replies_refused_total{reason=\"not-waiting\"}"), 1.0);
}

#[test]
fn nobody_answers_for_another_device() {
    let house = House::new();
    let node = house.start();
    let mut device = listening(&node, V5, "d1");
    // A subscriber to replies gets none: they are for who asked.
    let mut other = Raw::connect(node.mqtt, V5, "d2");
    other.send(&subscribe(V5, 1, "devices/d1/commands/#", 0));
    other.expect(0x90);
    let request = send(&node, "d1", "", &json!({"name": "n", "timeoutMs": 1_500}));
    let (topic, id, _) = taken_apart(&device.expect(0x32));
    device.send(&acknowledge(id));
    other.expect(0x30);
    other.send(&publish(V5, &format!("{topic}/reply"), 1, 9, &[], b"\"forged\""));
    let puback = other.expect(0x40);
    assert_eq!(puback.puback(), (9, 0x87), "not authorized");
    assert!(puback.reason_string().contains("only the device"), "{puback:?}");
    // Nor by a number that is its own.
    other.send(&publish(V5, "v1/devices/me/rpc/response/1", 1, 10, &[], b"1"));
    assert!(other.expect(0x40).reason_string().contains("no such command"));
    let problem = request.join().expect("an answer").problem(504, "command-timeout");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("timeoutMs of 1500")), "{problem}");
    assert_eq!((&problem["deviceId"], &problem["commandStatus"]), (&json!("d1"), &json!("failed")));
    assert_eq!(node.metric("tidegate_command_replies_refused_total{reason=\"not-the-device\"}"), 1.0);
    assert!(other.next_within(Duration::from_millis(50)).is_none(), "a reply goes to no subscriber");
}

#[test]
fn a_caller_waits_as_long_as_it_says() {
    let house = House::new();
    let node = house.start();
    let problem = node.post("/devices/d1/commands", r#"{"name":"n"}"#).problem(409, "device-offline");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("expiryMs")), "{problem}");
    // Connected is not enough.
    let mut device = Raw::connect(node.mqtt, V3, "d1");
    node.post("/devices/d1/commands", r#"{"name":"n"}"#).problem(409, "device-offline");
    // It waits for the device, and then for its answer.
    let request = send(&node, "d1", "?wait=20", &json!({"name": "n", "expiryMs": 20_000}));
    eventually("the command waits", || {
        let commands = node.get("/devices/d1/commands").json();
        (commands["commands"][0]["status"] == "queued").then_some(())
    });
    device.send(&subscribe(V3, 1, "devices/d1/commands/+", 1));
    device.expect(0x90);
    let (topic, id, _) = taken_apart(&device.expect(0x32));
    device.send(&acknowledge(id));
    device.send(&publish(V3, &format!("{topic}/reply"), 1, 1, &[], b"1"));
    device.expect(0x40);
    assert_eq!(request.join().expect("an answer").json()["reply"], 1);
    // It does not wait.
    let answer = node.post("/devices/d1/commands?wait=0", r#"{"name":"n"}"#);
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("sent")));
    // It waits less than the command.
    let answer = node.post("/devices/d1/commands?wait=1", r#"{"name":"n","timeoutMs":60000}"#);
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("sent")));
    // What is over cannot be looked at for ever, and what never was not at all.
    node.get("/devices/d1/commands/none").problem(404, "unknown-command");
    // Late: the device did not come.
    let answer = node.post("/devices/d2/commands?wait=5", r#"{"name":"n","expiryMs":300}"#);
    answer.problem(504, "command-expired");
}

#[test]
fn a_command_is_taken_back_before_it_is_sent() {
    let house = House::new();
    let node = house.start();
    let place = node.post("/devices/d1/commands", r#"{"name":"n","expiryMs":60000}"#);
    let place = place.header("location").expect("a place").to_owned();
    assert_eq!(delete(&node, &place).json()["status"], "cancelled");
    delete(&node, &place).problem(409, "command-over");
    delete(&node, "/devices/d1/commands/none").problem(404, "unknown-command");
    let mut device = listening(&node, V5, "d1");
    let sent = node.post("/devices/d1/commands?wait=0", r#"{"name":"other","expiryMs":60000}"#);
    let (topic, ..) = taken_apart(&device.expect(0x32));
    assert_eq!(sent.header("location"), Some(&*format!("/{topic}")), "the one that was taken back did not come");
    delete(&node, &format!("/{topic}")).problem(409, "command-sent");
}

#[test]
fn limits_and_mistakes_are_named() {
    let house = House::new();
    let node = house.start();
    for (body, status, kind, field, limit) in [
        ("", 400, "bad-command", None, None),
        ("{}", 400, "bad-command", None, None),
        (r#"{"name":"n","method":"n"}"#, 400, "bad-command", None, None),
        (r#"{"name":"n","timeoutMs":600001}"#, 400, "bad-command", Some("timeoutMs"), Some("command_timeout_most")),
        (&json!({"name": "n".repeat(257)}).to_string(), 400, "bad-command", Some("name"), Some("command_name_bytes")),
        (
            &json!({"name": "n", "params": "x".repeat(64 * 1024)}).to_string(),
            413,
            "bad-command",
            Some("params"),
            Some("command_params_bytes"),
        ),
    ] {
        let problem = node.post("/devices/d1/commands", body).problem(status, kind);
        assert_eq!((problem["field"].as_str(), problem["limit"].as_str()), (field, limit), "{problem}");
    }
    node.post("/devices/a%2Fb/commands", r#"{"name":"n"}"#).problem(400, "bad-device-id");
    node.post("/devices/d1/commands?wait=601", r#"{"name":"n"}"#).problem(400, "bad-parameter");
    node.post("/devices/d1/commands?weight=1", r#"{"name":"n"}"#).problem(400, "bad-parameter");
    http::request(node.http, "PUT", "/devices/d1/commands", &[], b"").problem(405, "method-not-allowed");

    let mut http = node.http();
    let waits = br#"{"name":"n","expiryMs":60000}"#;
    for _ in 0..100 {
        http.send("POST", "/devices/d1/commands", &[], waits);
        assert_eq!(http.receive().status, 202);
    }
    http.send("POST", "/devices/d1/commands", &[], waits);
    let problem = http.receive().problem(429, "command-queue-full");
    assert_eq!((&problem["limit"], &problem["limitValue"]), (&json!("command_queue"), &json!(100)));

    // All of them, in order.
    let mut device = listening(&node, V3, "d1");
    let mut topics = Vec::new();
    for _ in 0..100 {
        let (topic, id, _) = taken_apart(&device.expect(0x32));
        device.send(&acknowledge(id));
        topics.push(topic);
    }
    assert!(topics.is_sorted());
    // A reply that is too large, and one that is no text.
    for (index, (reply, words)) in
        [(vec![b'1'; 64 * 1024 + 1], "command_reply_bytes"), (vec![0xFF], "neither JSON nor text")].iter().enumerate()
    {
        device.send(&publish(V3, &format!("{}/reply", topics[index]), 1, 1, &[], reply));
        device.expect(0x40);
        let command = node.get(&format!("/{}", topics[index])).json();
        assert_eq!(command["status"], "failed");
        assert!(command["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{command}");
    }
}

#[test]
fn what_waits_survives_kill_9_and_so_does_what_came_of_it() {
    let house = House::new();
    let mut node = house.start();
    let ids: Vec<String> = (0..20).map(|n| format!("pump-{n}")).collect();
    let place = |answer: &Response| answer.header("location").expect("a place").to_owned();
    let places: Vec<String> = ids
        .iter()
        .map(|id| {
            let answer = node.post(&format!("/devices/{id}/commands"), r#"{"name":"start","expiryMs":600000}"#);
            assert_eq!(answer.status, 202);
            place(&answer)
        })
        .collect();
    let taken_back = place(&node.post("/devices/pump-0/commands", r#"{"name":"stop","expiryMs":600000}"#));
    delete(&node, &taken_back);
    node.kill9();

    let mut node = house.start();
    let mut topics = Vec::new();
    for (id, place) in ids.iter().zip(&places) {
        assert_eq!(node.get(place).json()["status"], "queued");
        let mut device = listening(&node, V3, id);
        let (topic, packet_id, _) = taken_apart(&device.expect(0x32));
        assert_eq!(format!("/{topic}"), *place);
        device.send(&acknowledge(packet_id));
        // A PUBACK means that the reply is durable.
        device.send(&publish(V3, &format!("{topic}/reply"), 1, 1, &[], b"{\"rpm\":900}"));
        device.expect(0x40);
        topics.push(topic);
    }
    node.kill9();

    let node = house.start();
    for place in &places {
        let command = node.get(place).json();
        assert_eq!((&command["status"], &command["reply"]["rpm"]), (&json!("replied"), &json!(900)), "{command}");
    }
    assert_eq!(node.get(&taken_back).json()["status"], "cancelled");
    let mut device = listening(&node, V3, "pump-0");
    assert!(device.next_within(Duration::from_millis(200)).is_none(), "what is over is not sent again");
}

#[test]
fn what_was_not_acknowledged_is_sent_again_with_the_same_id() {
    let house = House::new();
    let node = house.start();
    let mut device = listening(&node, V3, "d1");
    let place = node.post("/devices/d1/commands?wait=0", r#"{"name":"n","expiryMs":60000}"#);
    let place = place.header("location").expect("a place").to_owned();
    let (first, ..) = taken_apart(&device.expect(0x32));
    drop(device);
    status(&node, &place, "queued");
    let mut device = listening(&node, V3, "d1");
    let (second, id, _) = taken_apart(&device.expect(0x32));
    assert_eq!(first, second);
    device.send(&acknowledge(id));
    assert_eq!(status(&node, &place, "delivered")["tries"], 2);
    drop(device);
    let mut device = listening(&node, V3, "d1");
    assert!(device.next_within(Duration::from_millis(100)).is_none(), "an acknowledged one is not");
}

/// Asks the device beside it for what it sees.
const ASK: &str = r#"
export function onMetric(metric, ctx) {
  const request = ctx.command(metric.ask, "look", { at: ctx.deviceId, n: metric.n });
  return { request };
}"#;

#[test]
fn a_handler_sends_commands() {
    let house = House::new().handler("10-ask.js", ASK);
    let mut node = house.start();
    let mut camera = listening(&node, V5, "camera");
    let answer = node.post("/devices/door/metrics?ack=processed", r#"{"ask":"camera","n":7}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (topic, id, _) = taken_apart(&camera.expect(0x32));
    camera.send(&acknowledge(id));
    let request = node.device("door").expect("it has a state")["state"]["request"].as_str().expect("an id").to_owned();
    assert_eq!(topic, format!("devices/camera/commands/{request}"));
    camera.send(&publish(V5, &format!("{topic}/reply"), 1, 1, &[], b"\"a cat\""));
    camera.expect(0x40);
    let command = node.get(&format!("/{topic}")).json();
    assert_eq!((&command["reply"], &command["params"]), (&json!("a cat"), &json!({"at": "door", "n": 7})));
    // For a device that is not there it waits.
    node.post("/devices/door/metrics?ack=processed", r#"{"ask":"lamp","n":8}"#);
    let lamp = eventually("the lamp's command", || {
        let commands = node.get("/devices/lamp/commands").json();
        commands["commands"][0].as_object().map(|_| commands["commands"][0].clone())
    });
    assert_eq!(lamp["status"], "queued");
    // What the lamp's loop has journaled by now is durable.
    let update = br#"{"state":{"desired":{"on":true}}}"#;
    assert_eq!(http::request(node.http, "PATCH", "/devices/lamp/shadow", &[], update).status, 200);
    // A reading whose outcome is in the journal is not handled again, and its command not sent again.
    node.settled_ledger();
    drop(camera);
    node.kill9();
    let node = house.start();
    let mut camera = listening(&node, V5, "camera");
    node.settled_ledger();
    assert!(camera.next_within(Duration::from_millis(200)).is_none());
    assert_eq!(node.get("/devices/lamp/commands").json()["commands"].as_array().map(Vec::len), Some(1));
    // One that is no device is the handler's mistake: its reading is parked.
    let answer = node.post("/devices/door/metrics?ack=processed", r#"{"ask":"a/b","n":9}"#).json();
    assert_eq!(answer["outcome"], "parked: threw", "{answer}");
}

// ---- what the tests share

/// A device that takes commands at QoS 1.
#[track_caller]
fn listening(node: &Node, version: Version, id: &str) -> Raw {
    let mut device = Raw::connect(node.mqtt, version, id);
    device.send(&subscribe(version, 1, &format!("devices/{id}/commands/+"), 1));
    assert_eq!(device.expect(0x90).body.last(), Some(&1));
    device
}

/// Posts a command, and waits elsewhere for the answer.
fn send(node: &Node, device: &str, query: &str, body: &Value) -> JoinHandle<Response> {
    let to: SocketAddr = node.http;
    let (path, body) = (format!("/devices/{}/commands{query}", http::escape(device)), body.to_string());
    std::thread::spawn(move || http::request(to, "POST", &path, &[], body.as_bytes()))
}

#[track_caller]
fn delete(node: &Node, place: &str) -> Response {
    http::request(node.http, "DELETE", place, &[], b"")
}

/// The command at this place, once it has this status.
#[track_caller]
fn status(node: &Node, place: &str, status: &str) -> Value {
    eventually(&format!("{place} is {status}"), || {
        Some(node.get(place).json()).filter(|command| command["status"] == status)
    })
}

fn acknowledge(id: u16) -> Vec<u8> {
    support::mqtt::packet(0x40, &id.to_be_bytes())
}

fn property(id: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![id];
    out.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    out.extend_from_slice(value);
    out
}

/// Topic, packet id and properties (none for 3.1.1, whose payload is JSON) of a PUBLISH at QoS 1.
#[track_caller]
fn taken_apart(message: &Packet) -> (String, u16, Vec<u8>) {
    let length = usize::from(u16::from_be_bytes([message.body[0], message.body[1]]));
    let topic = String::from_utf8(message.body[2..2 + length].to_vec()).expect("a topic");
    let rest = &message.body[2 + length..];
    let id = u16::from_be_bytes([rest[0], rest[1]]);
    let properties = match rest[2..] {
        [b'{', ..] => Vec::new(),
        // Two bytes of length would begin with the high bit.
        [length, ..] if length < 128 => rest[3..3 + usize::from(length)].to_vec(),
        [low, high, ..] => rest[4..4 + usize::from(low & 0x7F) + 128 * usize::from(high)].to_vec(),
        _ => panic!("{message:?}"),
    };
    (topic, id, properties)
}
