//! `tidegate swarm`: simulated devices against a node or any broker, and the check of what came out.

use tidegate_simulator::{SwarmArgs, SwarmConfig, SwarmError, run_until_signal};

use crate::{exit::Exit, output};

/// Runs the swarm until it is done or stopped.
///
/// # Errors
/// It could not run. That the check failed is an exit code, not an error.
pub(crate) fn run(args: SwarmArgs) -> anyhow::Result<Exit> {
    let json = args.json;
    let config = match SwarmConfig::try_from(args) {
        Ok(config) => config,
        Err(SwarmError::Config(problem)) => clap_error(&problem),
        Err(error) => return Err(error.into()),
    };
    let summary = run_until_signal(config)?;
    output::write(&summary.render(json))?;
    Ok(if summary.passed() { Exit::Ok } else { Exit::Runtime })
}

/// Flags that do not fit each other are wrong usage (2), as clap's own refusals are.
fn clap_error(problem: &str) -> ! {
    use clap::CommandFactory;
    crate::cli::Cli::command().error(clap::error::ErrorKind::ArgumentConflict, problem).exit()
}
