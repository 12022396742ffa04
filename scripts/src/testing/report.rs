//! How tests did: what a worker reports, with places and excerpts, as it is shown and given as JSON.

use serde::{Deserialize, Serialize};

use crate::{
    frame::{Fault, LogLevel, LogLine},
    source::{SourceSet, excerpt},
};

/// A file of tests that is through.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestedFile {
    /// Its path below the handlers' directory.
    pub file: String,
    /// Why it does not load; `None`: it does.
    pub error: Option<TestFailure>,
    /// Its tests, as they ran.
    pub tests: Vec<TestedTest>,
    /// What it printed outside of its tests.
    pub logs: Vec<String>,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// One test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestedTest {
    /// Its suites' names and its own.
    pub name: Vec<String>,
    /// How it did.
    pub state: TestState,
    /// Why it was skipped or is still to be done, if it says so.
    pub reason: Option<String>,
    /// Why it failed.
    pub error: Option<TestFailure>,
    /// What it noted (`t.diagnostic`).
    pub notes: Vec<String>,
    /// What it printed.
    pub logs: Vec<String>,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The tests within it.
    pub subtests: Vec<Self>,
}

/// How a test did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestState {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It did not run.
    Skipped,
    /// It is marked as still to be done: it may fail.
    Todo,
}

/// Why a test failed, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestFailure {
    /// In words; may have several lines.
    pub message: String,
    /// The file, below the handlers' directory.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<u32>,
    /// Its column, from 1.
    pub column: Option<u32>,
    /// The source line with a caret under its column.
    #[serde(skip_deserializing)]
    pub excerpt: Option<String>,
}

/// What a worker reports of a test.
#[derive(Deserialize)]
struct Report {
    name: String,
    state: TestState,
    skip: Option<String>,
    todo: Option<String>,
    error: Option<TestFailure>,
    notes: Vec<String>,
    subtests: Vec<Self>,
}

impl TestedFile {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), error: None, tests: Vec::new(), logs: Vec::new(), ms: 0 }
    }

    pub(super) fn take_logs(&mut self, logs: &[LogLine]) {
        self.logs.extend(logs.iter().map(text));
    }
}

impl TestedTest {
    /// A test without a report of its own.
    pub(super) fn failed(name: &[String], error: TestFailure) -> Self {
        Self { state: TestState::Failed, error: Some(error), ..Self::new(name) }
    }

    /// A test's report, as JSON.
    pub(super) fn read(name: &[String], report: &str, sources: &SourceSet) -> Self {
        match serde_json::from_str::<Report>(report) {
            Ok(report) => Self::of(report, name, sources),
            Err(error) => Self::failed(name, TestFailure::new(format!("its report cannot be read: {error}"))),
        }
    }

    fn new(name: &[String]) -> Self {
        Self {
            name: name.to_vec(),
            state: TestState::Passed,
            reason: None,
            error: None,
            notes: Vec::new(),
            logs: Vec::new(),
            ms: 0,
            subtests: Vec::new(),
        }
    }

    fn of(report: Report, name: &[String], sources: &SourceSet) -> Self {
        let subtests = report.subtests.into_iter().map(|report| {
            let name = [name, std::slice::from_ref(&report.name)].concat();
            Self::of(report, &name, sources)
        });
        Self {
            subtests: subtests.collect(),
            state: report.state,
            reason: report.skip.or(report.todo).filter(|reason| !reason.is_empty()),
            error: report.error.map(|error| error.with_excerpt(sources)),
            notes: report.notes,
            ..Self::new(name)
        }
    }

    pub(super) fn take_logs(&mut self, logs: &[LogLine]) {
        self.logs.extend(logs.iter().map(text));
    }
}

impl TestFailure {
    pub(super) fn new(message: String) -> Self {
        Self { message, file: None, line: None, column: None, excerpt: None }
    }

    pub(super) fn of(fault: Fault, sources: &SourceSet) -> Self {
        let known = |number: u32| (number > 0).then_some(number);
        let (line, column) = (known(fault.line), known(fault.column));
        Self { message: fault.message, file: fault.file, line, column, excerpt: None }.with_excerpt(sources)
    }

    fn with_excerpt(mut self, sources: &SourceSet) -> Self {
        self.line = self.line.filter(|line| *line > 0);
        if let (Some(file), Some(line)) = (&self.file, self.line) {
            let source = sources.source(file);
            self.excerpt = source.and_then(|source| excerpt(source, line, self.column.unwrap_or(1)));
        }
        self
    }
}

fn text(line: &LogLine) -> String {
    match line.level {
        LogLevel::Info => line.text.clone(),
        LogLevel::Debug => format!("debug: {}", line.text),
        LogLevel::Warn => format!("warning: {}", line.text),
        LogLevel::Error => format!("error: {}", line.text),
    }
}
