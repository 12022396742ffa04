//! Operators' scripts, as the command line sees them.

use std::path::Path;

use anyhow::bail;

use crate::exit::Exit;

/// Checks one handler or a directory of them.
///
/// # Errors
/// The path cannot be read, or stdout failed; a handler that is not right is an exit code, not an error.
pub(crate) fn check(path: &Path, json: bool) -> anyhow::Result<Exit> {
    bail!("this build has no script engine to check {} (json: {json})", path.display())
}

/// Runs as a worker of a node, until the node closes the line.
///
/// # Errors
/// It was not started by a node.
pub(crate) fn worker() -> anyhow::Result<()> {
    bail!("this build has no script engine")
}
