//! The names that a CommonJS file exports to an `import`, found in its source before it runs, as Node.js does it: what is assigned
//! to `exports.x` or `module.exports.x`, the keys of `module.exports = {…}`, `Object.defineProperty(exports, …)`, and what is
//! handed on from `require("…")`. (Node.js asks the package cjs-module-lexer; this follows its rules.)

use super::tokens::{Token, tokens};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) names: Vec<String>,
    /// Specifiers of modules all of whose names are exported, too.
    pub(crate) from: Vec<String>,
}

/// The names that a source exports.
pub(crate) fn names(source: &str) -> Names {
    let tokens: Vec<_> = tokens(source).into_iter().map(|(_, token)| token).collect();
    let mut finder =
        Finder { tokens: &tokens, at: 0, found: Names::default(), stars: Vec::new(), unsafe_names: Vec::new() };
    let mut depth = 0_usize;
    while let Some(token) = finder.peek(0) {
        match token {
            Token::Mark(b'(' | b'{' | b'[') => depth += 1,
            Token::Mark(b')' | b'}' | b']') => depth = depth.saturating_sub(1),
            Token::Word(word) if !finder.is_property() => finder.word(word, depth == 0),
            Token::Word("__exportStar" | "__export") if depth == 0 => finder.star(),
            _ => {}
        }
        finder.at += 1;
    }
    let Finder { mut found, unsafe_names, .. } = finder;
    found.names.retain(|name| !unsafe_names.contains(name));
    found
}

struct Finder<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    found: Names,
    /// Variables that hold what was required, and its specifier.
    stars: Vec<(&'a str, &'a str)>,
    /// Names that have a getter of their own.
    unsafe_names: Vec<String>,
}

impl<'a> Finder<'a> {
    fn peek(&self, ahead: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + ahead).copied()
    }

    /// Is the word here one behind a dot?
    fn is_property(&self) -> bool {
        self.at > 0 && self.tokens[self.at - 1].is(b'.')
    }

    fn add(&mut self, name: &str) {
        let name = unescaped(name);
        if !self.found.names.contains(&name) {
            self.found.names.push(name);
        }
    }

    fn word(&mut self, word: &'a str, at_top: bool) {
        match word {
            "exports" => self.assigned(self.at + 1, false),
            "module" if self.is_module_exports(self.at) => self.assigned(self.at + 3, true),
            "Object" => self.object(at_top),
            "__exportStar" | "__export" if at_top => self.star(),
            "require" if at_top => self.variable(),
            _ => {}
        }
    }

    fn is_module_exports(&self, at: usize) -> bool {
        let mut tokens = self.tokens.iter().skip(at).copied();
        tokens.next().is_some_and(|token| token.is_word("module"))
            && tokens.next().is_some_and(|token| token.is(b'.'))
            && tokens.next().is_some_and(|token| token.is_word("exports"))
    }

    fn token(&self, at: usize) -> Token<'a> {
        self.tokens.get(at).copied().unwrap_or(Token::Mark(0))
    }

    /// Is there an `=` that is no `==` and no `=>`?
    fn is_assignment(&self, at: usize) -> bool {
        self.token(at).is(b'=') && !self.token(at + 1).is(b'=') && !self.token(at + 1).is(b'>')
    }

    /// Behind `exports` or `module.exports`: `.x =`, `["x"] =`, or for the latter `= …`.
    fn assigned(&mut self, at: usize, whole: bool) {
        match self.token(at) {
            Token::Mark(b'.') => {
                if let Token::Word(name) = self.token(at + 1)
                    && self.is_assignment(at + 2)
                {
                    self.add(name);
                }
            }
            Token::Mark(b'[') => {
                if let Token::Text(name) = self.token(at + 1)
                    && self.token(at + 2).is(b']')
                    && self.is_assignment(at + 3)
                {
                    self.add(name);
                }
            }
            Token::Mark(b'=') if whole && self.is_assignment(at) => {
                // A second assignment takes the place of what was handed on before.
                self.found.from.clear();
                if self.token(at + 1).is(b'{') {
                    self.literal(at + 2);
                } else if let Some(specifier) = self.required(at + 1) {
                    self.found.from.push(unescaped(specifier));
                }
            }
            _ => {}
        }
    }

    /// `require("…")`.
    fn required(&self, at: usize) -> Option<&'a str> {
        match (self.token(at), self.token(at + 1), self.token(at + 2), self.token(at + 3)) {
            (Token::Word("require"), Token::Mark(b'('), Token::Text(specifier), Token::Mark(b')')) => Some(specifier),
            _ => None,
        }
    }

    /// The keys of an object, up to the first property that is more than `a`, `a: b`, `"a": b` or `...b`.
    fn literal(&mut self, mut at: usize) {
        loop {
            match self.token(at) {
                Token::Word(name) if is_name(name) => {
                    at += 1;
                    if self.token(at).is(b':') {
                        let Token::Word(value) = self.token(at + 1) else { return };
                        if !is_name(value) {
                            return;
                        }
                        at += 2;
                    }
                    self.add(name);
                }
                Token::Text(name) if self.token(at + 1).is(b':') => {
                    let Token::Word(value) = self.token(at + 2) else { return };
                    if !is_name(value) {
                        return;
                    }
                    self.add(name);
                    at += 3;
                }
                Token::Mark(b'.') if self.token(at + 1).is(b'.') && self.token(at + 2).is(b'.') => {
                    at += 3;
                    if let Some(specifier) = self.required(at) {
                        self.found.from.push(unescaped(specifier));
                        at += 4;
                    } else {
                        at += 1;
                    }
                }
                _ => return,
            }
            if !self.token(at).is(b',') {
                return;
            }
            at += 1;
        }
    }

    /// `Object.defineProperty(exports, "x", { enumerable: true, get: function () { return … } })`, or with `value:`; and what
    /// Babel makes of `export * from`: `Object.keys(_x).forEach(function (k) {…})`.
    fn object(&mut self, at_top: bool) {
        if !self.token(self.at + 1).is(b'.') {
            return;
        }
        match self.token(self.at + 2) {
            Token::Word("defineProperty") => self.define(),
            Token::Word("keys") if at_top => {
                if let (
                    Token::Mark(b'('),
                    Token::Word(name),
                    Token::Mark(b')'),
                    Token::Mark(b'.'),
                    Token::Word("forEach"),
                ) = (
                    self.token(self.at + 3),
                    self.token(self.at + 4),
                    self.token(self.at + 5),
                    self.token(self.at + 6),
                    self.token(self.at + 7),
                ) && let Some((_, specifier)) = self.stars.iter().find(|(of, _)| *of == name)
                {
                    self.found.from.push(unescaped(specifier));
                }
            }
            _ => {}
        }
    }

    fn define(&mut self) {
        if !self.token(self.at + 3).is(b'(') {
            return;
        }
        let mut at = match self.token(self.at + 4) {
            Token::Word("exports") => self.at + 5,
            _ if self.is_module_exports(self.at + 4) => self.at + 7,
            _ => return,
        };
        let (Token::Mark(b','), Token::Text(name)) = (self.token(at), self.token(at + 1)) else { return };
        at += 2;
        if self.is_plain_property(at) {
            self.add(name);
        } else {
            // What a getter may do to an import is not known.
            self.unsafe_names.push(unescaped(name));
        }
    }

    /// `, { enumerable: true, get: … }` or with `value:`.
    fn is_plain_property(&self, mut at: usize) -> bool {
        if !self.token(at).is(b',') || !self.token(at + 1).is(b'{') {
            return false;
        }
        at += 2;
        if self.token(at).is_word("enumerable") {
            let rest = (self.token(at + 1), self.token(at + 2), self.token(at + 3));
            if rest != (Token::Mark(b':'), Token::Word("true"), Token::Mark(b',')) {
                return false;
            }
            at += 4;
        }
        (self.token(at).is_word("value") && self.token(at + 1).is(b':')) || self.is_plain_getter(at)
    }

    /// `get: function () { return a.b; } }` and `get() { return a; } }`.
    fn is_plain_getter(&self, mut at: usize) -> bool {
        if !self.token(at).is_word("get") {
            return false;
        }
        at += 1;
        if self.token(at).is(b':') {
            if !self.token(at + 1).is_word("function") {
                return false;
            }
            at += 2;
            if let Token::Word(_) = self.token(at) {
                at += 1;
            }
        }
        for mark in [b'(', b')', b'{'] {
            if !self.token(at).is(mark) {
                return false;
            }
            at += 1;
        }
        if !self.token(at).is_word("return") {
            return false;
        }
        let Token::Word(_) = self.token(at + 1) else { return false };
        at += 2;
        match (self.token(at), self.token(at + 1), self.token(at + 2)) {
            (Token::Mark(b'.'), Token::Word(_), _) => at += 2,
            (Token::Mark(b'['), Token::Text(_), Token::Mark(b']')) => at += 3,
            _ => {}
        }
        if self.token(at).is(b';') {
            at += 1;
        }
        self.token(at).is(b'}')
    }

    /// `__exportStar(require("…"), exports)`, `__export(require("…"))`, also behind `tslib.`.
    fn star(&mut self) {
        if self.token(self.at + 1).is(b'(')
            && let Some(specifier) = self.required(self.at + 2)
        {
            self.found.from.push(unescaped(specifier));
        }
    }

    /// `var x = require("…")`.
    fn variable(&mut self) {
        let Some(specifier) = self.required(self.at) else { return };
        let Some(before) = self.at.checked_sub(3) else { return };
        if let (Token::Word("var" | "let" | "const"), Token::Word(name), Token::Mark(b'=')) =
            (self.token(before), self.token(before + 1), self.token(before + 2))
        {
            self.stars.push((name, specifier));
        }
    }
}

/// Is a word a name, and no number?
fn is_name(word: &str) -> bool {
    !word.starts_with(|first: char| first.is_ascii_digit())
}

/// What a string with escapes stands for, as far as names have any.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    serde_json::from_str(&format!("\"{text}\"")).unwrap_or_else(|_| text.replace('\\', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, wanted: &[&str], from: &[&str]) {
        let found = names(source);
        assert_eq!(
            (found.names, found.from),
            (wanted.iter().map(|s| (*s).to_owned()).collect(), from.iter().map(|s| (*s).to_owned()).collect()),
            "{source}"
        );
    }

    #[test]
    fn names_are_found_before_the_file_runs() {
        check("exports.a = 1; exports['b'] = 2; module.exports.c = 3; exports.d == 4;", &["a", "b", "c"], &[]);
        check("exports.a = exports.b = void 0; x.exports.c = 1", &["a", "b"], &[]);
        check("module.exports = { a, b: c, 'd': \"e\", i }", &["a", "b"], &[]);
        check("module.exports = { a, ...f, 'd': e, g: h(), i }", &["a", "d", "g"], &[]);
        check("module.exports = { a, b: 1, i }", &["a"], &[]);
        check("module.exports = { ...require('./x'), a }; ", &["a"], &["./x"]);
        check("module.exports = require('./x')", &[], &["./x"]);
        check("function f() { exports.a = 1 } 'exports.b = 1'; // exports.c = 1", &["a"], &[]);
        check("Object.defineProperty(exports, '__esModule', { value: true });", &["__esModule"], &[]);
        check(
            "Object.defineProperty(exports, 'a', { enumerable: true, get: function () { return x.a; } });",
            &["a"],
            &[],
        );
        check("Object.defineProperty(exports, 'a', { enumerable: true, get: function () { return f(); } });", &[], &[]);
        check(
            "__exportStar(require('./a'), exports); tslib_1.__exportStar(require('./b'), exports);",
            &[],
            &["./a", "./b"],
        );
        check("var _x = require('./x'); Object.keys(_x).forEach(function (k) { exports[k] = _x[k]; });", &[], &["./x"]);
    }
}
