//! Operators' scripts, as the command line and signals see them.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use tidegate_scripts::{ReloadError, Reloaded, ScriptReport, WorkerPool};
use tokio::signal::unix::Signal;

use crate::{exit::Exit, output};

/// Where the handlers' own files are, in the data directory.
pub(crate) fn files_dir(data: &Path) -> PathBuf {
    data.join("script-files")
}

/// Where the versions of the handlers are kept, in the data directory.
pub(crate) fn kept_scripts(data: &Path) -> PathBuf {
    data.join("scripts")
}

/// Checks one handler or a directory of them, in a child process: a bad source cannot hurt this one.
///
/// # Errors
/// The path cannot be read, or stdout failed; a handler that is not right is an exit code, not an error.
pub(crate) fn check(path: &Path, json: bool) -> anyhow::Result<Exit> {
    let reports = tidegate_scripts::check(path, &tidegate_scripts::WorkerCommand::default())?;
    let broken = reports.iter().any(|report| report.error.is_some());
    if json {
        let rows: Vec<_> = reports.iter().map(|r| serde_json::json!({ "name": r.name, "error": r.error })).collect();
        output::write(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
    } else {
        for report in &reports {
            output::write(&describe(report))?;
        }
        if reports.is_empty() {
            output::write(&format!(
                "no handlers (*.js, *.mjs, *.cjs, folders with a package.json) in {}\n",
                path.display()
            ))?;
        }
    }
    Ok(if broken { Exit::Runtime } else { Exit::Ok })
}

/// Every handler of a directory that does not load, in words; `None`: all do.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn broken(dir: &Path) -> anyhow::Result<Option<String>> {
    let reports = tidegate_scripts::check(dir, &tidegate_scripts::WorkerCommand::default())?;
    let broken: String = reports.iter().filter(|report| report.error.is_some()).map(describe).collect();
    Ok(Some(broken).filter(|broken| !broken.is_empty()))
}

fn describe(report: &ScriptReport) -> String {
    let Some(error) = &report.error else { return format!("{}: ok\n", report.name) };
    let place = match (error.line, error.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", error.file),
        (Some(line), None) => format!("{}:{line}", error.file),
        _ => error.file.to_string(),
    };
    let excerpt = report.excerpt.as_deref().map(|excerpt| format!("{}\n", excerpt.trim_end())).unwrap_or_default();
    format!("{place}: {}\n{excerpt}", error.message)
}

/// Reloads the handlers at each SIGHUP, until the node ends. What comes of it is told in the log.
pub(crate) fn reload_on(mut hangup: Signal, pool: Arc<WorkerPool>) {
    actix_rt::spawn(async move {
        while hangup.recv().await.is_some() {
            let pool = Arc::clone(&pool);
            let reload = move || match pool.reload(true) {
                Ok(Reloaded::Unchanged { generation }) => {
                    tracing::info!(generation, "SIGHUP: the handlers are unchanged");
                }
                // The pool has told it.
                Ok(Reloaded::Switched { .. }) | Err(ReloadError::RolledBack(_)) => {}
                Err(ReloadError::Broken(reports)) => {
                    for report in &reports {
                        tracing::error!(script = &*report.name, "script is broken: {}", describe(report).trim_end());
                    }
                }
                Err(error) => tracing::warn!(%error, "SIGHUP: the handlers are not reloaded"),
            };
            // It blocks for as long as the new handlers are tried.
            if let Err(error) = std::thread::Builder::new().name("script-admin".to_owned()).spawn(reload) {
                tracing::error!(%error, "SIGHUP: there is no thread to reload the handlers");
            }
        }
    });
}

/// Runs as a worker of a node, until the node closes the line.
pub(crate) fn worker() -> ExitCode {
    tidegate_scripts::worker_main()
}
