//! `kill -9` at random moments under load: what was acknowledged is in the state after the restart, whatever happened.
//!
//! `TIDEGATE_CRASH_ROUNDS` sets the rounds (20), `TIDEGATE_CRASH_SEED` repeats a run's moments.

mod support;

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rumqttc::{Client, Event, MqttOptions, Outgoing, Packet, QoS};
use serde_json::{Value, json};
use support::{Dice, House, Node, eventually, http::Http, node::is_running};

/// Counts its calls of a device in the durable `ctx.state`, and shows the count in the state.
const COUNT: &str = r#"
export function onMetric(metric, ctx) {
  ctx.state.count = (ctx.state.count ?? 0) + 1;
  return { ...metric, count: ctx.state.count };
}
"#;
/// Devices that report over one MQTT connection, and over HTTP.
const DEVICES: usize = 4;

/// What a device has sent and what was acknowledged, over all rounds in one house.
#[derive(Debug, Default, Clone)]
struct Tally {
    sent: u64,
    acked: u64,
    highest_acked: u64,
}

type Tallies = BTreeMap<String, Tally>;

/// The prover aims at these points, and counts a round that does not come to one: here it is seen that they strike, and where.
#[test]
fn a_named_point_kills_the_node_just_there() {
    for (point, is_durable) in [("journal.before_write", false), ("journal.after_sync", true), ("ack.before", true)] {
        let house = House::new().variable("TIDEGATE_CRASH_AT", &format!("{point}:1"));
        let mut node = house.start();
        let mut http = Http::connect(node.http);
        http.send("POST", "/metrics?ack=committed", &[], br#"{"deviceId":"d1","n":1}"#);
        assert_eq!(node.wait(support::PATIENCE).signal(), Some(9), "{point} kills");
        assert!(http.try_receive().is_err(), "{point}: nothing was acknowledged");
        let node = house.without_variable("TIDEGATE_CRASH_AT").start();
        assert_eq!(node.device("d1").is_some(), is_durable, "{point}: what was synced is there, and nothing else");
    }
}

#[test]
fn no_acknowledged_reading_is_lost() {
    let rounds: usize = env::var("TIDEGATE_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().expect("a number"));
    let seed = env::var("TIDEGATE_CRASH_SEED").map_or_else(|_| now(), |seed| seed.parse().expect("a number"));
    println!("crash: {rounds} rounds, TIDEGATE_CRASH_SEED={seed}");
    let mut dice = Dice(seed);
    // Every other round is in the house with a handler; each house goes on from its last crash.
    // A checkpoint is never far from the crash.
    let house = || House::new().variable("TIDEGATE_DATA__CHECKPOINT_INTERVAL_MS", "100");
    let mut houses = [Scene::new(house(), false), Scene::new(house().handler("10-count.js", COUNT), true)];
    let begin = Instant::now();
    for round in 0..rounds {
        houses[round % 2].round(round, &mut dice);
    }
    for house in &mut houses {
        let node = house.enter();
        assert_eq!(house.node_says(&node), house.tallies.len(), "every device is known");
    }
    let sum = |count: fn(&Tally) -> u64| -> u64 { houses.iter().flat_map(|h| h.tallies.values()).map(count).sum() };
    let (sent, acked) = (sum(|tally| tally.sent), sum(|tally| tally.acked));
    println!("crash: {rounds} rounds in {:.1?}: {sent} readings sent, {acked} acknowledged, 0 lost", begin.elapsed());
    assert!(acked > rounds as u64 * 10, "there was hardly any load");
}

/// A house and what was sent to it.
struct Scene {
    house: House,
    counts: bool,
    tallies: Tallies,
}

impl Scene {
    fn new(house: House, counts: bool) -> Self {
        Self { house, counts, tallies: Tallies::new() }
    }

    /// Starts the node on what the last crash left, and checks it.
    fn enter(&mut self) -> Node {
        let node = self.house.start();
        assert_eq!(node.get("/readyz").status, 200);
        let log = node.log();
        assert!(!log.contains("damage was found"), "{log}");
        // Readings whose handlers had not run are handled now.
        node.settled_ledger();
        for (device, tally) in &self.tallies {
            self.check(&node, device, tally);
        }
        node
    }

    fn check(&self, node: &Node, device: &str, tally: &Tally) {
        let Some(found) = node.device(device) else {
            assert_eq!(tally.acked, 0, "{device} is gone: {tally:?}");
            return;
        };
        let number = |member: &str| found["state"][member].as_u64().unwrap_or_else(|| panic!("{member} of {found}"));
        let seq = number("seq");
        assert!((tally.highest_acked..=tally.sent).contains(&seq), "{device}: {tally:?}, but {found}");
        if self.counts {
            let count = number("count");
            assert!((tally.acked..=tally.sent).contains(&count), "{device} was counted wrong: {tally:?}, but {found}");
            // One device's readings are journaled in order, so nothing before the last one is missing in this round;
            // in former rounds the unacknowledged tail may be.
            assert!(count <= seq, "{device} was counted twice: {tally:?}, but {found}");
        }
    }

    fn node_says(&self, node: &Node) -> usize {
        let total = node.get("/devices").json()["total"].as_u64().unwrap_or_default();
        usize::try_from(total).expect("few devices")
    }

    fn round(&mut self, round: usize, dice: &mut Dice) {
        let begin = Instant::now();
        let mut node = self.enter();
        let workers: Vec<u64> = node.get("/api/overview").json()["workers"]
            .as_array()
            .map(|workers| workers.iter().filter_map(|worker| worker["pid"].as_u64()).collect())
            .unwrap_or_default();
        assert_eq!(workers.is_empty(), !self.counts);

        let (first, acked) = mpsc::channel();
        let last = |name: &str| self.tallies.get(name).map_or(0, |tally| tally.sent);
        let devices: Vec<(String, u64)> =
            (0..DEVICES).map(|n| format!("mqtt-{n}")).map(|d| (d.clone(), last(&d))).collect();
        let web: Vec<(String, u64)> = (0..2).map(|n| format!("http-{n}")).map(|d| (d.clone(), last(&d))).collect();
        let mqtt = load_over_mqtt(node.mqtt, devices, first.clone());
        let http = web.into_iter().map(|(device, seq)| load_over_http(node.http, device, seq, first.clone()));
        let loads: Vec<_> = http.chain([mqtt]).collect();
        acked.recv_timeout(support::PATIENCE).expect("something is acknowledged");
        // The moment is random on purpose: before, in and after commits, checkpoints and handlers' runs.
        std::thread::sleep(Duration::from_micros(dice.between(0, 250_000)));
        node.kill9();
        // What the view has, what the journal comes to and what was counted are the same, wherever it was cut off.
        self.house.ledger_balances();
        for load in loads {
            for (device, tally) in load.join().expect("the load ends with the node") {
                let whole = self.tallies.entry(device).or_default();
                whole.sent = whole.sent.max(tally.sent);
                whole.acked += tally.acked;
                whole.highest_acked = whole.highest_acked.max(tally.highest_acked);
            }
        }
        eventually("the workers end with their node", || (!workers.iter().any(|pid| is_running(*pid))).then_some(()));
        eprintln!("crash: round {round} took {:.2?}", begin.elapsed());
    }
}

/// Publishes readings `{"seq": n}` of the devices in turn, QoS 1, until the connection breaks.
fn load_over_mqtt(to: SocketAddr, devices: Vec<(String, u64)>, first: mpsc::Sender<()>) -> JoinHandle<Tallies> {
    std::thread::spawn(move || {
        let mut options = MqttOptions::new("loader", to.ip().to_string(), to.port());
        options.set_inflight(500);
        let (client, mut connection) = Client::new(options, 10);
        let (note, noted) = mpsc::channel();
        let publisher = std::thread::spawn(move || {
            let mut devices = devices;
            loop {
                for (device, seq) in &mut devices {
                    *seq += 1;
                    // Noted before it can be sent: what was sent is never more than what is noted.
                    let _ = note.send((device.clone(), *seq));
                    let payload = json!({"seq": seq}).to_string();
                    if client.publish(format!("devices/{device}/metrics"), QoS::AtLeastOnce, false, payload).is_err() {
                        return;
                    }
                }
            }
        });
        let mut tallies = Tallies::new();
        let mut queued = VecDeque::new();
        let mut under_way: BTreeMap<u16, (String, u64)> = BTreeMap::new();
        let take = |tallies: &mut Tallies, queued: &mut VecDeque<_>| {
            while let Ok((device, seq)) = noted.try_recv() {
                let device: String = device;
                tallies.entry(device.clone()).or_default().sent = seq;
                queued.push_back((device, seq));
            }
        };
        for event in connection.iter() {
            take(&mut tallies, &mut queued);
            match event {
                Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                    let reading = queued.pop_front().expect("it was noted before");
                    under_way.insert(id, reading);
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => {
                    let (device, seq) = under_way.remove(&ack.pkid).expect("a PUBACK of what was sent");
                    let tally = tallies.entry(device).or_default();
                    tally.acked += 1;
                    tally.highest_acked = tally.highest_acked.max(seq);
                    let _ = first.send(());
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        drop(connection);
        publisher.join().expect("the publisher ends with its connection");
        take(&mut tallies, &mut queued);
        tallies
    })
}

/// Posts readings of one device with `ack=committed`, one after the other, until the connection breaks.
fn load_over_http(to: SocketAddr, device: String, mut seq: u64, first: mpsc::Sender<()>) -> JoinHandle<Tallies> {
    std::thread::spawn(move || {
        let mut http = Http::connect(to);
        let mut tally = Tally::default();
        loop {
            seq += 1;
            tally.sent = seq;
            let body = json!({"deviceId": device, "seq": seq}).to_string();
            let sent = http.try_send("POST", "/metrics?ack=committed", &[], body.as_bytes());
            let Ok(response) = sent.and_then(|()| http.try_receive()) else { break };
            assert_eq!((response.status, &response.json()["accepted"]), (200, &Value::from(1)), "{}", response.text());
            tally.acked += 1;
            tally.highest_acked = seq;
            let _ = first.send(());
        }
        Tallies::from([(device, tally)])
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs())
}
