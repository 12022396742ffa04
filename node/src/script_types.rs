//! `tidegate script types`: the declarations of what handlers find, for editors and the TypeScript compiler. They are part of the binary, so
//! that they are of its version.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::output;

/// The files by name.
const FILES: [(&str, &str); 2] =
    [("tidegate.d.ts", tidegate_scripts::HANDLER_TYPES), ("tidegate-worker.d.ts", tidegate_scripts::WORKER_TYPES)];

/// Writes the declarations into a directory; `None`: prints those of a handler.
///
/// # Errors
/// A file cannot be written, or stdout failed.
pub(crate) fn run(dir: Option<&Path>) -> anyhow::Result<()> {
    let Some(dir) = dir else { return output::write(tidegate_scripts::HANDLER_TYPES) };
    for (name, text) in FILES {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        output::write(&format!("{}\n", path.display()))?;
    }
    Ok(())
}
