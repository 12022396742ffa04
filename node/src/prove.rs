//! `tidegate prove-durability`: the node under load, killed again and again, and the check of what it still has. And, in the node
//! itself, the crash point that the prover asks for.

use anyhow::Context;
use tidegate_actors::crash_point::{self, CrashAt};
use tidegate_simulator::{ProveArgs, prove};

use crate::{exit::Exit, output};

/// Runs the proof with this same program.
///
/// # Errors
/// It could not run. That a promise was broken is an exit code, not an error.
pub(crate) fn run(args: &ProveArgs) -> anyhow::Result<Exit> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let report = prove(&program, args)?;
    output::write(&report.render(args.json))?;
    Ok(if report.held { Exit::Ok } else { Exit::Runtime })
}

/// Arms the crash point that the prover has put into our environment, if it has.
///
/// # Errors
/// The variable is set and names none.
pub(crate) fn arm_crash_point() -> anyhow::Result<()> {
    if let Some(words) = std::env::var_os(crash_point::VARIABLE) {
        words.to_string_lossy().parse::<CrashAt>()?.arm();
    }
    Ok(())
}
