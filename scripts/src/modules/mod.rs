//! How the modules of operators' scripts find each other, by the rules of Node.js 20, on the files that the node read: no file
//! system, no JavaScript engine. What runs them is `worker/modules`.
//!
//! A path is one below the handlers' directory (`lib/a.js`). Scripts see it below [`ROOT`], on every machine the same.

mod error;
mod format;
mod import;
mod json;
mod names;
mod nodered;
mod package;
mod plugin;
mod require;
mod tokens;
mod tree;

pub(crate) use self::{
    error::{Class, ResolveError},
    format::{Format, format},
    import::{Request, import, located},
    names::names,
    nodered::{is_body, libs_of, module_of},
    plugin::{Plugin, config_of, plugin},
    require::{look_up_paths, require},
    tree::Tree,
};

/// Where scripts see the handlers' directory.
pub(crate) const ROOT: &str = "/handlers";

/// The path that a script sees.
pub(crate) fn shown(path: &str) -> String {
    if path.is_empty() { ROOT.to_owned() } else { format!("{ROOT}/{path}") }
}

/// The path below the handlers' directory that a path leads to from a file, both as scripts name them; `None`: it leads out of it.
pub(crate) fn place_of_file(path: &str, from: &str) -> Option<String> {
    Tree::locate(Tree::folder_of(from), path).ok().filter(|path| !path.is_empty())
}

/// A file whose source the check before the parser refused holds this, and why, in place of the source.
pub(crate) const REFUSED: &str = "throw new SyntaxError(";

/// What a specifier leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A file, and what followed its path in an import (`?query#hash`).
    File(String, String),
    /// A module of the host, without `node:`.
    Builtin(String),
}

#[cfg(test)]
mod tests {
    use hashbrown::HashMap;
    use proptest::prelude::*;

    use super::*;

    const BUILTINS: [&str; 2] = ["url", "timers/promises"];

    fn tree(manifest: &str, source: &str) -> Tree {
        let files = [
            ("package.json", manifest),
            ("node_modules/pkg/package.json", manifest),
            ("node_modules/@s/p/package.json", manifest),
            ("node_modules/pkg/a.js", source),
            ("a.js", source),
            ("lib/index.js", source),
        ];
        Tree::new(HashMap::from_iter(files.map(|(path, text)| (path.to_owned(), text.to_owned()))))
    }

    proptest! {
        #[test]
        fn nothing_that_is_asked_for_leads_out_of_the_tree(
            specifier in r"(\.{0,3}/|#|@s/|pkg/?|node:|file:|lib|%2e|%2f|\.\.|[a-z*?#:@ä]){0,8}",
            target in r"(\./|\.\./|/|\*|a\.js|pkg|node_modules|%2e|[a-z]){0,5}",
            key in r"(\.|#|/|\*|pkg|[a-z]){0,4}",
        ) {
            let manifest = serde_json::json!({
                "name": "pkg", "main": target, "exports": { key.clone(): { "node": target } }, "imports": { key: [target, null] }
            });
            let tree = tree(&manifest.to_string(), "");
            for by_require in [false, true] {
                for from in ["a.js", "lib/index.js", "node_modules/pkg/a.js"] {
                    let request = Request::new(&tree, from, by_require, &BUILTINS);
                    let found = if by_require { require(&specifier, from, &request) } else { import(&specifier, from, &request) };
                    match found {
                        Ok(Target::File(path, _)) => prop_assert!(tree.is_file(&path), "{path}"),
                        Ok(Target::Builtin(name)) => prop_assert!(BUILTINS.contains(&name.as_str())),
                        Err(error) => prop_assert!(!error.code.is_empty() && !error.message.is_empty()),
                    }
                }
            }
        }

        #[test]
        fn any_text_is_a_source_and_a_manifest(
            text in r#"(exports|module|\.|=|\{|\}|\(|\)|\[|\]|,|:|'|"|`|\$\{|/|\\|\*|\n|require|Object|defineProperty|import|export|get|[a-z0-9 ä😀]){0,40}"#,
        ) {
            let tree = tree(&text, &text);
            let _ = names(&text);
            let _ = format(&tree, "a.js");
            let _ = plugin(&tree, "lib");
            let _ = plugin(&tree, "node_modules/pkg");
        }
    }
}
