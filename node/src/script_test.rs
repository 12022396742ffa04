//! `tidegate script test`: runs the tests beside handlers and tells how they did, for people or as JSON.

use std::fmt::Write as _;

use serde_json::json;
use tidegate_scripts::{TestFailure, TestPlan, TestState, TestedFile, TestedTest, WorkerCommand};

use crate::{exit::Exit, output};

/// How many tests did how, subtests included.
#[derive(Debug, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
    todo: u64,
    /// Files that do not load.
    broken: u64,
    files: u64,
}

impl Counts {
    fn tests(&self) -> u64 {
        self.passed + self.failed + self.skipped + self.todo
    }

    fn add(&mut self, tests: &[TestedTest]) {
        for test in tests {
            *match test.state {
                TestState::Passed => &mut self.passed,
                TestState::Failed => &mut self.failed,
                TestState::Skipped => &mut self.skipped,
                TestState::Todo => &mut self.todo,
            } += 1;
            self.add(&test.subtests);
        }
    }
}

/// Runs tests.
///
/// # Errors
/// The paths cannot be read, no worker starts, or stdout failed; a test that fails is an exit code.
pub(crate) fn run(plan: &TestPlan<'_>, json: bool) -> anyhow::Result<Exit> {
    let mut counts = Counts::default();
    let mut files = Vec::new();
    let mut written = Ok(());
    tidegate_scripts::run_tests(plan, &WorkerCommand::default(), |file| {
        counts.files += 1;
        counts.broken += u64::from(file.error.is_some());
        counts.add(&file.tests);
        if json {
            files.push(file);
        } else {
            written = output::write(&describe(&file));
        }
        written.is_ok()
    })?;
    written?;
    if json {
        let Counts { passed, failed, skipped, todo, broken, .. } = counts;
        let document = json!({
            "files": files, "tests": counts.tests(), "passed": passed, "failed": failed, "skipped": skipped, "todo": todo,
            "broken": broken,
        });
        output::write(&format!("{document:#}\n"))?;
    } else {
        output::write(&summary(&counts, plan))?;
    }
    let is_well = counts.failed == 0 && counts.broken == 0 && counts.tests() > 0;
    Ok(if is_well { Exit::Ok } else { Exit::Runtime })
}

fn summary(counts: &Counts, plan: &TestPlan<'_>) -> String {
    let Counts { passed, failed, skipped, todo, broken, files } = counts;
    if *files == 0 {
        let paths: Vec<_> = plan.paths.iter().map(|path| path.display().to_string()).collect();
        return format!("no tests (*.test.js, *.test.mjs, *.test.cjs) in {}\n", paths.join(", "));
    }
    let mut text = format!("{} tests in {files} files: {passed} passed, {failed} failed", counts.tests());
    for (count, what) in [(skipped, "skipped"), (todo, "to be done"), (broken, "files that do not load")] {
        if *count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    if counts.tests() == 0 && *broken == 0 && !plan.filter.is_empty() {
        let _ = write!(text, " (no test's name has {:?} in it)", plan.filter);
    }
    text + "\n"
}

fn describe(file: &TestedFile) -> String {
    let mut text = format!("{}\n", clean(&file.file));
    for line in &file.logs {
        let _ = writeln!(text, "  | {}", clean(line));
    }
    if let Some(error) = &file.error {
        let _ = writeln!(text, "  ✖ it does not load");
        push_failure(&mut text, error, 2);
    }
    let mut suites: Vec<&str> = Vec::new();
    for test in &file.tests {
        let (name, path) = test.name.split_last().map_or(("", [].as_slice()), |(name, path)| (name.as_str(), path));
        let shared = suites.iter().zip(path).take_while(|(a, b)| **a == b.as_str()).count();
        suites.truncate(shared);
        for suite in &path[shared..] {
            let _ = writeln!(text, "{}{}", "  ".repeat(suites.len() + 1), clean(suite));
            suites.push(suite);
        }
        push_test(&mut text, test, name, suites.len() + 1);
    }
    text
}

fn push_test(text: &mut String, test: &TestedTest, name: &str, depth: usize) {
    let indent = "  ".repeat(depth);
    let (sign, word) = match test.state {
        TestState::Passed => ("✔", ""),
        TestState::Failed => ("✖", ""),
        TestState::Skipped => ("-", " # skipped"),
        TestState::Todo => ("-", " # to be done"),
    };
    let reason = test.reason.as_deref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
    let ms = if test.ms > 0 { format!(" ({} ms)", test.ms) } else { String::new() };
    let _ = writeln!(text, "{indent}{sign} {}{ms}{word}{reason}", clean(name));
    for subtest in &test.subtests {
        push_test(text, subtest, subtest.name.last().map_or("", String::as_str), depth + 1);
    }
    for line in test.logs.iter().chain(&test.notes) {
        let _ = writeln!(text, "{indent}  | {}", clean(line));
    }
    if let Some(error) = &test.error {
        push_failure(text, error, depth + 1);
    }
}

fn push_failure(text: &mut String, error: &TestFailure, depth: usize) {
    let indent = "  ".repeat(depth);
    for line in error.message.trim_end().lines() {
        let _ = writeln!(text, "{indent}{}", clean(line).trim_end());
    }
    if let Some(file) = &error.file {
        let place = match (error.line, error.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (Some(line), None) => format!("{file}:{line}"),
            _ => file.clone(),
        };
        let _ = writeln!(text, "{indent}at {}", clean(&place));
    }
    for line in error.excerpt.iter().flat_map(|excerpt| excerpt.lines()) {
        let _ = writeln!(text, "{indent}{}", clean(line));
    }
}

/// For a terminal: what a test says moves no cursor.
fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}
