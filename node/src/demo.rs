//! `tidegate demo`: the node with a swarm of devices beside it.

use crate::{boot, cli::DemoArgs, config::Config, exit::Failure};

/// Serves with a swarm until the process is told to stop.
///
/// # Errors
/// The node could not start, or stopped.
pub(crate) fn run(config: Config, args: &DemoArgs) -> Result<(), Failure> {
    tracing::info!(devices = args.devices, interval_ms = args.interval_ms, "no swarm in this build");
    Ok(boot::serve(&config)?)
}
