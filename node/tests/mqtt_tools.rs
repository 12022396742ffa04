//! mosquitto's command line tools against the node: `mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr`, MQTT 3.1.1 and 5. What is
//! kept for them is in `mqtt_retained.rs`, how they share in `mqtt_shared.rs`; libraries are in `mqtt_clients.rs`.

mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::{
    House, Node,
    auth::user,
    authority::Authority,
    eventually,
    mqtt::Version::{self, V3, V5},
    tools::{Subscriber, Tools},
    websocket::Viewer,
};

const VERSIONS: [Version; 2] = [V3, V5];

/// Adds a field, so that a state tells whether the handler has seen it.
const DOUBLE: &str = "export function onMetric(metric) { return { ...metric, doubled: metric.t * 2 }; }";

// ---- mosquitto_pub and mosquitto_sub

#[test]
fn readings_wills_and_levels_3_1_1() {
    readings_wills_and_levels(V3);
}

#[test]
fn readings_wills_and_levels_5() {
    readings_wills_and_levels(V5);
}

fn readings_wills_and_levels(version: Version) {
    let house = House::new().handler("10-double.js", DOUBLE);
    let node = house.start();
    let tools = Tools::new(node.mqtt, version);
    let mut viewer = Viewer::open(node.http, "?deviceId=d1");
    viewer.snapshot();
    let states = tools.subscribe("states", "devices/+/state", &[]);

    tools.publish("d1", "devices/d1/metrics", r#"{"t":21}"#, &[]);
    node.device_with("d1", "doubled", &json!(42));
    viewer.until("the handler's result", |message| message["state"]["doubled"] == 42);
    let line = states.line();
    let payload = line.strip_prefix("devices/d1/state 0 0 ").unwrap_or_else(|| panic!("{line}"));
    assert_eq!(serde_json::from_str::<Value>(payload).expect("JSON")["state"], json!({"t":21,"doubled":42}));

    tools.publish("d1", "v1/devices/me/telemetry", r#"{"t":4}"#, &[]);
    node.device_with("d1", "doubled", &json!(8));
    for n in 0..20 {
        tools.publish("gateway", &format!("devices/many-{n}/metrics"), &json!({"t": n}).to_string(), &[]);
    }
    for n in 0..20 {
        node.device_with(&format!("many-{n}"), "doubled", &json!(2 * n));
    }

    let wills = tools.subscribe("heir", "wills/+", &[]);
    let with_will = ["--will-topic", "wills/broken", "--will-payload", "gone", "--will-qos", "1"];
    drop(tools.subscribe("broken", "nothing", &with_will));
    assert_eq!(wills.line(), "wills/broken 1 0 gone");

    if version == V5 {
        for round in 0..3 {
            let payload = json!({"t": round}).to_string();
            let processed = ["-D", "publish", "user-property", "ack", "processed"];
            tools.publish("d2", "devices/d2/metrics", &payload, &processed);
            assert_eq!(node.device("d2").expect("known")["state"]["doubled"], 2 * round);
        }
    }
    node.settled_ledger();
    node.assert_alive();
}

#[test]
fn every_qos_at_both_ends() {
    let house = House::new();
    let node = house.start();
    for version in VERSIONS {
        let tools = Tools::new(node.mqtt, version);
        let at = |qos: u8| tools.subscribe_at(qos, &format!("at-{qos}"), "plant/+/temp", &[]);
        let subscribers = [at(0), at(1), at(2)];
        for sent in 0..=2 {
            let (topic, payload) = (format!("plant/{sent}/temp"), format!("sent at {sent}"));
            tools.publish_at(sent, "publisher", &topic, &payload, &[]);
            for (subscribed, subscriber) in (0..=2).zip(&subscribers) {
                assert_eq!(subscriber.line(), format!("{topic} {} 0 {payload}", sent.min(subscribed)));
            }
        }
        tools.publish("publisher", "plant/9/temp", "end", &[]);
        for subscriber in &subscribers {
            assert!(subscriber.line().ends_with(" end"), "each message once");
        }
        for qos in 0..=2 {
            let reading = json!({"t": qos}).to_string();
            tools.publish_at(qos, "device", "devices/device/metrics", &reading, &[]);
            node.device_with("device", "t", &json!(qos));
        }
    }
    assert_eq!(node.settled_ledger()["committed"], 6);
}

#[test]
fn a_stored_session_waits_over_a_kill() {
    for version in VERSIONS {
        let house = House::new();
        let mut node = house.start();
        // Without the clean flag; MQTT 5 says as well for how long.
        let stored: &[&str] = if version == V5 { &["-c", "-x", "3600"] } else { &["-c"] };
        let tools = Tools::new(node.mqtt, version);
        drop(tools.subscribe_at(2, "stored", "kept/+", stored));
        eventually("it has left", || (node.metric("tidegate_mqtt_connections") == 0.0).then_some(()));
        for qos in [1, 2] {
            tools.publish_at(qos, "publisher", &format!("kept/{qos}"), &format!("sent at {qos}"), &[]);
        }
        node.kill9();
        node = house.start();
        let tools = Tools::new(node.mqtt, version);
        let back = tools.subscribe_at(2, "stored", "kept/+", stored);
        // The tool hands a message with QoS 2 on at its PUBREL.
        let mut lines = [back.line(), back.line()];
        lines.sort();
        assert_eq!(lines, ["kept/1 1 0 sent at 1", "kept/2 2 0 sent at 2"]);
        tools.publish_at(2, "publisher", "kept/3", "after", &[]);
        assert_eq!(back.line(), "kept/3 2 0 after");
        assert!(back.is_quiet(), "each message once");
    }
}

#[test]
fn a_takeover_is_told() {
    let house = House::new();
    let node = house.start();
    for version in VERSIONS {
        let tools = Tools::new(node.mqtt, version);
        let first = tools.subscribe("same", "taken/+", &[]);
        // Another process under that client id.
        tools.publish("same", "elsewhere", "over", &[]);
        if version == V5 {
            // The tool writes what it was told, and ends.
            assert_eq!(first.line(), "Received DISCONNECT (142)");
            continue;
        }
        // It was told nothing, and comes back by itself.
        first.says("Subscribed (");
        tools.publish("publisher", "taken/1", "again", &[]);
        assert_eq!(first.line(), "taken/1 1 0 again");
    }
    node.logged(&["another connection with the same client id"]);
}

// ---- mosquitto_rr

/// Somebody asks with `mosquitto_rr`, somebody answers.
struct Exchange<'a> {
    tools: &'a Tools,
    requests: Subscriber,
}

impl<'a> Exchange<'a> {
    #[track_caller]
    fn new(tools: &'a Tools) -> Self {
        Self { tools, requests: tools.subscribe_at(2, "answers", "ask/+", &[]) }
    }

    /// The request as it comes in; with MQTT 5 it names the topic and the data of its answer.
    #[track_caller]
    fn request(&self, topic: &str, qos: u8, payload: &str, reply_to: &str) -> Vec<String> {
        let line = self.requests.line();
        if self.tools.version == V3 {
            assert_eq!(line, format!("{topic} {qos} 0 {payload}"));
            return Vec::new();
        }
        assert_eq!(line, format!("{topic} {qos} 0 <{reply_to}> <27> {payload}"));
        ["-D", "publish", "correlation-data", "27"].map(str::to_owned).to_vec()
    }

    #[track_caller]
    fn is_answered(&self, qos: u8, more: &[&str]) {
        let (topic, reply_to) = (format!("ask/{qos}"), format!("answers/{qos}"));
        let asker = self.tools.ask(qos, "asks", &topic, "how much?", &asking(self.tools, &reply_to, more));
        let data = self.request(&topic, qos, "how much?", &reply_to);
        let data: Vec<&str> = data.iter().map(String::as_str).collect();
        self.tools.publish_at(qos, "answers-once", &reply_to, "21.5", &data);
        assert_eq!(asker.answer(), "21.5");
    }
}

/// The arguments of a request.
fn asking<'a>(tools: &Tools, reply_to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["-e", reply_to, "-W", "20"];
    if tools.version == V5 {
        arguments.extend(["-D", "publish", "correlation-data", "27"]);
    }
    arguments.extend(more);
    arguments
}

#[test]
fn requests_are_answered_at_every_qos() {
    let house = House::new();
    let node = house.start();
    for version in VERSIONS {
        let tools = Tools::new(node.mqtt, version);
        let exchange = Exchange::new(&tools);
        for qos in 0..=2 {
            exchange.is_answered(qos, &[]);
        }
        // An answer that was there before is one, too.
        tools.publish("answers-early", "answers/kept", "17", &["-r"]);
        assert_eq!(tools.ask(1, "asks", "ask/kept", "?", &asking(&tools, "answers/kept", &[])).answer(), "17");
        tools.publish("answers-early", "answers/kept", "", &["-r"]);
        exchange.requests.line();

        let heir = tools.subscribe("heir", "wills/+", &[]);
        let will = ["--will-topic", "wills/asker", "--will-payload", "gone", "--will-qos", "1"];
        let asker = tools.ask(1, "asks", "ask/will", "?", &asking(&tools, "answers/never", &will));
        exchange.request("ask/will", 1, "?", "answers/never");
        drop(asker);
        assert_eq!(heir.line(), "wills/asker 1 0 gone");
    }
}

/// The answer to a request whose asker is gone waits in its session; the node is killed meanwhile.
#[test]
fn an_answer_waits_over_a_kill() {
    for version in VERSIONS {
        let house = House::new();
        let mut node = house.start();
        let stored: &[&str] = if version == V5 { &["-c", "-x", "3600"] } else { &["-c"] };
        let tools = Tools::new(node.mqtt, version);
        let exchange = Exchange::new(&tools);
        let asker = tools.ask(1, "asks", "ask/1", "how much?", &asking(&tools, "answers/1", stored));
        exchange.request("ask/1", 1, "how much?", "answers/1");
        drop(asker);
        eventually("it is gone", || (node.metric("tidegate_mqtt_connections") == 1.0).then_some(()));
        tools.publish("answers-once", "answers/1", "21.5", &[]);
        node.kill9();
        node = house.start();
        let tools = Tools::new(node.mqtt, version);
        let asker = tools.ask(1, "asks", "ask/1", "how much?", &asking(&tools, "answers/1", stored));
        assert_eq!(asker.answer(), "21.5", "nobody is there to answer a second time");
    }
}

#[test]
fn a_second_asker_takes_over() {
    let house = House::new();
    let node = house.start();
    for version in VERSIONS {
        let tools = Tools::new(node.mqtt, version);
        let exchange = Exchange::new(&tools);
        let first = tools.ask(1, "asks", "ask/first", "?", &asking(&tools, "answers/1", &[]));
        exchange.request("ask/first", 1, "?", "answers/1");
        let second = tools.ask(1, "asks", "ask/second", "?", &asking(&tools, "answers/1", &[]));
        exchange.request("ask/second", 1, "?", "answers/1");
        match version {
            V3 => assert!(first.fails().contains("connection was lost")),
            // Told so, the tool ends well, without an answer.
            V5 => assert_eq!(first.answer(), ""),
        }
        tools.publish("answers-once", "answers/1", "21.5", &[]);
        assert_eq!(second.answer(), "21.5");
    }
    node.logged(&["another connection with the same client id"]);
}

// ---- who they are

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).to_lowercase() + &String::from_utf8_lossy(&output.stdout).to_lowercase()
}

#[test]
fn a_wrong_password_and_a_topic_that_is_not_ones_own() {
    let house = House::new();
    for name in ["d1", "d2"] {
        user(&house, name, "device", "secret");
    }
    user(&house, "op", "operator", "secret");
    let node = house.start();
    for version in VERSIONS {
        let as_user = |name: &str, password: &str| Tools::new(node.mqtt, version).with(&["-u", name, "-P", password]);
        let (mine, wrong) = (as_user("d1", "secret"), as_user("d1", "wrong"));
        let sees = as_user("op", "secret").subscribe("op", "devices/#", &[]);
        for (program, more) in [
            ("mosquitto_pub", &["-t", "devices/d1/x", "-m", "x"][..]),
            ("mosquitto_sub", &["-t", "devices/d1/x", "-W", "10"]),
            ("mosquitto_rr", &["-t", "devices/d1/x", "-m", "x", "-e", "devices/d1/y", "-W", "10"]),
        ] {
            let refused = wrong.run(program, "d1", 1, more);
            let words = words(&refused);
            // mosquitto_rr looks the code of 3.1.1 up among those of 5.
            let expected = match (program, version) {
                ("mosquitto_rr", V3) => "connection error",
                _ => "bad user name or password",
            };
            assert!(!refused.status.success() && words.contains(expected), "{program}: {words}");
        }
        // Publishing to another's topic: MQTT 5 is told; 3.1.1 has no word for it.
        let denied = mine.run("mosquitto_pub", "d1", 1, &["-t", "devices/d2/x", "-m", "forged"]);
        assert!(version == V3 || words(&denied).contains("not authorized"), "{denied:?}");
        let denied = mine.run("mosquitto_sub", "d1", 1, &["-t", "devices/d2/#", "-W", "10"]);
        assert!(words(&denied).contains("denied") || words(&denied).contains("not authorized"), "{denied:?}");
        let asks = ["-t", "devices/d1/ask", "-m", "?", "-e", "devices/d2/answer", "-W", "2"];
        let denied = mine.run("mosquitto_rr", "d1", 1, &asks);
        let expected = if version == V5 { "not authorized" } else { "unspecified error" };
        assert!(denied.stdout.is_empty() && words(&denied).contains(expected), "{denied:?}");
        // What others saw is what was allowed.
        mine.publish("d1", "devices/d1/x", "mine", &[]);
        let seen: Vec<String> =
            std::iter::repeat_with(|| sees.line()).take_while(|line| !line.ends_with("mine")).collect();
        assert!(seen.iter().all(|line| !line.contains("forged")), "{seen:?}");
    }
    node.as_user("op", "secret");
    // For each version a PUBLISH and two SUBSCRIBEs.
    assert_eq!(node.metric("tidegate_auth_denied_total{action=\"publish\"}"), 2.0);
    assert_eq!(node.metric("tidegate_auth_denied_total{action=\"subscribe\"}"), 4.0);
}

#[test]
fn tls_with_and_without_certificates() {
    for asks_clients in [false, true] {
        let mut house = House::new().flags(&["--mqtts-bind", "127.0.0.1:0"]);
        let authority = Authority::new(&house.path(""), "authority");
        let (node_files, own, ca) =
            (authority.node("node", 1), authority.client("tool", 2, "tool", None, None), authority.ca());
        house = house
            .variable("TIDEGATE_MQTT__TLS_CERT", &node_files.cert.to_string_lossy())
            .variable("TIDEGATE_MQTT__TLS_KEY", &node_files.key.to_string_lossy());
        if asks_clients {
            house = house.variable("TIDEGATE_MQTT__TLS_CLIENT_CA", &ca.to_string_lossy());
        }
        let node: Node = house.start();
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let (ca, cert, key) = (path(&ca), path(&own.cert), path(&own.key));
        for version in VERSIONS {
            let bare = Tools::new(node.door("mqtts"), version).with(&["--cafile", &ca]);
            let tools = if asks_clients { bare.clone().with(&["--cert", &cert, "--key", &key]) } else { bare.clone() };
            let subscriber = tools.subscribe_at(2, "sees", "plant/+", &[]);
            for qos in 0..=2 {
                tools.publish_at(qos, "publisher", "plant/1", "over TLS", &[]);
                assert_eq!(subscriber.line(), format!("plant/1 {qos} 0 over TLS"));
            }
            let exchange = Exchange::new(&tools);
            exchange.is_answered(1, &[]);
            if asks_clients {
                for (program, more) in [
                    ("mosquitto_pub", &["-t", "plant/1", "-m", "x"][..]),
                    ("mosquitto_rr", &["-t", "plant/1", "-m", "x", "-e", "plant/2", "-W", "5"]),
                ] {
                    assert!(!bare.run(program, "bare", 1, more).status.success(), "{program} without a certificate");
                }
                node.logged(&["TLS handshake failed", "no certificate"]);
            }
            assert!(subscriber.is_quiet(), "nothing of who has no certificate");
        }
    }
}
