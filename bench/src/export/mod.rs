//! `tidegate-bench export`: does an export of all states disturb a node under load, and does it come back the same from another?
//!
//! A node is filled and loaded with QoS 1 at a pace; the built command exports from it meanwhile, once in each form. Its NDJSON is
//! imported into a fresh node, whose own export is compared with it, line by line.

mod command;
mod compare;
mod load;
mod report;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::command::{Answer, Watched};
use self::load::{Load, Window};
use self::report::Report;
use crate::peers::say;
use crate::scenario::mqtt::{MqttLoad, Swarm};
use crate::server::{self, Server};
use crate::{process, reading, status};

/// Gateways that the devices report over.
pub(crate) const PUBLISHERS: usize = 50;
/// Readings a second meanwhile.
pub(crate) const PACE: u32 = 5_000;
/// One device in so many reports meanwhile.
const PART: usize = 10;
/// One device in so many is given a state with everything in it that one can have.
const SEEDED: usize = 100;

/// What is measured, and where.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The node's binary.
    pub(crate) tidegate: PathBuf,
    /// A folder on the disk.
    pub(crate) dir: PathBuf,
    /// Devices; a multiple of [`PUBLISHERS`].
    pub(crate) devices: usize,
    /// The time before, between and after the exports.
    pub(crate) quiet: Duration,
    /// Records a second that are exported; `None`: the node's own default.
    pub(crate) rate: Option<u32>,
}

/// A part of the run.
#[derive(Debug)]
struct Phase {
    name: String,
    from: Instant,
    to: Instant,
    /// The node's memory at its beginning, and its peak.
    rss_before: u64,
    rss_peak: u64,
    export: Option<Answer>,
}

/// Runs it and gives the table in Markdown, and whether the states came back the same.
///
/// # Errors
/// Any command or node that fails, and a reading that is lost.
pub(crate) fn run(plan: &Plan) -> Result<(String, bool)> {
    ensure!(
        plan.devices >= PUBLISHERS * PART && plan.devices.is_multiple_of(PUBLISHERS * PART),
        "devices: a multiple of {}",
        PUBLISHERS * PART
    );
    let folder = server::folder(&plan.dir)?;
    let (first, second) = (folder.path().join("first.ndjson"), folder.path().join("second.ndjson"));
    let node = Server::node(&plan.tidegate, &plan.dir, &[])?;
    let measured = measure(plan, &node, folder.path(), &first).map_err(|error| node.explain(error))?;
    drop(node);

    say("importing into a fresh node");
    let fresh = Server::node(&plan.tidegate, &plan.dir, &[])?;
    let cli = Watched { program: &plan.tidegate, node: &fresh, folder: folder.path() };
    let imported = cli.run(&["state", "import", text(&first)?, "--json"])?.answer;
    let exported = cli.run(&["state", "export", "--rate", "1000000", "--json", "--output", text(&second)?])?.answer;
    ensure!(exported.devices == plan.devices as u64, "the fresh node has {} devices", exported.devices);
    drop(fresh);
    let difference = compare::files(&first, &second)?;
    let report = Report { plan, phases: &measured.0, windows: &measured.1, imported: &imported, compared: &difference };
    Ok((report.markdown(), difference.first.is_none()))
}

/// The first node: filled, then loaded while it exports into `first`.
fn measure(plan: &Plan, node: &Server, folder: &Path, first: &Path) -> Result<(Vec<Phase>, Vec<Window>)> {
    let http = node.http.context("it speaks no HTTP")?;
    let mqtt = node.mqtt.context("it speaks no MQTT")?;
    let cli = Watched { program: &plan.tidegate, node, folder };
    let seeds = folder.join("seeds.ndjson");
    fs::write(&seeds, seeded(plan.devices))?;
    let seed = || -> Result<()> {
        let imported = cli.run(&["state", "import", text(&seeds)?, "--overwrite", "--json"])?.answer.imported;
        ensure!(imported == (plan.devices / SEEDED) as u64, "only {imported} seeds came in");
        Ok(())
    };
    // A new device takes the ledger of its seed, and loses its device time to the first reading, which has none: hence twice.
    seed()?;
    fill(plan, mqtt)?;
    seed()?;
    status::wait_for_checkpoints(http)?;

    let load = MqttLoad { devices: plan.devices / PART, rate: Some(PACE), burst: 1, ..gateways(plan) };
    let binary = folder.join("first.tgs");
    let load = Load::start(mqtt, load, PACE);
    let rate = plan.rate.map(|rate| rate.to_string());
    let export = |format, output| -> Result<Phase> {
        let mut args = vec!["state", "export", "--json", "--format", format, "--output", text(output)?];
        args.extend(rate.iter().flat_map(|rate| ["--rate", rate.as_str()]));
        let from = Instant::now();
        let done = cli.run(&args)?;
        ensure!(done.answer.devices == plan.devices as u64, "{} devices were exported", done.answer.devices);
        say(&format!("exported {format}: {:?}", done.answer));
        let name = format!("while exporting, {format}");
        let (rss_before, rss_peak) = (done.rss_before, done.rss_peak);
        Ok(Phase { name, from, to: Instant::now(), rss_before, rss_peak, export: Some(done.answer) })
    };
    let phases = (|| -> Result<Vec<Phase>> {
        // The first second connects and activates.
        thread::sleep(Duration::from_secs(2));
        Ok(vec![
            quiet(plan, node, "before")?,
            export("ndjson", first)?,
            quiet(plan, node, "between")?,
            export("binary", &binary)?,
            quiet(plan, node, "after")?,
        ])
    })();
    let windows = load.stop()?;
    Ok((phases?, windows))
}

/// Nothing but the load.
fn quiet(plan: &Plan, node: &Server, name: &str) -> Result<Phase> {
    say(&format!("{name}: {:.0} s of load only", plan.quiet.as_secs_f64()));
    let (from, rss_before) = (Instant::now(), process::resident_bytes(node.pid())?);
    let mut rss_peak = rss_before;
    while from.elapsed() < plan.quiet {
        thread::sleep(command::LOOK);
        rss_peak = rss_peak.max(process::resident_bytes(node.pid())?);
    }
    Ok(Phase { name: name.to_owned(), from, to: Instant::now(), rss_before, rss_peak, export: None })
}

fn gateways(plan: &Plan) -> MqttLoad {
    MqttLoad {
        publishers: PUBLISHERS,
        devices: plan.devices,
        with_ack: true,
        subscriber: false,
        rate: None,
        burst: 16,
        window: 64,
    }
}

/// A reading of each device, as fast as they are acknowledged.
fn fill(plan: &Plan, mqtt: SocketAddr) -> Result<()> {
    let run = Swarm::connect(mqtt, gateways(plan))?.run(plan.devices as u64)?;
    say(&format!("filled with {} devices in {:.1} s", run.sent, run.elapsed.as_secs_f64()));
    Ok(())
}

/// States with device times, handlers' states and a ledger: readings alone would make none of them.
fn seeded(devices: usize) -> String {
    const TIME: u64 = 1_790_000_000_000;
    let mut lines = String::new();
    for number in (0..devices).step_by(SEEDED) {
        let (time, state, version) = (TIME + number as u64, reading::mqtt(number, 3), 2 + number % 7);
        let _ = writeln!(
            lines,
            r#"{{"deviceId":"bench-{number:06}","state":{state},"deviceTime":{time},"receivedTime":{},"newestDeviceTime":{},"version":{version},"position":0,"scripts":{{"10-mean.js":{{"mean":{number}.5,"seen":{version}}}}},"ledger":{{"conflated":{{"late":{version}}},"dropped":{{}},"parked":{{"threw":1}}}}}}"#,
            time + 40,
            time + 7,
        );
    }
    lines
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn one_device_in_a_hundred_is_seeded_with_all_that_a_state_can_have() {
        let text = seeded(1_000);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[9]["deviceId"], "bench-000900");
        assert_eq!(lines[9]["ledger"]["conflated"]["late"], lines[9]["version"]);
    }
}
