//! `require`: Node.js's resolution of CommonJS modules.

use super::{
    ResolveError, Target, Tree,
    error::Class,
    import::{Request, builtin, folders_up, internal, is_relative, package_name},
};

/// What is added to a name that is no file.
const EXTENSIONS: [&str; 2] = [".js", ".json"];

/// Where a `require` in a file leads.
///
/// # Errors
/// Node.js's; the stack of those that asked is not in the text.
pub(crate) fn require(specifier: &str, from: &str, request: &Request<'_>) -> Result<Target, ResolveError> {
    if let Some(name) = specifier.strip_prefix("node:") {
        return builtin(name, request);
    }
    if request.has_bare(specifier) {
        return Ok(Target::Builtin(specifier.to_owned()));
    }
    let file = |path| Target::File(path, String::new());
    if specifier.starts_with('/') || is_relative(specifier) {
        let Ok(path) = Tree::locate(Tree::folder_of(from), specifier) else { return Err(not_found(specifier)) };
        return find(request.tree, &path, specifier)?.map(file).ok_or_else(|| not_found(specifier));
    }
    if specifier.starts_with('#') && request.tree.scope(from)?.is_some_and(|package| package.imports.is_some()) {
        return finished(internal(specifier, from, request)?, request);
    }
    if let Ok((name, subpath)) = package_name(specifier, from) {
        if let Some(package) = request.tree.scope(from)?
            && let Some(exports) = &package.exports
            && package.name.as_deref() == Some(name)
        {
            return finished(package.exported(exports, &subpath, request)?, request);
        }
        for modules in folders_up(Tree::folder_of(from)) {
            let package = request.tree.package(&Tree::join(&modules, name))?;
            if let Some(package) = &package
                && let Some(exports) = &package.exports
            {
                let request = Request { from: None, ..*request };
                return finished(package.exported(exports, &subpath, &request)?, &request);
            }
            let Ok(path) = Tree::locate(&modules, specifier) else { continue };
            if let Some(path) = find(request.tree, &path, specifier)? {
                return Ok(file(path));
            }
        }
    }
    match builtin(specifier, request) {
        Err(error) if error.message.contains("docs/handlers.md") => Err(error),
        _ => Err(not_found(specifier)),
    }
}

/// The folders that `require.resolve.paths` tells of. `None`: it is a module of the host.
pub(crate) fn look_up_paths(specifier: &str, from: &str, builtins: &[&str]) -> Option<Vec<String>> {
    if builtins.contains(&specifier.strip_prefix("node:").unwrap_or(specifier)) {
        return None;
    }
    let folder = Tree::folder_of(from);
    if is_relative(specifier) {
        return Some(vec![super::shown(folder)]);
    }
    Some(folders_up(folder).map(|path| super::shown(&path)).collect())
}

/// A target of `exports` or `imports` must be there as it is.
fn finished(target: Target, request: &Request<'_>) -> Result<Target, ResolveError> {
    match &target {
        Target::File(path, _) if !request.tree.is_file(path) => Err(not_found(&super::shown(path))),
        Target::File(..) | Target::Builtin(_) => Ok(target),
    }
}

/// A file, one with an extension, or the main file of a folder.
fn find(tree: &Tree, path: &str, specifier: &str) -> Result<Option<String>, ResolveError> {
    let folder_only = ["/", "/.", "/.."].iter().any(|end| specifier.ends_with(end)) || matches!(specifier, "." | "..");
    if !folder_only && let Some(file) = file(tree, path) {
        return Ok(Some(file));
    }
    if !tree.is_folder(path) {
        return Ok(None);
    }
    let index = with_extension(tree, &Tree::join(path, "index"));
    let Some(main) = tree.package(path)?.and_then(|package| package.main.clone()).filter(|main| !main.is_empty())
    else {
        return Ok(index);
    };
    let of_main = Tree::locate(path, &main).ok();
    let found =
        of_main.as_ref().and_then(|main| file(tree, main).or_else(|| with_extension(tree, &Tree::join(main, "index"))));
    if let Some(found) = found.or(index) {
        return Ok(Some(found));
    }
    let main = of_main.map_or(main, |main| super::shown(&main));
    let message =
        format!("Cannot find module '{main}'. Please verify that the package.json has a valid \"main\" entry");
    Err(ResolveError::new(Class::Error, "MODULE_NOT_FOUND", message))
}

fn file(tree: &Tree, path: &str) -> Option<String> {
    if tree.is_file(path) { Some(path.to_owned()) } else { with_extension(tree, path) }
}

fn with_extension(tree: &Tree, path: &str) -> Option<String> {
    EXTENSIONS.iter().map(|extension| format!("{path}{extension}")).find(|path| tree.is_file(path))
}

fn not_found(specifier: &str) -> ResolveError {
    ResolveError::new(Class::Error, "MODULE_NOT_FOUND", format!("Cannot find module '{specifier}'"))
}
