//! A directory in which a node lives and dies, round after round, with the devices that report to it. It starts the node on what the
//! last round left, checks it, loads it, and ends it as the plan says.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    pin::pin,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time;

use super::{
    load::{self, Counts},
    node::{self, Addresses, Node},
    plan::{End, Plan},
    report::ProofReport,
    tally::{Device, Found, Wrong},
};
use crate::http_client::HttpClient;
#[cfg(target_os = "linux")]
use crate::power_loss::Mount;

/// Devices of each connection: two over MQTT, two over HTTP.
const DEVICES: usize = 8;
const CONNECTIONS: usize = 4;
/// The longest that a start may take.
const START: Duration = Duration::from_secs(60);
/// The longest that readings from before the crash may be under way.
const SETTLE: Duration = Duration::from_secs(30);
/// The longest that an orderly stop may take.
const STOP: Duration = Duration::from_secs(30);
/// The longest that answers are read after the node is dead.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Counts the readings of a device in the durable `ctx.state`, and shows the count in the state.
const COUNT: &str = "export function onMetric(metric, ctx) {
  ctx.state.count = (ctx.state.count ?? 0) + 1;
  return { seq: metric.seq, count: ctx.state.count };
}
";

/// The directory, its disk, and its devices.
#[derive(Debug)]
pub(super) struct House {
    program: PathBuf,
    dir: PathBuf,
    devices: Vec<Device>,
    pub(super) handler: bool,
    #[cfg(target_os = "linux")]
    disk: Option<Mount>,
    /// A start has failed: there is nothing more to be learned here.
    pub(super) closed: bool,
}

/// What a check of a node came to.
enum Checked {
    /// It is as it must be, or the report says what is not.
    Done,
    /// It died meanwhile, as it may at a crash point: the next round checks.
    Died,
}

impl House {
    /// Makes the directories. The data goes to `disk`, on which a [`Mount`] may stand.
    pub(super) fn new(program: &Path, dir: PathBuf, handler: bool) -> io::Result<Self> {
        std::fs::create_dir_all(dir.join("handlers"))?;
        std::fs::create_dir_all(dir.join("disk"))?;
        if handler {
            std::fs::write(dir.join("handlers/10-count.js"), COUNT)?;
        }
        let devices = (0..CONNECTIONS * DEVICES).map(|index| Device::new(format!("prove-{index:02}"))).collect();
        Ok(Self {
            program: program.to_owned(),
            dir,
            devices,
            handler,
            #[cfg(target_os = "linux")]
            disk: None,
            closed: false,
        })
    }

    /// Where its disk is to be mounted.
    pub(super) fn disk_dir(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Puts its data on a disk that forgets.
    #[cfg(target_os = "linux")]
    pub(super) fn use_disk(&mut self, disk: Mount) {
        self.disk = Some(disk);
    }

    /// One round: start, check, load, end.
    pub(super) async fn round(
        &mut self,
        round: u32,
        plan: Plan,
        times: &mut Vec<Duration>,
        report: &mut ProofReport,
    ) -> io::Result<()> {
        let mut node = self.start(plan)?;
        let (in_start, after_ready) = plan.patience();
        let started = Instant::now();
        let ready = time::timeout(in_start.unwrap_or(START), node.ready()).await;
        match ready {
            Ok(Some(addresses)) => {
                times.push(started.elapsed());
                if let Checked::Done = self.check(&mut node, addresses, round, report).await {
                    let padding = "x".repeat(plan.padding);
                    let counts = self.load(&mut node, addresses, &padding, after_ready).await;
                    report.sent += counts.sent;
                    report.acked += counts.acked;
                }
            }
            // Killed in its start, or by itself, which is seen below.
            Ok(None) => drop(node.wait(LAST_ANSWERS).await),
            Err(_) if in_start.is_some() => {}
            Err(_) => self.closed = true,
        }
        self.end(node, round, plan, report).await?;
        report.rounds += 1;
        report.with_handler += u32::from(self.handler);
        Ok(())
    }

    /// The last word: start, check, and an orderly stop.
    pub(super) async fn check_out(
        &mut self,
        round: u32,
        times: &mut Vec<Duration>,
        report: &mut ProofReport,
    ) -> io::Result<()> {
        let mut node = Node::start(&self.program, &self.dir, &self.data(), &self.dir.join("handlers"), None)?;
        let started = Instant::now();
        if let Ok(Some(addresses)) = time::timeout(START, node.ready()).await {
            times.push(started.elapsed());
            if let Checked::Died = self.check(&mut node, addresses, round, report).await {
                report.problem(round, "the node ended while it was checked".to_owned());
            }
            match node.stop(STOP).await {
                Some(status) if status.success() => {}
                other => report.problem(round, format!("the node did not stop in order: {other:?}")),
            }
        } else {
            report.not_opened += 1;
            report.problem(round, "the node did not come to serve".to_owned());
        }
        node.kill().await;
        self.read_log(&mut node, round, report).await;
        Ok(())
    }

    /// Copies what is on the disk that forgets to where it can be looked at without it.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(disk) = self.disk.take() {
            let copied = disk.copy_to(&self.dir.join("disk-content"));
            drop(disk);
            return copied;
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        // Not the mounted directory itself: the node makes this one, and must see to it that it lasts.
        self.disk_dir().join("data")
    }

    fn start(&self, plan: Plan) -> io::Result<Node> {
        Node::start(&self.program, &self.dir, &self.data(), &self.dir.join("handlers"), plan.crash())
    }

    /// Ends what is left of the node, and of what its disk had not synced.
    async fn end(&mut self, mut node: Node, round: u32, plan: Plan, report: &mut ProofReport) -> io::Result<()> {
        node.kill().await;
        let by_itself = node.ended_by_itself();
        match (by_itself, plan.end) {
            (Some(status), End::Point(crash)) if node::was_killed(status) => {
                *report.points.entry(crash.point.name()).or_default() += 1;
            }
            (Some(status), _) => {
                report.not_opened += 1;
                report.problem(round, format!("the node ended by itself: {status}"));
                self.closed = true;
            }
            (None, _) if self.closed => {
                report.not_opened += 1;
                report.problem(round, format!("the node was not ready within {} s", START.as_secs()));
            }
            (None, End::Point(_)) => report.not_reached += 1,
            (None, End::InStart(_) | End::After(_)) => report.at_random += 1,
        }
        self.read_log(&mut node, round, report).await;
        #[cfg(target_os = "linux")]
        if let Some(disk) = &mut self.disk {
            disk.cut_power()?;
        }
        Ok(())
    }

    /// Looks for errors in what the node has logged, and keeps the log if there are any.
    async fn read_log(&self, node: &mut Node, round: u32, report: &mut ProofReport) {
        let log = node.log().await;
        let errors: Vec<String> = log.iter().filter_map(|line| node::error_in(line)).collect();
        report.errors += errors.len() as u64;
        report.quarantined += log.iter().filter(|line| line.contains(node::QUARANTINED)).count() as u64;
        for error in &errors {
            report.problem(round, error.clone());
        }
        if !errors.is_empty() || report.problems.iter().any(|problem| problem.round == round) {
            // The report has the errors; that the whole log could not be kept changes nothing.
            let _ = std::fs::write(self.dir.join(format!("round-{round}.log")), log.join("\n"));
        }
    }

    /// Compares what the node has with what it must have.
    async fn check(&mut self, node: &mut Node, at: Addresses, round: u32, report: &mut ProofReport) -> Checked {
        let mut http = HttpClient::new(at.http, None);
        match settled(&mut http).await {
            Ok(true) => {}
            Ok(false) => {
                report.unbalanced += 1;
                report.problem(round, format!("the ledger did not settle and balance within {} s", SETTLE.as_secs()));
            }
            Err(error) => return self.died(node, round, error, report).await,
        }
        let found = match states(&mut http).await {
            Ok(found) => found,
            Err(error) => return self.died(node, round, error, report).await,
        };
        #[cfg(target_os = "linux")]
        let holes = self.disk.is_some();
        #[cfg(not(target_os = "linux"))]
        let holes = false;
        for device in &mut self.devices {
            let there = found.get(&device.id).copied();
            let before = device.clone();
            let Err(wrong) = device.judge(there, holes) else { continue };
            match wrong {
                Wrong::Lost(readings) => report.lost += readings,
                Wrong::Unsent | Wrong::Miscounted => report.wrong += 1,
            }
            report.problem(round, format!("{}: {wrong:?}: {before:?}, and the node has {there:?}", device.id));
        }
        Checked::Done
    }

    /// A request failed: it was the crash point, or else it must not be.
    async fn died(&self, node: &mut Node, round: u32, error: String, report: &mut ProofReport) -> Checked {
        if node.wait(LAST_ANSWERS).await.is_none() {
            report.problem(round, format!("the node could not be asked: {error}"));
        }
        Checked::Died
    }

    /// Loads the node until it dies, at a crash point or because its time is up.
    async fn load(&mut self, node: &mut Node, at: Addresses, padding: &str, time_left: Duration) -> Counts {
        let mut counts = Counts::default();
        let (mqtt, http) = self.devices.split_at_mut(2 * DEVICES);
        let ((one, two), (three, four)) = (mqtt.split_at_mut(DEVICES), http.split_at_mut(DEVICES));
        let mut loads = pin!(async {
            tokio::join!(
                load::over_mqtt(at.mqtt, "prove-a", one, padding),
                load::over_mqtt(at.mqtt, "prove-b", two, padding),
                load::over_http(at.http, three, padding),
                load::over_http(at.http, four, padding),
            )
        });
        let done = match time::timeout(time_left, &mut loads).await {
            Ok(done) => Some(done),
            Err(_) => {
                // Whatever it has acknowledged by now is promised, also what has not been read yet.
                node.kill().await;
                time::timeout(LAST_ANSWERS, &mut loads).await.ok()
            }
        };
        if let Some((a, b, c, d)) = done {
            [a, b, c, d].into_iter().for_each(|part| counts += part);
        }
        counts
    }
}

/// Waits until nothing is under way; `false`: it does not come to that, or the ledger does not balance then.
async fn settled(http: &mut HttpClient) -> Result<bool, String> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let ledger = ask(http, "/ledger").await?;
        if ledger["inFlight"] == 0 && ledger["balanced"] == true {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the node has of every device.
async fn states(http: &mut HttpClient) -> Result<HashMap<String, Found>, String> {
    let page = ask(http, "/devices?prefix=prove-&limit=1000").await?;
    let devices = page["devices"].as_array().ok_or("no page of devices")?;
    let found = devices.iter().map(|device| {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let found = Found {
            sequence: number(&device["state"]["seq"]),
            version: number(&device["version"]),
            counted: device["state"]["count"].as_u64(),
        };
        (device["deviceId"].as_str().unwrap_or_default().to_owned(), found)
    });
    Ok(found.collect())
}

async fn ask(http: &mut HttpClient, path: &str) -> Result<Value, String> {
    let answer = http.get(path).await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("GET {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("GET {path}: {error}"))
}
