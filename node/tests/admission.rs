//! Who may come in: clients that open connections and say nothing, or too slowly, or too many at once, take nothing from others.

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use support::{
    House, Node, PATIENCE,
    authority::Authority,
    eventually, eventually_within,
    memory::{Memory, while_ready},
    mqtt::{Connect, Raw, Version::V5, publish},
};

const PRE_AUTH: &str = "tidegate_mqtt_connections_pre_auth";

fn turned_away(node: &Node, limit: &str) -> f64 {
    node.metric(&format!("tidegate_connections_turned_away_total{{limit=\"{limit}\"}}"))
}

/// Opens connections, as many as the test's own descriptors allow.
fn open(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the soft limit may be raised");
    (0..count).map(|_| TcpStream::connect_timeout(&to, PATIENCE).expect("the kernel's queue has room")).collect()
}

/// Has the node closed it?
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket option");
    let read = stream.read(&mut [0; 16]);
    !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A device connects, reports and is heard.
#[track_caller]
fn a_device_is_served(node: &Node, id: &str) -> Duration {
    let begun = Instant::now();
    let mut device = Raw::connect(node.mqtt, V5, id);
    device.send(&publish(V5, "v1/devices/me/telemetry", 1, 1, &[], br#"{"t":1}"#));
    assert_eq!(device.expect(0x40).puback(), (1, 0));
    begun.elapsed()
}

#[test]
fn ten_thousand_half_open_connections_leave_the_node_ready_and_its_memory_as_it_was() {
    let node = House::new().start();
    a_device_is_served(&node, "first");
    // The first flood warms up what the node and its allocator keep anyway.
    let rss = |node: &Node| node.metric("tidegate_resident_memory_bytes");
    let flood = |node: &Node| {
        let mut silent = open(node.mqtt, 10_000);
        for (n, stream) in silent.iter_mut().enumerate() {
            // Some have begun a CONNECT, some have not.
            let _ = stream.write_all(&Connect::new(V5, "slow").bytes()[..n % 12]);
        }
        assert!(node.metric(PRE_AUTH) <= 4_096.0 + 8.0);
        node.assert_alive();
        // Those that had their time give way to newer ones; the per-address bound is below the whole.
        eventually("a flood that was met", || {
            (turned_away(node, "mqtt.limits.pre_auth_per_address") + node.metric(PRE_AUTH) >= 2_048.0).then_some(())
        });
        silent
    };
    drop(flood(&node));
    eventually("everybody is gone", || (node.metric(PRE_AUTH) == 0.0).then_some(()));
    let before = rss(&node);
    let silent = while_ready(&node, || flood(&node));
    let mid = rss(&node);
    drop(silent);
    eventually("everybody is gone", || (node.metric(PRE_AUTH) == 0.0).then_some(()));
    a_device_is_served(&node, "last");
    let after = eventually("memory within 10 %", || Some(rss(&node)).filter(|after| *after <= before * 1.1));
    println!("resident: {before} before, {mid} during, {after} after");
}

#[test]
fn who_says_nothing_gives_way_to_who_connects() {
    let house = House::new()
        .variable("TIDEGATE_MQTT__LIMITS__PRE_AUTH_CONNECTIONS", "50")
        .variable("TIDEGATE_MQTT__LIMITS__CONNECT_TIMEOUT_MS", "600000");
    let node = house.start();
    let mut silent = open(node.mqtt, 150);
    eventually("the limit", || (node.metric(PRE_AUTH) >= 50.0).then_some(()));
    // Well within the time that the silent ones would have.
    for n in 0..5 {
        let took = a_device_is_served(&node, &format!("d{n}"));
        assert!(took < PATIENCE, "{took:?}");
    }
    assert!(node.metric(PRE_AUTH) <= 50.0 + 8.0);
    let gone = silent.iter_mut().filter_map(|stream| is_closed(stream).then_some(())).count();
    assert!(turned_away(&node, "mqtt.limits.pre_auth_connections") >= 1.0 && gone >= 1, "{gone}");
    node.assert_alive();
}

#[test]
fn one_address_has_its_share_of_those_that_wait() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__PRE_AUTH_PER_ADDRESS", "20");
    let node = house.start();
    // Who has connected does not count.
    let _connected: Vec<_> = (0..30).map(|n| Raw::connect(node.mqtt, V5, &format!("connected-{n}"))).collect();
    let mut silent = open(node.mqtt, 60);
    eventually("forty closed", || (turned_away(&node, "mqtt.limits.pre_auth_per_address") == 40.0).then_some(()));
    let closed = eventually("they see it", || {
        let closed = silent.iter_mut().map(is_closed).filter(|closed| *closed).count();
        (closed >= 40).then_some(closed)
    });
    assert_eq!((closed, node.metric(PRE_AUTH)), (40, 20.0));
    node.logged(&["closed a new connection: limit mqtt.limits.pre_auth_per_address"]);
    let lines = node.log().lines().filter(|line| line.contains("limit mqtt.limits.pre_auth_per_address")).count();
    assert!(lines <= 10, "a flood is {lines} lines");
    drop(silent);
    eventually("their places are free", || (node.metric(PRE_AUTH) == 0.0).then_some(()));
    a_device_is_served(&node, "d1");
}

#[test]
fn a_connect_at_one_byte_a_second_ends_at_the_deadline() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__CONNECT_TIMEOUT_MS", "3000");
    let node = house.start();
    a_device_is_served(&node, "d1");
    let before = Memory::of(&node);
    let mut slow = open(node.mqtt, 200);
    let connect = Connect::new(V5, "slow").bytes();
    let begun = Instant::now();
    while_ready(&node, || {
        for byte in &connect {
            let mut open = 0;
            for stream in &mut slow {
                open += usize::from(!is_closed(stream) && stream.write_all(&[*byte]).is_ok());
            }
            if open == 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(3) + PATIENCE, "{open} are still open");
            a_device_is_served(&node, "d1");
            // The pace of the client under test, not a wait for the node.
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2_900), "{took:?}");
    eventually("their places are free", || (node.metric(PRE_AUTH) == 0.0).then_some(()));
    before.returns(&node, "200 slow clients");
    node.logged(&["no CONNECT within 3s"]);
}

#[test]
fn connections_come_in_at_the_pace_that_is_set() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__CONNECTS_PER_S", "40");
    let node = house.start();
    let begun = Instant::now();
    let devices: Vec<_> = (0..160)
        .map(|n| {
            let mut raw = Raw::open(node.mqtt);
            raw.send(&Connect::new(V5, &format!("d{n}")).bytes());
            raw
        })
        .collect();
    for mut device in devices {
        device.expect(0x20);
    }
    // Forty at once, the others at forty a second; the kernel does not share them quite evenly between the loops.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2_500), "{took:?}");
}

#[test]
fn half_open_handshakes_count_together_whatever_the_transport() {
    let house =
        House::new().flags(&["--mqtts-bind", "127.0.0.1:0", "--ws-bind", "127.0.0.1:0", "--wss-bind", "127.0.0.1:0"]);
    let files = Authority::new(&house.path(""), "authority").node("node", 1);
    let house = house
        .variable("TIDEGATE_MQTT__TLS_CERT", &files.cert.to_string_lossy())
        .variable("TIDEGATE_MQTT__TLS_KEY", &files.key.to_string_lossy())
        .variable("TIDEGATE_MQTT__LIMITS__PRE_AUTH_CONNECTIONS", "40");
    let node = house.start();
    let mut silent = Vec::new();
    for door in ["mqtt", "mqtts", "ws", "wss"] {
        silent.extend(open(node.door(door), 10));
        eventually(door, || (node.metric(PRE_AUTH) == silent.len() as f64).then_some(()));
    }
    // On every door somebody gives way, and a device gets in.
    silent.extend(open(node.door("wss"), 30));
    a_device_is_served(&node, "d1");
    assert!(node.metric(PRE_AUTH) <= 40.0 + 8.0);
    drop(silent);
    eventually_within(2 * PATIENCE, "their places are free", || (node.metric(PRE_AUTH) == 0.0).then_some(()));
}

#[test]
fn every_socket_counts_against_the_descriptors_and_the_node_can_still_be_asked() {
    // 612 less the 512 that are kept.
    let house = House::new().descriptors(612);
    let node = house.start();
    let idle = open(node.http, 40);
    eventually("they are counted", || (node.metric("tidegate_http_connections") == 41.0).then_some(()));
    let mut devices: Vec<_> = (0..60).map(|n| Raw::connect(node.mqtt, V5, &format!("d{n}"))).collect();
    let mut more = Raw::open(node.mqtt);
    let _ = more.try_send(&Connect::new(V5, "one-too-many").bytes());
    assert_eq!(more.next(), None);
    node.logged(&["closed a new connection: limit file_descriptors"]);
    assert!(turned_away(&node, "file_descriptors") >= 1.0);
    // HTTP goes on, and so does who is connected.
    node.assert_alive();
    devices[7].send(&publish(V5, "devices/d7/metrics", 1, 1, &[], br#"{"t":1}"#));
    assert_eq!(devices[7].expect(0x40).puback(), (1, 0));
    drop(idle);
    eventually("room again", || (node.metric("tidegate_http_connections") == 1.0).then_some(()));
    a_device_is_served(&node, "d-last");
}

#[test]
fn http_has_its_own_bound_and_every_socket_is_counted() {
    let house = House::new().variable("TIDEGATE_HTTP__LIMITS__CONNECTIONS", "30");
    let node = house.start();
    let mut idle = open(node.http, 29);
    eventually("they are counted", || (node.metric("tidegate_http_connections") == 30.0).then_some(()));
    let mut more = open(node.http, 5);
    // The one for the metrics comes and goes, so one of them may find room.
    let answers: Vec<_> = more
        .iter_mut()
        .map(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket option");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        })
        .collect();
    let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).count();
    assert!(refused >= 4, "{answers:?}");
    drop((more, idle.split_off(0)));
    eventually("their places are free", || {
        let response = node.get("/metrics");
        (response.status == 200 && response.text().contains("tidegate_http_connections 1\n")).then_some(())
    });
    assert!(turned_away(&node, "http.limits.connections") >= 4.0);
    assert_eq!(node.post("/metrics?ack=committed", &json!({"deviceId": "d1", "t": 1}).to_string()).status, 200);
}
