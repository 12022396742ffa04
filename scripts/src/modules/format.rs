//! What kind of module a file is: by its extension, by the `type` of its package, or, where that says nothing, by its source.

use super::{
    ResolveError, Tree,
    package::Type,
    tokens::{Token, tokens},
};

/// A kind of module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Module,
    CommonJs,
    Json,
    /// CommonJS, if it parses as that; else an ES module, if it parses as that.
    Unclear,
}

/// The kind of a file.
///
/// # Errors
/// Its package's manifest cannot be read.
pub(crate) fn format(tree: &Tree, path: &str) -> Result<Format, ResolveError> {
    Ok(match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("mjs") => Format::Module,
        Some("cjs") => Format::CommonJs,
        Some("json") => Format::Json,
        _ if super::is_body(path) => Format::CommonJs,
        _ => match tree.scope(path)?.map_or(Type::Open, |package| package.kind) {
            Type::Module => Format::Module,
            Type::CommonJs => Format::CommonJs,
            Type::Open if is_module(tree.source(path).unwrap_or_default()) => Format::Module,
            Type::Open => Format::Unclear,
        },
    })
}

/// Does a source import or export at its top?
fn is_module(source: &str) -> bool {
    let tokens = tokens(source);
    let mut depth = 0_usize;
    for (at, (_, token)) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead).map_or(Token::Mark(0), |(_, token)| *token);
        let is_property = at > 0 && tokens[at - 1].1.is(b'.');
        match token {
            Token::Mark(b'(' | b'[' | b'{') => depth += 1,
            Token::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Token::Word("import") if !is_property => {
                let is_meta = next(1).is(b'.') && next(2).is_word("meta");
                let is_statement = depth == 0 && !next(1).is(b'(') && !next(1).is(b'.') && !next(1).is(b':');
                if is_meta || is_statement {
                    return true;
                }
            }
            Token::Word("export") if !is_property && depth == 0 => {
                if matches!(next(1), Token::Mark(b'{' | b'*') | Token::Word(_)) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_tells_whether_it_is_a_module() {
        for source in [
            "import 'a'",
            "import a from 'a'",
            "export default 1",
            "export { a }",
            "x(import.meta.url)",
            "export * from 'a'",
        ] {
            assert!(is_module(source), "{source}");
        }
        for source in [
            "import('a')",
            "x.import; y.export",
            "'export default 1'",
            "f({ import: 1, export: 2 })",
            "exports.a = 1",
            "",
        ] {
            assert!(!is_module(source), "{source}");
        }
    }
}
