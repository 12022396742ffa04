//! The swarm on its own, with the flags that `tidegate swarm` has: for measuring the swarm itself against any broker.

use std::process::ExitCode;

use clap::Parser;
use tidegate_simulator::{SwarmArgs, SwarmConfig, SwarmError, run_until_signal};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    swarm: SwarmArgs,
}

#[allow(clippy::print_stdout, reason = "the summary is what this program is for")]
fn main() -> ExitCode {
    let run = |args| -> Result<_, SwarmError> {
        let config = SwarmConfig::try_from(args)?;
        let json = config.json;
        Ok((run_until_signal(config)?, json))
    };
    match run(Cli::parse().swarm) {
        Ok((summary, json)) => {
            println!("{}", summary.render(json));
            if summary.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
