//! The command line: what can be asked for, and its help. Values of settings stay words here; `config` checks them, so
//! that a wrong value reads the same whether it came from a file, a variable or a flag.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use tidegate_simulator::{ProveArgs, SwarmArgs};

use crate::{
    auth::command::{TokenCommand, UserCommand},
    client::LOCAL_NODE,
    config::Flags,
    doctor::DoctorArgs,
    repl::ReplArgs,
    script_replay::Since,
    state::StateCommand,
};

const EXAMPLES: &str = "\
Examples:
  tidegate demo                      a node with simulated devices; open http://127.0.0.1:8080/
  tidegate serve                     MQTT on 127.0.0.1:1883, HTTP on 127.0.0.1:8080, data in ./tidegate-data
  curl -d '{\"deviceId\":\"d1\",\"temperature\":21.5}' http://127.0.0.1:8080/metrics
  tidegate state export > all.ndjson the states of all devices
  tidegate config show               every setting that is in effect, and where it came from

Exit codes: 0 ok, 1 failure while running, 2 wrong usage, 78 wrong configuration.
NO_COLOR switches colours off.";

const SERVE_EXAMPLES: &str = "\
Examples:
  tidegate serve
  tidegate serve --config /etc/tidegate.toml --log-format json
  tidegate serve --mqtt-bind 127.0.0.1:1883 --mqtt-bind '[::1]:1883'
  tidegate serve --mqtt-bind 127.0.0.1:0 --http-bind 127.0.0.1:0     free ports; the ready line tells them
  TIDEGATE_DATA__DIR=/var/lib/tidegate tidegate serve

Settings are read from the file, then from variables (TIDEGATE_SECTION__KEY), then from flags; later wins.
When it is ready, it prints one line: tidegate ready mqtt=127.0.0.1:1883 http=http://127.0.0.1:8080/";

const DEMO_EXAMPLES: &str = "\
Examples:
  tidegate demo
  tidegate demo --devices 1000 --interval-ms 250
  tidegate demo --http-bind 127.0.0.1:9000 --mqtt-bind 127.0.0.1:9001

Its data and its handler are in ./tidegate-demo; edit the handler, then: tidegate script reload.";

const SWARM_EXAMPLES: &str = "\
Examples:
  tidegate swarm --devices 1000 --interval 250ms
  tidegate swarm --devices 5000 --duration 60s --verify --watch     exit 1 if an acknowledged reading is missing
  tidegate swarm --protocol http --readings 100 --json
  tidegate swarm --mqtt broker:1883 --mqtt-version 5                any MQTT broker";

const PROVE_EXAMPLES: &str = "\
Examples:
  tidegate prove-durability --rounds 1000
  tidegate prove-durability --rounds 100 --power-loss             also cut the power of its disk (needs FUSE; see the docs)
  tidegate prove-durability --rounds 100 --seed 42 --dir ./proof  the same rounds again, and their data kept
  tidegate prove-durability --rounds 1000 --json | jq .lost

In each round a node of its own is loaded over MQTT and HTTP, killed at a random moment or at a named point of its
durable path, started again on what is left, and must have every reading that it acknowledged.
Exit code 1 if anything was lost, doubled, damaged or not accounted for. Ctrl-C ends it with a report.";

const CHECK_EXAMPLES: &str = "\
Examples:
  tidegate config check
  tidegate config check --config /etc/tidegate.toml && systemctl restart tidegate
  tidegate config check --json | jq '.problems[].message'";

const SHOW_EXAMPLES: &str = "\
Examples:
  tidegate config show
  tidegate config show > new.toml          a file to start from
  tidegate config show --json | jq '.\"mqtt.bind\".value'";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  tidegate doctor                                  the configuration, the disk, ./tidegate-data, and the node if one runs
  tidegate doctor --data-dir /var/lib/tidegate     before a start, after a crash, on a restored backup
  tidegate doctor --json | jq '.checks[] | select(.status != \"ok\")'

It changes nothing. While it reads a directory that no node has, no node starts in it. Copying the view for a look takes room in
the directory for temporary files (TMPDIR). Exit codes: 0 nothing failed, 1 something did.";

const SCRIPT_EXAMPLES: &str = "\
Examples:
  tidegate script check handlers/10-enrich.js
  tidegate script check handlers --json";

const TEST_EXAMPLES: &str = "\
Examples:
  tidegate script test                               all tests in ./handlers
  tidegate script test handlers/10-comfort.test.js
  tidegate script test --filter 'cold' --json

Exit code 0 if all tests passed, 1 if one failed, a file does not load, or there is none. docs/testing-handlers.md has the interface.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  tidegate script import-nodered flows.json --out handlers/
  tidegate script import-nodered ~/.node-red/flows.json && tidegate script check handlers

Each function node becomes a NAME.nodered.js, with its On Start and On Stop code. What could not be taken along is told.
docs/node-red.md says what such a handler finds.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  tidegate script replay --device pump-7 --since 2h --with new/10-enrich.js
  tidegate script replay --with new/30-plugin/lib/unit.js    a file of a plugin; --as says which where that is not clear
  tidegate script replay --with ./handlers-next --limit 100
  tidegate script replay --with handlers/10-enrich.js --json | jq .states    the same handlers: are the states the node's?

It changes nothing. Both sets of handlers begin with the states that the node had then. Exit code 1 if anything differs.";

const SCRIPTS_EXAMPLES: &str = "\
Examples:
  tidegate script list                       state, calls, times, and the reading that a handler failed on last
  tidegate script rearm 10-enrich.js         close its breaker
  tidegate script disable 20-alarm.js        readings go on without it, also after a restart
  tidegate script reload                     read the handlers again (as SIGHUP does); exit 1 if the old ones go on
  tidegate script reload --no-canary         ... without trying them on some devices first
  tidegate script rollback                   back to the handlers that ran before these";

const PARKED_EXAMPLES: &str = "\
Examples:
  tidegate parked list
  tidegate parked list --device pump-7 --json | jq '.[].payload'
  tidegate parked show 4711
  tidegate parked retry 4711 4715            through the handlers again, as the node runs them now
  tidegate parked retry --all                oldest first; exit 1 if one is parked again
  tidegate parked drop --device pump-7       for good

A retried reading keeps the time at which it came: it does not replace what is newer.";

const INSPECT_EXAMPLES: &str = "\
Examples:
  tidegate journal inspect tidegate-data --summary
  tidegate journal inspect tidegate-data --device pump-7 --from 40000
  tidegate journal inspect tidegate-data/journal/00000000000000000001.tgj
  tidegate journal inspect tidegate-data --json | jq 'select(.kind == \"reading\") | .payload'

It only reads: a node may run meanwhile, and the files may be damaged.";

const REPL_EXAMPLES: &str = "\
Examples:
  tidegate repl                                     the node of ./tidegate-data, as its administrator
  tidegate repl http://a:8080 http://b:8080         two nodes; .services shows both, .connect 2 asks the second
  tidegate repl -e 'count({ temperature: { $gt: 30 } })'
  tidegate repl -e 'await device(\"d1\").state' | less
  echo '.devices pump-' | tidegate repl

Ctrl-D leaves. Without a terminal it ends with exit code 1 at the first error.
By an address, --token or TIDEGATE_TOKEN says who asks. What is typed is in the audit log of the node that it reached.";

/// Takes in what devices report, keeps their latest state, and shows it live
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Token of a user, for commands that ask a running node which authenticates
    #[arg(long, value_name = "TOKEN", global = true, env = "TIDEGATE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until it is stopped (SIGTERM or Ctrl-C: it finishes what it has acknowledged)
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Run a node with simulated devices and an example handler
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Simulate devices against a node or any MQTT broker
    #[command(after_help = SWARM_EXAMPLES)]
    Swarm(SwarmArgs),
    /// Export, import, migrate, back up and restore the states of all devices
    #[command(subcommand)]
    State(StateCommand),
    /// Kill a node under load again and again, and check that nothing it has acknowledged is lost
    #[command(after_help = PROVE_EXAMPLES)]
    ProveDurability(ProveArgs),
    /// Check and test handlers; list, switch, re-arm, reload and roll back those of a running node
    #[command(subcommand)]
    Script(ScriptCommand),
    /// Run handlers for a node; started by the node itself
    #[command(hide = true)]
    ScriptWorker,
    /// A JavaScript prompt into running nodes
    #[command(after_help = REPL_EXAMPLES)]
    Repl(ReplArgs),
    /// Look into a journal
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Check, show and explain the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List, show, retry and drop readings that no handler could work on
    #[command(subcommand, after_help = PARKED_EXAMPLES)]
    Parked(ParkedCommand),
    /// Add, remove, list and change users
    #[command(subcommand)]
    User(UserCommand),
    /// Make, list and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check the machine, the data and the node, and say what to do
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
}

/// The commands for handlers.
#[derive(Debug, Subcommand)]
pub(crate) enum ScriptCommand {
    /// Check a handler, or every handler of a directory
    #[command(after_help = SCRIPT_EXAMPLES)]
    Check {
        /// A handler (*.js), or a directory of them
        path: PathBuf,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the tests (*.test.js) beside handlers, in virtual time and without a node
    #[command(after_help = TEST_EXAMPLES)]
    Test {
        /// Directories of handlers, or files of tests
        #[arg(value_name = "PATH", default_value = "./handlers")]
        paths: Vec<PathBuf>,
        /// The handlers' directory, for files of tests [default: the folder that they are in]
        #[arg(long, value_name = "DIR")]
        handlers: Option<PathBuf>,
        /// Only tests whose name (suite > test) has this text in it
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        filter: String,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the TypeScript declarations of what handlers find: tidegate.d.ts, tidegate-worker.d.ts
    Types {
        /// Directory for them, such as that of the handlers; without, tidegate.d.ts is printed
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Make handlers of the function nodes of a flow that was exported from Node-RED
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportNodered {
        /// The exported flows (JSON)
        #[arg(value_name = "FLOWS")]
        flows: PathBuf,
        /// Directory for the handlers
        #[arg(long, value_name = "DIR", default_value = "./handlers")]
        out: PathBuf,
        /// Replace files that are there already
        #[arg(long)]
        force: bool,
    },
    /// Run readings of the journal through changed handlers, and show what differs
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        /// Only readings of this device
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// Where to begin: a position, an age (2h) or a time (2026-11-27T10:00:00Z) [default: the journal's beginning]
        #[arg(long, value_name = "WHEN", value_parser = Since::parse, default_value = "0", hide_default_value = true)]
        since: Since,
        /// The changed file, in the place of the one that its path resembles; or a directory of handlers, in the place of all
        #[arg(long, value_name = "PATH")]
        with: PathBuf,
        /// The changed file's place below the handlers' directory, if its path does not show it (30-plugin/index.js)
        #[arg(long = "as", value_name = "PLACE")]
        place: Option<PathBuf>,
        /// The unchanged handlers
        #[arg(long, value_name = "DIR", default_value = "./handlers")]
        handlers: PathBuf,
        /// Directory for the data, of which the journal is read; a node may run
        #[arg(long, value_name = "DIR", default_value = "./tidegate-data")]
        data_dir: PathBuf,
        /// Differences to show
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how the handlers of a node fare
    #[command(after_help = SCRIPTS_EXAMPLES)]
    List {
        /// Of which node.
        #[command(flatten)]
        of: OfNode,
    },
    /// Switch a handler on
    #[command(after_help = SCRIPTS_EXAMPLES)]
    Enable {
        /// Its file name, as `list` shows it
        name: String,
        /// Of which node.
        #[command(flatten)]
        of: OfNode,
    },
    /// Switch a handler off: readings go on without it
    #[command(after_help = SCRIPTS_EXAMPLES)]
    Disable {
        /// Its file name, as `list` shows it
        name: String,
        /// Of which node.
        #[command(flatten)]
        of: OfNode,
    },
    /// Close a handler's breaker
    #[command(after_help = SCRIPTS_EXAMPLES)]
    Rearm {
        /// Its file name, as `list` shows it
        name: String,
        /// Of which node.
        #[command(flatten)]
        of: OfNode,
    },
    /// Read the handlers' directory again, try the new handlers, and switch to them if nothing speaks against it
    #[command(after_help = SCRIPTS_EXAMPLES)]
    Reload {
        /// Switch without trying them on some devices first
        #[arg(long)]
        no_canary: bool,
        /// Of which node.
        #[command(flatten)]
        of: OfNode,
    },
    /// Go back to the handlers that ran before these
    #[command(after_help = SCRIPTS_EXAMPLES)]
    Rollback {
        /// Of which node.
        #[command(flatten)]
        of: OfNode,
    },
}

/// Which node a command asks, and how it answers.
#[derive(Debug, Args)]
pub(crate) struct OfNode {
    /// Address of the node
    #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
    pub(crate) node: String,
    /// Answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The commands for the journal.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Show the journal's records, its segments, and what is damaged
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// A data directory, a journal directory, or one segment (*.tgj)
        path: PathBuf,
        /// The first position to show
        #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
        from: u64,
        /// The last position to show
        #[arg(long, value_name = "POSITION", default_value_t = u64::MAX, hide_default_value = true)]
        to: u64,
        /// Only records of this device; summaries count all
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// Only the summaries
        #[arg(long)]
        summary: bool,
        /// Answer as NDJSON: one object a line
        #[arg(long)]
        json: bool,
    },
}

/// The commands for the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check file, variables and flags as serve would, and tell everything that is wrong
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// What serve would be given.
        #[command(flatten)]
        serve: ServeArgs,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print every setting that is in effect as TOML, each with its source
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// What serve would be given.
        #[command(flatten)]
        serve: ServeArgs,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the reference of every key as Markdown
    Reference,
}

/// The commands for parked readings.
#[derive(Debug, Subcommand)]
pub(crate) enum ParkedCommand {
    /// List parked readings, the newest first
    #[command(after_help = PARKED_EXAMPLES)]
    List {
        /// Address of the node
        #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
        node: String,
        /// Only those of this device
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a parked reading with its payload
    #[command(after_help = PARKED_EXAMPLES)]
    Show {
        /// Address of the node
        #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
        node: String,
        /// Its position, as `list` tells it
        position: u64,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give parked readings to the handlers once more
    #[command(after_help = PARKED_EXAMPLES)]
    Retry {
        /// Address of the node
        #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
        node: String,
        /// Which.
        #[command(flatten)]
        choice: ParkedChoice,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop parked readings for good
    #[command(after_help = PARKED_EXAMPLES)]
    Drop {
        /// Address of the node
        #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
        node: String,
        /// Which.
        #[command(flatten)]
        choice: ParkedChoice,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which parked readings a command works on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ParkedChoice {
    /// Positions, as `list` tells them
    #[arg(value_name = "POSITION")]
    pub(crate) positions: Vec<u64>,
    /// Those of this device
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<String>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

/// What a node is started with.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file [default: ./tidegate.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address for MQTT; may be repeated [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS:PORT")]
    mqtt_bind: Vec<String>,
    /// Address for MQTT over TLS; may be repeated [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    mqtts_bind: Vec<String>,
    /// Address for MQTT over WebSocket alone (it is at /mqtt of HTTP, too); may be repeated [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    ws_bind: Vec<String>,
    /// Address for MQTT over WebSocket over TLS; may be repeated [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    wss_bind: Vec<String>,
    /// Address for HTTP and the dashboard; may be repeated [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http_bind: Vec<String>,
    /// Address for HTTP over TLS; may be repeated [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    https_bind: Vec<String>,
    /// Directory for the data [default: ./tidegate-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Directory of the handlers [default: ./handlers]
    #[arg(long, value_name = "DIR")]
    handlers: Option<String>,
    /// Event loops [default: one per core]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    loops: Option<String>,
    /// Threads of the blocking pool [default: 4]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    blocking_threads: Option<String>,
    /// Worker processes for handlers [default: one per core]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    script_workers: Option<String>,
    /// Format of log lines: json or pretty [default: pretty]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which log lines: off, error, warn, info, debug, trace, or by target: info,tidegate=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// File of users and tokens, as `tidegate user` writes it [default: users.jsonl in the data directory, if it is there]
    #[arg(long, value_name = "FILE")]
    users_file: Option<String>,
    /// Rules for topics, in the syntax of mosquitto's acl_file [default: none]
    #[arg(long, value_name = "FILE")]
    acl_file: Option<String>,
    /// Let anybody who can reach the node use it: needed for addresses other than loopback without users
    #[arg(long)]
    insecure_allow_anonymous: bool,
}

impl ServeArgs {
    /// The settings among the arguments, by key.
    pub(crate) fn flags(&self) -> Flags {
        let list = |words: &[String]| (!words.is_empty()).then(|| words.join(","));
        [
            ("mqtt.bind", list(&self.mqtt_bind)),
            ("mqtt.tls_bind", list(&self.mqtts_bind)),
            ("mqtt.ws_bind", list(&self.ws_bind)),
            ("mqtt.wss_bind", list(&self.wss_bind)),
            ("http.bind", list(&self.http_bind)),
            ("http.tls_bind", list(&self.https_bind)),
            ("data.dir", self.data_dir.clone()),
            ("scripts.dir", self.handlers.clone()),
            ("runtime.loops", self.loops.clone()),
            ("runtime.blocking_threads", self.blocking_threads.clone()),
            ("scripts.workers", self.script_workers.clone()),
            ("log.format", self.log_format.clone()),
            ("log.level", self.log_level.clone()),
            ("auth.users_file", self.users_file.clone()),
            ("auth.acl_file", self.acl_file.clone()),
            ("security.insecure_allow_anonymous", self.insecure_allow_anonymous.then(|| "true".to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, word)| Some((key, word?)))
        .collect()
    }
}

/// Arguments of `tidegate demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Simulated devices
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) devices: u32,
    /// Time between two readings of one device, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) interval_ms: u64,
    /// What the node is started with.
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_a_key_is_an_argument_reaches_its_key_and_tells_its_default() {
        let serve = Cli::command().find_subcommand("serve").expect("serve").clone();
        for (key, flag, default) in crate::config::flags_of_keys() {
            let switch = key == "security.insecure_allow_anonymous";
            let words = ["tidegate", "serve", flag, "word"];
            let cli = Cli::try_parse_from(if switch { &words[..3] } else { &words[..] }).expect(flag);
            let Command::Serve(args) = cli.command else { panic!("serve") };
            assert_eq!(args.flags(), [(key, if switch { "true" } else { "word" }.to_owned())], "{flag}");
            let argument = serve.get_arguments().find(|argument| argument.get_long() == flag.strip_prefix("--"));
            let help = argument.and_then(clap::Arg::get_help).map(ToString::to_string).unwrap_or_default();
            assert!(switch || help.ends_with(&format!("[default: {default}]")), "{flag}: {help}");
        }
    }
}
