//! The comparison: every scenario in rounds that alternate between the servers, so that a slow minute of the machine
//! hits all of them.

use std::io::{self, Write};

use anyhow::{Context, Result, ensure};

use crate::http;
use crate::meter::{Measure, Meter, Sample};
use crate::plan::{Scenario, Work};
use crate::scenario::fanout::Audience;
use crate::scenario::http::{Clients, first_device};
use crate::scenario::idle::Idlers;
use crate::scenario::mqtt::{Swarm, device_id as mqtt_device};
use crate::scenario::mqtt_fanout::Subscribers;
use crate::server::{Peer, Programs, Server};
use crate::table::Block;

/// How long a server may arrange itself between the last connection and the look at its memory.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(3);

/// A field that only the handler adds.
const DERIVED_FIELD: &str = "temperatureAverage";

/// Runs `scenario` in `rounds` rounds with those of its servers that are in `peers`.
///
/// A failure of one server ends its part of the scenario and is kept in the block; the others go on.
pub(crate) fn compare(scenario: &Scenario, peers: &[Peer], programs: &Programs, rounds: usize) -> Block {
    let mut block = Block::new(scenario);
    let entrants = [Peer::Tidegate].iter().chain(scenario.against).copied().filter(|peer| peers.contains(peer));
    let mut bouts: Vec<Bout<'_>> = Vec::new();
    for peer in entrants {
        match Bout::new(scenario, peer, programs) {
            Ok(bout) => bouts.push(bout),
            Err(error) => block.fail(peer, &error),
        }
    }
    for round in 0..rounds {
        bouts.retain_mut(|bout| match bout.round(round) {
            Ok(sample) => {
                say(&format!("{} round {} {}: {}", scenario.name, round + 1, bout.peer.name(), brief(&sample)));
                block.add(bout.peer, sample);
                true
            }
            Err(error) => {
                block.fail(bout.peer, &error.context(format!("round {}", round + 1)));
                false
            }
        });
    }
    block
}

/// One server in one scenario.
struct Bout<'a> {
    scenario: &'a Scenario,
    peer: Peer,
    programs: &'a Programs,
    /// Running through all rounds; `None` where each round needs a fresh one.
    server: Option<Server>,
}

impl<'a> Bout<'a> {
    /// Starts the server and warms it up with a round that does not count.
    fn new(scenario: &'a Scenario, peer: Peer, programs: &'a Programs) -> Result<Self> {
        let mut bout = Self { scenario, peer, programs, server: None };
        if !matches!(scenario.work, Work::Idle(_)) {
            let server = bout.server.insert(Server::start(peer, programs, scenario.with_handler)?);
            let warm_up = run(scenario, scenario.work.warm_up(), server, "warm-up");
            warm_up.map_err(|error| server.explain(error)).context("warming up")?;
        }
        Ok(bout)
    }

    fn round(&mut self, round: usize) -> Result<Sample> {
        match (&self.server, self.scenario.work) {
            (Some(server), work) => {
                run(self.scenario, work, server, &round.to_string()).map_err(|error| server.explain(error))
            }
            (None, Work::Idle(connections)) => {
                let server = Server::start(self.peer, self.programs, self.scenario.with_handler)?;
                let address = server.mqtt.context("it speaks no MQTT")?;
                idle(server.meter(), address, connections).map_err(|error| server.explain(error))
            }
            (None, _) => anyhow::bail!("the server is not running"),
        }
    }
}

/// One run of `work` against a server that was started for `scenario`.
fn run(scenario: &Scenario, work: Work, server: &Server, label: &str) -> Result<Sample> {
    let mqtt = || server.mqtt.context("it speaks no MQTT");
    let http = || server.http.context("it speaks no HTTP");
    let meter = server.meter();
    match work {
        Work::Mqtt(load, messages) => {
            let mut swarm = Swarm::connect(mqtt()?, load)?;
            let sample = meter.around(|| swarm.run(messages))?;
            if scenario.with_handler {
                check_handler(http()?, &mqtt_device(0), true)?;
            }
            Ok(sample)
        }
        Work::Http(load, messages) => {
            let mut clients = Clients::connect(http()?, load)?;
            let sample = meter.around(|| clients.run(messages))?;
            check_handler(http()?, &first_device(), scenario.with_handler)?;
            Ok(sample)
        }
        Work::Fanout(load, updates) => {
            let mut audience = Audience::connect(http()?, load, &format!("fanout-{label}"))?;
            meter.around(|| audience.run(updates))
        }
        Work::MqttFanout(load, messages) => {
            let mut subscribers = Subscribers::connect(mqtt()?, load)?;
            meter.around(|| subscribers.run(messages))
        }
        Work::Idle(connections) => idle(meter, mqtt()?, connections),
    }
}

/// Connects `connections` idle devices and looks at the server's memory before and after.
///
/// # Errors
/// A refused or a lost connection.
pub(crate) fn idle(meter: Meter, address: std::net::SocketAddr, connections: usize) -> Result<Sample> {
    std::thread::sleep(SETTLE);
    let before = meter.usage()?;
    let mut idlers = Idlers::connect(address, connections)?;
    idlers.ping_all()?;
    std::thread::sleep(SETTLE);
    let after = meter.usage()?;
    // All must still be there, or the figure is of fewer.
    idlers.ping_all()?;
    let (Some(before), Some(after)) = (before, after) else { return Ok(Sample::new()) };
    let added = after.rss_bytes.saturating_sub(before.rss_bytes) as f64;
    Ok(Sample::from([
        (Measure::BytesPerConnection, added / connections as f64),
        (Measure::RssMib, after.rss_bytes as f64 / f64::from(1 << 20)),
    ]))
}

/// Demands that the handler has, or has not, worked on the readings.
fn check_handler(address: std::net::SocketAddr, device: &str, expected: bool) -> Result<()> {
    let device = String::from_utf8(http::get(address, &format!("/devices/{device}"))?)?;
    ensure!(device.contains(DERIVED_FIELD) == expected, "handler expected: {expected}, but the device is {device}");
    Ok(())
}

fn brief(sample: &Sample) -> String {
    let figures: Vec<String> = sample.iter().map(|(measure, value)| format!("{measure} {value:.2}")).collect();
    figures.join(", ")
}

/// A line about the progress, on stderr: stdout holds the table alone.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
