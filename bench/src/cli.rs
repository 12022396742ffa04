//! The command line, and what each command runs.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::meter::{Meter, Sample};
use crate::peers::{compare, idle, say};
use crate::plan::scenarios;
use crate::scenario::fanout::{Audience, FanoutLoad};
use crate::scenario::http::{Clients, HttpLoad};
use crate::scenario::mqtt::{MqttLoad, Swarm};
use crate::server::{Peer, Programs};
use crate::{durable, export, overwrites, stored, table};

/// Tidegate's benchmarks: the side-by-side table, and its loads one by one.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Starts Tidegate, mosquitto, aedes, the Node.js reference and Node-RED, loads them in turn and prints a table of ratios
    Peers(Peers),
    /// Durable readings: the node's rate beside sled's, acknowledgements beside the disk's fdatasync, processor time
    Durable(Durable),
    /// Memory and disk while 50,000 devices overwrite their states 10 million times
    Overwrites(Overwrites),
    /// An export of all states from a node under load: acknowledgements meanwhile, memory, and the same states in another node
    Export(Export),
    /// Stored sessions with a message in each, and retained messages, over `kill -9`: is all of it there, and after how long
    Stored(Stored),
    /// The process that `overwrites` measures
    #[command(hide = true)]
    OverwritesChild(OverwritesChild),
    /// Publishers over MQTT, against a running server
    Mqtt(Mqtt),
    /// POST /metrics, against a running server
    Http(Http),
    /// Idle MQTT connections, against a running server
    Idle(Idle),
    /// WebSocket viewers of one device and updates of it, against a running server
    Fanout(Fanout),
}

#[derive(Debug, Args)]
struct Peers {
    /// The node's binary
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// The broker's binary
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: PathBuf,
    /// The folder with `handler.js` and `reference/`
    #[arg(long, default_value = "bench/peers")]
    peers_dir: PathBuf,
    /// Only scenarios whose name contains one of these words, e.g. `--only qos0,idle`
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these servers
    #[arg(long, value_delimiter = ',', value_enum)]
    servers: Vec<Peer>,
    /// Shorter windows, 3 rounds and 2,000 idle connections instead of 15,000
    #[arg(long)]
    quick: bool,
    /// Rounds of each scenario (default 5, quick 3)
    #[arg(long)]
    rounds: Option<usize>,
    /// Writes every figure of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Durable {
    /// The node's binary
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// A folder on the disk that is measured
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    #[arg(long, default_value_t = 50_000)]
    devices: usize,
    /// Connections that the devices report over; the devices are shared out evenly
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// One round with windows of 3 s instead of 3 rounds with 12 s
    #[arg(long)]
    quick: bool,
    /// Rounds
    #[arg(long)]
    rounds: Option<usize>,
}

#[derive(Debug, Args)]
struct Overwrites {
    /// A folder on the disk that is measured
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    #[arg(long, default_value_t = 50_000)]
    devices: usize,
    /// Overwrites a second; 0: as fast as they become durable. At most a device a second (a checkpoint's interval), every
    /// overwrite reaches the store; faster, they are coalesced before
    #[arg(long, default_value_t = 50_000)]
    rate: u32,
    /// Millions of overwrites (default 10, quick 3)
    #[arg(long)]
    millions: Option<u64>,
    /// 3 million overwrites
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Args)]
struct Export {
    /// The node's binary
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// A folder on the disk that is measured
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Devices: a multiple of 500 (default 500,000, quick 50,000)
    #[arg(long)]
    devices: Option<usize>,
    /// Records a second of the export, instead of the node's default
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// 50,000 devices, and 5 s before, between and after the exports instead of 10 s
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Args)]
struct Stored {
    /// The node's binary
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// A folder on the disk that is measured
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Stored sessions (default 50,000, quick 5,000)
    #[arg(long)]
    sessions: Option<usize>,
    /// Retained messages: a multiple of 1,000 (default 1,000,000, quick 100,000)
    #[arg(long)]
    retained: Option<usize>,
    /// 5,000 sessions and 100,000 retained messages
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Args)]
struct OverwritesChild {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    devices: usize,
    #[arg(long)]
    rate: Option<u32>,
    #[arg(long)]
    millions: u64,
}

#[derive(Debug, Args)]
struct Target {
    /// The server's address
    #[arg(long)]
    address: SocketAddr,
    /// The server's process, to measure it and its children
    #[arg(long)]
    pid: Option<u32>,
    /// The HTTP address of a Tidegate node, to check its ledger
    #[arg(long)]
    ledger: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct Mqtt {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    publishers: u16,
    /// Devices that they report for; each publisher its own if not given
    #[arg(long)]
    devices: Option<usize>,
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Messages a second over all publishers; flat out if not given
    #[arg(long)]
    rate: Option<u32>,
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=1))]
    qos: u8,
    /// A further client subscribes to all
    #[arg(long)]
    subscriber: bool,
    /// Messages in one write (flat out only)
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// Unconfirmed messages of a publisher (flat out only)
    #[arg(long, default_value_t = 32)]
    window: usize,
}

#[derive(Debug, Args)]
struct Http {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    #[arg(long, default_value_t = 60_000)]
    messages: u64,
    /// Requests a second over all connections; flat out if not given
    #[arg(long)]
    rate: Option<u32>,
}

#[derive(Debug, Args)]
struct Idle {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
}

#[derive(Debug, Args)]
struct Fanout {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    viewers: u16,
    /// Updates a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    #[arg(long, default_value_t = 1_000)]
    updates: u64,
    /// A device that the server does not know yet
    #[arg(long, default_value = "fanout")]
    device: String,
}

/// Runs what the command line asks for.
///
/// # Errors
/// When a server failed, refused or lost anything.
pub(crate) fn run() -> Result<()> {
    let cli = Cli::parse();
    raise_descriptor_limit();
    match cli.command {
        Cmd::Peers(args) => peers(&args),
        Cmd::Durable(args) => {
            let plan = durable::Plan {
                tidegate: args.tidegate,
                dir: args.dir,
                devices: args.devices,
                connections: usize::from(args.connections),
                rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 3 }).max(1),
                window: Duration::from_secs(if args.quick { 3 } else { 12 }),
            };
            print(&durable::run(&plan)?)
        }
        Cmd::Overwrites(args) => {
            let millions = args.millions.unwrap_or(if args.quick { 3 } else { 10 }).max(2);
            print(&overwrites::run(&args.dir, args.devices, (args.rate > 0).then_some(args.rate), millions)?)
        }
        Cmd::Export(args) => {
            let plan = export::Plan {
                tidegate: args.tidegate,
                dir: args.dir,
                devices: args.devices.unwrap_or(if args.quick { 50_000 } else { 500_000 }),
                quiet: Duration::from_secs(if args.quick { 5 } else { 10 }),
                rate: args.rate,
            };
            let (table, identical) = export::run(&plan)?;
            print(&table)?;
            ensure!(identical, "the states of both nodes differ");
            Ok(())
        }
        Cmd::Stored(args) => {
            let plan = stored::Plan {
                tidegate: args.tidegate,
                dir: args.dir,
                sessions: args.sessions.unwrap_or(if args.quick { 5_000 } else { 50_000 }),
                retained: args.retained.unwrap_or(if args.quick { 100_000 } else { 1_000_000 }),
            };
            let (table, complete) = stored::run(&plan)?;
            print(&table)?;
            ensure!(complete, "not everything that was acknowledged came back");
            Ok(())
        }
        Cmd::OverwritesChild(args) => overwrites::child::run(&args.dir, args.devices, args.rate, args.millions),
        Cmd::Mqtt(args) => {
            let load = MqttLoad {
                publishers: usize::from(args.publishers),
                devices: args.devices.unwrap_or(usize::from(args.publishers)),
                with_ack: args.qos == 1,
                subscriber: args.subscriber,
                rate: args.rate,
                burst: args.burst.max(1),
                window: args.window.max(2),
            };
            let mut swarm = Swarm::connect(args.target.address, load)?;
            print_sample(&args.target.meter().around(|| swarm.run(args.messages))?)
        }
        Cmd::Http(args) => {
            let load = HttpLoad { connections: usize::from(args.connections), rate: args.rate };
            let mut clients = Clients::connect(args.target.address, load)?;
            print_sample(&args.target.meter().around(|| clients.run(args.messages))?)
        }
        Cmd::Idle(args) => {
            print_sample(&idle(args.target.meter(), args.target.address, usize::from(args.connections))?)
        }
        Cmd::Fanout(args) => {
            let load = FanoutLoad { viewers: usize::from(args.viewers), rate: args.rate };
            let mut audience = Audience::connect(args.target.address, load, &args.device)?;
            print_sample(&args.target.meter().around(|| audience.run(args.updates))?)
        }
    }
}

impl Target {
    fn meter(&self) -> Meter {
        Meter { pid: self.pid, ledger: self.ledger, count: None }
    }
}

fn peers(args: &Peers) -> Result<()> {
    let programs = Programs {
        tidegate: args.tidegate.clone(),
        mosquitto: args.mosquitto.clone(),
        peers_dir: args.peers_dir.clone(),
    };
    let all = [Peer::Tidegate, Peer::Mosquitto, Peer::MosquittoPersistent, Peer::Aedes, Peer::Reference, Peer::NodeRed];
    let servers = if args.servers.is_empty() { all.to_vec() } else { args.servers.clone() };
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 5 });
    let mut plan = scenarios(args.quick);
    plan.retain(|scenario| args.only.is_empty() || args.only.iter().any(|word| scenario.name.contains(word.as_str())));
    ensure!(!plan.is_empty(), "no scenario is named like {:?}", args.only);
    servers.iter().try_for_each(|peer| programs.install(*peer))?;

    let blocks: Vec<_> = plan.iter().map(|scenario| compare(scenario, &servers, &programs, rounds)).collect();
    print(&table::markdown(&blocks))?;
    if let Some(path) = &args.json {
        let about = json!({
            "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "quick": args.quick,
            "rounds": rounds,
            "mosquitto": first_line(Command::new(&programs.mosquitto).arg("-h")),
            "node": first_line(Command::new("node").arg("--version")),
            "tidegate": first_line(Command::new(&programs.tidegate).arg("--version")),
        });
        let text = serde_json::to_string_pretty(&table::json(&blocks, &about))?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    let failures: Vec<String> = blocks.iter().flat_map(table::Block::failures).collect();
    ensure!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// The first line that a program prints about itself.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

fn print(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

fn print_sample(sample: &Sample) -> Result<()> {
    let mut out = io::stdout().lock();
    for (measure, value) in sample {
        writeln!(out, "{measure:>26}  {value:.2}")?;
    }
    Ok(())
}

/// Lets this process and the servers that it starts hold as many connections as the system allows.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        say(&format!("the limit of open files stays as it is: {error}"));
    }
}
