//! What a proof is asked for on the command line.

use std::path::PathBuf;

use clap::Args;

/// The flags of `prove-durability`, for a CLI to flatten into its own.
#[derive(Debug, Clone, Args)]
pub struct ProveArgs {
    /// Times that the node is killed and started again
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rounds: u32,
    /// Keep the data on a disk that forgets what was not synced, and cut its power in every round (needs FUSE)
    #[arg(long)]
    pub power_loss: bool,
    /// The seed of all chance: moments, crash points, readings, and what the disk forgets [default: drawn, and told]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Where to work; it must be empty or missing, and is kept [default: a temporary directory, kept only when something was found]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Answer as JSON
    #[arg(long)]
    pub json: bool,
}
