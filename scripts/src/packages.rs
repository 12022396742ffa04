//! Which files of installed packages (those below a `node_modules`) the handlers use: only they are read and go to the workers. A
//! package has a thousand files, of which a handler imports ten.
//!
//! No source is parsed in the node. Any text in quotes that leads to a file by the rules of Node.js is taken for an import of it:
//! rather too many files than too few. A package that computes names is taken whole.

use hashbrown::HashSet;

use crate::modules::{Request, Target, Tree, import, is_body, libs_of, require};

const MODULES: &str = "node_modules";
/// Longest text that is taken for the name of a module, in bytes.
const NAME_BYTES: usize = 256;

/// Is a path below a `node_modules`?
pub(crate) fn is_installed(path: &str) -> bool {
    path.split('/').any(|folder| folder == MODULES)
}

/// The folder of the package that an installed file is of.
fn package_of(path: &str) -> Option<&str> {
    let after = path.rfind("node_modules/")? + MODULES.len() + 1;
    let parts = if path[after..].starts_with('@') { 2 } else { 1 };
    let end = path[after..].match_indices('/').nth(parts - 1).map(|(at, _)| after + at)?;
    Some(&path[..end])
}

/// What is imported of packages, as far as it was followed.
pub(crate) struct Reach<'a> {
    tree: &'a Tree,
    installed: &'a [String],
    /// The names of all packages: a text that begins with none of them need not be looked for.
    names: HashSet<&'a str>,
    seen: HashSet<String>,
}

impl<'a> Reach<'a> {
    /// `installed`: the files of packages, in order; `tree`: they and all others.
    pub(crate) fn new(tree: &'a Tree, installed: &'a [String]) -> Self {
        let name = |path: &'a str| {
            let folder = package_of(path)?;
            let at = folder.rfind("node_modules/")?;
            Some(&folder[at + MODULES.len() + 1..])
        };
        let names = installed.iter().filter_map(|path| name(path)).collect();
        Self { tree, installed, names, seen: HashSet::new() }
    }

    /// The files of packages that a file leads to, without those that others led to before.
    pub(crate) fn of(&mut self, path: &str, source: &str) -> Vec<String> {
        if path.ends_with(".json") {
            return Vec::new();
        }
        // A body of Node-RED names its modules in comments of their own kind.
        let libs = libs_of(source).filter(|_| is_body(path)).map(|module| (module, Some(true)));
        let source = without_comments(source);
        let mut found = Vec::new();
        for (specifier, by) in specifiers(&source).chain(libs) {
            if !specifier.starts_with(['.', '#', '/']) && !self.names_package(specifier) {
                continue;
            }
            for by_require in [true, false] {
                if by.is_some_and(|by| by != by_require) {
                    continue;
                }
                let request = Request::new(self.tree, path, by_require, &[]);
                let resolve = if by_require { require } else { import };
                if let Ok(Target::File(target, _)) = resolve(specifier, path, &request)
                    && is_installed(&target)
                    && self.seen.insert(target.clone())
                {
                    found.push(target);
                }
            }
        }
        if let Some(package) = package_of(path).filter(|_| computes_names(&source)) {
            let is_own = |other: &&String| package_of(other) == Some(package);
            found.extend(
                self.installed.iter().filter(is_own).filter(|other| self.seen.insert((*other).clone())).cloned(),
            );
        }
        found
    }

    fn names_package(&self, specifier: &str) -> bool {
        let parts = if specifier.starts_with('@') { 2 } else { 1 };
        let end = specifier.match_indices('/').nth(parts - 1).map_or(specifier.len(), |(at, _)| at);
        self.names.contains(&specifier[..end])
    }
}

/// A source without what is surely a comment: examples in comments import whatever a package has. Lines that begin as one are, up to
/// where it ends; others may be, and stay.
fn without_comments(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    for line in source.lines() {
        let text = line.trim_start();
        let rest = match text {
            _ if text.starts_with("//") => "",
            _ if text.starts_with('*') || text.starts_with("/*") => text.find("*/").map_or("", |end| &text[end + 2..]),
            text => text,
        };
        code.push_str(rest);
        code.push('\n');
    }
    code
}

/// The texts in quotes that could name a module, and whether one is asked for by `require` (`Some(true)`) or by `import`. Each quote
/// may begin one, so that one in a comment or a regular expression hides none.
fn specifiers(source: &str) -> impl Iterator<Item = (&str, Option<bool>)> {
    memchr::memchr3_iter(b'\'', b'"', b'`', source.as_bytes()).filter_map(|at| {
        let text = quoted(source, at)?;
        let could_be = |byte: u8| byte.is_ascii_alphanumeric() || b"@/._#:~+-?=%&*".contains(&byte) || byte >= 0x80;
        (!text.is_empty() && text.bytes().all(could_be)).then(|| (text, asked_by(source[..at].trim_end())))
    })
}

/// What stands between a quote and the next of its kind, if that is near.
fn quoted(source: &str, at: usize) -> Option<&str> {
    let (quote, from) = (source.as_bytes()[at], at + 1);
    let near = &source.as_bytes()[from..source.len().min(from + NAME_BYTES + 1)];
    Some(&source[from..from + memchr::memchr(quote, near)?])
}

fn asked_by(before: &str) -> Option<bool> {
    if before.ends_with("from") || before.ends_with("import") {
        return Some(false);
    }
    let called = before.strip_suffix('(')?.trim_end();
    if called.ends_with("import") || called.ends_with("import.meta.resolve") {
        return Some(false);
    }
    (called.ends_with("require") || called.ends_with("require.resolve")).then_some(true)
}

/// Is there a `require(…)` or an `import(…)` of anything but one text in quotes?
fn computes_names(source: &str) -> bool {
    ["require(", "import("].iter().any(|call| {
        source.match_indices(call).any(|(at, _)| {
            let before = source[..at].bytes().next_back();
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_$".contains(&byte)) {
                return false;
            }
            let rest = source[at + call.len()..].trim_start();
            match rest.bytes().next() {
                None | Some(b')') => false,
                Some(b'\'' | b'"' | b'`') => {
                    let Some(text) = quoted(rest, 0) else { return true };
                    let after = rest[text.len() + 2..].trim_start();
                    text.contains("${") || !after.starts_with([')', ','])
                }
                Some(_) => true,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules_are_found_in_any_source() {
        let source = r#"
            // don't
            import a from 'a'; import "./b.js"; export * from `c`;
            const d = require("d/x"), e = require.resolve( '@s/e' ), r = /['"]/, name = "f.g";
            const late = await import("./h"); const no = 'two words', none = '';"#;
        let found: Vec<_> = specifiers(source).filter(|(_, by)| by.is_some()).collect();
        let (require, import) = (Some(true), Some(false));
        let expected =
            [("a", import), ("./b.js", import), ("c", import), ("d/x", require), ("@s/e", require), ("./h", import)];
        assert_eq!(found, expected);
        assert!(specifiers(source).any(|found| found == ("f.g", None)));
        assert!(!specifiers(source).any(|(text, _)| text.is_empty() || text.contains(' ')));
    }

    #[test]
    fn examples_in_comments_import_nothing() {
        let source =
            "/**\n * import a from 'a'\n */ import 'b';\n// require('c')\n/*! d */ require('d'); /* 'e' */\nx(1,\n  2)";
        assert_eq!(without_comments(source), "\n\n import 'b';\n\n require('d'); /* 'e' */\nx(1,\n2)\n");
    }

    #[test]
    fn computed_names_are_seen() {
        for (source, expected) in [
            ("require('a'); require( \"b\" ); import('c'); import(`d`, { with: {} })", false),
            ("my_require(x); $import(x); require()", false),
            ("require(x)", true),
            ("require('./' + x)", true),
            ("import(`./${x}.js`)", true),
            ("require('unterminated", true),
        ] {
            assert_eq!(computes_names(source), expected, "{source}");
        }
    }

    #[test]
    fn a_file_leads_to_those_that_it_imports() {
        let files = [
            ("10-a.js", "import x from 'x'; const y = require('@s/y/lib/z');"),
            ("20-b.nodered.js", "// nodered lib m: m\nreturn msg;"),
            ("node_modules/m/index.js", ""),
            ("node_modules/x/package.json", r#"{"exports":{"import":"./x.mjs","require":"./x.cjs"}}"#),
            ("node_modules/x/x.mjs", "export { default } from './deep/one.mjs';"),
            ("node_modules/x/x.cjs", ""),
            ("node_modules/x/deep/one.mjs", ""),
            ("node_modules/x/deep/two.mjs", ""),
            ("node_modules/@s/y/lib/z.js", "module.exports = (name) => require('./' + name);"),
            ("node_modules/@s/y/lib/computed.js", ""),
            ("node_modules/@s/y/node_modules/x/other.js", ""),
            ("node_modules/@s/other/index.js", ""),
        ];
        let tree = Tree::new(files.map(|(path, text)| (path.to_owned(), text.to_owned())).into_iter().collect());
        let installed: Vec<_> = files[2..].iter().map(|(path, _)| (*path).to_owned()).collect();
        let mut reach = Reach::new(&tree, &installed);
        let mut of = |path: &str| reach.of(path, tree.source(path).expect("there"));
        assert_eq!(of("10-a.js"), ["node_modules/x/x.mjs", "node_modules/@s/y/lib/z.js"]);
        assert_eq!(of("node_modules/x/x.mjs"), ["node_modules/x/deep/one.mjs"]);
        assert_eq!(of("node_modules/@s/y/lib/z.js"), ["node_modules/@s/y/lib/computed.js"]);
        assert_eq!(of("20-b.nodered.js"), ["node_modules/m/index.js"]);
        assert!(of("10-a.js").is_empty(), "each once");
    }
}
