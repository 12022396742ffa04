//! A full disk under load: acknowledgements stop, readiness says why, and when there is room again the node goes on by itself.
//! Nothing that was acknowledged is lost: not over the full disk, not over a restart, not over a `kill -9` on a full disk.
//!
//! `TIDEGATE_FULL_DISK_ROUNDS` sets how often it gets full (3).

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    Dice, House, Node, eventually,
    http::Http,
    mqtt::{Raw, Version, publish},
    node::tidegate,
    small_disk::{self, Filler},
};

const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: u8 = 0xD0;

/// The numbers of a device's readings that were acknowledged.
type Acked = BTreeMap<String, BTreeSet<u64>>;

#[test]
fn a_full_disk_stops_acknowledgements_and_the_node_goes_on_when_there_is_room() {
    let size = format!("{}m", 24 + 4 * rounds());
    small_disk::run_on_it("child_fills_the_disk_of_a_running_node", &size);
}

/// How often the disk gets full.
fn rounds() -> u64 {
    std::env::var("TIDEGATE_FULL_DISK_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"))
}

/// The child's part: does nothing when it is run as an ordinary test.
#[test]
fn child_fills_the_disk_of_a_running_node() {
    let Some(disk) = small_disk::disk() else { return };
    let dir = tempfile::tempdir_in(&disk).expect("a directory on the small disk");
    // Small segments, so that what is set aside is used up soon; all of the journal is kept, so that it can be checked.
    let house = House::in_dir(dir).variable("TIDEGATE_DATA__SEGMENT_BYTES", "1MiB");
    let mut dice = Dice(std::process::id().into());
    println!("full disk: seed {}", dice.0);
    let begin = Instant::now();
    let mut acked = Acked::new();

    let mut node = house.start();
    let load = Load::start(&node, &acked);
    load.wait_for_more(200);
    // Now not a byte is left, now a little: the journal and the view meet the end of the disk in different places.
    for round in 0..rounds() {
        let leave = if round == 0 { 0 } else { dice.between(0, 1024 * 1024) };
        let filler = Filler::fill(&disk, leave);
        not_ready(&node);
        if round == 0 {
            nothing_is_acknowledged(&node, &load);
        }
        drop(filler);
        ready_again(&node);
        if round == 0 {
            // sled met the end of the disk as well, and was opened again.
            node.logged(&["cannot write a checkpoint", "No space left"]);
            node.logged(&["checkpoints are written again"]);
        }
        load.wait_for_more(200);
        println!("full disk: {leave} bytes left, after {:.1?}", begin.elapsed());
    }
    load.stop(&mut acked);
    let ledger = node.settled_ledger();
    assert_eq!(node.stop(), Some(0), "it had never to be restarted");
    println!("full disk: stopped after {:.1?}: {ledger}", begin.elapsed());
    all_is_there(&house, &acked);
    println!("full disk: checked after {:.1?}", begin.elapsed());

    // `kill -9` while nothing can be written.
    node = house.start();
    let load = Load::start(&node, &acked);
    load.wait_for_more(200);
    let filler = Filler::fill(&disk, 0);
    not_ready(&node);
    node.kill9();
    load.stop(&mut acked);
    drop(filler);
    println!("full disk: killed after {:.1?}", begin.elapsed());
    all_is_there(&house, &acked);
    println!("full disk: checked after {:.1?}", begin.elapsed());
}

/// `/readyz` says that there is no space, by name, and the journal has stopped.
#[track_caller]
fn not_ready(node: &Node) {
    eventually("the journal meets the end of the disk", || {
        (node.metric("tidegate_journal_healthy") == 0.0).then_some(())
    });
    let problem = node.get("/readyz").problem(503, "not-ready");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("no space left on the disk"), "{problem}");
}

#[track_caller]
fn nothing_is_acknowledged(node: &Node, load: &Load) {
    let probe = || {
        let refused = node.post("/metrics?ack=committed", r#"{"deviceId":"probe","n":1}"#);
        let problem = refused.problem(503, "overloaded");
        assert_eq!(problem["limit"], "journal", "{problem}");
        load.acked.load(SeqCst)
    };
    // What was durable before the first probe may have been on its way until then.
    let before = probe();
    assert_eq!(probe(), before, "nothing is acknowledged on a full disk");
    assert_eq!(node.get("/livez").status, 200);
}

#[track_caller]
fn ready_again(node: &Node) {
    eventually("the node is ready again", || (node.get("/readyz").status == 200).then_some(()));
    for healthy in ["tidegate_journal_healthy", "tidegate_checkpoint_healthy"] {
        eventually(healthy, || (node.metric(healthy) == 1.0).then_some(()));
    }
}

/// After a restart every acknowledged reading is in the journal, and the last one of each device or a later one is its state.
#[track_caller]
fn all_is_there(house: &House, acked: &Acked) {
    let mut node = house.start();
    for (device, numbers) in acked {
        let last = numbers.last().copied().unwrap_or_default();
        let state = node.device(device).unwrap_or_else(|| panic!("{device} is known"));
        assert!(state["state"]["n"].as_u64() >= Some(last), "{device} had {last} acknowledged: {state}");
    }
    node.settled_ledger();
    node.assert_alive();
    assert_eq!(node.stop(), Some(0));
    let journal = journal_of(&house.data());
    for (device, numbers) in acked {
        let lost: Vec<_> = numbers.difference(journal.get(device).unwrap_or(&BTreeSet::new())).copied().collect();
        assert!(lost.is_empty(), "{device}: acknowledged and not in the journal: {lost:?}");
    }
}

/// The readings in the journal, as `tidegate journal inspect` shows them.
fn journal_of(data: &Path) -> Acked {
    let inspect: &mut Command = &mut tidegate(data);
    let output = inspect.args(["journal", "inspect", "--json"]).arg(data).output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut journal = Acked::new();
    for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(line["kind"], "damage", "{line}");
        if let (Some(device), Some(n)) = (line["deviceId"].as_str(), line["payload"]["n"].as_u64()) {
            journal.entry(device.to_owned()).or_default().insert(n);
        }
    }
    journal
}

/// Devices that report over MQTT and HTTP, each with numbered readings, until they are stopped.
struct Load {
    acked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(String, BTreeSet<u64>)>>,
}

impl Load {
    /// Goes on after the numbers that were acknowledged before.
    fn start(node: &Node, before: &Acked) -> Self {
        let (acked, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for device in ["mqtt-0", "mqtt-1", "http-0", "http-1"] {
            // Well beyond what was sent and not acknowledged.
            let first = before.get(device).and_then(BTreeSet::last).map_or(0, |last| last + 1_000);
            let reporter = Reporter { device: device.to_owned(), first, acked: acked.clone(), stop: stop.clone() };
            let (mqtt, http) = (node.mqtt, node.http);
            let over_mqtt = device.starts_with("mqtt");
            threads.push(std::thread::spawn(move || {
                let numbers = if over_mqtt { reporter.over_mqtt(mqtt) } else { reporter.over_http(http) };
                (reporter.device, numbers)
            }));
        }
        Self { acked, stop, threads }
    }

    #[track_caller]
    fn wait_for_more(&self, readings: u64) {
        let enough = self.acked.load(SeqCst) + readings;
        eventually("readings are acknowledged", || (self.acked.load(SeqCst) >= enough).then_some(()));
    }

    #[track_caller]
    fn stop(self, acked: &mut Acked) {
        self.stop.store(true, SeqCst);
        for thread in self.threads {
            let (device, numbers) = thread.join().expect("a reporter ends");
            acked.entry(device).or_default().extend(numbers);
        }
    }
}

struct Reporter {
    device: String,
    first: u64,
    acked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Reporter {
    /// Time between two readings: the disk is to be filled by the filler, not by them.
    const PACE: Duration = Duration::from_millis(2);
    /// Readings that wait for their PUBACK.
    const WINDOW: usize = 50;

    /// QoS 1 until it is stopped and all is answered, or the node is gone.
    fn over_mqtt(&self, to: SocketAddr) -> BTreeSet<u64> {
        let mut numbers = BTreeSet::new();
        let mut raw = Raw::connect(to, Version::V5, &self.device);
        let topic = format!("devices/{}/metrics", self.device);
        let mut waiting = BTreeMap::new();
        let mut n = self.first;
        let mut deadline = None;
        loop {
            let stopped = self.stop.load(SeqCst);
            let over = *deadline.get_or_insert_with(|| Instant::now() + support::PATIENCE) <= Instant::now();
            if stopped && (waiting.is_empty() || over) {
                return numbers;
            }
            if !stopped {
                deadline = None;
            } else if raw.try_send(&PINGREQ).is_err() {
                // The node is gone.
                return numbers;
            }
            if !stopped && waiting.len() < Self::WINDOW {
                let id = u16::try_from(n % 60_000 + 1).expect("below 65,536");
                let payload = json!({ "n": n, "pad": "x".repeat(1_000) }).to_string();
                if raw.try_send(&publish(Version::V5, &topic, 1, id, &[], payload.as_bytes())).is_err() {
                    return numbers;
                }
                waiting.insert(id, n);
                n += 1;
            }
            while let Some(packet) = raw.next_within(Self::PACE) {
                if packet.first == PINGRESP {
                    continue;
                }
                let (id, code) = packet.puback();
                let number = waiting.remove(&id).expect("a PUBACK of what was sent");
                if code < 0x80 && numbers.insert(number) {
                    self.acked.fetch_add(1, SeqCst);
                }
            }
        }
    }

    /// `ack=committed` until it is stopped, or the node is gone. What is refused is sent again under the next number.
    fn over_http(&self, to: SocketAddr) -> BTreeSet<u64> {
        let mut numbers = BTreeSet::new();
        let mut http = Http::connect(to);
        for n in self.first.. {
            if self.stop.load(SeqCst) {
                break;
            }
            let body = json!({ "deviceId": self.device, "n": n, "pad": "x".repeat(1_000) }).to_string();
            let sent = http.try_send("POST", "/metrics?ack=committed", &[], body.as_bytes());
            let Ok(response) = sent.and_then(|()| http.try_receive()) else { break };
            match response.status {
                200 => {
                    numbers.insert(n);
                    self.acked.fetch_add(1, SeqCst);
                }
                503 => {}
                other => panic!("{other}: {}", response.text()),
            }
            std::thread::sleep(Self::PACE);
        }
        numbers
    }
}
