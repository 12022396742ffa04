//! `import`: Node.js's resolution of ES modules.

use std::borrow::Cow;

use super::{ROOT, ResolveError, Target, Tree, error::Class, package::Package};

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(super) tree: &'a Tree,
    /// The path of the file that asks, for messages.
    pub(super) from: Option<&'a str>,
    /// By `require`.
    pub(super) by_require: bool,
    /// The modules that the host itself has.
    pub(super) builtins: &'a [&'a str],
}

impl<'a> Request<'a> {
    pub(crate) fn new(tree: &'a Tree, from: &'a str, by_require: bool, builtins: &'a [&'a str]) -> Self {
        Self { tree, from: Some(from), by_require, builtins }
    }

    /// Has the host a module that is asked for by this name without `node:`?
    pub(super) fn has_bare(&self, specifier: &str) -> bool {
        specifier != ONLY_OF_NODE && self.builtins.contains(&specifier)
    }

    pub(super) fn conditions(&self) -> &'static [&'static str] {
        if self.by_require {
            &["require", "node", "module-sync", "node-addons"]
        } else {
            &["import", "node", "module-sync", "node-addons"]
        }
    }
}

/// The one that is only found with `node:` in front: without, it is a package.
const ONLY_OF_NODE: &str = "test";
/// The modules of Node.js that can be asked for without `node:`.
const OF_NODE: [&str; 53] = [
    "assert",
    "assert/strict",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "dns/promises",
    "domain",
    "events",
    "fs",
    "fs/promises",
    "http",
    "http2",
    "https",
    "inspector",
    "inspector/promises",
    "module",
    "net",
    "os",
    "path",
    "path/posix",
    "path/win32",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "readline",
    "readline/promises",
    "repl",
    "stream",
    "stream/consumers",
    "stream/promises",
    "stream/web",
    "string_decoder",
    "sys",
    "timers",
    "timers/promises",
    "tls",
    "trace_events",
    "tty",
    "url",
    "util",
    "util/types",
    "v8",
    "vm",
    "worker_threads",
    "zlib",
];

/// Where an `import` of a file leads.
///
/// # Errors
/// Node.js's.
pub(crate) fn import(specifier: &str, from: &str, request: &Request<'_>) -> Result<Target, ResolveError> {
    let target = if specifier.starts_with('/') || is_relative(specifier) {
        by_url(specifier, from)?
    } else if specifier.starts_with('#') {
        internal(specifier, from, request)?
    } else if let Some((scheme, rest)) = scheme(specifier) {
        match scheme {
            "node" => return builtin(rest, request),
            "tidegate" if request.builtins.contains(&specifier) => return Ok(Target::Builtin(specifier.to_owned())),
            "file" => by_url(rest.strip_prefix("//").unwrap_or(rest), from)?,
            _ => {
                let message = format!(
                    "Only URLs with a scheme in: file and node are supported by the ESM loader of handlers. Received protocol \
                     '{scheme}:'"
                );
                return Err(ResolveError::new(Class::Error, "ERR_UNSUPPORTED_ESM_URL_SCHEME", message));
            }
        }
    } else {
        resolve_bare(specifier, from, request)?
    };
    let Target::File(path, _) = &target else { return Ok(target) };
    if request.tree.is_file(path) && !specifier.ends_with('/') {
        return Ok(target);
    }
    if request.tree.is_folder(path) {
        let message = format!(
            "Directory import '{}' is not supported resolving ES modules imported from {}",
            super::shown(path),
            super::shown(from)
        );
        return Err(ResolveError::new(Class::Error, "ERR_UNSUPPORTED_DIR_IMPORT", message));
    }
    Err(ResolveError::not_found("module", &super::shown(path), from))
}

/// Where a path leads, whether anything is there or not; as scripts see it. `None`: it is no path.
pub(crate) fn located(specifier: &str, from: &str) -> Option<String> {
    if !specifier.starts_with('/') && !is_relative(specifier) {
        return None;
    }
    let path = specifier.split(['?', '#']).next().unwrap_or_default();
    Some(Tree::locate(Tree::folder_of(from), &decoded(path)).map_or_else(|outside| outside, |path| super::shown(&path)))
}

/// A module of the host.
pub(super) fn builtin(name: &str, request: &Request<'_>) -> Result<Target, ResolveError> {
    if request.builtins.contains(&name) {
        return Ok(Target::Builtin(name.to_owned()));
    }
    if OF_NODE.contains(&name) {
        return Err(ResolveError::no_builtin(name));
    }
    let message = format!("No such built-in module: node:{name}");
    Err(ResolveError::new(Class::Error, "ERR_UNKNOWN_BUILTIN_MODULE", message))
}

/// `scheme:rest`.
pub(super) fn scheme(specifier: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = specifier.split_once(':')?;
    let mut bytes = scheme.bytes();
    let fits = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    fits.then_some((scheme, rest))
}

pub(super) fn is_relative(specifier: &str) -> bool {
    matches!(specifier, "." | "..") || specifier.starts_with("./") || specifier.starts_with("../")
}

/// `./path?query#hash`, with `%20` and its kind.
fn by_url(specifier: &str, from: &str) -> Result<Target, ResolveError> {
    let end = specifier.find(['?', '#']).unwrap_or(specifier.len());
    let (path, suffix) = specifier.split_at(end);
    if ["%2f", "%2F", "%5c", "%5C"].iter().any(|bad| path.contains(bad)) {
        let reason = "must not include encoded \"/\" or \"\\\" characters";
        let path = Tree::locate(Tree::folder_of(from), path).map_or_else(|path| path, |path| super::shown(&path));
        return Err(ResolveError::bad_specifier(&path, reason, Some(from)));
    }
    match Tree::locate(Tree::folder_of(from), &decoded(path)) {
        Ok(path) => Ok(Target::File(path, suffix.to_owned())),
        Err(outside) => {
            let mut error = ResolveError::not_found("module", &outside, from);
            error.message += &format!(": it is outside of the handlers' directory ({ROOT})");
            Err(error)
        }
    }
}

/// `%20` → a space.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let code =
            text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = code {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// `#name`, by the `imports` of the package of the file that asks.
pub(super) fn internal(name: &str, from: &str, request: &Request<'_>) -> Result<Target, ResolveError> {
    if name == "#" || name.starts_with("#/") || name.ends_with('/') {
        let reason = "is not a valid internal imports specifier name";
        return Err(ResolveError::bad_specifier(name, reason, Some(from)));
    }
    let package = request.tree.scope(from)?;
    if let Some(target) = package.as_ref().map(|package| package.imported(name, request)).transpose()?.flatten() {
        return Ok(target);
    }
    Err(ResolveError::not_imported(name, package.as_ref().map(|package| package.folder.as_str()), from))
}

/// The name of a package, and the path in it (`.` or `./x`).
pub(super) fn package_name<'a>(specifier: &'a str, from: &str) -> Result<(&'a str, String), ResolveError> {
    let slash = match specifier.strip_prefix('@') {
        None => specifier.find('/'),
        Some(rest) => match rest.find('/') {
            Some(first) => specifier[first + 2..].find('/').map(|at| at + first + 2),
            None => return Err(ResolveError::bad_specifier(specifier, "is not a valid package name", Some(from))),
        },
    };
    let (name, rest) = slash.map_or((specifier, ""), |slash| specifier.split_at(slash));
    if name.starts_with('.') || name.contains(['%', '\\']) {
        return Err(ResolveError::bad_specifier(specifier, "is not a valid package name", Some(from)));
    }
    Ok((name, format!(".{rest}")))
}

/// A bare specifier: a module of the host, the package itself, or one in `node_modules`.
pub(super) fn resolve_bare(specifier: &str, from: &str, request: &Request<'_>) -> Result<Target, ResolveError> {
    if request.has_bare(specifier) {
        return Ok(Target::Builtin(specifier.to_owned()));
    }
    let (name, subpath) = package_name(specifier, from)?;
    if let Some(package) = request.tree.scope(from)?
        && let Some(exports) = &package.exports
        && package.name.as_deref() == Some(name)
    {
        return package.exported(exports, &subpath, request);
    }
    for folder in folders_up(Tree::folder_of(from)) {
        let folder = Tree::join(&folder, name);
        if !request.tree.is_folder(&folder) {
            continue;
        }
        let package = request.tree.package(&folder)?;
        if let Some(package) = &package
            && let Some(exports) = &package.exports
        {
            return package.exported(exports, &subpath, request);
        }
        if subpath == "." {
            return legacy_main(&folder, package.as_deref(), from, request);
        }
        return by_url(&subpath, &Tree::join(&folder, "package.json"));
    }
    // What Node.js has itself and the host does not may be a package from npm.
    if OF_NODE.contains(&specifier) {
        return Err(ResolveError::no_builtin(specifier));
    }
    Err(ResolveError::not_found("package", name, from))
}

/// The `node_modules` folders that are looked into, from a folder up.
pub(super) fn folders_up(folder: &str) -> impl Iterator<Item = String> {
    let mut next = Some(folder);
    std::iter::from_fn(move || {
        let folder = next?;
        next = if folder.is_empty() { None } else { Some(Tree::folder_of(folder)) };
        Some(folder)
    })
    .filter(|folder| *folder != "node_modules" && !folder.ends_with("/node_modules"))
    .map(|folder| Tree::join(folder, "node_modules"))
}

/// The main file of a package without `exports`.
fn legacy_main(
    folder: &str,
    package: Option<&Package>,
    from: &str,
    request: &Request<'_>,
) -> Result<Target, ResolveError> {
    let main = package.and_then(|package| package.main.as_deref());
    let tries = main
        .into_iter()
        .flat_map(|main| ["", ".js", ".json", "/index.js", "/index.json"].map(|end| format!("./{main}{end}")));
    let tries = tries.chain(["./index.js".to_owned(), "./index.json".to_owned()]);
    for path in tries {
        if let Ok(path) = Tree::locate(folder, &path)
            && request.tree.is_file(&path)
        {
            return Ok(Target::File(path, String::new()));
        }
    }
    Err(ResolveError::not_found("package", &super::shown(&Tree::join(folder, main.unwrap_or("index.js"))), from))
}
