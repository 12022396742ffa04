//! Bridges: messages of a real mosquitto become readings, and are acknowledged to it once the journal has them.

mod support;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use support::{
    Dice, House, Node, PATIENCE, eventually, eventually_within,
    mosquitto::Mosquitto,
    mqtt::{self, Connect, Raw, Version},
};
use tempfile::TempDir;

/// A node's configuration with bridges.
struct Config {
    dir: TempDir,
    text: String,
}

impl Config {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), text: String::new() }
    }

    /// A bridge to `broker` with more keys, and then its subscriptions.
    fn bridge(mut self, name: &str, url: &str, keys: &str, subscriptions: &[&str]) -> Self {
        let _ = writeln!(self.text, "[[bridge]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}");
        for subscription in subscriptions {
            let _ = writeln!(self.text, "[[bridge.subscription]]\n{subscription}");
        }
        self
    }

    fn house(&self) -> House {
        let path = self.dir.path().join("tidegate.toml");
        std::fs::write(&path, &self.text).expect("the configuration is written");
        House::new().flags(&["--config", &path.to_string_lossy()])
    }
}

fn url(broker: &Mosquitto) -> String {
    format!("mqtt://{}", broker.address)
}

const PLANT: &str = "filter = \"factory/{site}/{device}/telemetry\"\ndevice = \"{site}-{device}\"";

/// A bridge's entry in the overview.
#[track_caller]
fn status(node: &Node, name: &str) -> Value {
    let overview = node.get("/api/overview").json();
    let bridges = overview["bridges"].as_array().expect("a list of bridges");
    bridges.iter().find(|bridge| bridge["name"] == name).unwrap_or_else(|| panic!("no {name} in {overview:#}")).clone()
}

#[track_caller]
fn connected(node: &Node, name: &str) -> Value {
    eventually(&format!("bridge {name} is connected"), || Some(status(node, name)).filter(|it| it["connected"] == true))
}

/// The bridge's entry once nothing of it is under way and it has taken so many messages.
#[track_caller]
fn settled(node: &Node, name: &str, messages: u64) -> Value {
    let mut last = Value::Null;
    eventually(&format!("bridge {name} has taken {messages} messages"), || {
        last = status(node, name);
        Some(last.clone()).filter(|it| it["messages"].as_u64() >= Some(messages) && it["inFlight"] == 0)
    })
}

#[test]
fn topics_and_payloads_become_states_of_devices() {
    for version in ["3.1.1", "5"] {
        let broker = Mosquitto::start("");
        let one_value = "filter = \"house/{room}/+\"\ndevice = \"room-{room}\"\nfield = \"{last}\"";
        let gateways = "filter = \"$share/tide/gateways/#\"";
        let keys = format!("version = \"{version}\"");
        let config = Config::new().bridge("plant", &url(&broker), &keys, &[PLANT, one_value, gateways]);
        // One value a topic: what the device said before is kept by a handler.
        let merge = "export function onMetric(metric, ctx) { return { ...ctx.previous, ...metric }; }";
        let house = config.house().handler("merge.js", merge);
        let mut node = house.start();
        connected(&node, "plant");

        broker.publish("factory/north/pump/telemetry", r#"{"temperature":21.5}"#, &[]);
        node.device_with("north-pump", "temperature", &json!(21.5));
        broker.publish(
            "factory/north/pump/telemetry",
            r#"[{"ts":1000,"values":{"n":1}},{"ts":2000,"values":{"n":2}}]"#,
            &[],
        );
        assert_eq!(node.device_with("north-pump", "n", &json!(2))["deviceTime"], 2000);
        broker.publish("house/kitchen/temperature", "19.5", &[]);
        broker.publish("house/kitchen/light", "ON", &[]);
        let kitchen = node.device_with("room-kitchen", "light", &json!("ON"));
        assert_eq!(kitchen["state"]["temperature"], 19.5, "{kitchen}");
        broker.publish("gateways/7", r#"[{"deviceId":"a","x":1},{"deviceId":"b","x":2}]"#, &[]);
        node.device_with("a", "x", &json!(1));
        node.device_with("b", "x", &json!(2));
        // zigbee2mqtt's and Sparkplug's JSON are objects like any other.
        broker.publish("factory/z/lamp/telemetry", r#"{"brightness":254,"color":{"x":0.3},"linkquality":72}"#, &[]);
        node.device_with("z-lamp", "color", &json!({ "x": 0.3 }));

        // What can never be a reading is counted and acknowledged, or it would come for ever.
        broker.publish("factory/north/pump/telemetry", "no json", &[]);
        broker.publish("gateways/7", r#"{"x":1}"#, &[]);
        broker.publish("factory/north/pump/telemetry", &format!("{{\"a\":\"{}\"}}", "x".repeat(100_000)), &[]);
        let done = settled(&node, "plant", 9);
        assert_eq!((&done["messages"], &done["acknowledged"]), (&json!(9), &json!(9)), "{done:#}");
        assert_eq!(done["refused"], json!({ "bad-json": 1, "bad-device-id": 1 }), "{done:#}");
        assert_eq!((&done["readings"], &done["version"]), (&json!(9), &json!(version)), "{done:#}");
        assert_eq!(done["reconnects"], 0, "{done:#}");
        let ledger = node.settled_ledger();
        assert_eq!((&ledger["received"], &ledger["rejected"]["bad-json"]), (&json!(11), &json!(1)), "{ledger:#}");
        node.logged(&["refused a message of a bridge", "plant", "factory/north/pump/telemetry", "bad-json"]);
        for (name, value) in [
            ("connected{", 1.0),
            ("messages_total{", 9.0),
            ("readings_total{", 9.0),
            ("acknowledged_total{", 9.0),
            ("in_flight{", 0.0),
        ] {
            assert_eq!(node.metric(&format!("tidegate_bridge_{name}bridge=\"plant\"}}")), value, "{name}");
        }
        assert_eq!(node.metric("tidegate_bridge_refused_total{bridge=\"plant\",reason=\"bad-json\"}"), 1.0);
        assert_eq!(node.stop(), Some(0));
    }
}

#[test]
fn a_retained_message_is_a_reading_once_or_never() {
    let broker = Mosquitto::start("");
    broker.publish("take/a", r#"{"n":1}"#, &["-r"]);
    broker.publish("leave/a", r#"{"n":1}"#, &["-r"]);
    let subscriptions = [
        "filter = \"take/{d}\"\ndevice = \"take-{d}\"",
        "filter = \"leave/{d}\"\ndevice = \"leave-{d}\"\nretained = false",
    ];
    let config = Config::new().bridge("b", &url(&broker), "", &subscriptions);
    let house = config.house();
    let node = house.start();
    node.device_with("take-a", "n", &json!(1));
    let done = settled(&node, "b", 2);
    assert_eq!((&done["leftOut"], &done["readings"]), (&json!(1), &json!(1)), "{done:#}");
    assert_eq!(node.device("leave-a"), None);
    broker.publish("leave/a", r#"{"n":2}"#, &[]);
    node.device_with("leave-a", "n", &json!(2));
}

#[test]
fn a_message_larger_than_a_packet_may_be_is_passed_over_and_acknowledged() {
    let broker = Mosquitto::start("");
    let config = Config::new().bridge("plant", &url(&broker), "", &[PLANT]);
    let house = config.house();
    let node = house.start();
    connected(&node, "plant");
    let large = broker.dir().join("large");
    std::fs::write(&large, vec![b'x'; 3 * 1024 * 1024]).expect("a file");
    let port = broker.address.port().to_string();
    let sent = std::process::Command::new("mosquitto_pub")
        .args(["-p", &port, "-q", "1", "-t", "factory/a/b/telemetry", "-f"])
        .arg(&large)
        .status();
    assert!(sent.expect("mosquitto_pub runs").success());
    broker.publish("factory/a/b/telemetry", r#"{"after":true}"#, &[]);
    node.device_with("a-b", "after", &json!(true));
    let done = settled(&node, "plant", 2);
    assert_eq!((&done["refused"], &done["acknowledged"]), (&json!({ "too-large": 1 }), &json!(2)), "{done:#}");
    assert_eq!(done["reconnects"], 0, "{done:#}");
}

#[test]
fn what_is_published_while_the_node_is_away_comes_when_it_is_back() {
    for version in ["3.1.1", "5"] {
        let mut broker = Mosquitto::start("");
        let config = Config::new().bridge("plant", &url(&broker), &format!("version = \"{version}\""), &[PLANT]);
        let house = config.house();
        let mut node = house.start();
        connected(&node, "plant");
        assert_eq!(node.stop(), Some(0));
        broker.publish("factory/a/b/telemetry", r#"{"n":1}"#, &[]);
        // The broker has it on disk.
        broker.stop();
        broker.resume();
        let node = house.start();
        node.device_with("a-b", "n", &json!(1));
        // And a broker that goes away under a running node is connected to again.
        broker.stop();
        eventually("the bridge has noticed", || Some(()).filter(|()| status(&node, "plant")["connected"] == false));
        assert_eq!(node.get("/readyz").status, 200, "a broker that is away does not make the node unready");
        broker.resume();
        let again = connected(&node, "plant");
        assert_eq!(again["reconnects"], 1, "{again:#}");
        broker.publish("factory/a/b/telemetry", r#"{"n":2}"#, &[]);
        node.device_with("a-b", "n", &json!(2));
    }
}

#[test]
fn quality_2_and_0_are_taken_as_well() {
    let broker = Mosquitto::start("");
    for version in ["3.1.1", "5"] {
        let subscriptions =
            ["filter = \"two/{d}\"\ndevice = \"{d}\"\nqos = 2", "filter = \"zero/{d}\"\ndevice = \"{d}\"\nqos = 0"];
        let name = format!("v{version}");
        let config = Config::new().bridge(&name, &url(&broker), &format!("version = \"{version}\""), &subscriptions);
        let house = config.house();
        let node = house.start();
        connected(&node, &name);
        for n in 1..=50 {
            broker.publish("two/a", &format!("{{\"n\":{n}}}"), &["-q", "2"]);
        }
        broker.publish("zero/b", "{\"n\":1}", &[]);
        node.device_with("a", "n", &json!(50));
        node.device_with("b", "n", &json!(1));
        let done = settled(&node, &name, 51);
        assert_eq!(
            (&done["messages"], &done["acknowledged"], &done["readings"]),
            (&json!(51), &json!(50), &json!(51)),
            "{done:#}"
        );
        // Nothing hangs in the middle of QoS 2: the broker has room for more than its window.
        assert_eq!(node.device("a").expect("known")["version"], 50);
    }
}

#[test]
fn a_wrong_password_and_a_broker_that_is_not_there_are_told_clearly() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let passwords = dir.path().join("passwords");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["plant", "right"])
        .status();
    assert!(made.expect("mosquitto_passwd is installed").success());
    let broker = Mosquitto::start_in(dir, "password_file {dir}/passwords\nallow_anonymous false");
    let secret = broker.dir().join("secret");
    std::fs::write(&secret, "right\n").expect("a file");
    let keys = |password: &str| format!("username = \"plant\"\n{password}");
    let right = keys(&format!("password_file = {secret:?}"));
    let wrong = keys("password = \"wrong-and-secret\"");
    let nowhere = "mqtt://127.0.0.1:1";
    let config = Config::new()
        .bridge("right", &url(&broker), &right, &[PLANT])
        .bridge("wrong", &url(&broker), &wrong, &[PLANT])
        .bridge("wrong5", &url(&broker), &format!("{wrong}\nversion = \"5\""), &[PLANT])
        .bridge("nowhere", nowhere, "", &[PLANT]);
    let house = config.house();
    let node = house.start();
    connected(&node, "right");
    for (name, words) in [
        ("wrong", "refuses the connection: not authorized"),
        ("wrong5", "refuses the connection: not authorized"),
        ("nowhere", "Connection refused"),
    ] {
        let told =
            eventually(name, || Some(status(&node, name)["lastError"]["message"].clone()).filter(|it| it.is_string()));
        assert!(told.as_str().is_some_and(|told| told.contains(words)), "{told}");
        assert_eq!(status(&node, name)["connected"], false);
        assert_eq!(node.metric(&format!("tidegate_bridge_connected{{bridge=\"{name}\"}}")), 0.0);
        node.logged(&["a bridge has no connection", name, words]);
    }
    assert_eq!(node.get("/readyz").status, 200);
    assert!(!node.log().contains("wrong-and-secret"));
    let run = support::node::tidegate(config.dir.path())
        .args(["doctor", "--node", &format!("http://{}", node.http), "--json", "--config"])
        .arg(config.dir.path().join("tidegate.toml"))
        .output()
        .expect("the binary starts");
    let report: Value = serde_json::from_slice(&run.stdout).expect("a report");
    let check =
        report["checks"].as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "bridges").cloned());
    let check = check.unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(check["status"], "warn", "{check:#}");
    assert!(check["summary"].as_str().is_some_and(|words| words.contains("1 of 4 connected")), "{check:#}");
}

/// A CA, and a certificate of it for `names`, as PEM files in `dir`.
fn certificates(dir: &std::path::Path) {
    let write = |name: &str, pem: &str| std::fs::write(dir.join(name), pem).expect("a file");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    write("ca.pem", &ca.pem());
    for (name, host) in [("broker", "localhost"), ("node", "tidegate")] {
        let key = KeyPair::generate().expect("a key");
        let certificate =
            CertificateParams::new(vec![host.to_owned()]).expect("a name").signed_by(&key, &ca).expect("signed");
        write(&format!("{name}.pem"), &certificate.pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    }
}

#[test]
fn tls_checks_the_broker_and_shows_the_nodes_own_certificate() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    certificates(dir.path());
    let lines = "cafile {dir}/ca.pem\ncertfile {dir}/broker.pem\nkeyfile {dir}/broker.key\nrequire_certificate true";
    let broker = Mosquitto::start_in(dir, lines);
    let file = |name: &str| -> PathBuf { broker.dir().join(name) };
    let port = broker.address.port();
    let (named, numbered) = (format!("mqtts://localhost:{port}"), format!("mqtts://127.0.0.1:{port}"));
    let ca = format!("ca_file = {:?}", file("ca.pem"));
    let own = format!("{ca}\ncertificate_file = {:?}\nkey_file = {:?}", file("node.pem"), file("node.key"));
    let config = Config::new()
        .bridge("good", &named, &own, &[PLANT])
        .bridge("good5", &named, &format!("{own}\nversion = \"5\"\nclient_id = \"five\""), &[PLANT])
        .bridge("other-name", &numbered, &own, &[PLANT])
        .bridge("no-certificate", &named, &format!("{ca}\nclient_id = \"none\""), &[PLANT])
        .bridge("system-cas", &named, "client_id = \"sys\"", &[PLANT])
        .bridge("plain", &format!("mqtt://localhost:{port}"), "", &[PLANT]);
    let house = config.house();
    let node = house.start();
    connected(&node, "good");
    connected(&node, "good5");
    // What TLS 1.3 says of a missing client certificate comes after the handshake; a machine may have no CAs of its own.
    for (name, words) in [
        ("other-name", "the broker's certificate is not accepted"),
        ("no-certificate", "localhost"),
        ("system-cas", ""),
        ("plain", "mqtt://localhost"),
    ] {
        let told =
            eventually(name, || Some(status(&node, name)["lastError"]["message"].clone()).filter(|it| it.is_string()));
        assert!(told.as_str().is_some_and(|told| told.contains(words)), "{name}: {told}");
        assert_eq!(status(&node, name)["connected"], false, "{name}: {told}");
    }
    let port = port.to_string();
    let sent = std::process::Command::new("mosquitto_pub")
        .args([
            "-h",
            "localhost",
            "-p",
            &port,
            "-q",
            "1",
            "-t",
            "factory/a/b/telemetry",
            "-m",
            r#"{"n":1}"#,
            "--cafile",
        ])
        .arg(file("ca.pem"))
        .arg("--cert")
        .arg(file("node.pem"))
        .arg("--key")
        .arg(file("node.key"))
        .output()
        .expect("mosquitto_pub runs");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    node.device_with("a-b", "n", &json!(1));
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_its_place() {
    let config =
        Config::new().bridge("plant", "mqtt://broker", "keep_alive = 5", &["filter = \"a/{b}\"\ndevice = \"{c}\""]);
    config.house();
    let path = config.dir.path().join("tidegate.toml");
    let run = |args: &[&str]| {
        let mut command = support::node::tidegate(config.dir.path());
        let output =
            command.args(["config"]).args(args).arg("--config").arg(&path).output().expect("the binary starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, _, told) = run(&["check"]);
    assert_eq!(code, Some(78));
    assert!(told.contains(":4:1: unknown key bridge.keep_alive; did you mean bridge.keep_alive_ms?"), "{told}");
    let good = std::fs::read_to_string(&path)
        .expect("written")
        .replace("keep_alive = 5", "username = \"u\"\npassword = \"hush\"")
        .replace("{c}", "{b}");
    std::fs::write(&path, good).expect("the configuration is written");
    let (code, shown, told) = run(&["show"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(shown.contains("[[bridge.subscription]]\nfilter = \"a/{b}\""), "{shown}");
    assert!(shown.contains("password = \"***\"") && !shown.contains("hush"), "{shown}");
}

/// How far the publisher may go and how far it has come.
#[derive(Default)]
struct Progress {
    allowed: AtomicU64,
    acknowledged: AtomicU64,
}

/// Publishes `count` messages, one a device, with a few under way at a time, and sends again what the broker did not
/// acknowledge.
fn publish_all(broker: SocketAddr, qos: u8, count: u64, progress: &Progress) {
    let deadline = Instant::now() + Duration::from_secs(600);
    // Each with whether it was sent on this connection.
    let mut todo: BTreeMap<u64, bool> = (0..count).map(|n| (n, false)).collect();
    while !todo.is_empty() {
        assert!(Instant::now() < deadline, "the broker did not take {} messages", todo.len());
        todo.values_mut().for_each(|sent| *sent = false);
        // A broker that is away is asked again.
        let _ = publish_some(broker, qos, &mut todo, progress);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn publish_some(broker: SocketAddr, qos: u8, todo: &mut BTreeMap<u64, bool>, progress: &Progress) -> Option<()> {
    use std::io::{Read as _, Write as _};
    const WINDOW: usize = 20;
    let mut stream = TcpStream::connect_timeout(&broker, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(&Connect::new(Version::V3, "publisher").bytes()).ok()?;
    stream.read_exact(&mut [0; 4]).ok()?;
    let mut under_way: BTreeMap<u16, u64> = BTreeMap::new();
    let mut next_id = 0_u16;
    while !todo.is_empty() {
        let allowed = progress.allowed.load(Ordering::Relaxed);
        let fresh = todo.range(..allowed).filter(|(_, sent)| !**sent).map(|(n, _)| *n);
        let fresh: Vec<u64> = fresh.take(WINDOW - under_way.len()).collect();
        let mut bytes = Vec::new();
        for n in fresh {
            next_id = next_id.checked_add(1).unwrap_or(1);
            let payload = format!("{{\"n\":{n}}}");
            bytes.extend(mqtt::publish(
                Version::V3,
                &format!("fleet/d{n:05}/t"),
                qos,
                next_id,
                &[],
                payload.as_bytes(),
            ));
            under_way.insert(next_id, n);
            todo.insert(n, true);
        }
        stream.write_all(&bytes).ok()?;
        if under_way.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let mut packet = [0; 4];
        stream.read_exact(&mut packet).ok()?;
        let id = u16::from_be_bytes([packet[2], packet[3]]);
        match packet[0] {
            0x40 | 0x70 => {}
            0x50 => {
                stream.write_all(&[0x62, 2, packet[2], packet[3]]).ok()?;
                continue;
            }
            other => panic!("a packet {other:#x}"),
        }
        todo.remove(&under_way.remove(&id)?);
        progress.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Some(())
}

/// Every message that mosquitto acknowledged to the publisher is in the node's state in the end, although the node is killed
/// (SIGKILL) and mosquitto is restarted (SIGTERM with persistence: it saves its sessions and queues as it ends, and loses
/// nothing) again and again while they flow. Mosquitto lets go of a message only when the bridge has acknowledged it.
///
/// `TIDEGATE_TEST_BRIDGE_MESSAGES` (2,000) and `TIDEGATE_TEST_SEED` change the run.
#[test]
fn nothing_that_was_acknowledged_is_lost_when_both_sides_are_killed() {
    both_sides_are_killed(1);
}

#[test]
fn nothing_of_quality_2_is_lost_when_both_sides_are_killed() {
    both_sides_are_killed(2);
}

fn both_sides_are_killed(qos: u8) {
    let of = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let count = of("TIDEGATE_TEST_BRIDGE_MESSAGES").unwrap_or(2_000);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let seed = of("TIDEGATE_TEST_SEED").unwrap_or_else(|| u64::from(now));
    eprintln!("seed {seed}: TIDEGATE_TEST_SEED={seed} repeats it");
    let mut dice = Dice(seed);
    let version = if dice.next().is_multiple_of(2) { "3.1.1" } else { "5" };
    let mut broker = Mosquitto::start("");
    let subscription = format!("filter = \"fleet/{{d}}/t\"\ndevice = \"{{d}}\"\nqos = {qos}");
    let config = Config::new().bridge("fleet", &url(&broker), &format!("version = \"{version}\""), &[&subscription]);
    let house = config.house();
    let mut node = house.start();
    connected(&node, "fleet");

    let began = Instant::now();
    let progress = Arc::new(Progress::default());
    let publisher = {
        let (address, progress) = (broker.address, Arc::clone(&progress));
        std::thread::spawn(move || publish_all(address, qos, count, &progress))
    };
    let (mut kills, mut restarts, mut seen) = (0, 0, 0);
    while !publisher.is_finished() {
        // Some messages more; while they flow one of the two dies, or both.
        let more = dice.between(1, count / 12);
        let allowed = progress.allowed.fetch_add(more, Ordering::Relaxed) + more;
        let until = (allowed - dice.between(0, more)).min(count);
        eventually_within(Duration::from_secs(60), "the publisher goes on", || {
            let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
            Some(()).filter(|()| publisher.is_finished() || acknowledged >= until)
        });
        let who = dice.between(1, 3);
        if who & 1 != 0 {
            seen += status(&node, "fleet")["messages"].as_u64().unwrap_or(0);
            node.kill9();
            kills += 1;
        }
        if who & 2 != 0 {
            broker.stop();
            restarts += 1;
            broker.resume();
        }
        if who & 1 != 0 {
            node = house.start();
        }
    }
    publisher.join().expect("every message was acknowledged");

    let patience = Duration::from_secs(120);
    let known = || node.get("/api/overview").json()["devices"]["known"].as_u64();
    eventually_within(patience, "all devices are known", || Some(()).filter(|()| known() >= Some(count)));
    let last = eventually_within(patience, "nothing is under way", || {
        Some(status(&node, "fleet")).filter(|it| it["connected"] == true && it["inFlight"] == 0)
    });
    seen += last["messages"].as_u64().unwrap_or(0);
    let (mut found, mut after) = (0, String::new());
    loop {
        let page = node.get(&format!("/devices?limit=1000&after={after}")).json();
        let devices = page["devices"].as_array().expect("a page").clone();
        let Some(last) = devices.last() else { break };
        for device in &devices {
            assert_eq!(device["deviceId"], format!("d{found:05}"));
            assert_eq!(device["state"]["n"], found, "{device}");
            found += 1;
        }
        after = last["deviceId"].as_str().expect("an id").to_owned();
    }
    eprintln!(
        "{count} messages at QoS {qos} over MQTT {version}: {found} devices in the state; the node was killed {kills} times, \
         mosquitto restarted {restarts} times; the node saw {seen} messages; {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(found, count);
    assert!(kills > 2 && restarts > 2, "hardly anybody was killed: {kills} {restarts}");
    assert_eq!(node.stop(), Some(0));
}

/// A broker of the test's own: it says what a real one would not, and sees when the PUBACK comes.
#[test]
fn a_message_is_not_acknowledged_before_its_reading_is_durable_nor_on_another_connection() {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("mqtt://{}", listener.local_addr().expect("bound"));
    let config = Config::new().bridge("fake", &url, "keep_alive_ms = 1000", &["filter = \"a/{d}\"\ndevice = \"{d}\""]);
    let house = config.house();
    let node = house.start();
    let accept = |session_present: u8| -> TcpStream {
        let (mut stream, _) = listener.accept().expect("the bridge connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a CONNECT");
        assert_eq!(head[0], 0x10);
        let mut body = vec![0; usize::from(head[1])];
        stream.read_exact(&mut body).expect("a CONNECT");
        assert_eq!(body[7] & 0x02, 0, "the session is to be kept");
        stream.write_all(&[0x20, 2, session_present, 0]).expect("written");
        stream
    };
    let next = |stream: &mut TcpStream| -> Vec<u8> {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a packet");
        let mut body = vec![0; usize::from(head[1])];
        stream.read_exact(&mut body).expect("a packet");
        [&head[..], &body].concat()
    };
    let mut stream = accept(0);
    assert_eq!(next(&mut stream), b"\x82\x08\0\x01\0\x03a/+\x01");
    stream.write_all(&[0x90, 3, 0, 1, 1]).expect("written");
    connected(&node, "fake");
    // Whoever gets the PUBACK finds the reading in the journal, even if the node dies at once.
    stream.write_all(&mqtt::publish(Version::V3, "a/one", 1, 7, &[], b"{\"n\":1}")).expect("written");
    let puback = loop {
        let packet = next(&mut stream);
        if packet[0] != 0xC0 {
            break packet;
        }
        stream.write_all(&[0xD0, 0]).expect("written");
    };
    assert_eq!(puback, [0x40, 2, 0, 7]);
    // The journal has it; its device's loop may come to it a moment after the bridge's.
    let device = eventually("it is in the state", || node.device("one"));
    assert_eq!(device["state"]["n"], 1);
    // No answer to its pings: the bridge gives up and connects again. The session is there, so it subscribes no more.
    let mut again = accept(1);
    again.write_all(&mqtt::publish(Version::V3, "a/two", 1, 7, &[], b"{\"n\":2}")).expect("written");
    let puback = loop {
        let packet = next(&mut again);
        if packet[0] != 0xC0 {
            break packet;
        }
        again.write_all(&[0xD0, 0]).expect("written");
    };
    assert_eq!(puback, [0x40, 2, 0, 7]);
    let told = status(&node, "fake")["lastError"]["message"].clone();
    assert!(told.as_str().is_some_and(|told| told.contains("did not answer a ping within 10s")), "{told}");
    // A packet that is none costs the connection, and nothing else.
    again.write_all(&[0x32, 3, 0, 1, b'a']).expect("written");
    let _third = accept(1);
    let told = status(&node, "fake")["lastError"]["message"].clone();
    assert!(told.as_str().is_some_and(|told| told.contains("no MQTT")), "{told}");
    node.assert_alive();
}

#[test]
fn a_second_connection_with_the_same_client_id_is_told() {
    let broker = Mosquitto::start("");
    let config = Config::new().bridge("plant", &url(&broker), "version = \"5\"", &[PLANT]);
    let house = config.house();
    let node = house.start();
    connected(&node, "plant");
    let _thief = Raw::connect(broker.address, Version::V5, "tidegate-plant");
    let told = eventually("the bridge has noticed", || {
        Some(status(&node, "plant")["lastError"]["message"].clone()).filter(|it| it.is_string())
    });
    assert!(told.as_str().is_some_and(|told| told.contains("closed the connection")), "{told}");
    connected(&node, "plant");
}
