//! Operators' scripts, as the command line sees them.

use std::{path::Path, process::ExitCode};

use tidegate_scripts::ScriptReport;

use crate::{exit::Exit, output};

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

/// Runs as a worker of a node, until the node closes the line.
pub(crate) fn worker() -> ExitCode {
    tidegate_scripts::worker_main()
}
