//! A file of users, rules or keys that cannot be used: where, and what is wrong.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Why a file cannot be used. Line and column count from 1, the column in characters; 0: the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadFile {
    path: PathBuf,
    line: usize,
    column: usize,
    message: String,
}

impl BadFile {
    pub(super) fn at(path: &Path, line: usize, column: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, column, message: message.into() }
    }

    /// The place of `part`, a piece of `line`.
    pub(super) fn within(path: &Path, number: usize, line: &str, part: &str, message: String) -> Self {
        let offset = (part.as_ptr() as usize).checked_sub(line.as_ptr() as usize);
        let before = offset.and_then(|offset| line.get(..offset)).unwrap_or_default();
        Self::at(path, number, before.chars().count() + 1, message)
    }

    /// The file as a whole.
    pub(super) fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self::at(path, 0, 0, message)
    }
}

impl fmt::Display for BadFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.path.display())?;
        if self.line > 0 {
            write!(out, ":{}:{}", self.line, self.column)?;
        }
        write!(out, ": {}", self.message)
    }
}

impl std::error::Error for BadFile {}

/// The text of a file, `None` if there is no such file; larger than `limit` bytes (a limit of the name `named`) is refused.
pub(super) fn read(path: &Path, limit: u64, named: &str) -> Result<Option<String>, BadFile> {
    let cannot = |error: io::Error| BadFile::whole(path, format!("cannot be read: {error}"));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(BadFile::whole(path, format!("is larger than {limit} bytes (limit {named})")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        BadFile::whole(path, format!("is not UTF-8 text (at byte {})", error.utf8_error().valid_up_to()))
    })?;
    Ok(Some(text))
}
