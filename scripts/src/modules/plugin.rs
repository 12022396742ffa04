//! Handlers among the files: a file at the top, or a folder there with a `package.json` that names its main file.

use super::{ResolveError, Target, Tree, error::Class, import::Request, json::Json};

/// A folder with a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plugin {
    /// Its entry file.
    Entry(String),
    /// It names none: its files are for others to import.
    Library,
}

/// What the manifest of a folder at the top makes of it.
///
/// # Errors
/// The manifest cannot be read, or its main file is not there.
pub(crate) fn plugin(tree: &Tree, folder: &str) -> Result<Plugin, ResolveError> {
    let manifest = Tree::join(folder, "package.json");
    let Some(package) = tree.package(folder)? else { return Ok(Plugin::Library) };
    let is_off = tree
        .source(&manifest)
        .and_then(|text| serde_json::from_str::<Json>(text).ok())
        .and_then(|json| json.field("tidegate").cloned())
        == Some(Json::Scalar("false".to_owned()));
    if is_off || (package.exports.is_none() && package.main.is_none()) {
        return Ok(Plugin::Library);
    }
    let request = Request::new(tree, &manifest, false, &[]);
    let target = match &package.exports {
        Some(exports) => package.exported(exports, ".", &request)?,
        None => main_of(tree, folder, package.main.as_deref().unwrap_or_default())?,
    };
    match target {
        Target::File(path, _) if tree.is_file(&path) => Ok(Plugin::Entry(path)),
        Target::File(path, _) => Err(no_entry(&manifest, &path)),
        Target::Builtin(name) => Err(no_entry(&manifest, &name)),
    }
}

fn main_of(tree: &Tree, folder: &str, main: &str) -> Result<Target, ResolveError> {
    let tries = ["", ".js", ".json", "/index.js"].map(|end| format!("{main}{end}"));
    let paths = tries.iter().filter_map(|path| Tree::locate(folder, path).ok());
    let found = paths.filter(|path| path.starts_with(&format!("{folder}/"))).find(|path| tree.is_file(path));
    let found = found.map(|path| Target::File(path, String::new()));
    found.ok_or_else(|| no_entry(&Tree::join(folder, "package.json"), &Tree::join(folder, main)))
}

fn no_entry(manifest: &str, path: &str) -> ResolveError {
    let message = format!("{manifest} names {path} as its main file, but there is no such file");
    ResolveError::new(Class::Error, "ERR_MODULE_NOT_FOUND", message)
}

/// The file that holds a handler's configuration: `config.json` in its folder, `NAME.config.json` beside `NAME.js`.
pub(crate) fn config_of(tree: &Tree, name: &str) -> String {
    if tree.is_file(name) {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        format!("{stem}.config.json")
    } else {
        Tree::join(name, "config.json")
    }
}
