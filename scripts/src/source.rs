//! The handlers' files, read once by the node: what the workers load, and what is refused before any parser sees it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use hashbrown::HashMap;
use tidegate_actors::{limits, script::ScriptError};

use crate::{
    modules::{Plugin, REFUSED, ResolveError, Tree, plugin},
    packages::{Reach, is_installed},
    precheck::{self, Most},
};

/// The files of a handlers' directory.
#[derive(Debug, Default)]
pub(crate) struct SourceSet {
    /// The handlers, in name order.
    pub(crate) handlers: Vec<Handler>,
    /// Every file that a worker may load: path below the directory, and source. In place of a source that the check refused it says
    /// why ([`REFUSED`]).
    pub(crate) files: Vec<(String, String)>,
}

/// One handler: a file, or a folder with a `package.json` that names its main file.
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
        match fs::metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(named(dir, &error)),
            Ok(_) => Reader::read(dir, false),
        }
    }

    /// Reads a directory with its tests among the files.
    ///
    /// # Errors
    /// As [`SourceSet::read`], and when there is no such directory.
    pub(crate) fn read_with_tests(dir: &Path) -> io::Result<Self> {
        Reader::read(dir, true)
    }

    /// The tests among the files, without those of packages.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &str> {
        let paths = self.files.iter().map(|(path, _)| path.as_str());
        paths.filter(|path| is_test(path) && !is_installed(path))
    }

    /// Reads one handler, and the directory that it imports from.
    ///
    /// # Errors
    /// As [`SourceSet::read`].
    pub(crate) fn read_one(path: &Path) -> io::Result<Self> {
        let whole = fs::canonicalize(path).map_err(|error| named(path, &error))?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") && path.file_name().is_some() => parent.to_owned(),
            _ => whole.parent().unwrap_or(Path::new(".")).to_owned(),
        };
        let mut set = Self::read(&parent)?;
        let name = path.file_name().or(whole.file_name()).unwrap_or_default().to_string_lossy().into_owned();
        set.handlers.retain(|handler| handler.name == name);
        if set.handlers.is_empty() {
            let what = "not a handler: a handler is a .js, .mjs or .cjs file, not .test.js or .task.js, or a folder whose package.json \
                        names a main file";
            return Err(named(path, &io::Error::other(what)));
        }
        Ok(set)
    }

    /// The source of a file, for an excerpt.
    pub(crate) fn source(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|(of, _)| of == path).map(|(_, source)| source.as_str())
    }
}

/// A directory on its way into a [`SourceSet`].
struct Reader {
    /// The directory, without links.
    root: PathBuf,
    /// Are tests read, too?
    tests: bool,
    files: Vec<(String, String)>,
    refused: HashMap<String, ScriptError>,
    /// Of all files so far.
    all: Used,
    /// Of the folders that may be plugins.
    plugins: HashMap<String, Used>,
    /// The files of packages that nobody has imported yet.
    installed: BTreeMap<String, (PathBuf, u64)>,
    /// Their manifests, which tell where an import leads.
    manifests: HashMap<String, String>,
    manifests_bytes: usize,
}

/// Files and folders, and bytes.
#[derive(Default, Clone, Copy)]
struct Used {
    count: usize,
    bytes: usize,
}

/// Why a folder is not read.
enum Stop {
    Failed(io::Error),
    TooMuch(&'static str),
}

impl Reader {
    fn read(dir: &Path, tests: bool) -> io::Result<SourceSet> {
        let mut reader = Self {
            root: fs::canonicalize(dir).map_err(|error| named(dir, &error))?,
            tests,
            files: Vec::new(),
            refused: HashMap::new(),
            all: Used::default(),
            plugins: HashMap::new(),
            installed: BTreeMap::new(),
            manifests: HashMap::new(),
            manifests_bytes: 0,
        };
        let mut top: Vec<(String, bool)> = Vec::new();
        for (name, path) in entries(dir).map_err(|error| named(dir, &error))? {
            let is_folder = fs::metadata(&path).is_ok_and(|kind| kind.is_dir());
            if is_folder && path.join("package.json").exists() {
                reader.plugins.insert(name.clone(), Used::default());
            }
            let read = reader.entry(&path, &name, 0);
            reader.bound(dir, &name, read)?;
            top.push((name, is_folder));
        }
        let tree = reader.tree();
        let installed: Vec<String> = reader.installed.keys().chain(reader.manifests.keys()).cloned().collect();
        let mut reach = Reach::new(&tree, &installed);
        for (name, _) in &top {
            let followed = reader.follow(name, &tree, &mut reach);
            reader.bound(dir, name, followed)?;
        }
        reader.files.sort_unstable();
        Ok(reader.finish(&top, &tree))
    }

    /// Too much of one plugin is not too much of the others: it alone is refused.
    fn bound(&mut self, dir: &Path, name: &str, read: Result<(), Stop>) -> io::Result<()> {
        match read {
            Ok(()) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::TooMuch(limits)) => {
                let message = format!("it has too many files or bytes ({limits})");
                let Some(used) = self.plugins.get_mut(name) else { return Err(named(dir, &io::Error::other(message))) };
                let used = std::mem::take(used);
                self.all.count -= used.count;
                self.all.bytes -= used.bytes;
                self.files.retain(|(path, _)| !is_of(path, name));
                self.installed.retain(|path, _| !is_of(path, name));
                self.manifests.retain(|path, _| !is_of(path, name));
                self.refuse(name, message);
                Ok(())
            }
        }
    }

    /// Reads a file, or what is in a folder. Of packages it only looks what is there.
    fn entry(&mut self, path: &Path, below: &str, depth: usize) -> Result<(), Stop> {
        let name = below.rsplit_once('/').map_or(below, |(_, name)| name);
        let kind = match fs::metadata(path) {
            Ok(kind) => kind,
            // A link that leads nowhere spoils no other handler.
            Err(error) if self.is_wanted(name) => {
                self.refuse(below, format!("the file cannot be read: {error}"));
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let is_wanted = kind.is_dir() || (kind.is_file() && self.is_wanted(name));
        if !is_wanted || (kind.is_dir() && depth >= limits::SCRIPT_FOLDER_DEPTH) {
            return Ok(());
        }
        if fs::symlink_metadata(path).is_ok_and(|kind| kind.is_symlink()) {
            let target = fs::canonicalize(path).unwrap_or_default();
            if !target.starts_with(&self.root) {
                self.refuse(below, "the link leads out of the handlers' directory".to_owned());
                return Ok(());
            }
            // What leads back to where it is would never end.
            let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
            if folder.is_some_and(|folder| folder.starts_with(&target)) {
                return Ok(());
            }
        }
        if kind.is_dir() {
            if !is_installed(below) {
                self.count(below, 0)?;
            }
            for (name, path) in entries(path).map_err(|error| Stop::Failed(named(path, &error)))? {
                self.entry(&path, &format!("{below}/{name}"), depth + 1)?;
            }
            return Ok(());
        }
        if is_installed(below) {
            return self.note(path, below, kind.len());
        }
        self.take(path, below, kind.len(), precheck::HANDLER)
    }

    /// A file of a package: it is read when somebody imports it, its manifest now.
    fn note(&mut self, path: &Path, below: &str, bytes: u64) -> Result<(), Stop> {
        if self.installed.len() + self.manifests.len() >= limits::SCRIPT_PACKAGE_FILES {
            return Err(Stop::TooMuch("limit script_package_files"));
        }
        if !below.ends_with("/package.json") {
            self.installed.insert(below.to_owned(), (path.to_owned(), bytes));
            return Ok(());
        }
        if let Some(text) = self.checked(path, below, bytes, precheck::PACKAGE) {
            self.manifests_bytes += text.len();
            if self.manifests_bytes > limits::SCRIPT_FILES_BYTES {
                return Err(Stop::TooMuch("limit script_files_bytes"));
            }
            self.manifests.insert(below.to_owned(), text);
        }
        Ok(())
    }

    /// Reads what the files of an entry at the top import of packages, and what that imports.
    fn follow(&mut self, top: &str, tree: &Tree, reach: &mut Reach<'_>) -> Result<(), Stop> {
        let mut next: Vec<usize> = (0..self.files.len()).filter(|at| is_of(&self.files[*at].0, top)).collect();
        if let Ok(Plugin::Entry(main)) = plugin(tree, top)
            && self.import(&main)?
        {
            next.push(self.files.len() - 1);
        }
        while let Some(at) = next.pop() {
            let (path, source) = &self.files[at];
            for path in reach.of(path, source) {
                if self.import(&path)? {
                    next.push(self.files.len() - 1);
                }
            }
        }
        Ok(())
    }

    /// Reads a file of a package, if it was not read before, after the manifests that it belongs to.
    fn import(&mut self, below: &str) -> Result<bool, Stop> {
        let mut folder = below;
        while let Some((above, _)) = folder.rsplit_once('/') {
            folder = above;
            if let Some((path, text)) = self.manifests.remove_entry(&format!("{folder}/package.json")) {
                self.count(&path, text.len())?;
                self.files.push((path, text));
            }
        }
        let Some((path, bytes)) = self.installed.remove(below) else { return Ok(false) };
        let before = self.files.len();
        self.take(&path, below, bytes, precheck::PACKAGE)?;
        Ok(self.files.len() > before)
    }

    fn take(&mut self, path: &Path, below: &str, bytes: u64, most: Most) -> Result<(), Stop> {
        // What is refused is one file, too.
        let Some(text) = self.checked(path, below, bytes, most) else { return self.count(below, 0) };
        self.count(below, text.len())?;
        self.files.push((below.to_owned(), text));
        Ok(())
    }

    /// A file's text, if it passes the check before any parser.
    fn checked(&mut self, path: &Path, below: &str, bytes: u64, most: Most) -> Option<String> {
        match read_text(path, bytes, most) {
            Ok(text) => match precheck::check(&text, most) {
                Ok(()) => return Some(text),
                Err(found) => self.refuse_at(below, found.message, Some((found.line, found.column))),
            },
            Err(message) => self.refuse(below, message),
        }
        None
    }

    fn is_wanted(&self, name: &str) -> bool {
        is_source(name) || (self.tests && is_test(name))
    }

    /// Counts a file or a folder.
    fn count(&mut self, below: &str, bytes: usize) -> Result<(), Stop> {
        let top = below.split('/').next().unwrap_or(below);
        for used in [Some(&mut self.all), self.plugins.get_mut(top)].into_iter().flatten() {
            used.count += 1;
            used.bytes += bytes;
        }
        if self.all.count > limits::SCRIPT_FILES || self.all.bytes > limits::SCRIPT_FILES_BYTES {
            return Err(Stop::TooMuch("limits script_files, script_files_bytes"));
        }
        let plugin = self.plugins.get(top).copied().unwrap_or_default();
        if plugin.count > limits::SCRIPT_FOLDER_FILES || plugin.bytes > limits::SCRIPT_FOLDER_BYTES {
            return Err(Stop::TooMuch("limits script_folder_files, script_folder_bytes"));
        }
        Ok(())
    }

    /// All files by what an import of them needs to know: the manifests tell, of others only that they are there.
    fn tree(&self) -> Tree {
        let text = |(path, text): &(String, String)| {
            let text = if path.ends_with("package.json") { text.clone() } else { String::new() };
            (path.clone(), text)
        };
        let installed = self.installed.keys().map(|path| (path.clone(), String::new()));
        let manifests = self.manifests.iter().map(|(path, text)| (path.clone(), text.clone()));
        Tree::new(self.files.iter().map(text).chain(installed).chain(manifests).collect())
    }

    fn refuse(&mut self, below: &str, message: String) {
        self.refuse_at(below, message, None);
    }

    /// An import of it says why; a handler is not loaded at all.
    fn refuse_at(&mut self, below: &str, message: String, place: Option<(u32, u32)>) {
        tracing::debug!(file = below, error = message, "source refused");
        if self.is_wanted(below) {
            let why = serde_json::Value::from(format!("{below}: {message}"));
            self.files.push((below.to_owned(), format!("{REFUSED}{why});")));
        }
        let (line, column) = place.unzip();
        let error = ScriptError { message: message.into(), file: below.into(), line, column };
        self.refused.insert(below.to_owned(), error);
    }

    /// Which of what is at the top are handlers?
    fn finish(self, top: &[(String, bool)], tree: &Tree) -> SourceSet {
        let mut handlers = Vec::new();
        for (name, is_folder) in top {
            let refused = self.refused.get(name).cloned();
            let refused = match is_folder {
                false if !is_script(name) => continue,
                true if refused.is_none() => match plugin(tree, name) {
                    Ok(Plugin::Library) => continue,
                    Ok(Plugin::Entry(path)) => self.refused.get(&path).cloned(),
                    Err(error) => Some(self.of_manifest(name, &error)),
                },
                _ => refused,
            };
            let full = handlers.len() >= limits::SCRIPTS;
            let message = || format!("more than {} handlers (limit scripts)", limits::SCRIPTS);
            let refused = if full { Some(error_in(name, message())) } else { refused };
            handlers.push(Handler { name: name.clone(), refused });
        }
        SourceSet { handlers, files: self.files }
    }

    /// A manifest that cannot be used: with its place, if it is no JSON.
    fn of_manifest(&self, folder: &str, error: &ResolveError) -> ScriptError {
        let path = Tree::join(folder, "package.json");
        if let Some(refused) = self.refused.get(&path) {
            return refused.clone();
        }
        let text = self.files.iter().find(|(of, _)| *of == path).map_or("", |(_, text)| text);
        let mut found = error_in(&path, error.message.clone());
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
            found.message = format!("it is no JSON: {error}").into();
            found.line = u32::try_from(error.line()).ok();
            found.column = u32::try_from(error.column()).ok();
        }
        found
    }
}

fn error_in(path: &str, message: String) -> ScriptError {
    ScriptError { message: message.into(), file: path.into(), line: None, column: None }
}

/// What is in a folder, by name, without what is hidden.
fn entries(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Files that are handlers at the top. Tests and tasks are none.
fn is_script(name: &str) -> bool {
    is_code(name) && ![".task.js", ".task.mjs", ".task.cjs"].iter().any(|end| name.ends_with(end))
}

/// Files of JavaScript, but for tests.
fn is_code(name: &str) -> bool {
    [".js", ".mjs", ".cjs"].iter().any(|end| name.ends_with(end)) && !is_test(name)
}

/// Files that `tidegate script test` runs.
fn is_test(name: &str) -> bool {
    [".test.js", ".test.mjs", ".test.cjs"].iter().any(|end| name.ends_with(end))
}

/// Files that can be imported.
fn is_source(name: &str) -> bool {
    is_code(name) || name.ends_with(".json")
}

/// Is a path that of an entry at the top, or below it?
fn is_of(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The text of a file, or why it has none.
fn read_text(path: &Path, bytes: u64, most: Most) -> Result<String, String> {
    // A file far beyond the limit is not even read.
    if bytes > 2 * most.bytes as u64 {
        return Err(most.exceeded(bytes));
    }
    let bytes = fs::read(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())
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
        for (name, text) in [
            ("20-b.js", "b"),
            ("10-a.mjs", "a"),
            ("10-a.test.js", "test"),
            ("30-deep.js", &"(".repeat(1_000)),
            ("table.json", "{}"),
            ("notes.txt", "no"),
            (".hidden.js", "no"),
            ("lib/c.js", "c"),
            ("50-old.cjs", "c"),
            ("60-folder/package.json", r#"{"main":"main"}"#),
            ("60-folder/main.js", "import 'x'"),
            ("60-folder/node_modules/x/package.json", r#"{"version":"1"}"#),
            ("60-folder/node_modules/x/index.js", "x"),
            ("60-folder/node_modules/x/other.js", "nobody imports it"),
            ("70-none/package.json", r#"{"main":"main"}"#),
            ("80-bad/package.json", "{\n  bad }"),
            ("90-lib/package.json", r#"{"type":"module"}"#),
            ("91-off/package.json", r#"{"main":"main","tidegate":false}"#),
        ] {
            fs::create_dir_all(dir.path().join(name).parent().expect("a parent")).expect("a directory");
            fs::write(dir.path().join(name), text).expect("a file");
        }
        fs::write(dir.path().join("40-bytes.js"), [0xff, 0xfe]).expect("a file");
        let set = SourceSet::read(dir.path()).expect("readable");
        let handlers: Vec<_> = set.handlers.iter().map(|h| (h.name.as_str(), h.refused.is_some())).collect();
        assert_eq!(
            handlers,
            [
                ("10-a.mjs", false),
                ("20-b.js", false),
                ("30-deep.js", true),
                ("40-bytes.js", true),
                ("50-old.cjs", false),
                ("60-folder", false),
                ("70-none", true),
                ("80-bad", true)
            ]
        );
        let bad = set.handlers[7].refused.as_ref().expect("refused");
        assert_eq!((&*bad.file, bad.line, bad.column), ("80-bad/package.json", Some(2), Some(3)));
        let files: Vec<_> =
            set.files.iter().map(|(path, _)| path.as_str()).filter(|path| !path.contains("package.json")).collect();
        assert_eq!(
            files,
            [
                "10-a.mjs",
                "20-b.js",
                "30-deep.js",
                "40-bytes.js",
                "50-old.cjs",
                "60-folder/main.js",
                "60-folder/node_modules/x/index.js",
                "lib/c.js",
                "table.json"
            ]
        );
        assert!(set.source("30-deep.js").is_some_and(|text| text.starts_with(REFUSED)));
        assert!(SourceSet::read(&dir.path().join("none")).expect("no handlers").handlers.is_empty());
    }

    #[test]
    fn links_out_of_the_directory_are_refused_and_others_followed() {
        let outside = tempfile::tempdir().expect("a directory");
        let dir = tempfile::tempdir().expect("a directory");
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).expect("a link");
        fs::write(outside.path().join("secret.js"), "secret").expect("a file");
        fs::create_dir_all(dir.path().join(".data")).expect("a directory");
        fs::write(dir.path().join(".data/in.js"), "in").expect("a file");
        link(&dir.path().join(".data/in.js"), "10-in.js");
        link(&outside.path().join("secret.js"), "20-out.js");
        link(outside.path(), "30-folder");
        link(Path::new("."), "40-round");
        let set = SourceSet::read(dir.path()).expect("readable");
        let handlers: Vec<_> = set.handlers.iter().map(|h| (h.name.as_str(), h.refused.is_some())).collect();
        assert_eq!(handlers, [("10-in.js", false), ("20-out.js", true), ("30-folder", true)]);
        assert!(set.files.iter().all(|(_, source)| source != "secret"), "{:?}", set.files);
        assert_eq!(set.source("10-in.js"), Some("in"));
        assert_eq!(set.files.len(), 2, "{:?}", set.files);
    }

    #[test]
    fn a_folder_that_is_too_large_spoils_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("10-large/many")).expect("a directory");
        fs::write(dir.path().join("10-large/package.json"), r#"{"main":"a.js"}"#).expect("a file");
        for number in 0..=limits::SCRIPT_FOLDER_FILES {
            fs::write(dir.path().join(format!("10-large/many/{number}.js")), "").expect("a file");
        }
        fs::write(dir.path().join("20-good.js"), "good").expect("a file");
        let set = SourceSet::read(dir.path()).expect("readable");
        assert!(set.handlers[0].refused.as_ref().is_some_and(|error| error.message.contains("script_folder_files")));
        assert!(set.handlers[1].refused.is_none());
        assert_eq!(set.files.len(), 1, "{:?}", set.files.len());
    }

    #[test]
    fn of_packages_only_what_is_imported_is_read_and_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            fs::create_dir_all(dir.path().join(name).parent().expect("a parent")).expect("a directory");
            fs::write(dir.path().join(name), text).expect("a file");
        };
        write("10-a/package.json", r#"{"main":"a.js"}"#);
        write("10-a/a.js", "require('large'); require('shared/deep')");
        for number in 0..=limits::SCRIPT_FOLDER_FILES {
            write(&format!("10-a/node_modules/large/many/{number}.js"), "");
        }
        // Beyond what a handler may have, within what a package may.
        let large = "//".repeat(limits::SCRIPT_SOURCE_BYTES);
        write("10-a/node_modules/large/index.js", &large);
        write("10-a/node_modules/large/package.json", "{}");
        write("node_modules/shared/deep.js", "require('./deeper')");
        write("node_modules/shared/deeper.js", &"//".repeat(limits::SCRIPT_PACKAGE_SOURCE_BYTES));
        write("20-b.js", &large);
        let set = SourceSet::read(dir.path()).expect("readable");
        let files: Vec<_> = set.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            files,
            [
                "10-a/a.js",
                "10-a/node_modules/large/index.js",
                "10-a/node_modules/large/package.json",
                "10-a/package.json",
                "20-b.js",
                "node_modules/shared/deep.js",
                "node_modules/shared/deeper.js"
            ]
        );
        assert_eq!(set.source("10-a/node_modules/large/index.js"), Some(&*large));
        let refused = |path: &str| set.source(path).expect("there").to_owned();
        assert!(refused("20-b.js").contains("limit script_source_bytes"));
        assert!(refused("node_modules/shared/deeper.js").contains("limit script_package_source_bytes"));
        assert_eq!(set.handlers.iter().map(|handler| handler.refused.is_some()).collect::<Vec<_>>(), [false, true]);

        // As a set is kept and read again.
        let kept = tempfile::tempdir().expect("a directory");
        for (path, text) in &set.files {
            fs::create_dir_all(kept.path().join(path).parent().expect("a parent")).expect("a directory");
            fs::write(kept.path().join(path), text).expect("a file");
        }
        assert_eq!(SourceSet::read(kept.path()).expect("readable").files, set.files);
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
