//! How the node stops: in order at the first signal, at once at the second.

mod support;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use support::{
    House, PATIENCE,
    http::Http,
    mqtt::{Packet, Raw, Version::V5, publish},
    websocket::Viewer,
};

const DOUBLE: &str = "export function onMetric(metric) { return { ...metric, doubled: metric.seq * 2 }; }";
/// Never answers: each reading takes its worker half a second, until it is killed.
const STUCK: &str = "export function onMetric(metric) { while (true); }";

/// What a load has got: its device, the highest acknowledged number, and how its connection ended.
struct Done {
    device: String,
    sent: u64,
    acked: u64,
    goodbye: Option<Packet>,
}

#[test]
fn sigterm_under_load_loses_nothing_and_leaves_nothing_to_replay() {
    stop_under_load(&House::new());
}

#[test]
fn sigterm_under_load_waits_for_the_handlers() {
    stop_under_load(&House::new().handler("10-double.js", DOUBLE));
}

fn stop_under_load(house: &House) {
    let mut node = house.start();
    let mut idle = Raw::connect(node.mqtt, V5, "idle");
    let mut viewer = Viewer::open(node.http, "?prefix=load-");
    viewer.snapshot();
    let (report, acked) = mpsc::channel();
    let mut loads: Vec<JoinHandle<Done>> =
        (0..5).map(|n| load_over_mqtt(node.mqtt, format!("load-{n}"), report.clone())).collect();
    loads.push(load_over_http(node.http, "load-http".to_owned(), report));
    // Every load has something acknowledged before the stop.
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    while counts.len() < loads.len() || counts.values().any(|count| *count < 20) {
        *counts.entry(acked.recv_timeout(PATIENCE).expect("the load goes on")).or_default() += 1;
    }
    let begin = Instant::now();
    assert_eq!(node.stop(), Some(0), "a graceful stop");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    node.logged(&["stopped: everything is durable"]);

    assert_eq!(idle.next().map(|packet| packet.disconnect_reason()), Some(0x8B), "server shutting down");
    while viewer.read().is_ok() {}
    let done: Vec<Done> = loads.into_iter().map(|load| load.join().expect("the load ends")).collect();
    for load in done.iter().filter(|load| load.device != "load-http") {
        let goodbye = load.goodbye.as_ref().unwrap_or_else(|| panic!("{} got no DISCONNECT", load.device));
        assert_eq!(goodbye.disconnect_reason(), 0x8B, "{}", load.device);
    }
    assert!(TcpStream::connect(node.mqtt).is_err() && TcpStream::connect(node.http).is_err(), "nobody listens");

    let node = house.start();
    let recovered = node.logged(&["tidegate::boot", "recovered", "folded=0", "unfinished=0"]);
    assert_eq!(recovered.len(), 1, "nothing was to be replayed: {}", node.log());
    for load in &done {
        let device = node.device(&load.device).unwrap_or_else(|| panic!("{} is lost", load.device));
        let seq = device["state"]["seq"].as_u64().unwrap_or_default();
        assert!((load.acked..=load.sent).contains(&seq), "{}: {} acknowledged, {device}", load.device, load.acked);
        assert_eq!(device["connected"], false);
    }
    node.settled_ledger();
    node.assert_alive();
}

/// Publishes at QoS 1, some at a time, until the node says goodbye.
fn load_over_mqtt(to: SocketAddr, device: String, report: mpsc::Sender<String>) -> JoinHandle<Done> {
    std::thread::spawn(move || {
        let mut client = Raw::connect(to, V5, &device);
        let topic = format!("devices/{device}/metrics");
        let (mut sent, mut acked) = (0, 0);
        let mut goodbye = None;
        'load: loop {
            let mut bytes = Vec::new();
            for _ in 0..8 {
                sent += 1;
                let id = u16::try_from(sent % 60_000 + 1).expect("a packet id");
                bytes.extend(publish(V5, &topic, 1, id, &[], json!({"seq": sent}).to_string().as_bytes()));
            }
            let written = client.try_send(&bytes);
            for _ in 0..8 {
                match client.next() {
                    Some(packet) if packet.first == 0x40 => {
                        assert_eq!(packet.puback().1, 0, "{packet:?}");
                        acked += 1;
                        let _ = report.send(device.clone());
                    }
                    Some(packet) => {
                        goodbye = Some(packet);
                        break 'load;
                    }
                    None => break 'load,
                }
            }
            if written.is_err() {
                break;
            }
        }
        Done { device, sent, acked, goodbye }
    })
}

/// Posts with `ack=committed` until the node is gone.
fn load_over_http(to: SocketAddr, device: String, report: mpsc::Sender<String>) -> JoinHandle<Done> {
    std::thread::spawn(move || {
        let mut http = Http::connect(to);
        let (mut sent, mut acked) = (0, 0);
        loop {
            sent += 1;
            let body = json!({"deviceId": device, "seq": sent}).to_string();
            let tried = http.try_send("POST", "/metrics?ack=committed", &[], body.as_bytes());
            match tried.and_then(|()| http.try_receive()) {
                Ok(response) if response.status == 200 => {
                    acked = sent;
                    let _ = report.send(device.clone());
                }
                Ok(response) => {
                    response.problem(503, "overloaded");
                    break;
                }
                Err(_) => break,
            }
        }
        Done { device, sent, acked, goodbye: None }
    })
}

#[test]
fn an_idle_node_stops_quickly_and_starts_clean() {
    let house = House::new();
    for round in 0..3 {
        let mut node = house.start();
        node.post("/metrics?ack=committed", &json!({"deviceId": "d1", "seq": round}).to_string());
        let begin = Instant::now();
        assert_eq!(node.stop(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }
    let node = house.start();
    assert_eq!(node.device("d1").expect("known")["version"], 3);
    node.logged(&["tidegate::boot", "recovered", "folded=0", "unfinished=0"]);
}

#[test]
fn sigint_stops_in_order_too() {
    let house = House::new();
    let mut node = house.start();
    node.post("/metrics?ack=committed", r#"{"deviceId":"d1","seq":1}"#);
    node.signal(Signal::INT);
    let code = node.wait(PATIENCE).code();
    assert_eq!(code, Some(0));
    node.logged(&["stopped: everything is durable"]);
}

#[test]
fn a_second_sigterm_exits_at_once() {
    second_signal(Signal::TERM, 143);
}

#[test]
fn a_second_sigint_exits_at_once() {
    second_signal(Signal::INT, 130);
}

/// The stop has to wait for a handler that is stuck; the second signal does not.
fn second_signal(signal: Signal, code: i32) {
    let house = House::new().handler("10-handler.js", STUCK).variable("TIDEGATE_SCRIPTS__BREAKER_FAILURES", "1000");
    let mut node = house.start();
    let readings: Vec<_> = (1..=20).map(|n| json!({"deviceId": "stuck", "seq": n})).collect();
    assert_eq!(node.post("/metrics?ack=committed", &json!(readings).to_string()).status, 200);
    node.signal(signal);
    node.logged(&["stopping (a second signal exits at once)"]);
    let begin = Instant::now();
    node.signal(signal);
    assert_eq!(node.wait(PATIENCE).code(), Some(code));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    node.logged(&["second signal"]);
    drop(node);

    // What was committed and not yet handled is handled after the restart.
    let house = house.handler("10-handler.js", "export function onMetric(metric) { return metric; }");
    let node = house.start();
    node.device_with("stuck", "seq", &json!(20));
    node.settled_ledger();
}
