//! 100,000 mutated and random packets a version, sent to a running node: whatever comes, it answers or closes, stays ready, and gives its
//! memory back. What the codec makes of such bytes is checked in its own tests and by the fuzz targets; this is about the rest.

mod support;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use support::{
    Dice, House, Node,
    memory::{Memory, while_ready},
    mqtt::{
        Connect, Raw,
        Version::{self, V3, V5},
        packet, publish, subscribe,
    },
};

#[path = "../src/mqtt/codec_tests/pack.rs"]
#[expect(dead_code, reason = "it packs nothing here")]
mod pack;

/// Packets a version.
const PACKETS: u32 = 100_000;
/// Clients at a time.
const CLIENTS: u64 = 4;

#[test]
fn mutated_and_random_packets_of_3_1_1() {
    attack(V3, 0x686F_7374_0003);
}

#[test]
fn mutated_and_random_packets_of_5() {
    attack(V5, 0x686F_7374_0005);
}

fn attack(version: Version, seed: u64) {
    eprintln!("seed {seed:#x}");
    let house = House::new();
    let node = house.start();
    let mut bystander = Raw::connect(node.mqtt, V5, "bystander");
    // What a node learns in its first minutes (allocator, threads' stacks, the journal's buffers) is no growth.
    rain(&node, version, seed ^ 0xFFFF, PACKETS / 10);
    let before = Memory::of(&node);
    let counts = while_ready(&node, || rain(&node, version, seed, PACKETS));
    eprintln!("{counts:?}");
    before.returns(&node, "the packets");
    assert!(counts.sent >= PACKETS && counts.closed > 1_000 && counts.answered > 5_000, "{counts:?}");
    bystander.send(&packet(0xC0, b""));
    bystander.expect(0xD0);
    node.settled_ledger();
    node.assert_alive();
    let log = node.log();
    assert!(!log.contains("panic"), "the node has panicked");
    let longest = log.lines().map(str::len).max().unwrap_or(0);
    assert!(longest < 2_000, "a log line has {longest} bytes");
}

#[derive(Debug, Default)]
struct Counts {
    sent: u32,
    answered: u32,
    closed: u32,
}

/// Sends so many packets over as many connections as it takes.
fn rain(node: &Node, version: Version, seed: u64, packets: u32) -> Counts {
    let seeds = seeds(version);
    let (sent, answered, closed) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let (serial, over) = (AtomicU64::new(seed), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut attacker =
                Attacker { to: node.mqtt, version, dice: Dice(seed + client), seeds: &seeds, serial: &serial };
            let (sent, answered, closed, over) = (&sent, &answered, &closed, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let counts = attacker.connection();
                    answered.fetch_add(counts.answered, Ordering::Relaxed);
                    closed.fetch_add(counts.closed, Ordering::Relaxed);
                    let before = sent.fetch_add(counts.sent, Ordering::Relaxed);
                    over.fetch_or(before + counts.sent >= packets, Ordering::Relaxed);
                }
            });
        }
    });
    Counts { sent: sent.into_inner(), answered: answered.into_inner(), closed: closed.into_inner() }
}

/// Whole packets to start from: the fuzzers' corpus of streams, and what a device sends.
fn seeds(version: Version) -> Vec<Vec<u8>> {
    let name = if version == V5 { "v5_stream" } else { "v3_stream" };
    let path = format!("{}/../fuzz/corpus/{name}.pack", env!("CARGO_MANIFEST_DIR"));
    let packed = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let entries = pack::unpack(&packed).expect("a pack");
    let mut seeds: Vec<Vec<u8>> = entries.into_iter().filter_map(|entry| entry.get(1..)).map(<[u8]>::to_vec).collect();
    let reading = br#"{"t":1,"ts":1700000000000}"#;
    for qos in 0..=2 {
        seeds.push(publish(version, "devices/d1/metrics", qos, 7, &[], reading));
        seeds.push(publish(version, "v1/devices/me/telemetry", qos, 8, &[], reading));
        seeds.push(publish(version, "devices/d1/shadow/update", qos, 9, &[], br#"{"state":{"reported":{"a":1}}}"#));
        seeds.push(publish(version, "devices/d1/commands/1/response", qos, 10, &[], b"{}"));
        let mut retained = publish(version, "kept/here", qos, 11, &[], b"kept");
        retained[0] |= 1;
        seeds.push(retained);
    }
    for filter in ["kept/#", "devices/+/state", "$share/g/a/+", "$SYS/#", "v1/devices/me/rpc/request/+"] {
        seeds.push(subscribe(version, 12, filter, 1));
    }
    seeds.retain(|seed| seed.len() > 2);
    seeds
}

struct Attacker<'a> {
    to: SocketAddr,
    version: Version,
    dice: Dice,
    seeds: &'a [Vec<u8>],
    serial: &'a AtomicU64,
}

impl Attacker<'_> {
    /// One connection: a CONNECT, mostly a good one, then packets until the node has had enough, each followed by a PINGREQ: the
    /// node answers it or closes.
    fn connection(&mut self) -> Counts {
        let mut counts = Counts::default();
        let mut raw = Raw::open(self.to);
        let id = format!("hostile-{:x}", self.serial.fetch_add(1, Ordering::Relaxed));
        let mut connect = Connect::new(self.version, &id).bytes();
        let hostile = self.dice.between(0, 7) == 0;
        if hostile {
            self.mutate(&mut connect);
            counts.sent += 1;
        }
        let _ = raw.try_send(&connect);
        if hostile {
            // It may be a good CONNECT still, or only half of one: then the node waits for the rest, until the client is gone.
            raw.finish();
            counts.closed += 1;
            raw.rest();
            return counts;
        }
        if raw.next().is_none() {
            return counts;
        }
        for _ in 0..200 {
            let bytes = self.packet();
            counts.sent += 1;
            let sent = raw.try_send(&[&bytes[..], &[0xC0, 0]].concat());
            if sent.is_err() || !pong(&mut raw) {
                counts.closed += 1;
                return counts;
            }
            counts.answered += 1;
        }
        counts
    }

    /// A packet whose length is right, so that the PINGREQ behind it is one.
    fn packet(&mut self) -> Vec<u8> {
        if self.dice.between(0, 9) == 0 {
            let length = self.dice.between(0, 200);
            let body: Vec<u8> = (0..length).map(|_| self.dice.next() as u8).collect();
            return packet(self.dice.next() as u8, &body);
        }
        let at = self.dice.between(0, self.seeds.len() as u64 - 1) as usize;
        let mut bytes = self.seeds[at].clone();
        if self.dice.between(0, 3) > 0 {
            self.mutate(&mut bytes);
        }
        // The seeds are short: their header has two bytes, but for a few, whose body then begins with the rest of it.
        packet(bytes.first().copied().unwrap_or(0xC0), bytes.get(2..).unwrap_or_default())
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const TELLING: [u8; 16] = [0, 1, 2, 3, 4, 5, b'/', b'#', b'+', b'$', 0x26, 0x23, 0x7F, 0x80, 0xC3, 0xFF];
        for _ in 0..=self.dice.between(0, 2) {
            if bytes.is_empty() {
                return;
            }
            let at = self.dice.between(0, bytes.len() as u64 - 1) as usize;
            let any = self.dice.next();
            let byte = if any & 0x100 == 0 { TELLING[(any >> 9) as usize % TELLING.len()] } else { any as u8 };
            match any >> 32 & 7 {
                0 | 1 => bytes[at] = byte,
                2 => bytes[at] ^= 1 << (any >> 40 & 7),
                3 => bytes.insert(at, byte),
                4 => drop(bytes.remove(at)),
                5 => bytes.truncate(at),
                _ => {
                    let copy = bytes[at..].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
    }
}

/// Waits for the PINGRESP, past whatever else the packets have earned; false if the node closed instead.
fn pong(raw: &mut Raw) -> bool {
    let started = Instant::now();
    while let Some(packet) = raw.next() {
        if packet.first == 0xD0 {
            return true;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "messages without an end instead of a PINGRESP");
    }
    false
}
