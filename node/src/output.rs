//! Standard output: what a command answers. Log lines and errors go to stderr and not through here.

use std::io::{ErrorKind, Write};

use anyhow::Context;

/// Writes `text` and flushes it. A reader that went away (`tidegate config show | head`) is not an error.
///
/// # Errors
/// Any other failure of stdout, such as a full disk.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
