//! `tidegate script check`: do the handlers load? In a worker process, as always: a bad source hurts nobody.

use std::{fs, path::Path, time::Duration};

use tidegate_actors::script::ScriptError;

use crate::{
    config::{ScriptLimits, WorkerCommand},
    load::{LoadError, excerpt_of, first_load},
    source::SourceSet,
};

/// How one handler fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptReport {
    /// The handler's file name.
    pub name: Box<str>,
    /// Why it does not load; `None`: it does.
    pub error: Option<ScriptError>,
    /// The source line of the error with a caret under its column, if its place is known.
    pub excerpt: Option<String>,
}

/// Checks a handlers' directory, or one handler: a file, or a folder whose `package.json` names a main file that is there.
///
/// # Errors
/// [`LoadError`]: there is nothing to read, or the worker cannot be started. A broken handler is a report, not an error.
pub fn check(path: &Path, command: &WorkerCommand) -> Result<Vec<ScriptReport>, LoadError> {
    let is_dir = fs::metadata(path)
        .map_err(|error| LoadError::Read(std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))))?
        .is_dir();
    let is_one = !is_dir || is_plugin(path);
    let sources = if is_one { SourceSet::read_one(path) } else { SourceSet::read(path) }.map_err(LoadError::Read)?;
    let dir = if is_one { path.parent().unwrap_or(Path::new("")) } else { path };
    let loaded = first_load(&sources, command, &ScriptLimits::default())?;
    if let Some(process) = loaded.process {
        process.retire(Duration::from_secs(1));
    }
    let report = |(name, result): (Box<str>, Result<_, ScriptError>)| {
        let error = result.err();
        let excerpt = error.as_ref().and_then(|error| excerpt_of(&sources, dir, error));
        ScriptReport { name, error, excerpt }
    };
    Ok(loaded.scripts.into_iter().map(report).collect())
}

/// Is a directory one handler, rather than a directory of them?
fn is_plugin(dir: &Path) -> bool {
    let Ok(manifest) = fs::read_to_string(dir.join("package.json")) else { return false };
    let Ok(manifest) = serde_json::from_str::<serde_json::Value>(&manifest) else { return false };
    let main = manifest["main"].as_str();
    !manifest["exports"].is_null()
        || main
            .is_some_and(|main| ["", ".js", "/index.js"].iter().any(|end| dir.join(format!("{main}{end}")).is_file()))
}
