//! Live views from outside: WebSocket and server-sent events. A viewer that reads sees every update; one that does not is
//! conflated, and slows nobody.

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    Dice, House, Node, eventually, eventually_within,
    http::Http,
    mqtt::{Raw, Version::V5, publish, subscribe},
    sse::Events,
    websocket::Viewer,
};

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

/// Posts `count` readings `{"n":…}` of a device in one body and waits until the state has them.
#[track_caller]
fn update(node: &Node, device: &str, numbers: std::ops::RangeInclusive<u64>) {
    post(&mut node.http(), device, numbers, "");
}

#[track_caller]
fn post(http: &mut Http, device: &str, numbers: std::ops::RangeInclusive<u64>, filling: &str) {
    let readings: Vec<_> = numbers.map(|n| json!({"deviceId": device, "n": n, "filling": filling})).collect();
    let count = readings.len();
    http.send("POST", "/metrics?ack=processed", &[], json!(readings).to_string().as_bytes());
    let response = http.receive();
    assert_eq!((response.status, &response.json()["accepted"]), (200, &json!(count)), "{}", response.text());
}

/// What the tests look at in a state message.
fn seen(message: &Value) -> (&str, u64) {
    (message["deviceId"].as_str().unwrap_or_default(), message["version"].as_u64().unwrap_or_default())
}

#[track_caller]
fn assert_without_gaps<'a>(messages: impl IntoIterator<Item = &'a Value>) {
    let mut last = None;
    for message in messages {
        let version = seen(message).1;
        assert!(last.is_none_or(|last| version == last + 1), "{version} after {last:?}");
        last = Some(version);
    }
}

#[test]
fn a_reading_viewer_gets_the_state_then_every_update_in_order() {
    let (_house, node) = node();
    update(&node, "d1", 1..=1);
    update(&node, "d2", 1..=1);
    let mut viewer = Viewer::open(node.http, "?deviceId=d1");
    assert_eq!(viewer.next(), json!({"type":"hello","loops":2,"devices":2}));
    let first = viewer.next();
    assert_eq!((&first["type"], seen(&first), &first["state"]["n"]), (&json!("state"), ("d1", 1), &json!(1)));
    assert_eq!(first.as_object().map(serde_json::Map::len), Some(7), "type and the six of a Device: {first}");
    assert_eq!(viewer.next(), json!({"type":"synced"}));
    for part in 0..5 {
        update(&node, "d1", 2 + part * 100..=101 + part * 100);
        update(&node, "d2", 2..=10);
    }
    let updates = viewer.until("the last", |message| message["state"]["n"] == 501);
    assert_eq!(updates.len(), 500);
    assert!(updates.iter().zip(2..).all(|(message, n)| seen(message) == ("d1", n) && message["state"]["n"] == n));
}

#[test]
fn a_device_that_is_not_known_yet_appears_with_its_first_reading() {
    let (_house, node) = node();
    let mut viewer = Viewer::open(node.http, "?deviceId=new&deviceId=also-new");
    assert_eq!(viewer.snapshot(), [json!({"type":"hello","loops":2,"devices":0})]);
    update(&node, "also-new", 1..=1);
    assert_eq!(seen(&viewer.next()), ("also-new", 1));
    update(&node, "new", 1..=1);
    assert_eq!(seen(&viewer.next()), ("new", 1));
}

#[test]
fn viewers_that_come_while_updates_flow_miss_nothing_between_snapshot_and_update() {
    let (_house, node) = node();
    update(&node, "busy", 1..=1);
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut http = node.http();
            for n in (2..).step_by(10) {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                post(&mut http, "busy", n..=n + 9, "");
            }
        });
        let stop = Flag(&over);
        for round in 0..20 {
            let mut viewer = Viewer::open(node.http, "?deviceId=busy&deviceId=idle");
            let mut states = Vec::new();
            while states.len() < 100 {
                states.extend(Some(viewer.next()).filter(|message| message["type"] == "state"));
            }
            assert_without_gaps(&states);
            assert!(states.iter().all(|state| state["state"]["n"] == state["version"]), "round {round}");
        }
        drop(stop);
    });
}

/// Sets the flag when a scope ends, also by a panic, so that its threads end.
struct Flag<'a>(&'a AtomicBool);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_fleet_viewer_is_conflated_to_its_interval() {
    const DEVICES: u64 = 20;
    let (_house, node) = node();
    let mut viewer = Viewer::open(node.http, "?interval=1000");
    viewer.snapshot();
    let begin = Instant::now();
    let mut http = node.http();
    for round in 0..5 {
        for device in 0..DEVICES {
            post(&mut http, &format!("fleet-{device}"), round * 10 + 1..=round * 10 + 10, "");
        }
    }
    let took = begin.elapsed();
    let mut last = BTreeMap::new();
    let mut messages = 0;
    while last.len() < 20 || last.values().any(|n| *n != 50) {
        let message = viewer.next();
        let n = message["state"]["n"].as_u64().expect("a number");
        let before = last.insert(message["deviceId"].to_string(), n);
        assert!(before.is_none_or(|before| before < n), "{message} after {before:?}");
        messages += 1;
    }
    // One write at once, then one a second, each with every device once at most.
    let writes = 2 + u64::try_from(took.as_millis()).expect("short") / 1_000 + 1;
    assert!(messages <= DEVICES * writes, "{messages} messages of 1000 updates in {took:?}");
}

#[test]
fn prefixes_and_ids_choose_what_is_seen() {
    let (_house, node) = node();
    for device in ["pump-1", "pump-2", "valve-1", "valve-2", "other"] {
        update(&node, device, 1..=1);
    }
    let mut viewer = Viewer::open(node.http, "?prefix=pump-&deviceId=valve-2");
    let mut snapshot = viewer.snapshot();
    assert_eq!(snapshot.remove(0)["type"], "hello");
    let mut ids: Vec<&str> = snapshot.iter().map(|message| seen(message).0).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["pump-1", "pump-2", "valve-2"]);
    for device in ["valve-1", "other", "valve-2", "pump-1", "pump-3"] {
        update(&node, device, 2..=2);
    }
    let mut ids: Vec<String> = (0..3).map(|_| seen(&viewer.next()).0.to_owned()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["pump-1", "pump-3", "valve-2"]);
}

#[test]
fn a_watch_message_replaces_the_filter() {
    let (_house, node) = node();
    for device in ["a", "b", "c-1"] {
        update(&node, device, 1..=1);
    }
    let mut viewer = Viewer::open(node.http, "?deviceId=a");
    assert_eq!(viewer.snapshot().len(), 2, "hello and a");

    viewer.send(&json!({"watch": {"deviceIds": ["b"], "prefixes": ["c-"], "fleet": false}}));
    let mut ids: Vec<String> = viewer.snapshot().iter().map(|message| seen(message).0.to_owned()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["b", "c-1"], "a new snapshot follows");
    update(&node, "a", 2..=2);
    update(&node, "b", 2..=2);
    assert_eq!(seen(&viewer.next()), ("b", 2), "a is not watched any more");

    for bad in [json!({"watch": {"devices": ["a"]}}), json!([]), json!({"watch": {"deviceIds": ["a/b"]}})] {
        viewer.send(&bad);
        let error = viewer.next();
        assert_eq!((&error["type"], &error["problem"]["status"]), (&json!("error"), &json!(400)), "{error}");
    }
    update(&node, "b", 3..=3);
    assert_eq!(seen(&viewer.next()), ("b", 3), "a bad message changes nothing");

    viewer.send(&json!({"watch": {"fleet": true}, "interval": 0}));
    assert_eq!(viewer.snapshot().len(), 3);
}

#[test]
fn a_filter_that_changes_at_once_gets_its_own_snapshot() {
    let (_house, node) = node();
    for n in 0..300 {
        update(&node, &format!("first-{n}"), 1..=1);
    }
    update(&node, "second", 1..=1);
    for round in 0..30 {
        let mut viewer = Viewer::open(node.http, "?prefix=first-");
        // Sent while the first snapshot is still on its way.
        viewer.send(&json!({"watch": {"deviceIds": ["second"]}}));
        let messages = viewer.until("the second filter's state", |message| message["deviceId"] == "second");
        // From here on the first filter has no say.
        let rest: Vec<_> = std::iter::from_fn(|| viewer.next_within(Duration::from_millis(20))).collect();
        let synced = |messages: &[Value]| messages.iter().filter(|message| message["type"] == "synced").count();
        assert_eq!(rest, [json!({"type":"synced"})], "round {round}, after {} messages", messages.len());
        assert!(synced(&messages) <= 1, "round {round}");
    }
}

#[test]
fn connected_devices_are_shown_as_such() {
    let (_house, node) = node();
    update(&node, "d1", 1..=1);
    let mut viewer = Viewer::open(node.http, "?deviceId=d1");
    let mut events = Events::open(node.http, "/stream?deviceId=d1");
    assert_eq!(viewer.snapshot()[1]["connected"], false);
    events.until("synced", |event, _| event == "synced");
    for _ in 0..3 {
        let device = Raw::connect(node.mqtt, V5, "d1");
        assert_eq!(viewer.next()["connected"], true);
        assert_eq!(events.next().1["connected"], true);
        drop(device);
        assert_eq!(viewer.next()["connected"], false);
        assert_eq!(events.next().1["connected"], false);
    }
    let message = node.device("d1").expect("known");
    assert_eq!((&message["connected"], &message["version"]), (&json!(false), &json!(1)));
}

#[test]
fn a_device_that_connects_before_its_first_reading_is_shown_connected() {
    let (_house, node) = node();
    let mut viewer = Viewer::open(node.http, "?deviceId=d1");
    viewer.snapshot();
    let mut device = Raw::connect(node.mqtt, V5, "d1");
    device.send(&publish(V5, "devices/d1/metrics", 1, 1, &[], br#"{"n":1}"#));
    device.expect(0x40);
    let first = viewer.next();
    assert_eq!((seen(&first), &first["connected"]), (("d1", 1), &json!(true)), "{first}");
}

#[test]
fn events_of_handlers_reach_every_kind_of_viewer() {
    let emit = "export function onMetric(metric, ctx) { if (metric.n > 9) ctx.emit('alarm', { n: metric.n }); }";
    let house = House::new().handler("10-emit.js", emit);
    let node = house.start();
    let mut viewer = Viewer::open(node.http, "?deviceId=d1");
    viewer.snapshot();
    let mut events = Events::open(node.http, "/stream?deviceId=d1");
    events.until("synced", |event, _| event == "synced");
    let mut subscriber = Raw::connect(node.mqtt, V5, "subscriber");
    subscriber.send(&subscribe(V5, 1, "devices/+/events/#", 1));
    subscriber.expect(0x90);
    update(&node, "d1", 9..=10);
    let event = viewer.until("the event", |message| message["type"] == "event").pop().expect("an event");
    assert_eq!(
        (&event["deviceId"], &event["name"], &event["payload"]),
        (&json!("d1"), &json!("alarm"), &json!({"n":10}))
    );
    assert!(event["time"].is_u64(), "{event}");
    let (_, same) = events.until("the event", |event, _| event == "event").pop().expect("an event");
    assert_eq!(same, event, "the same text for every viewer");
    let published = subscriber.expect(0x30);
    assert!(published.body.windows(23).any(|window| window == b"devices/d1/events/alarm"), "{published:?}");
}

#[test]
fn server_sent_events_are_the_same_messages() {
    let (_house, node) = node();
    update(&node, "d1", 1..=1);
    update(&node, "pump-1", 1..=1);
    let mut events = Events::open(node.http, "/stream?deviceId=d1&prefix=pump-");
    let snapshot = events.until("synced", |event, _| event == "synced");
    let mut ids: Vec<_> = snapshot.iter().filter_map(|(_, data)| data["deviceId"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["d1", "pump-1"]);
    assert!(snapshot.iter().all(|(event, data)| data["type"] == json!(event)), "{snapshot:?}");
    update(&node, "other", 1..=1);
    update(&node, "d1", 2..=300);
    let updates = events.until("the last", |_, data| data["state"]["n"] == 300);
    assert_eq!(updates.len(), 299);
    assert_without_gaps(updates.iter().map(|(_, data)| data));
    let refused = node.get("/stream?interval=x").problem(400, "bad-parameter");
    assert_eq!(refused["field"], "interval");
}

#[test]
fn sixty_viewers_of_one_device_all_get_the_last_state() {
    let (_house, node) = node();
    let mut sockets: Vec<Viewer> = (0..40).map(|_| Viewer::open(node.http, "?deviceId=d1")).collect();
    let mut streams: Vec<Events> = (0..20).map(|_| Events::open(node.http, "/stream?deviceId=d1")).collect();
    sockets.iter_mut().for_each(|viewer| drop(viewer.snapshot()));
    streams.iter_mut().for_each(|events| drop(events.until("synced", |event, _| event == "synced")));
    assert_eq!(node.metric("tidegate_viewers") as u64, 60);
    update(&node, "d1", 1..=200);
    for viewer in &mut sockets {
        let updates = viewer.until("the last", |message| message["state"]["n"] == 200);
        assert_without_gaps(&updates);
    }
    for events in &mut streams {
        let updates = events.until("the last", |_, data| data["state"]["n"] == 200);
        assert_without_gaps(updates.iter().map(|(_, data)| data));
    }
    // Those that say goodbye and those that just go are both forgotten.
    sockets.into_iter().for_each(Viewer::close);
    drop(streams);
    eventually("no viewers", || (node.metric("tidegate_viewers") == 0.0).then_some(()));
    node.assert_alive();
}

#[test]
fn leaving_viewers_are_noticed_at_once() {
    let soon = Duration::from_secs(3);
    let (_house, node) = node();
    let begin = Instant::now();
    // `close` waits until the node has closed the TCP connection, too.
    Viewer::open(node.http, "?deviceId=d1").close();
    assert!(begin.elapsed() < soon, "the connection stayed after the closing handshake: {:?}", begin.elapsed());
    let gone = (Viewer::open(node.http, "?deviceId=d1"), Events::open(node.http, "/stream?deviceId=d1"));
    eventually("both are viewers", || (node.metric("tidegate_viewers") == 2.0).then_some(()));
    drop(gone);
    eventually_within(soon, "no viewers", || (node.metric("tidegate_viewers") == 0.0).then_some(()));
}

#[test]
fn one_viewer_too_many_is_told_so() {
    let house = House::new().variable("TIDEGATE_VIEWERS__MAX", "2");
    let node = house.start();
    let first = Viewer::open(node.http, "");
    let _second = Events::open(node.http, "/stream");
    let refused = node.get("/stream");
    let problem = refused.problem(503, "overloaded");
    assert_eq!((&problem["limit"], &problem["limitValue"]), (&json!("viewers"), &json!(2)));
    assert!(refused.header("retry-after").is_some());
    first.close();
    eventually("room for another", || (node.metric("tidegate_viewers") == 1.0).then_some(()));
    let _third = Viewer::open(node.http, "");
}

/// A viewer that reads nothing after its handshake, on a socket with little room.
struct Deaf {
    _socket: socket2::Socket,
}

impl Deaf {
    fn open(to: SocketAddr, path: &str, upgrade: bool) -> Self {
        use std::io::{Read, Write};
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a socket option");
        socket.set_read_timeout(Some(support::PATIENCE)).expect("a socket option");
        socket.connect(&to.into()).expect("the node's HTTP port takes connections");
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
        if upgrade {
            head.push_str("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n");
            head.push_str("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
        }
        (&socket).write_all(format!("{head}\r\n").as_bytes()).expect("the request is written");
        let mut status = [0; 12];
        (&socket).read_exact(&mut status).expect("a status line");
        assert_eq!(&status, if upgrade { b"HTTP/1.1 101" } else { b"HTTP/1.1 200" });
        Self { _socket: socket }
    }
}

#[test]
fn viewers_that_never_read_are_closed_and_slow_nobody() {
    let (_house, node) = node();
    let mut reader = Viewer::open(node.http, "?deviceId=big");
    reader.snapshot();
    let _deaf = [Deaf::open(node.http, "/ws?deviceId=big", true), Deaf::open(node.http, "/stream?deviceId=big", false)];
    eventually("all three are viewers", || (node.metric("tidegate_viewers") == 3.0).then_some(()));
    let filling = "x".repeat(100_000);
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let publisher = threads.spawn(|| {
            let mut http = node.http();
            let mut slowest = Duration::ZERO;
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                n += 1;
                let begin = Instant::now();
                // First as much as no socket holds, then just enough to be a viewer that is behind.
                post(&mut http, "big", n..=n, if n < 300 { &filling } else { "" });
                slowest = slowest.max(begin.elapsed());
                if n >= 300 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            (n, slowest)
        });
        let viewer = threads.spawn(|| {
            let mut states = Vec::new();
            while !over.load(Ordering::Relaxed) {
                if let Some(message) = reader.next_within(Duration::from_millis(500)) {
                    states.push(json!({"version": message["version"]}));
                }
            }
            states
        });
        let stop = Flag(&over);
        // The node's patience with them, viewers.stall_timeout_ms, is 30 s.
        eventually_within(Duration::from_secs(50), "the deaf viewers are closed", || {
            std::thread::sleep(Duration::from_millis(100));
            (node.metric("tidegate_viewers") == 1.0).then_some(())
        });
        drop(stop);
        let (count, slowest) = publisher.join().expect("the publisher went on");
        let mut states = viewer.join().expect("the reading viewer went on");
        // A few of the large ones are more than a viewer's buffer: on a busy machine they are conflated for whoever reads, too.
        states.retain(|state| state["version"].as_u64() > Some(400));
        assert_without_gaps(&states);
        assert!(states.len() as u64 + 450 > count && count > 600, "{} of {count}", states.len());
        assert!(slowest < Duration::from_secs(3), "a reading took {slowest:?}");
    });
    assert_eq!(node.metric("tidegate_viewers_stalled_total") as u64, 2);
    assert!(node.metric("tidegate_viewer_updates_conflated_total") > 100.0);
    assert_eq!(node.logged(&["closed a viewer"]).len(), 2);
    node.settled_ledger();
}

#[test]
fn a_viewer_that_pauses_is_conflated_and_catches_up() {
    let (_house, node) = node();
    let mut viewer = Viewer::open(node.http, "?prefix=slow-");
    viewer.snapshot();
    let mut http = node.http();
    let filling = "x".repeat(50_000);
    // 30 MB while it does not read: more than sockets and its buffer hold.
    for n in 1..=200 {
        for device in ["slow-1", "slow-2", "slow-3"] {
            post(&mut http, device, n..=n, &filling);
        }
    }
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut messages = 0;
    while last.len() < 3 || last.values().any(|n| *n != 200) {
        let message = viewer.next();
        let n = message["state"]["n"].as_u64().expect("a number");
        let before = last.insert(message["deviceId"].to_string(), n);
        assert!(before.is_none_or(|before| before < n), "versions only grow");
        messages += 1;
    }
    assert!(messages < 600, "nothing was conflated");
    // Once it has caught up it gets every update again.
    update(&node, "slow-1", 201..=400);
    let updates = viewer.until("the last", |message| message["state"]["n"] == 400);
    assert_without_gaps(&updates);
    assert_eq!(updates.len(), 200);
}

#[test]
fn viewers_come_and_go_at_random_while_devices_report() {
    const DEVICES: u64 = 5;
    let (_house, node) = node();
    let seed = 7;
    println!("seed {seed}");
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut http = node.http();
            for n in 1.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                post(&mut http, &format!("r-{}", n % DEVICES), n..=n, "");
            }
        });
        let stop = Flag(&over);
        let mut dice = Dice(seed);
        for _ in 0..150 {
            let device = dice.between(0, DEVICES - 1);
            let query = match dice.between(0, 2) {
                0 => format!("?deviceId=r-{device}"),
                1 => "?prefix=r-".to_owned(),
                _ => String::new(),
            };
            match dice.between(0, 3) {
                0 => drop(Viewer::open(node.http, &query)),
                1 => drop(Events::open(node.http, &format!("/stream{query}")).next()),
                2 => {
                    let mut viewer = Viewer::open(node.http, &query);
                    viewer.snapshot();
                    viewer.close();
                }
                _ => drop(Viewer::open(node.http, &query).next()),
            }
        }
        drop(stop);
    });
    eventually("no viewers are left", || (node.metric("tidegate_viewers") == 0.0).then_some(()));
    node.settled_ledger();
    node.assert_alive();
}
