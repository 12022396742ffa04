//! Why a specifier leads nowhere: Node.js's codes and texts.

use super::{Tree, shown};

/// The constructor of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Error,
    TypeError,
    SyntaxError,
}

/// A specifier that cannot be resolved, or a module that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolveError {
    pub(crate) class: Class,
    /// Its property `code`; empty: it has none.
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl ResolveError {
    pub(crate) fn new(class: Class, code: &'static str, message: impl Into<String>) -> Self {
        Self { class, code, message: message.into() }
    }

    pub(super) fn not_found(what: &str, name: &str, from: &str) -> Self {
        let message = format!("Cannot find {what} '{name}' imported from {}", shown(from));
        Self::new(Class::Error, "ERR_MODULE_NOT_FOUND", message)
    }

    pub(super) fn bad_specifier(request: &str, reason: &str, from: Option<&str>) -> Self {
        let message = format!("Invalid module \"{request}\" {reason}{}", imported_from(from));
        Self::new(Class::TypeError, "ERR_INVALID_MODULE_SPECIFIER", message)
    }

    pub(super) fn bad_config(package: &str, from: Option<&str>, why: &str) -> Self {
        let from = from.map(|from| format!(" while importing {}", shown(from))).unwrap_or_default();
        let message = format!("Invalid package config {}{from}. {why}", shown(&Tree::join(package, "package.json")));
        Self::new(Class::Error, "ERR_INVALID_PACKAGE_CONFIG", message)
    }

    pub(super) fn not_exported(package: &str, subpath: &str, from: Option<&str>) -> Self {
        let (manifest, from) = (shown(&Tree::join(package, "package.json")), imported_from(from));
        let message = if subpath == "." {
            format!("No \"exports\" main defined in {manifest}{from}")
        } else {
            format!("Package subpath '{subpath}' is not defined by \"exports\" in {manifest}{from}")
        };
        Self::new(Class::Error, "ERR_PACKAGE_PATH_NOT_EXPORTED", message)
    }

    pub(super) fn not_imported(specifier: &str, package: Option<&str>, from: &str) -> Self {
        let package = package.map(|dir| format!(" in package {}", shown(&Tree::join(dir, "package.json"))));
        let message = format!(
            "Package import specifier \"{specifier}\" is not defined{} imported from {}",
            package.unwrap_or_default(),
            shown(from)
        );
        Self::new(Class::TypeError, "ERR_PACKAGE_IMPORT_NOT_DEFINED", message)
    }

    pub(super) fn bad_target(package: &str, key: &str, target: &str, internal: bool, from: Option<&str>) -> Self {
        let hint = !internal && !target.is_empty() && !target.starts_with("./");
        let hint = if hint { "; targets must start with \"./\"" } else { "" };
        let manifest = shown(&Tree::join(package, "package.json"));
        let message = if key == "." {
            format!(
                "Invalid \"exports\" main target {target:?} defined in the package config {manifest}{}{hint}",
                imported_from(from)
            )
        } else {
            let field = if internal { "imports" } else { "exports" };
            format!(
                "Invalid \"{field}\" target {target:?} defined for '{key}' in the package config {manifest}{}{hint}",
                imported_from(from)
            )
        };
        Self::new(Class::Error, "ERR_INVALID_PACKAGE_TARGET", message)
    }

    /// A module of Node.js that the host does not have.
    pub(super) fn no_builtin(name: &str) -> Self {
        let message = format!("No such built-in module: node:{name} (handlers have only what docs/handlers.md lists)");
        Self::new(Class::Error, "ERR_UNKNOWN_BUILTIN_MODULE", message)
    }
}

fn imported_from(from: Option<&str>) -> String {
    from.map(|from| format!(" imported from {}", shown(from))).unwrap_or_default()
}
