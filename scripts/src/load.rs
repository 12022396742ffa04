//! The first load: which scripts there are, what they match, and which of them are broken. Sources are only ever parsed in a
//! worker process; one that kills its worker there is found, reported broken and left out.

use std::time::Duration;

use tidegate_actors::{
    limits,
    script::{ParkReason, ScriptError},
};

use crate::{
    config::{ScriptLimits, WorkerCommand},
    frame::{Fault, Loaded},
    modules::REFUSED,
    process::{Failure, Process},
    source::{SourceSet, excerpt},
    wants::Wants,
};

/// What is said of a broken handler that seems to be none.
const TASK_HINT: &str =
    " (a file that only a `new Worker` uses is named NAME.task.js, or is in a folder: then it is no handler)";

/// A name and what its script wants, or why it is broken.
pub(crate) type LoadedScript = (Box<str>, Result<Wants, ScriptError>);

/// What a first load found.
pub(crate) struct FirstLoad {
    pub(crate) scripts: Vec<LoadedScript>,
    /// A worker in which the good ones are loaded; `None`: there are no good ones.
    pub(crate) process: Option<Process>,
}

/// Why nothing could be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The handlers' directory cannot be read.
    #[error("the handlers cannot be read: {0}")]
    Read(std::io::Error),
    /// The worker program cannot be started, or does not do as a worker does.
    #[error("a script worker cannot be started: {0}")]
    Worker(String),
}

/// Loads all handlers in a worker process.
///
/// # Errors
/// [`LoadError::Worker`]; a broken handler is none.
pub(crate) fn first_load(
    sources: &SourceSet,
    command: &WorkerCommand,
    limits: &ScriptLimits,
) -> Result<FirstLoad, LoadError> {
    let mut broken: Vec<Option<ScriptError>> = sources.handlers.iter().map(|handler| handler.refused.clone()).collect();
    loop {
        let skip: Vec<bool> = broken.iter().map(Option::is_some).collect();
        if skip.iter().all(|skip| *skip) {
            return Ok(FirstLoad { scripts: report(sources, broken, Vec::new()), process: None });
        }
        let mut process = Process::spawn(command).map_err(|error| LoadError::Worker(error.to_string()))?;
        match process.load(sources, &skip, limits) {
            Ok(loaded) => {
                let scripts = report(sources, broken, loaded);
                let any = scripts.iter().any(|(_, loaded)| loaded.is_ok());
                if !any {
                    process.retire(Duration::from_secs(1));
                    return Ok(FirstLoad { scripts, process: None });
                }
                return Ok(FirstLoad { scripts, process: Some(process) });
            }
            Err((loading, failure)) => {
                let silent = matches!(failure, Failure::Silent);
                let death = process.bury(&failure);
                // Without a script to blame, it is the worker itself.
                let blamed = loading.map(usize::from).filter(|script| broken.get(*script).is_some_and(Option::is_none));
                let Some(script) = blamed else { return Err(LoadError::Worker(death.message)) };
                let message = if silent { "it does not finish loading".to_owned() } else { death.message };
                let file = sources.handlers[script].name.as_str().into();
                broken[script] = Some(ScriptError { message: message.into(), file, line: None, column: None });
            }
        }
    }
}

/// Puts together what the checks, the deaths and the worker said.
fn report(sources: &SourceSet, broken: Vec<Option<ScriptError>>, loaded: Vec<Loaded>) -> Vec<LoadedScript> {
    let loaded = loaded.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let one = |((handler, broken), loaded): ((&crate::source::Handler, Option<ScriptError>), Option<Loaded>)| {
        let error = |message: String| ScriptError {
            message: message.into(),
            file: handler.name.as_str().into(),
            line: None,
            column: None,
        };
        let result = match (broken, loaded) {
            (Some(broken), _) => Err(broken),
            (None, Some(Loaded::Ready(exports))) => Wants::read(&handler.name, &exports).map_err(error),
            (None, Some(Loaded::Broken(fault))) => {
                // A task at the top of the directory is taken for a handler.
                let is_task = sources.source(&handler.name).is_some_and(|source| source.contains("parentPort"));
                let hint = if is_task { TASK_HINT } else { "" };
                let broken = load_error(fault, &handler.name);
                Err(ScriptError { message: format!("{}{hint}", broken.message).into(), ..broken })
            }
            (None, Some(Loaded::Skipped) | None) => Err(error("it was not loaded".to_owned())),
        };
        (Box::from(handler.name.as_str()), result)
    };
    sources.handlers.iter().zip(broken).zip(loaded).map(one).collect()
}

fn load_error(fault: Fault, name: &str) -> ScriptError {
    let known = |number: u32| (number > 0).then_some(number);
    let in_time = fault.reason != ParkReason::Deadline as u8;
    let message = if in_time { fault.message } else { format!("while it loads: {}", fault.message) };
    ScriptError {
        message: message.into(),
        file: fault.file.as_deref().unwrap_or(name).into(),
        line: known(fault.line),
        column: known(fault.column),
    }
}

/// An error's line with a caret, if its place is known.
pub(crate) fn excerpt_of(sources: &SourceSet, dir: &std::path::Path, error: &ScriptError) -> Option<String> {
    let line = error.line?;
    let column = error.column.unwrap_or(1);
    match sources.source(&error.file).filter(|source| !source.starts_with(REFUSED)) {
        Some(source) => excerpt(source, line, column),
        // The check refused it, so it is not among the sources: look into the file, if it is of a sane size.
        None => {
            let path = dir.join(&*error.file);
            let bytes = std::fs::metadata(&path).ok()?.len();
            let sane = bytes <= limits::SCRIPT_PACKAGE_SOURCE_BYTES as u64;
            let source = sane.then(|| std::fs::read_to_string(path).ok()).flatten()?;
            excerpt(&source, line, column)
        }
    }
}
