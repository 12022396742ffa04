//! The handlers' files, read once by the node: what the workers load, and what is refused before any parser sees it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tidegate_actors::{limits, script::ScriptError};

use crate::precheck;

/// Files below the handlers' directory that can be imported; more: an error.
const FILES: usize = 1_000;
/// Bytes of all of them.
const ALL_BYTES: usize = 16 * 1024 * 1024;
/// Directories deep.
const DEPTH: usize = 8;

/// The files of a handlers' directory.
#[derive(Debug, Default)]
pub(crate) struct SourceSet {
    /// The handlers, in name order.
    pub(crate) handlers: Vec<Handler>,
    /// Every file that a worker may load: path below the directory, and source. What the check refused is not among them.
    pub(crate) files: Vec<(String, String)>,
}

/// One handler file.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) name: String,
    /// Why it is not to be loaded.
    pub(crate) refused: Option<ScriptError>,
}

impl SourceSet {
    /// Reads a directory; one that does not exist has no handlers.
    ///
    /// # Errors
    /// The file system's, with the path; and when there is too much.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let mut set = Self::default();
        let mut bytes = 0;
        match fs::metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(set),
            Err(error) => return Err(named(dir, &error)),
            Ok(_) => set.read_below(dir, "", 0, &mut bytes)?,
        }
        Ok(set)
    }

    /// Reads one handler file, and the directory that it imports from.
    ///
    /// # Errors
    /// As [`SourceSet::read`].
    pub(crate) fn read_one(file: &Path) -> io::Result<Self> {
        let parent = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut set = Self::read(parent)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        set.handlers.retain(|handler| handler.name == name);
        if set.handlers.is_empty() {
            return Err(named(file, &io::Error::other("not a handler: a handler is a .js or .mjs file, not .test.js")));
        }
        Ok(set)
    }

    /// The source of a file, for an excerpt.
    pub(crate) fn source(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|(of, _)| of == path).map(|(_, source)| source.as_str())
    }

    fn read_below(&mut self, dir: &Path, prefix: &str, depth: usize, bytes: &mut usize) -> io::Result<()> {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(|error| named(dir, &error))?;
        entries.sort();
        for path in entries {
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            let below = format!("{prefix}{name}");
            if name.starts_with('.') {
                continue;
            }
            let kind = match fs::metadata(&path) {
                Ok(kind) => kind,
                // A link that leads nowhere spoils no other handler.
                Err(error) if is_source(&name) => {
                    self.add(&name, below, Err(format!("the file cannot be read: {error}")), depth == 0);
                    continue;
                }
                Err(_) => continue,
            };
            if kind.is_dir() && depth < DEPTH && name != "node_modules" {
                self.read_below(&path, &format!("{below}/"), depth + 1, bytes)?;
            } else if kind.is_file() && is_source(&name) {
                let text = read_text(&path)?;
                *bytes += text.as_ref().map_or(0, String::len);
                if self.files.len() >= FILES || *bytes > ALL_BYTES {
                    let message = format!("more than {FILES} files or {ALL_BYTES} bytes of handlers");
                    return Err(named(dir, &io::Error::other(message)));
                }
                self.add(&name, below, text, depth == 0);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, below: String, text: Result<String, String>, at_top: bool) {
        let is_json = name.ends_with(".json");
        let refusal = |message: String, line, column| ScriptError {
            message: message.into(),
            file: below.as_str().into(),
            line,
            column,
        };
        let mut refused = match &text {
            Err(message) => Some(refusal(message.clone(), None, None)),
            // JSON goes through a reader with a depth limit of its own.
            Ok(_) if is_json => None,
            Ok(text) => {
                precheck::check(text).err().map(|found| refusal(found.message, Some(found.line), Some(found.column)))
            }
        };
        if at_top && !is_json {
            if self.handlers.len() >= limits::SCRIPTS {
                let message = format!("more than {} handler files (limit scripts)", limits::SCRIPTS);
                refused = Some(refusal(message, None, None));
            }
            self.handlers.push(Handler { name: name.to_owned(), refused: refused.clone() });
        }
        if let Ok(text) = text {
            if let Some(error) = refused {
                // An import of it says why; a handler is not loaded at all.
                tracing::debug!(file = below, error = %error.message, "source refused");
                let why = serde_json::Value::from(format!("{below}: {}", error.message));
                self.files.push((below, format!("throw new SyntaxError({why});")));
            } else {
                self.files.push((below, text));
            }
        }
    }
}

/// Files that are handlers at the top, and can be imported anywhere. Tests are neither.
fn is_source(name: &str) -> bool {
    let is_script = [".js", ".mjs"].iter().any(|end| name.ends_with(end));
    let is_test = [".test.js", ".test.mjs"].iter().any(|end| name.ends_with(end));
    (is_script && !is_test) || name.ends_with(".json")
}

/// The text of a file. Inner error: it is too large or no UTF-8.
fn read_text(path: &Path) -> io::Result<Result<String, String>> {
    let bytes = fs::metadata(path).map_err(|error| named(path, &error))?.len();
    // A file far beyond the limit is not even read.
    if bytes > 2 * limits::SCRIPT_SOURCE_BYTES as u64 {
        let limit = limits::SCRIPT_SOURCE_BYTES;
        return Ok(Err(format!("the file has {bytes} bytes, more than {limit} (limit script_source_bytes)")));
    }
    let bytes = fs::read(path).map_err(|error| named(path, &error))?;
    Ok(String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned()))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The line that an error is at, with a caret under its column.
pub(crate) fn excerpt(source: &str, line: u32, column: u32) -> Option<String> {
    /// Characters shown of a long line, with the place in their middle.
    const WIDTH: usize = 100;
    let text = source.lines().nth((line as usize).checked_sub(1)?)?;
    let column = (column as usize).max(1);
    let from = column.saturating_sub(WIDTH / 2 + 1);
    let shown: String = text.chars().skip(from).take(WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let number = line.to_string();
    Some(format!("{number} | {shown}\n{} | {}^", " ".repeat(number.len()), " ".repeat(column - 1 - from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_in_name_order_without_tests() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("lib")).expect("a directory");
        for (name, text) in [
            ("20-b.js", "b"),
            ("10-a.mjs", "a"),
            ("10-a.test.js", "test"),
            ("30-deep.js", &"(".repeat(1_000)),
            ("table.json", "{}"),
            ("notes.txt", "no"),
            (".hidden.js", "no"),
            ("lib/c.js", "c"),
        ] {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        fs::write(dir.path().join("40-bytes.js"), [0xff, 0xfe]).expect("a file");
        let set = SourceSet::read(dir.path()).expect("readable");
        let handlers: Vec<_> = set.handlers.iter().map(|h| (h.name.as_str(), h.refused.is_some())).collect();
        assert_eq!(handlers, [("10-a.mjs", false), ("20-b.js", false), ("30-deep.js", true), ("40-bytes.js", true)]);
        let files: Vec<_> = set.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(files, ["10-a.mjs", "20-b.js", "30-deep.js", "lib/c.js", "table.json"]);
        assert!(set.source("30-deep.js").is_some_and(|text| text.starts_with("throw")));
        assert!(SourceSet::read(&dir.path().join("none")).expect("no handlers").handlers.is_empty());
    }

    #[test]
    fn an_excerpt_points_at_its_place() {
        assert_eq!(excerpt("a\nlet x = ;\n", 2, 9).as_deref(), Some("2 | let x = ;\n  |         ^"));
        assert_eq!(excerpt("a", 2, 1), None);
        assert_eq!(excerpt("a", 0, 0), None);
        let long = excerpt(&"x".repeat(1_000), 1, 500).expect("a line");
        assert!(long.lines().all(|line| line.len() < 120), "{long}");
    }
}
