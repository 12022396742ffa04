//! MQTT over TLS as clients meet it: mosquitto's tools, paho-mqtt and MQTT.js; who may come in by certificate; certificates that
//! change under living sessions; files that cannot be used.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use support::{
    House, Node, PATIENCE,
    authority::{Authority, Files},
    driver::{Client, LIBRARIES, Library, Over, tunnel},
    eventually,
    mqtt::{
        Connect, Raw,
        Version::{V3, V5},
    },
    raw,
};

/// A directory with an authority, and a node with TLS listeners and these settings.
struct World {
    house: House,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let house = House::new().flags(&["--mqtts-bind", "127.0.0.1:0"]);
        let authority = Authority::new(&house.path(""), "authority");
        let node = authority.node("node", 1);
        Self { house: with_files(house, "MQTT", &node), authority }
    }

    fn setting(self, key: &str, value: &str) -> Self {
        Self { house: self.house.variable(&format!("TIDEGATE_MQTT__{key}"), value), ..self }
    }

    /// Clients must show a certificate of the authority.
    fn asks_clients(self) -> Self {
        let ca = self.authority.ca();
        self.setting("TLS_CLIENT_CA", &ca.to_string_lossy())
    }

    fn over<'a>(ca: &'a Path, own: Option<&'a Files>) -> Over<'a> {
        Over { transport: "tls", ca: Some(ca), own: own.map(Files::pair), ..Over::default() }
    }
}

fn with_files(house: House, section: &str, files: &Files) -> House {
    house
        .variable(&format!("TIDEGATE_{section}__TLS_CERT"), &files.cert.to_string_lossy())
        .variable(&format!("TIDEGATE_{section}__TLS_KEY"), &files.key.to_string_lossy())
}

fn mosquitto_pub(node: &Node, ca: &Path, more: &[&str]) -> Output {
    let at = node.door("mqtts");
    Command::new("mosquitto_pub")
        .args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "--cafile"])
        .arg(ca)
        .args(["-q", "1", "-t", "devices/d1/metrics"])
        .args(more)
        .output()
        .expect("mosquitto_pub is installed")
}

#[test]
fn mosquitto_publishes_and_subscribes_over_tls() {
    let world = World::new();
    let node = world.house.start();
    let (at, ca) = (node.door("mqtts"), world.authority.ca());
    let mut subscriber = Command::new("mosquitto_sub")
        .args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "--cafile"])
        .arg(&ca)
        .args(["-t", "devices/+/state", "-C", "1", "-W", "20", "-d"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub is installed");
    eventually("the subscription", || (node.metric("tidegate_mqtt_connections") >= 1.0).then_some(()));
    for version in ["mqttv311", "mqttv5"] {
        let output = mosquitto_pub(&node, &ca, &["-V", version, "-m", r#"{"t":1}"#]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    node.device_with("d1", "t", &json!(1));
    let mut text = String::new();
    subscriber.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert!(subscriber.wait().expect("a child").success() && text.contains(r#""deviceId":"d1""#), "{text}");

    // Who trusts another authority does not come in, and the log says what to do.
    let stranger = Authority::new(&world.house.path(""), "stranger");
    assert!(!mosquitto_pub(&node, &stranger.ca(), &["-m", "{}"]).status.success());
    node.logged(&["TLS handshake failed", "does not trust the issuer"]);
    assert!(node.metric("tidegate_tls_handshakes_failed_total") >= 1.0);
    let left = node.metric("tidegate_tls_certificate_expires_seconds{listener=\"mqtt\"}");
    assert!(left > 30.0 * 86_400.0, "{left}");
}

#[test]
fn libraries_connect_over_tls_and_live_on_their_devices_loops() {
    let world = World::new();
    let node = world.house.start();
    let (at, ca) = (node.door("mqtts"), world.authority.ca());
    for (library, version) in LIBRARIES {
        // Several, so that some are accepted on another loop than the one that owns them.
        let mut clients: Vec<_> = (0..6)
            .map(|n| {
                Client::connect_over(
                    library,
                    at,
                    version,
                    &format!("{library:?}-{version:?}-{n}"),
                    None,
                    World::over(&ca, None),
                )
            })
            .collect();
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.subscribe(&format!("echo/{n}"), 1), 1);
        }
        let long = "x".repeat(100_000);
        for n in 0..clients.len() {
            let to = (n + 1) % clients.len();
            assert_eq!(clients[n].publish(&format!("echo/{to}"), &long), 0);
            clients[to].expect_message(&format!("echo/{to}"), &long, 1);
            let device = format!("{library:?}-{version:?}-{n}");
            assert_eq!(clients[n].publish("v1/devices/me/telemetry", r#"{"t":7}"#), 0);
            assert_eq!(node.device_with(&device, "t", &json!(7))["connected"], true);
        }
        clients.into_iter().for_each(Client::leave);
    }
    node.settled_ledger();
}

#[test]
fn libraries_show_their_certificates() {
    let world = World::new().asks_clients();
    let files = world.authority.client("device", 10, "device", None, None);
    let node = world.house.start();
    let (at, ca) = (node.door("mqtts"), world.authority.ca());
    for (library, version) in LIBRARIES {
        let connect = |id| Client::connect_over(library, at, version, id, None, World::over(&ca, Some(&files)));
        let (mut device, mut other) = (connect("device"), connect("other"));
        assert_eq!(other.subscribe("secret/+", 2), 2);
        assert_eq!(device.publish("secret/1", "one"), 0);
        other.expect_message("secret/1", "one", 1);
        device.publish_once("secret/2", "two");
        other.expect_message("secret/2", "two", 2);
        device.tell("secret/3", "three");
        other.expect_message("secret/3", "three", 0);
        // Who shows none is not heard: its handshake fails.
        Client::unheard_over(library, at, version, "bare", World::over(&ca, None));
    }
    node.logged(&["TLS handshake failed", "no certificate"]);
}

#[test]
fn only_good_certificates_come_in() {
    let world = World::new().asks_clients();
    let (good, revoked) = (
        world.authority.client("good", 10, "good", None, None),
        world.authority.client("revoked", 11, "revoked", None, None),
    );
    let stranger = Authority::new(&world.house.path(""), "stranger");
    let foreign = stranger.client("foreign", 12, "good", None, None);
    let crl = world.authority.revoke("crl.pem", &[11]);
    let world = world.setting("TLS_CRL", &crl.to_string_lossy());
    let node = world.house.start();
    let ca = world.authority.ca();
    let own = |files: &Files| {
        ["--cert", &files.cert.to_string_lossy(), "--key", &files.key.to_string_lossy(), "-m", "{}"].map(str::to_owned)
    };
    let publish = |files: &Files| {
        let words = own(files);
        mosquitto_pub(&node, &ca, &words.each_ref().map(String::as_str)).status.success()
    };
    assert!(publish(&good));
    assert!(!publish(&revoked));
    node.logged(&["TLS handshake failed", "revoked"]);
    assert!(!publish(&foreign));
    node.logged(&["TLS handshake failed", "issued by nobody in mqtt.tls_client_ca"]);
    assert!(!mosquitto_pub(&node, &ca, &["-m", "{}"]).status.success());
    node.logged(&["TLS handshake failed", "no certificate"]);
    assert_eq!(node.metric("tidegate_tls_handshakes_failed_total"), 3.0);
}

#[test]
fn a_certificate_names_its_device() {
    for (from, named, others) in [
        ("cn", "by-cn", ["by-dns", "urn:device:7"]),
        ("san-dns", "by-dns", ["by-cn", "urn:device:7"]),
        ("san-uri", "urn:device:7", ["by-cn", "by-dns"]),
    ] {
        let world = World::new().asks_clients().setting("TLS_DEVICE_ID", from);
        let files = world.authority.client("device", 10, "by-cn", Some("by-dns"), Some("urn:device:7"));
        let node = world.house.start();
        let (at, ca) = (node.door("mqtts"), world.authority.ca());
        let over = World::over(&ca, Some(&files));
        let mut device = Client::connect_over(Library::Paho, at, V5, named, None, over);
        assert_eq!(device.publish("v1/devices/me/telemetry", r#"{"t":1}"#), 0);
        node.device_with(named, "t", &json!(1));
        for other in others {
            assert_eq!(Client::refused_over(Library::Paho, at, V5, other, over), Some(0x85), "{from}: {other}");
            // MQTT 3.1.1's code for it, as paho translates it.
            assert_eq!(Client::refused_over(Library::Paho, at, V3, other, over), Some(0x85), "{from}: {other}");
        }
        node.logged(&["refused a CONNECT", "connect with that client id"]);
        // Who has no client id gets the device's; the former connection is taken over.
        let mut unnamed = Client::connect_over(Library::Paho, at, V5, "", None, over);
        assert_eq!(device.lost(), Some(0x8E));
        assert_eq!(unnamed.publish("v1/devices/me/telemetry", r#"{"t":2}"#), 0);
        node.device_with(named, "t", &json!(2));
    }
}

#[test]
fn certificates_change_under_living_sessions() {
    let world = World::new();
    let node = world.house.start();
    let (at, ca) = (node.door("mqtts"), world.authority.ca());
    let mut old = Client::connect_over(Library::Paho, at, V5, "old", None, World::over(&ca, None));
    old.subscribe("news", 1);

    let other = Authority::new(&world.house.path(""), "other");
    let files = other.node("replacement", 2);
    let replace = |from: &Path, name: &str| std::fs::rename(from, world.house.path(name)).expect("it is renamed");
    replace(&files.cert, "node.pem");
    // The key is not the new certificate's yet: whenever the node looks, it goes on as before.
    node.signal(Signal::HUP);
    node.logged(&["TLS files have changed and cannot be used", "mqtt.tls_key", "does not belong to the certificate"]);
    assert!(mosquitto_pub(&node, &ca, &["-m", "{}"]).status.success());
    replace(&files.key, "node.key");
    node.signal(Signal::HUP);
    node.logged(&["TLS files read again"]);
    eventually("the new certificate", || {
        mosquitto_pub(&node, &other.ca(), &["-m", "{}"]).status.success().then_some(())
    });
    assert!(!mosquitto_pub(&node, &ca, &["-m", "{}"]).status.success());

    let mut new = Client::connect_over(Library::MqttJs, at, V5, "new", None, World::over(&other.ca(), None));
    assert_eq!(new.publish("news", "still here"), 0);
    old.expect_message("news", "still here", 1);
    assert!(node.metric("tidegate_tls_reloads_total{listener=\"mqtt\",result=\"taken\"}") >= 1.0);
    assert!(node.metric("tidegate_tls_reloads_total{listener=\"mqtt\",result=\"refused\"}") >= 1.0);

    // Without a signal the files are looked at as well.
    let third = Authority::new(&world.house.path(""), "third");
    let files = third.node("third", 3);
    replace(&files.key, "node.key");
    replace(&files.cert, "node.pem");
    eventually("the third certificate", || {
        mosquitto_pub(&node, &third.ca(), &["-m", "{}"]).status.success().then_some(())
    });
    assert_eq!(new.publish("news", "and here"), 0);
    old.expect_message("news", "and here", 1);
}

#[test]
fn a_certificate_that_is_revoked_closes_its_sessions_and_no_others() {
    let world = World::new().asks_clients();
    let (one, other) = (
        world.authority.client("one", 10, "one", None, None),
        world.authority.client("other", 11, "other", None, None),
    );
    let crl = world.authority.revoke("crl.pem", &[]);
    let world = world.setting("TLS_CRL", &crl.to_string_lossy());
    let node = world.house.start();
    let (at, ca) = (node.door("mqtts"), world.authority.ca());
    let mut session = Client::connect_over(Library::Paho, at, V5, "one", None, World::over(&ca, Some(&one)));
    let mut living = Client::connect_over(Library::Paho, at, V5, "other", None, World::over(&ca, Some(&other)));
    world.authority.revoke("crl.pem", &[10]);
    node.signal(Signal::HUP);
    assert_eq!(session.lost(), Some(0x87));
    node.logged(&["closed", "the client's certificate has been revoked", "one"]);
    assert_eq!(living.publish("devices/d1/metrics", r#"{"t":1}"#), 0);
    let again = mosquitto_pub(
        &node,
        &ca,
        &["--cert", &one.cert.to_string_lossy(), "--key", &one.key.to_string_lossy(), "-m", "{}"],
    );
    assert!(!again.status.success());
}

#[test]
fn who_speaks_something_else_is_told_from_the_log() {
    let world = World::new().setting("LIMITS__CONNECT_TIMEOUT_MS", "1500");
    let node = world.house.start();
    let at = node.door("mqtts");
    let mut plain = Raw::open(at);
    plain.send(&Connect::new(V5, "lost").bytes());
    assert_eq!(plain.next(), None);
    node.logged(&["this is plain MQTT, and this port speaks MQTT over TLS"]);
    raw::send(at, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    node.logged(&["this is plain HTTP, and this port speaks TLS"]);
    raw::send(at, b"\x16\x03\x01\x00\x05hello");
    node.logged(&["TLS handshake failed"]);

    // A TLS client on the plain port, by a real one.
    let output = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &node.mqtt.port().to_string(), "--cafile"])
        .arg(world.authority.ca())
        .args(["-t", "x", "-m", "x"])
        .output()
        .expect("mosquitto_pub is installed");
    assert!(!output.status.success());
    node.logged(&["this is a TLS handshake, and this port speaks plain MQTT"]);

    // Who begins a handshake and goes silent is closed at the deadline.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(at).expect("the node accepts");
    silent.write_all(b"\x16\x03\x01\x02\x00\x01").expect("it is written");
    silent.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let closed = silent.read(&mut [0; 16]);
    assert!(
        matches!(closed, Ok(0)) && begun.elapsed() >= Duration::from_millis(1_400),
        "{closed:?} {:?}",
        begun.elapsed()
    );
    node.logged(&["its TLS handshake did not end in time"]);
    assert!(mosquitto_pub(&node, &world.authority.ca(), &["-m", "{}"]).status.success());
}

#[test]
fn files_that_cannot_be_used_refuse_the_start() {
    #[track_caller]
    fn refused(world: &World, expected: &str) {
        let dir = world.house.path("");
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let config = format!(
            "[mqtt]\ntls_bind = \"127.0.0.1:0\"\ntls_cert = {:?}\ntls_key = {:?}\ntls_client_ca = {:?}\ntls_crl = {:?}\n",
            path("node.pem"),
            path("node.key"),
            path("authority.ca.pem"),
            path("crl.pem"),
        );
        std::fs::write(path("tidegate.toml"), config).expect("it is written");
        let output = raw::run(&dir, &raw::SERVE);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(expected), "{expected:?} in {said}");
        // And so does the check that is meant to come before.
        let output = raw::run(&dir, &["config", "check"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && said.contains(expected), "{expected:?} in {said}");
    }
    let world = World::new();
    world.authority.revoke("crl.pem", &[]);
    let write = |name: &str, bytes: &[u8]| std::fs::write(world.house.path(name), bytes).expect("it is written");
    let sound = |name: &str| std::fs::read(world.house.path(name)).expect("it is read");
    let (cert, key, ca, crl) = (sound("node.pem"), sound("node.key"), sound("authority.ca.pem"), sound("crl.pem"));

    std::fs::remove_file(world.house.path("node.pem")).expect("it was there");
    refused(&world, "there is no such file");
    write("node.pem", &key);
    refused(&world, "holds no certificate in PEM form (BEGIN CERTIFICATE)");
    write("node.pem", b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    refused(&world, "is no sound PEM file");
    write("node.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    refused(&world, "certificate 1 in it cannot be read");
    write("node.pem", &cert);
    write("node.key", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    refused(&world, "the key is encrypted");
    write(
        "node.key",
        &sound(world.authority.node("another", 5).key.file_name().expect("a name").to_str().expect("ASCII")),
    );
    refused(&world, "the key does not belong to the certificate");
    write("node.key", &key);
    write("authority.ca.pem", b"nothing");
    refused(&world, "mqtt.tls_client_ca");
    write("authority.ca.pem", &ca);
    write("crl.pem", &cert);
    refused(&world, "holds no revocation list in PEM form (BEGIN X509 CRL)");
    write("crl.pem", &crl);
    std::fs::write(world.house.path("tidegate.toml"), "[mqtt]\ntls_bind = \"127.0.0.1:0\"\n").expect("it is written");
    let output = raw::run(&world.house.path(""), &raw::SERVE);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(78) && said.contains("mqtt.tls_bind is set and mqtt.tls_cert is not"),
        "{said}"
    );
}

#[test]
fn an_idle_tls_connection_costs_little_and_gives_it_back() {
    const CONNECTIONS: usize = 1_000;
    let world = World::new();
    let node = world.house.start();
    let (at, ca) = (node.door("mqtts"), world.authority.ca());
    let connect = |n: usize| {
        let mut client = tunnel::tls(at, &ca, None);
        client.write_all(&Connect::new(V5, &format!("idle-{n}")).bytes()).expect("it is written");
        let mut connack = [0; 4];
        client.read_exact(&mut connack).expect("a CONNACK");
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        client
    };
    let round = || (0..CONNECTIONS).map(connect).collect::<Vec<_>>();
    let rss = || node.metric("tidegate_resident_memory_bytes");
    let leave = |clients: Vec<_>| {
        drop(clients);
        eventually("everybody has left", || (node.metric("tidegate_mqtt_connections") == 0.0).then_some(()));
        rss()
    };
    let (cold, begun) = (rss(), Instant::now());
    let clients = round();
    let (each, took) = ((rss() - cold) / CONNECTIONS as f64, begun.elapsed());
    // The allocator keeps what the first round took; a second one takes no more.
    let before = leave(clients);
    let after = leave(round());
    println!("{each:.0} bytes an idle TLS connection; {took:?} for {CONNECTIONS}; {before} before, {after} after");
    assert!(each < 16.0 * 1024.0, "{each} bytes");
    assert!(after <= before * 1.1, "{before} {after}");
}
