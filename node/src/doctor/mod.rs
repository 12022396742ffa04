//! `tidegate doctor`: looks at the machine, the configuration, the data directory and the node, and says of each whether it is
//! well, and if not, what to do.
//!
//! It never changes anything: a directory that nobody uses is read under a shared lock, so that no node starts in it
//! meanwhile; one that a node uses is read as far as that is safe, and the node is asked for the rest.

mod configuration;
mod descriptors;
mod directory;
mod disk;
mod node;
mod rebuild;
mod report;

use std::path::PathBuf;

use clap::Args;
use tidegate_actors::recovery::DataDir;

use self::{directory::Holder, report::Report};
use crate::exit::{Exit, Failure};

/// Arguments of `tidegate doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Directory of the data [default: the configuration's, ./tidegate-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the running node [default: the configuration's http.bind]
    #[arg(long, value_name = "URL")]
    node: Option<String>,
    /// Configuration file [default: ./tidegate.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs every check, and prints what it found.
///
/// # Errors
/// Stdout failed. What is not well is an exit code, not an error.
pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let (checked, config) = configuration::check(args.config.as_deref(), args.data_dir.clone());
    let data = DataDir::new(&config.data.dir);
    let mut report = Report::new(data.path(), args.json);
    report.add(checked)?;

    let (lock, holder) = directory::lock(&data);
    report.add(descriptors::check(holder.pid()))?;
    report.add(disk::space(&data, &config.data))?;
    report.add(disk::latency(&data))?;
    report.add(lock)?;
    if !matches!(holder, Holder::Missing) {
        let (checked, journal) = directory::journal(&data, &holder);
        report.add(checked)?;
        report.add(directory::snapshots(&data, journal.as_ref()))?;
        report.add(directory::leftovers(&data))?;
    }
    if matches!(holder, Holder::Nobody(_)) {
        for check in rebuild::checks(&data) {
            report.add(check)?;
        }
    }
    if matches!(holder, Holder::Node { .. }) || args.node.is_some() {
        let url = args.node.clone().unwrap_or_else(|| node::url_of(&config));
        for check in node::checks(&url, args.node.is_some(), holder.pid()) {
            report.add(check)?;
        }
    }
    // Only now may a node start in the directory.
    drop(holder);
    let worst = report.finish()?;
    Ok(if worst == report::Status::Fail { Exit::Runtime } else { Exit::Ok })
}
