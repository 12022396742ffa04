//! The device swarm, as the command line sees it.

use anyhow::bail;

/// Arguments of `tidegate swarm`.
#[derive(Debug, clap::Args)]
pub(crate) struct SwarmArgs {
    /// Broker to connect to.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:1883")]
    pub(crate) mqtt: String,
    /// Simulated devices.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) devices: u32,
    /// Time between two readings of one device, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) interval_ms: u64,
}

/// Runs the swarm until it is done or stopped.
///
/// # Errors
/// What came out was not what was sent.
pub(crate) fn run(args: &SwarmArgs) -> anyhow::Result<()> {
    bail!("this build has no swarm for {} ({} devices, every {} ms)", args.mqtt, args.devices, args.interval_ms)
}
