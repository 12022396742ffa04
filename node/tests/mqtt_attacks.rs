//! Clients that keep to the letter of MQTT and mean harm: too deep, too many, too slow, too often. The node stays ready all the
//! while, honest clients are served, every refusal names its limit, and the memory comes back.

mod support;

use std::{
    cell::Cell,
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use support::{
    House, Node, PATIENCE, eventually,
    memory::{Memory, resident_kib, while_ready},
    mqtt::{
        Connect, Packet, Raw,
        Version::{self, V3, V5},
        ack, again, packet, property, publish, string, subscribe, unsubscribe, user_property, variable_length,
    },
};

const VERSIONS: [Version; 2] = [V3, V5];

/// An honest client, which must be served before and after an attack.
struct Honest {
    raw: Raw,
    round: u16,
}

impl Honest {
    fn new(node: &Node) -> Self {
        let mut raw = Raw::connect(node.mqtt, V5, "honest");
        raw.send(&subscribe(V5, 1, "honest/echo", 1));
        raw.expect(0x90);
        Self { raw, round: 1 }
    }

    /// A reading is kept, a message comes back.
    #[track_caller]
    fn is_served(&mut self) {
        self.round += 2;
        self.raw.send(&publish(V5, "devices/honest/metrics", 1, self.round, &[], br#"{"t":1}"#));
        assert_eq!(self.raw.expect(0x40).puback(), (self.round, 0));
        self.raw.send(&publish(V5, "honest/echo", 1, self.round + 1, &[], b"still here"));
        let mut seen = [self.raw.next(), self.raw.next()].map(|packet| packet.expect("an open connection"));
        seen.sort_by_key(|packet| packet.first);
        assert!(seen[0].first == 0x32 && seen[1].first == 0x40, "{seen:?}");
        let topic = 2 + "honest/echo".len();
        self.raw.send(&packet(0x40, &seen[0].body[topic..topic + 2]));
    }
}

/// Runs an attack: a rehearsal, until the node takes no more memory for it, and then the whole of it. How much waits at a time
/// differs from flood to flood, and glibc keeps the most that it was.
#[track_caller]
fn attack(house: &House, rehearsal: impl Fn(&Node), attack: impl FnOnce(&Node)) -> Node {
    let node = house.start();
    let mut honest = Honest::new(&node);
    honest.is_served();
    let mut held = 0;
    for _ in 0..6 {
        rehearsal(&node);
        let now = resident_kib(&node);
        if now <= held + held / 50 {
            break;
        }
        held = now;
    }
    let before = Memory::of(&node);
    while_ready(&node, || attack(&node));
    honest.is_served();
    before.returns(&node, "the attack");
    node.settled_ledger();
    node.assert_alive();
    assert!(!node.log().contains("panic"), "the node has panicked");
    node
}

/// The node closes the connection; a v5 client is told one of these reasons, a v3 client nothing.
#[track_caller]
fn is_closed(raw: &mut Raw, version: Version, reasons: &[u8]) {
    let rest = raw.rest();
    let told = rest.last().filter(|packet| packet.first == 0xE0).map(Packet::disconnect_reason);
    match version {
        V3 => assert_eq!(told, None, "{rest:02X?}"),
        V5 => assert!(told.is_some_and(|reason| reasons.contains(&reason)), "{rest:02X?}"),
    }
}

// ---- too deep

#[test]
fn a_topic_of_65_400_slashes() {
    let slashes = "/".repeat(65_400);
    let plus = format!("+{}", "/+".repeat(32_700));
    let offences = |node: &Node, times: usize| {
        for round in 0..times {
            for version in VERSIONS {
                let cases = [
                    (publish(version, &slashes, 0, 0, &[], b""), 0x90),
                    (publish(version, &slashes, 1, 1, &[], b""), 0x90),
                    (subscribe(version, 1, &slashes, 0), 0x8F),
                    (subscribe(version, 1, &plus, 0), 0x8F),
                    (subscribe(version, 1, &format!("$share/g/{plus}"), 0), 0x8F),
                ];
                for (number, (bytes, reason)) in cases.into_iter().enumerate() {
                    let mut raw = Raw::connect(node.mqtt, version, &format!("deep-{round}-{number}-{version:?}"));
                    raw.send(&bytes);
                    is_closed(&mut raw, version, &[reason]);
                }
                let mut raw = Raw::open(node.mqtt);
                let id = format!("deep-will-{round}");
                // A CONNECT with it would be above the limit before a login; with half of it, its depth is what is wrong.
                let will = Some((&slashes[..30_000], &b"gone"[..], 0, &[][..]));
                raw.send(&Connect { will, ..Connect::new(version, &id) }.bytes());
                let refused = raw.next();
                let code = refused.map(|packet| packet.body[1]);
                assert_eq!(code, if version == V5 { Some(0x90) } else { None }, "a will that deep");
            }
        }
    };
    let house = House::new();
    let node = attack(&house, |node| offences(node, 5), |node| offences(node, 40));
    let longest = node.log().lines().map(str::len).max().unwrap_or(0);
    assert!(longest < 1_000, "a log line has {longest} bytes");
}

// ---- too many

/// Filters of ten levels, of which every mixture of `+` and `a` matches the topic a/a/a/a/a/a/a/a/a/a.
fn overlapping(bits: usize) -> String {
    (0..10).map(|level| if bits >> level & 1 == 1 { "+" } else { "a" }).collect::<Vec<_>>().join("/")
}

fn subscribe_many(version: Version, filters: impl Iterator<Item = String>) -> Vec<u8> {
    let mut body = 1_u16.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(string(&filter));
        body.push(0);
    }
    packet(0x82, &body)
}

#[test]
fn a_hundred_thousand_overlapping_subscriptions() {
    const EACH: usize = 1_000;
    let explosion = |node: &Node, clients: usize| {
        let mut subscribers: Vec<Raw> = (0..clients)
            .map(|number| Raw::connect(node.mqtt, VERSIONS[number % 2], &format!("explosion-{number}")))
            .collect();
        for (number, subscriber) in subscribers.iter_mut().enumerate() {
            subscriber.send(&subscribe_many(VERSIONS[number % 2], (0..EACH).map(overlapping)));
        }
        for subscriber in &mut subscribers {
            let suback = subscriber.expect(0x90);
            assert_eq!(suback.body[suback.body.len() - EACH..], vec![0; EACH], "granted");
        }
        let topic = ["a"; 10].join("/");
        let mut publisher = Raw::connect(node.mqtt, V5, "explosion-publisher");
        let started = Instant::now();
        for id in 1..=20 {
            publisher.send(&publish(V5, &topic, 1, id, &[], b"boom"));
            publisher.expect(0x40);
        }
        eprintln!("20 messages over {} filters: {:?}", clients * EACH, started.elapsed());
        for subscriber in &mut subscribers {
            for _ in 0..20 {
                assert!(subscriber.expect(0x30).body.ends_with(b"boom"), "each message once");
            }
            subscriber.send(&packet(0xC0, b""));
            subscriber.expect(0xD0);
        }
        // One more than a connection may have: refused by name, the others stay.
        let greedy = &mut subscribers[0];
        greedy.send(&subscribe_many(V3, (0..100).map(|number| format!("greedy/{number}"))));
        let suback = greedy.expect(0x90);
        let codes = &suback.body[2..];
        assert!(codes[0] == 0 && codes[99] == 0x80, "{codes:02X?}");
        publisher.send(&publish(V5, &topic, 0, 0, &[], b"again"));
        assert!(greedy.expect(0x30).body.ends_with(b"again"));
    };
    let house = House::new();
    // The rehearsal is as large: glibc keeps the 20 MB that the first one took and gave back (`malloc_trim` would return them).
    let node = attack(&house, |node| settled(node, || explosion(node, 100)), |node| explosion(node, 100));
    node.logged(&["limit mqtt.limits.subscriptions"]);
}

/// The same in stored sessions, a filter a packet, and taken back: each session is written a few times, not for each packet.
#[test]
fn a_hundred_thousand_subscribes_of_stored_sessions() {
    const EACH: u16 = 1_000;
    let expiry = property(0x11, 3_600);
    let explosion = |node: &Node, clients: usize| {
        let written = bytes_written(node);
        let mut subscribers: Vec<Raw> = (0..clients)
            .map(|number| {
                let (version, id) = (VERSIONS[number % 2], format!("stored-explosion-{number}"));
                let properties = if version == V5 { &expiry[..] } else { &[] };
                let (raw, _) =
                    Raw::resume(node.mqtt, &Connect { properties, clean: false, ..Connect::new(version, &id) });
                raw
            })
            .collect();
        let version = |number: usize| VERSIONS[number % 2];
        // Every SUBSCRIBE is acknowledged, in whatever order: a filter that another loop does not know yet takes longer.
        let acked = |raw: &mut Raw, first: u8| {
            let mut ids: Vec<u16> = (0..EACH)
                .map(|_| {
                    let ack = raw.expect(first).body;
                    assert!(first == 0xB0 || ack.last() == Some(&1), "{ack:?}");
                    u16::from_be_bytes([ack[0], ack[1]])
                })
                .collect();
            ids.sort_unstable();
            assert_eq!(ids, (1..=EACH).collect::<Vec<_>>());
        };
        // Ten at a time, so that what waits, and with it the most memory, is much the same in every flood.
        for (group, ten) in subscribers.chunks_mut(10).enumerate() {
            for (number, subscriber) in ten.iter_mut().enumerate() {
                let one = |id: u16| subscribe(version(10 * group + number), id, &overlapping(id.into()), 1);
                subscriber.send(&(1..=EACH).flat_map(one).collect::<Vec<_>>());
            }
            ten.iter_mut().for_each(|subscriber| acked(subscriber, 0x90));
        }
        for (group, ten) in subscribers.chunks_mut(10).enumerate() {
            for (number, subscriber) in ten.iter_mut().enumerate() {
                let one = |id: u16| unsubscribe(version(10 * group + number), id, &overlapping(id.into()));
                subscriber.send(&(1..=EACH).flat_map(one).collect::<Vec<_>>());
            }
            ten.iter_mut().for_each(|subscriber| acked(subscriber, 0xB0));
        }
        let (written, kept) = (bytes_written(node) - written, clients * usize::from(EACH) * 30);
        eprintln!("{} subscriptions and their ends: {written} bytes written", clients * usize::from(EACH));
        assert!(written < 30 * kept as u64, "{written} bytes for {kept} bytes of filters");
    };
    attack(&House::new(), |node| settled(node, || explosion(node, 100)), |node| explosion(node, 100));
}

/// Rehearses until the node has taken from the system what it takes for this: how much waits at a time differs from flood to
/// flood, and glibc keeps the most that it was.
fn settled(node: &Node, rehearse: impl Fn()) {
    let mut held = 0;
    for _ in 0..6 {
        rehearse();
        let now = resident_kib(node);
        if now <= held + held / 20 {
            return;
        }
        held = now;
    }
}

/// What the node has handed to the system to write.
fn bytes_written(node: &Node) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", node.pid())).expect("the node runs");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a count of bytes");
    line.parse().expect("a number")
}

#[test]
fn a_thousand_takeovers_a_second() {
    let takeovers = |node: &Node, times: u32| {
        let started = Instant::now();
        let mut closed = 0;
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    scope.spawn(move || {
                        let (mut last, mut closed): (Option<Raw>, u32) = (None, 0);
                        for round in 0..times / 4 {
                            let version = VERSIONS[(round as usize + thread) % 2];
                            let mut raw = Raw::open(node.mqtt);
                            raw.send(&Connect::new(version, "one-and-the-same").bytes());
                            // It may be taken over itself before it has read anything.
                            let greeted = raw.next();
                            assert!(greeted.is_none_or(|packet| packet.first == 0x20), "a CONNACK first");
                            if let Some(mut old) = last.replace(raw) {
                                old.rest();
                                closed += 1;
                            }
                        }
                        closed
                    })
                })
                .collect();
            closed = threads.into_iter().map(|thread| thread.join().expect("a client")).sum();
        });
        eprintln!("{times} takeovers in {:?}", started.elapsed());
        assert_eq!(closed, times - 4, "each was closed by the next one");
    };
    let house = House::new();
    let node = attack(&house, |node| takeovers(node, 400), |node| takeovers(node, 8_000));
    eventually("all of them are gone", || (node.metric("tidegate_mqtt_connections") <= 1.0).then_some(()));
}

// ---- too slow

/// The keep alive counts packets, not bytes ([MQTT-3.1.2-22]): a SUBSCRIBE that never ends does not keep its connection.
#[test]
fn a_subscribe_that_never_ends() {
    let slow = |node: &Node, clients: usize| {
        let mut raws: Vec<Raw> = (0..clients)
            .map(|number| {
                let (version, id) = (VERSIONS[number % 2], format!("loris-{number}"));
                let mut raw = Raw::connect_with(node.mqtt, &Connect { keep_alive: 2, ..Connect::new(version, &id) });
                raw.send(&[&[0x82], &variable_length(500_000)[..], &[0, 1]].concat());
                raw
            })
            .collect();
        let started = Instant::now();
        while !raws.is_empty() {
            assert!(started.elapsed() < PATIENCE, "{} are still open", raws.len());
            raws.retain_mut(|raw| raw.try_send(&[0]).is_ok() && !raw.has_ended());
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(started.elapsed() > Duration::from_secs(2), "not before its time: {:?}", started.elapsed());
    };
    attack(&House::new(), |node| slow(node, 20), |node| slow(node, 200));
}

#[test]
fn a_subscriber_that_never_reads() {
    let deaf = |node: &Node, messages: u16| {
        let mut deaf: Vec<Raw> = (0..20)
            .map(|number| {
                let version = VERSIONS[number % 2];
                let mut raw = Raw::connect(node.mqtt, version, &format!("deaf-{number}"));
                raw.send(&subscribe(version, 1, "loud/#", (number % 3).min(1) as u8));
                raw.expect(0x90);
                raw
            })
            .collect();
        let mut listener = Raw::connect(node.mqtt, V5, "listener");
        listener.send(&subscribe(V5, 1, "loud/#", 0));
        listener.expect(0x90);
        let mut loud = Raw::connect(node.mqtt, V5, "loud");
        let (payload, before) = (vec![b'x'; 4_096], resident_kib(node));
        let started = Instant::now();
        for id in 1..=messages {
            loud.send(&publish(V5, "loud/1", 1, id, &[], &payload));
            loud.expect(0x40);
            assert!(listener.expect(0x30).body.ends_with(&payload), "who reads gets all of it");
        }
        let grown = resident_kib(node).saturating_sub(before);
        eprintln!("{messages} messages of 4 KiB past 20 that do not read: {:?}, {grown} KiB more", started.elapsed());
        // 256 KiB that wait to be written and 1,000 messages that wait for a PUBACK (shared by all that wait for them).
        assert!(grown < 20 * 2 * 256 + 1_032 * 4 * 2 + 16 * 1024, "{grown} KiB for 20 that do not read");
        deaf.clear();
    };
    let node = attack(&House::new(), |node| deaf(node, 1_500), |node| deaf(node, 6_000));
    assert!(node.log().lines().count() < 1_000, "a line a message would be an attack of its own");
}

/// What a client makes the node write while it reads nothing is bounded, too: answers as well as messages.
#[test]
fn a_client_that_asks_and_never_reads() {
    let asks = |node: &Node, millis: u64| {
        let before = resident_kib(node);
        let mut sockets: Vec<TcpStream> = (0..20)
            .map(|number| {
                let mut socket = TcpStream::connect_timeout(&node.mqtt, PATIENCE).expect("the port takes connections");
                socket.write_all(&Connect::new(V5, &format!("asks-{number}")).bytes()).expect("sent");
                socket.set_nonblocking(true).expect("a socket option");
                socket
            })
            .collect();
        let pings = [0xC0, 0].repeat(32 * 1024);
        let unsubscribe = packet(0xA2, &[&[0, 1, 0][..], &string("nothing")].concat()).repeat(4_096);
        let until = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < until {
            for (number, socket) in sockets.iter_mut().enumerate() {
                // Half packets do not matter: what has been written goes on where it ended.
                let bytes = if number % 2 == 0 { &pings } else { &unsubscribe };
                let _ = socket.write(bytes);
            }
        }
        let grown = resident_kib(node).saturating_sub(before);
        eprintln!("20 clients that read no answer: {grown} KiB more");
        assert!(grown < 64 * 1024, "{grown} KiB of answers that nobody reads");
    };
    attack(&House::new(), |node| asks(node, 3_000), |node| asks(node, 6_000));
}

// ---- too large

#[test]
fn a_megabyte_of_user_properties() {
    let many = user_property("", "").repeat(200_000);
    let few = [user_property("name", "value").repeat(3), user_property("ack", "committed")].concat();
    let some = user_property("", "").repeat(12_000);
    let flood = |node: &Node, times: u16| {
        let mut subscriber = Raw::connect(node.mqtt, V5, "properties-subscriber");
        subscriber.send(&subscribe(V5, 1, "properties/#", 0));
        subscriber.expect(0x90);
        let mut publisher = Raw::connect(node.mqtt, V5, "properties");
        let started = Instant::now();
        for id in 1..=times {
            publisher.send(&publish(V5, "properties/x", 1, id, &many, b"end"));
            assert_eq!(publisher.expect(0x40).puback(), (id, 0));
            assert!(subscriber.expect(0x30).body.ends_with(b"end"));
            publisher.send(&publish(V5, "devices/properties/metrics", 1, id, &many, br#"{"t":1}"#));
            assert_eq!(publisher.expect(0x40).puback(), (id, 0));
        }
        eprintln!("{} messages with 200,000 user properties: {:?}", 2 * times, started.elapsed());
        publisher.send(&publish(V5, "devices/properties/metrics", 1, 1, &few, br#"{"t":2}"#));
        assert_eq!(publisher.expect(0x40).puback(), (1, 0));
        for number in 0..times {
            let id = format!("properties-{number}");
            drop(Raw::connect_with(node.mqtt, &Connect { properties: &some, ..Connect::new(V5, &id) }));
        }
    };
    attack(&House::new(), |node| flood(node, 5), |node| flood(node, 50));
}

// ---- what the packet ids and aliases allow

#[test]
fn topic_aliases_that_were_not_agreed() {
    let alias = |number: u16| [&[0x23], &number.to_be_bytes()[..]].concat();
    let abuse = |node: &Node, times: usize| {
        for round in 0..times {
            let cases = [
                (publish(V5, "alias/a", 0, 0, &alias(0), b""), &[0x94][..]),
                (publish(V5, "alias/a", 0, 0, &alias(65_535), b""), &[0x94]),
                // An alias that stands for nothing yet: 0x82 if aliases are offered, 0x94 if none are.
                (publish(V5, "", 0, 0, &alias(1), b""), &[0x82, 0x94]),
                (publish(V5, "", 1, 1, &alias(65_535), b""), &[0x94]),
                (publish(V5, "", 0, 0, &[], b""), &[0x82]),
                (publish(V5, "alias/a", 0, 0, &[alias(1), alias(1)].concat(), b""), &[0x82]),
            ];
            for (number, (bytes, reasons)) in cases.into_iter().enumerate() {
                let mut raw = Raw::connect(node.mqtt, V5, &format!("alias-{round}-{number}"));
                raw.send(&bytes);
                is_closed(&mut raw, V5, reasons);
            }
        }
    };
    attack(&House::new(), |node| abuse(node, 10), |node| abuse(node, 200));
}

/// A client that uses one packet id for everything breaks a rule of its own ([MQTT-2.2.1-3]). Each PUBLISH is a message and gets
/// its answer; and each counts against the Receive Maximum, whatever its id (sections 3.3.4 and 4.9): 0x93 for who sends more.
#[test]
fn one_packet_id_for_everything() {
    const RECEIVE_MAXIMUM: usize = 1_024;
    let reading = |version| publish(version, "devices/reuse/metrics", 1, 7, &[], br#"{"t":1}"#);
    let answered = |raw: &mut Raw, times: usize| {
        for _ in 0..times {
            assert_eq!(raw.expect(0x40).puback(), (7, 0));
        }
    };
    let sent = Cell::new(0);
    let reuse = |node: &Node, times: usize| {
        sent.set(sent.get() + 2 * times * RECEIVE_MAXIMUM + 1);
        // MQTT 3.1.1 has no Receive Maximum: the client is read as fast as it is answered.
        let mut raw = Raw::connect(node.mqtt, V3, "reuse-3");
        raw.send(&reading(V3).repeat(times * RECEIVE_MAXIMUM));
        answered(&mut raw, times * RECEIVE_MAXIMUM);
        let mut raw = Raw::connect(node.mqtt, V5, "reuse-5");
        for _ in 0..times {
            raw.send(&reading(V5).repeat(RECEIVE_MAXIMUM));
            answered(&mut raw, RECEIVE_MAXIMUM);
        }
        // With QoS 2 it is one exchange: it has one place, and one message comes of it.
        let exchange = publish(V5, "devices/reuse/metrics", 2, 7, &[], br#"{"t":1}"#);
        raw.send(&exchange);
        assert_eq!(raw.expect(0x50).ack(0x50), (7, 0));
        raw.send(&again(&exchange).repeat(2 * RECEIVE_MAXIMUM));
        for _ in 0..2 * RECEIVE_MAXIMUM {
            assert_eq!(raw.expect(0x50).ack(0x50), (7, 0));
        }
        raw.send(&ack(0x62, 7));
        assert_eq!(raw.expect(0x70).ack(0x70), (7, 0));
    };
    let node = attack(&House::new(), |node| reuse(node, 1), |node| reuse(node, 20));
    let device = node.device("reuse").expect("known");
    assert_eq!(device["version"], sent.get(), "each PUBLISH with QoS 1 was a reading, each exchange one: {device}");

    // Past the Receive Maximum: a burst that comes in one piece is more than the node may take. What it took it has answered,
    // or kept without an answer; the rest is not its.
    let mut raw = Raw::connect(node.mqtt, V5, "reuse-past");
    let burst = publish(V5, "devices/past/metrics", 1, 7, &[], b"{}").repeat(1_500);
    // It may close before the last byte is written.
    let _ = raw.try_send(&burst);
    let mut acked = 0;
    while acked < 1_500 {
        let packet = raw.next().expect("a PUBACK or a DISCONNECT");
        if packet.first == 0xE0 {
            assert_eq!(packet.disconnect_reason(), 0x93);
            node.logged(&["reuse-past", "limit mqtt.limits.receive_maximum"]);
            break;
        }
        assert_eq!(packet.puback(), (7, 0));
        acked += 1;
    }
    let ledger = node.settled_ledger();
    let kept = node.device("past").map_or(0, |device| device["version"].as_u64().unwrap_or(0));
    assert!((acked..=1_500).contains(&kept), "{acked} were acknowledged, {kept} are there: {ledger}");
}

/// QoS 2 without an end: each PUBLISH holds a place until its PUBREL.
#[test]
fn a_flood_of_qos_2_without_a_pubrel() {
    let flood = |node: &Node, clients: usize| {
        for number in 0..clients {
            let version = VERSIONS[number % 2];
            let mut raw = Raw::connect(node.mqtt, version, &format!("unreleased-{number}"));
            for id in 1..=1_025 {
                if raw.try_send(&publish(version, "unreleased/x", 2, id, &[], b"x")).is_err() {
                    break;
                }
            }
            is_closed(&mut raw, version, &[0x93]);
        }
    };
    let node = attack(&House::new(), |node| flood(node, 4), |node| flood(node, 40));
    node.logged(&["limit mqtt.limits.receive_maximum"]);
}

/// The same QoS 2 message again and again before its PUBREL is one message ([MQTT-4.3.3-10]).
#[test]
fn a_qos_2_message_a_thousand_times() {
    let again = |node: &Node, times: usize| {
        for version in VERSIONS {
            let mut subscriber = Raw::connect(node.mqtt, V5, "once-subscriber");
            subscriber.send(&subscribe(V5, 1, "once/#", 0));
            subscriber.expect(0x90);
            let mut raw = Raw::connect(node.mqtt, version, &format!("again-{version:?}"));
            let mut one = publish(version, "once/x", 2, 7, &[], b"once");
            raw.send(&one);
            one[0] |= 0x08;
            raw.send(&one.repeat(times));
            for _ in 0..=times {
                assert_eq!(raw.expect(0x50).body[..2], [0, 7]);
            }
            raw.send(&ack(0x62, 7));
            raw.expect(0x70);
            raw.send(&publish(version, "once/end", 0, 0, &[], b"end"));
            assert!(subscriber.expect(0x30).body.ends_with(b"once"));
            assert!(subscriber.expect(0x30).body.ends_with(b"end"), "once, whatever was sent again");
        }
    };
    attack(&House::new(), |node| again(node, 100), |node| again(node, 1_000));
}

// ---- what is kept

#[test]
fn more_retained_messages_than_there_may_be() {
    const MOST: usize = 2_000;
    let retained = |version, number: usize, payload: &[u8]| {
        let mut bytes = publish(version, &format!("retained/{number}"), 1, 1, &[], payload);
        bytes[0] |= 1;
        bytes
    };
    let flood = |node: &Node, rounds: usize| {
        for _ in 0..rounds {
            let mut five = Raw::connect(node.mqtt, V5, "retains-5");
            let mut three = Raw::connect(node.mqtt, V3, "retains-3");
            for number in 0..MOST + 500 {
                five.send(&retained(V5, number, &[b'x'; 200]));
                let expected = if number < MOST { 0 } else { 0x97 };
                assert_eq!(five.expect(0x40).puback(), (1, expected), "message {number}");
            }
            for number in 0..200 {
                three.send(&retained(V3, 10_000 + number, b"x"));
                three.expect(0x40);
            }
            let mut subscriber = Raw::connect(node.mqtt, V5, "retained-subscriber");
            subscriber.send(&subscribe(V5, 1, "retained/#", 0));
            subscriber.expect(0x90);
            for _ in 0..MOST {
                assert_eq!(subscriber.expect(0x31).first, 0x31);
            }
            subscriber.send(&packet(0xC0, b""));
            subscriber.expect(0xD0);
            // What is known may change, at the limit as well; and nothing goes away but by its publisher.
            five.send(&retained(V5, 0, b"changed"));
            assert_eq!(five.expect(0x40).puback(), (1, 0));
            for number in 0..MOST {
                five.send(&retained(V5, number, b""));
                five.expect(0x40);
            }
        }
    };
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__RETAINED_MESSAGES", &MOST.to_string());
    attack(&house, |node| flood(node, 2), |node| flood(node, 3));
}

#[test]
fn more_stored_sessions_than_there_may_be() {
    const MOST: usize = 500;
    let expiry = property(0x11, 3_600);
    let none = property(0x11, 0);
    let flood = |node: &Node, rounds: usize| {
        for _ in 0..rounds {
            for number in 0..MOST + 200 {
                let id = format!("stored-{number}");
                let mut raw = Raw::open(node.mqtt);
                raw.send(&Connect { properties: &expiry, ..Connect::new(V5, &id) }.bytes());
                let connack = raw.expect(0x20);
                assert_eq!(connack.body[1], if number < MOST { 0 } else { 0x97 }, "session {number}");
            }
            // Who asks for nothing that is kept is served.
            drop(Raw::connect(node.mqtt, V3, "unstored"));
            for number in 0..MOST {
                let id = format!("stored-{number}");
                drop(Raw::connect_with(node.mqtt, &Connect { properties: &none, ..Connect::new(V5, &id) }));
            }
            eventually("the sessions have ended", || {
                let id = "stored-probe";
                let mut raw = Raw::open(node.mqtt);
                raw.send(&Connect { properties: &expiry, ..Connect::new(V5, id) }.bytes());
                let taken = raw.expect(0x20).body[1] == 0;
                drop(raw);
                drop(Raw::connect_with(node.mqtt, &Connect { properties: &none, ..Connect::new(V5, id) }));
                taken.then_some(())
            });
        }
    };
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__SESSIONS", &MOST.to_string());
    attack(&house, |node| flood(node, 1), |node| flood(node, 2));
}
