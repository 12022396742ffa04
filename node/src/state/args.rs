//! The arguments of the `state` commands, and their help.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use tidegate_simulator::parse_duration;

use crate::client::LOCAL_NODE;

const EXPORT_EXAMPLES: &str = "\
Examples:
  tidegate state export > states.ndjson
  tidegate state export --format binary --output states.tgs --rate 50000
  tidegate state export --node http://10.0.0.5:8080 --output states.ndjson
  tidegate state export --data-dir /var/lib/tidegate --output states.ndjson     of a node that is stopped

All states as the journal has them at one moment, while the node goes on. --output has its name only once it is whole.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  tidegate state import states.ndjson
  tidegate state import states.tgs --node http://10.0.0.5:8080 --rate 5000
  tidegate state import states.ndjson --dry-run

The newer state of a device stays, unless told --overwrite. After an interruption the same command goes on where it was.
Parked readings of a binary file are not imported: restore a backup for that. Exit 1 if a record was refused.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  tidegate state migrate --from node-json latest-metrics.json --dry-run
  tidegate state migrate --from thingsboard-json pump-1.json pump-2.json
  tidegate state migrate --from thingsboard-csv telemetry.csv
  tidegate state migrate --from ndjson readings.ndjson

The formats are described in docs/state.md. Handlers do not run: what is migrated is the state.";

const BACKUP_EXAMPLES: &str = "\
Examples:
  tidegate state backup /backup/2026-01-31
  tidegate state backup /backup/now --node http://10.0.0.5:8080 --rate 20000";

const RESTORE_EXAMPLES: &str = "\
Examples:
  tidegate state restore /backup/2026-01-31 --data-dir ./restored && tidegate serve --data-dir ./restored";

/// The commands for all states.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Write the states of all devices, as they are at one moment
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Bring the states of an export into a node
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Bring the latest values of another system into a node
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(MigrateArgs),
    /// Write a backup of a running node: states and parked readings
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup(BackupArgs),
    /// Make a data directory from a backup, for a node to start with
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
}

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line of JSON for each device
    Ndjson,
    /// A snapshot file: smaller, with the parked readings, for backups
    Binary,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Binary => "binary",
        }
    }
}

/// Another system's form of its latest values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// The Node.js service's latest metrics: {"pump-1": {…}} or [{"deviceId": …}]
    NodeJson,
    /// ThingsBoard's latest telemetry, as its REST API gives it
    ThingsboardJson,
    /// ThingsBoard's telemetry as CSV
    ThingsboardCsv,
    /// A reading a line, with deviceId and ts
    Ndjson,
}

/// Arguments of `state export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The running node
    #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
    pub(crate) node: String,
    /// The data directory of a node that is stopped, instead of a running one
    #[arg(long, value_name = "DIR", conflicts_with = "node")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The form
    #[arg(long, value_enum, default_value = "ndjson")]
    pub(crate) format: Format,
    /// Where to; -: standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// At most so many records a second [default: 100000; of a node that is stopped: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Answer with a summary as JSON; needs --output FILE
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `import` and `migrate` have in common.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The running node
    #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
    pub(crate) node: String,
    /// Read and check everything, show the first five records, send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also over a newer state
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Where refused records go, with the reason [default: the (first) file's name and .errors]
    #[arg(long, value_name = "FILE")]
    pub(crate) errors: Option<PathBuf>,
    /// Longest time for one record; longer: it is refused, and the rest goes on
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) record_timeout: Duration,
    /// At most so many records a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `state import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// An export, NDJSON or binary
    pub(crate) file: PathBuf,
    /// How.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of `state migrate`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// What the files are
    #[arg(long, value_enum)]
    pub(crate) from: From,
    /// The files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of `state backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// A new or empty directory
    pub(crate) dir: PathBuf,
    /// The running node
    #[arg(long, value_name = "URL", default_value = LOCAL_NODE)]
    pub(crate) node: String,
    /// At most so many records a second [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `state restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup's directory
    pub(crate) dir: PathBuf,
    /// The new data directory; it must be empty or not be there
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
