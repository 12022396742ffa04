//! Where a value came from, and what is wrong with it: the words of every configuration error. It judges nothing itself.

use std::{fmt, path::PathBuf};

use serde_json::json;

/// Where a value was given, in the order in which problems are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The default of this version.
    Default,
    /// A place in the configuration file; line and column count from 1, the column in characters.
    File { path: PathBuf, line: usize, column: usize },
    /// The configuration file as a whole.
    WholeFile(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
}

impl Source {
    /// The kind of the source, for machines.
    fn kind(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File { .. } | Self::WholeFile(_) => "file",
            Self::Variable(_) => "variable",
            Self::Flag(_) => "flag",
        }
    }

    /// `{"kind", "at"}`, where `at` is the place in words.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({ "kind": self.kind(), "at": self.to_string() })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line, column } => {
                write!(out, "{}:{line}:{column}", printable(&path.to_string_lossy()))
            }
            Self::WholeFile(path) => out.write_str(&printable(&path.to_string_lossy())),
            Self::Variable(name) => out.write_str(&printable(name)),
            Self::Flag(name) => out.write_str(name),
        }
    }
}

/// `text` on one line and without terminal escapes: what a file or an environment holds is not ours to trust.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// One thing that is wrong: where, with which key, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was given.
    pub(crate) source: Source,
    /// The dotted key, where the problem has one.
    pub(crate) key: Option<String>,
    /// What is wrong and what is allowed, in one line without the place.
    pub(crate) message: String,
}

impl Problem {
    /// A problem that belongs to no known key.
    pub(crate) fn new(source: Source, message: impl Into<String>) -> Self {
        Self { source, key: None, message: message.into() }
    }

    /// A problem with the value of a known key.
    pub(crate) fn of_key(source: Source, key: &str, message: impl Into<String>) -> Self {
        Self { source, key: Some(key.to_owned()), message: message.into() }
    }

    /// `{"key", "source", "message"}`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({ "key": self.key, "source": self.source.to_json(), "message": self.message })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.source, self.message)
    }
}

/// Everything that is wrong with a configuration, so that it can be put right in one go. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(out, "{}error: {problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
