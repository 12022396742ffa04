//! Stored sessions over `kill -9`: subscriptions, what waits, what is under way, and exchanges of QoS 2. At random moments under
//! load: every acknowledged message arrives, and with QoS 2 once.
//!
//! `TIDEGATE_CRASH_ROUNDS` sets the rounds (10), `TIDEGATE_CRASH_SEED` repeats a run's moments.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use support::{
    Dice, House, Node, eventually,
    mqtt::{
        Connect, Raw,
        Version::{self, V3, V5},
        ack, again, disconnect, packet, property, publish, subscribe, unsubscribe,
    },
};

const VERSIONS: [Version; 2] = [V3, V5];
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const TWO_HOURS: [u8; 5] = [0x11, 0, 0, 0x1C, 0x20];

fn stored(version: Version, client_id: &str) -> Connect<'_> {
    let properties = if version == V5 { &TWO_HOURS[..] } else { &[] };
    Connect { clean: false, properties, ..Connect::new(version, client_id) }
}

#[track_caller]
fn resumed(node: &Node, version: Version, client_id: &str) -> Raw {
    let (raw, present) = Raw::resume(node.mqtt, &stored(version, client_id));
    assert!(present, "the session of {client_id} is gone");
    raw
}

fn restart(house: &House, node: &mut Node) {
    node.kill9();
    *node = house.start();
}

#[track_caller]
fn nothing_more(client: &mut Raw) {
    assert_eq!(client.next_within(Duration::from_millis(200)), None);
}

#[track_caller]
fn send(client: &mut Raw, topic: &str, qos: u8, id: u16, payload: &str) {
    client.send(&publish(V5, topic, qos, id, &[], payload.as_bytes()));
    if qos == 1 {
        assert_eq!(client.expect(0x40).puback(), (id, 0));
    } else {
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (id, 0));
        client.send(&ack(PUBREL, id));
        assert_eq!(client.expect(PUBCOMP).ack(PUBCOMP), (id, 0));
    }
}

#[test]
fn subscriptions_and_what_waits_survive() {
    let house = House::new();
    let mut node = house.start();
    for version in VERSIONS {
        let id = format!("away-{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        for (number, filter) in [(1, "keep/+"), (2, "not/any/more")] {
            client.send(&subscribe(version, number, filter, 2));
            client.expect(0x90);
        }
        client.send(&unsubscribe(version, 3, "not/any/more"));
        client.expect(0xB0);
        // One leaves, the other is there when the node dies.
        if version == V3 {
            client.send(&disconnect(version, 0, &[]));
            assert_eq!(client.rest(), []);
        }
    }
    restart(&house, &mut node);
    assert_eq!(node.metric("tidegate_mqtt_sessions_stored"), 2.0);
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    send(&mut publisher, "keep/1", 1, 1, "one");
    send(&mut publisher, "not/any/more", 1, 2, "no");
    send(&mut publisher, "keep/2", 2, 3, "two");
    restart(&house, &mut node);
    for version in VERSIONS {
        let mut client = resumed(&node, version, &format!("away-{version:?}"));
        let one = client.next().expect("a message").message(version);
        assert_eq!((&*one.topic, &*one.payload, one.qos, one.dup), ("keep/1", "one", 1, false));
        let two = client.next().expect("a message").message(version);
        assert_eq!((&*two.topic, &*two.payload, two.qos, two.dup), ("keep/2", "two", 2, false));
        client.send(&[ack(0x40, one.id), ack(PUBREC, two.id)].concat());
        assert_eq!(client.expect(PUBREL).ack(PUBREL), (two.id, 0));
        client.send(&ack(PUBCOMP, two.id));
        client.send(&packet(0xC0, b""));
        client.expect(0xD0);
        client.send(&disconnect(version, 0, &[]));
        assert_eq!(client.rest(), []);
        // A disconnect is durable soon after; what was acknowledged before it does not come again.
    }
    std::thread::sleep(Duration::from_millis(100));
    restart(&house, &mut node);
    for version in VERSIONS {
        nothing_more(&mut resumed(&node, version, &format!("away-{version:?}")));
    }
}

#[test]
fn what_is_under_way_goes_on_under_its_id() {
    let house = House::new();
    let mut node = house.start();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let mut clients = Vec::new();
    for version in VERSIONS {
        let id = format!("way-{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        client.send(&subscribe(version, 1, "way", 2));
        client.expect(0x90);
        clients.push((version, id, client));
    }
    for number in 1..=40 {
        send(&mut publisher, "way", 1 + u8::from(number % 2 == 0), number, &number.to_string());
    }
    // The window of 32 is full. The second has its PUBREC, and the PUBREL has come: it is durable.
    let mut sent = BTreeMap::new();
    for (version, _, client) in &mut clients {
        let messages: Vec<_> = (0..32).map(|_| client.next().expect("a message").message(*version)).collect();
        let second = messages.iter().find(|message| message.payload == "2").expect("it is among them").id;
        client.send(&ack(PUBREC, second));
        assert_eq!(client.expect(PUBREL).ack(PUBREL), (second, 0));
        sent.insert(*version as u8, messages);
    }
    restart(&house, &mut node);
    for (version, id, _) in clients {
        let before: BTreeMap<_, _> =
            sent[&(version as u8)].iter().map(|m| (m.payload.clone(), (m.id, m.qos))).collect();
        let mut client = resumed(&node, version, &id);
        let mut again = BTreeMap::new();
        for _ in 0..32 {
            let packet = client.next().expect("a packet");
            if packet.first == PUBREL {
                assert_eq!(packet.ack(PUBREL), (before["2"].0, 0));
                continue;
            }
            let message = packet.message(version);
            assert!(message.dup, "{message:?}");
            again.insert(message.payload, (message.id, message.qos));
        }
        let expected: BTreeMap<_, _> = before.iter().filter(|(payload, _)| *payload != "2").collect();
        assert_eq!(again.iter().collect::<BTreeMap<_, _>>(), expected, "{version:?}");
        client.send(&ack(PUBCOMP, before["2"].0));
        let next = client.next().expect("the one that waited").message(version);
        assert!(!next.dup && next.payload.parse::<u32>().is_ok_and(|number| number > 32), "{next:?}");
    }
}

#[test]
fn exchanges_with_the_client_as_sender_are_remembered() {
    let house = House::new();
    let mut node = house.start();
    for version in VERSIONS {
        let id = format!("sender-{version:?}");
        let topic = format!("devices/{id}/metrics");
        let reading = publish(version, &topic, 2, 1, &[], br#"{"t":1}"#);
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        client.send(&reading);
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (1, 0));
        restart(&house, &mut node);
        let mut client = resumed(&node, version, &id);
        client.send(&again(&reading));
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (1, 0));
        client.send(&ack(PUBREL, 1));
        assert_eq!(client.expect(PUBCOMP).ack(PUBCOMP), (1, 0));
        restart(&house, &mut node);
        // It is over: the same id with DUP is a message that the node does not know.
        let mut client = resumed(&node, version, &id);
        client.send(&again(&publish(version, &topic, 2, 1, &[], br#"{"t":2}"#)));
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (1, 0));
        let state = node.device_with(&id, "t", &json!(2));
        assert_eq!(state["version"], 2, "two readings: {state}");
    }
}

#[test]
fn names_of_messages_that_are_over_are_forgotten() {
    let house = House::new();
    let node = house.start();
    let mut listener = Raw::connect_with(node.mqtt, &stored(V5, "listener"));
    listener.send(&subscribe(V5, 1, "names", 2));
    listener.expect(0x90);
    let mut publisher = Raw::connect_with(node.mqtt, &stored(V5, "publisher"));
    for number in 1..=20 {
        send(&mut publisher, "names", 2, number, "x");
        let id = listener.next().expect("a message").message(V5).id;
        listener.send(&ack(PUBREC, id));
        assert_eq!(listener.expect(PUBREL).ack(PUBREL), (id, 0));
        listener.send(&ack(PUBCOMP, id));
    }
    // Two sessions, and a name for each message.
    eventually("the names are kept", || (node.metric("tidegate_kept_pairs") >= 22.0).then_some(()));
    eventually("the names are forgotten", || (node.metric("tidegate_kept_pairs") <= 2.0).then_some(()));
    assert!(resumed(&node, V5, "listener").next_within(Duration::from_millis(200)).is_none());
}

#[test]
fn sessions_end_over_a_crash_as_well() {
    let house = House::new();
    let mut node = house.start();
    let mut client = Raw::connect_with(node.mqtt, &stored(V5, "anew"));
    client.send(&subscribe(V5, 1, "a", 1));
    client.expect(0x90);
    // Begun anew: the CONNACK says that the old one is gone, and that is durable.
    Raw::connect_with(node.mqtt, &Connect { properties: &[], clean: true, ..stored(V5, "anew") });
    let expiry = property(0x11, 1);
    let mut short = Raw::connect_with(node.mqtt, &Connect { properties: &expiry, ..stored(V5, "short") });
    short.send(&disconnect(V5, 0, &[]));
    assert_eq!(short.rest(), []);
    std::thread::sleep(Duration::from_millis(1_100));
    restart(&house, &mut node);
    assert!(!Raw::resume(node.mqtt, &stored(V5, "anew")).1);
    eventually("it has expired", || (node.metric("tidegate_mqtt_sessions_stored") == 1.0).then_some(()));
    assert!(!Raw::resume(node.mqtt, &Connect { properties: &expiry, ..stored(V5, "short") }).1);
}

#[test]
fn a_stored_sessions_will_survives() {
    let house = House::new();
    let mut node = house.start();
    let mut heir = Raw::connect_with(node.mqtt, &stored(V5, "heir"));
    heir.send(&subscribe(V5, 1, "will", 1));
    heir.expect(0x90);
    drop(Raw::connect_with(
        node.mqtt,
        &Connect { will: Some(("will", b"gone", 1, &property(0x18, 1))), ..stored(V5, "late") },
    ));
    let _mortal =
        Raw::connect_with(node.mqtt, &Connect { will: Some(("will", b"killed", 1, &[])), ..stored(V3, "mortal") });
    restart(&house, &mut node);
    let mut heir = resumed(&node, V5, "heir");
    let wills: BTreeSet<_> = (0..2)
        .map(|_| {
            let will = heir.next().expect("a will").message(V5);
            heir.send(&ack(0x40, will.id));
            will.payload
        })
        .collect();
    assert_eq!(wills, ["gone", "killed"].map(str::to_owned).into());
    nothing_more(&mut heir);
}

#[test]
fn a_graceful_stop_keeps_sessions_too() {
    let house = House::new();
    let mut node = house.start();
    let mut client = Raw::connect_with(node.mqtt, &stored(V5, "stays"));
    client.send(&subscribe(V5, 1, "s", 1));
    client.expect(0x90);
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    send(&mut publisher, "s", 1, 1, "before");
    client.next().expect("the message");
    assert_eq!(node.stop(), Some(0));
    let node = house.start();
    let message = resumed(&node, V5, "stays").next().expect("the message").message(V5);
    assert_eq!((&*message.payload, message.dup), ("before", true));
}

// ---- at random moments

/// Where the node is now; it moves with each start.
type Address = Arc<Mutex<SocketAddr>>;

struct Scene {
    address: Address,
    /// The publishers begin nothing new.
    ending: Arc<AtomicBool>,
}

/// A client that behaves: it keeps its session, and sends again what is not acknowledged.
struct Publisher {
    qos: u8,
    topic: String,
    last: u64,
    next_id: u16,
    /// Packet id, number, and whether its PUBREC has come; oldest first.
    under_way: VecDeque<(u16, u64, bool)>,
    acked: Vec<u64>,
}

impl Publisher {
    /// Publishes until the scene ends and everything is acknowledged.
    fn run(mut self, client_id: &str, scene: &Scene) -> Vec<u64> {
        let mut known = false;
        loop {
            let to = *scene.address.lock().expect("nobody panics with it");
            let Some((mut raw, present)) = Raw::try_resume(to, &stored(V5, client_id)) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            assert!(present || !known, "the session of {client_id} is gone");
            known = true;
            if self.work(&mut raw, scene).is_some() {
                return self.acked;
            }
        }
    }

    fn work(&mut self, raw: &mut Raw, scene: &Scene) -> Option<()> {
        for (id, number, released) in self.under_way.clone() {
            let bytes = if released { ack(PUBREL, id) } else { again(&self.message(id, number)) };
            raw.try_send(&bytes).ok()?;
        }
        loop {
            while self.under_way.len() < 20 && !scene.ending.load(Ordering::Relaxed) {
                self.last += 1;
                self.next_id = self.next_id % 500 + 1;
                self.under_way.push_back((self.next_id, self.last, false));
                raw.try_send(&self.message(self.next_id, self.last)).ok()?;
            }
            if self.under_way.is_empty() {
                return Some(());
            }
            let packet = raw.next()?;
            let (id, code) = packet.ack(packet.first);
            assert!(code == 0 || packet.first == PUBCOMP, "{packet:?}");
            let at = self.under_way.iter().position(|(of, ..)| *of == id).expect("one that is under way");
            if packet.first == PUBREC {
                self.under_way[at].2 = true;
                raw.try_send(&ack(PUBREL, id)).ok()?;
            } else {
                self.acked.extend(self.under_way.remove(at).map(|(_, number, _)| number));
            }
        }
    }

    fn message(&self, id: u16, number: u64) -> Vec<u8> {
        publish(V5, &self.topic, self.qos, id, &[], format!(r#"{{"n":{number}}}"#).as_bytes())
    }
}

/// A client that behaves: it takes a message with QoS 2 once.
fn listen(client_id: &str, scene: &Scene, done: &AtomicBool) -> BTreeMap<String, Vec<u64>> {
    let mut heard = BTreeMap::<String, Vec<u64>>::new();
    let mut taken = BTreeSet::new();
    loop {
        let to = *scene.address.lock().expect("nobody panics with it");
        let Some((mut raw, _)) = Raw::try_resume(to, &stored(V5, client_id)) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let _ = raw.try_send(&subscribe(V5, 1, "#", 2));
        loop {
            let Some(packet) = raw.next_within(Duration::from_millis(500)) else {
                if raw.is_closed() {
                    break;
                }
                if done.load(Ordering::Relaxed) {
                    return heard;
                }
                continue;
            };
            let answer = match packet.first >> 4 {
                3 => {
                    let message = packet.message(V5);
                    if message.qos == 0 || message.qos == 1 || taken.insert(message.id) {
                        let number =
                            message.payload.trim_start_matches(r#"{"n":"#).trim_end_matches('}').parse::<u64>();
                        heard.entry(message.topic).or_default().extend(number);
                    }
                    match message.qos {
                        0 => continue,
                        1 => ack(0x40, message.id),
                        _ => ack(PUBREC, message.id),
                    }
                }
                6 => {
                    let (id, _) = packet.ack(PUBREL);
                    taken.remove(&id);
                    ack(PUBCOMP, id)
                }
                _ => continue,
            };
            if raw.try_send(&answer).is_err() {
                break;
            }
        }
    }
}

#[test]
fn at_any_moment_what_was_acknowledged_arrives_and_with_qos_2_once() {
    let rounds: u64 = env::var("TIDEGATE_CRASH_ROUNDS").map_or(10, |rounds| rounds.parse().expect("a number"));
    let seed = env::var("TIDEGATE_CRASH_SEED").map_or_else(|_| now(), |seed| seed.parse().expect("a number"));
    println!("{rounds} rounds, TIDEGATE_CRASH_SEED={seed}");
    let mut dice = Dice(seed);
    let count = "export function onMetric(metric, ctx) {\n  ctx.state.count = (ctx.state.count ?? 0) + 1;\n  \
                 return { ...metric, count: ctx.state.count };\n}\n";
    let house = House::new()
        .handler("count.js", count)
        .variable("TIDEGATE_DATA__CHECKPOINT_INTERVAL_MS", "100")
        .variable("TIDEGATE_MQTT__LIMITS__QUEUE", "1000000")
        .variable("TIDEGATE_MQTT__LIMITS__QUEUE_BYTES", "1000000000");
    let mut node = house.start();
    let scene = Arc::new(Scene { address: Arc::new(Mutex::new(node.mqtt)), ending: Arc::default() });
    let done = Arc::new(AtomicBool::new(false));
    // Some of them live on one loop and some on the other.
    let listeners: Vec<_> = (1..=3)
        .map(|number| {
            let mut raw = Raw::connect_with(node.mqtt, &stored(V5, &format!("listener-{number}")));
            raw.send(&subscribe(V5, 1, "#", 2));
            raw.expect(0x90);
            let (scene, done) = (Arc::clone(&scene), Arc::clone(&done));
            std::thread::spawn(move || listen(&format!("listener-{number}"), &scene, &done))
        })
        .collect();
    let publishers: Vec<_> = [(1, "at/least"), (2, "exactly/once"), (2, "devices/publisher-2/metrics")]
        .into_iter()
        .enumerate()
        .map(|(number, (qos, topic))| {
            let scene = Arc::clone(&scene);
            std::thread::spawn(move || {
                let (under_way, topic) = (VecDeque::new(), topic.to_owned());
                let publisher = Publisher { qos, topic, last: 0, next_id: 0, under_way, acked: Vec::new() };
                publisher.run(&format!("publisher-{number}"), &scene)
            })
        })
        .collect();
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(dice.between(20, 400)));
        node.kill9();
        node = house.start();
        *scene.address.lock().expect("nobody panics with it") = node.mqtt;
    }
    std::thread::sleep(Duration::from_millis(200));
    scene.ending.store(true, Ordering::Relaxed);
    let acked: Vec<Vec<u64>> = publishers.into_iter().map(|thread| thread.join().expect("a publisher")).collect();
    done.store(true, Ordering::Relaxed);
    let listeners: Vec<_> = listeners.into_iter().map(|thread| thread.join().expect("a listener")).collect();
    println!("acknowledged: {:?}", acked.iter().map(Vec::len).collect::<Vec<_>>());
    for heard in &listeners {
        let of = |topic: &str| heard.get(topic).cloned().unwrap_or_default();
        let at_least: BTreeSet<u64> = of("at/least").into_iter().collect();
        assert!(acked[0].iter().all(|number| at_least.contains(number)), "an acknowledged message with QoS 1 is lost");
        for (acked, topic) in acked[1..].iter().zip(["exactly/once", "devices/publisher-2/metrics"]) {
            let numbers = of(topic);
            let wrong = numbers.iter().zip(1..).find(|(number, expected)| **number != *expected);
            assert_eq!((wrong, numbers.len()), (None, acked.len()), "{topic}: each once and in order");
        }
    }
    let readings = acked[2].len();
    let state = node.device_with("publisher-2", "count", &json!(readings));
    assert_eq!(state["state"]["n"], json!(readings), "each reading once: {state}");
    assert!(acked.iter().all(|acked| acked.len() as u64 > rounds * 10), "there was hardly any load");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
