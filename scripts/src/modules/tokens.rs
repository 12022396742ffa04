//! The tokens of a source, as far as one must see them to find its imports and exports: it is not checked to be a program.

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, a keyword or a number.
    Word(&'a str),
    /// A string, as written between its quotes.
    Text(&'a str),
    /// A template without substitutions, or the part of one before, between or after them.
    Template,
    Regex,
    Mark(u8),
}

impl Token<'_> {
    pub(super) fn is(self, mark: u8) -> bool {
        self == Self::Mark(mark)
    }

    pub(super) fn is_word(self, word: &str) -> bool {
        self == Token::Word(word)
    }
}

/// Words after which a `/` begins a regular expression.
const BEFORE_VALUE: [&str; 16] = [
    "await",
    "case",
    "delete",
    "do",
    "else",
    "extends",
    "in",
    "instanceof",
    "new",
    "of",
    "return",
    "throw",
    "typeof",
    "void",
    "yield",
    "default",
];

/// The tokens of a source, each with its offset in bytes.
pub(super) fn tokens(source: &str) -> Vec<(usize, Token<'_>)> {
    let mut lexer =
        Lexer { source, bytes: source.as_bytes(), at: 0, found: Vec::new(), braces: Vec::new(), parens: Vec::new() };
    if source.starts_with("#!") {
        lexer.line();
    }
    while lexer.next() {}
    lexer.found
}

struct Lexer<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    found: Vec<(usize, Token<'a>)>,
    /// Open braces; `true`: a template goes on behind it.
    braces: Vec<bool>,
    /// Open brackets; `true`: those of `if`, `while`, `for` or `with`, behind which a statement begins.
    parens: Vec<bool>,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> bool {
        let Some(&byte) = self.bytes.get(self.at) else { return false };
        let start = self.at;
        match byte {
            _ if byte.is_ascii_whitespace() => self.at += 1,
            b'/' if self.bytes.get(start + 1) == Some(&b'/') => self.line(),
            b'/' if self.bytes.get(start + 1) == Some(&b'*') => {
                let end = memchr::memmem::find(&self.bytes[start + 2..], b"*/");
                self.at = end.map_or(self.bytes.len(), |end| start + 2 + end + 2);
            }
            b'/' if self.value_may_begin() => self.regex(),
            b'"' | b'\'' => self.text(byte),
            b'`' => {
                self.at += 1;
                self.template(start);
            }
            b'}' if self.braces.last() == Some(&true) => {
                self.braces.pop();
                self.at += 1;
                self.template(start);
            }
            _ if is_word(byte) => {
                while self.bytes.get(self.at).is_some_and(|byte| is_word(*byte)) {
                    self.at += 1;
                }
                self.found.push((start, Token::Word(&self.source[start..self.at])));
            }
            _ => {
                self.at += 1;
                self.mark(start, byte);
            }
        }
        true
    }

    fn mark(&mut self, start: usize, byte: u8) {
        match byte {
            b'{' => self.braces.push(false),
            b'}' => {
                self.braces.pop();
            }
            b'(' => {
                let heads = ["if", "while", "for", "with"];
                let head = heads.iter().any(|head| self.found.last().is_some_and(|(_, token)| token.is_word(head)));
                self.parens.push(head);
            }
            b')' if self.parens.pop() == Some(true) => {
                // What follows begins a statement, as after a semicolon.
                self.found.push((start, Token::Mark(b')')));
                self.found.push((start, Token::Mark(b';')));
                return;
            }
            _ => {}
        }
        self.found.push((start, Token::Mark(byte)));
    }

    /// Does a `/` here begin a regular expression?
    fn value_may_begin(&self) -> bool {
        match self.found.last() {
            None => true,
            Some((_, Token::Word(word))) => BEFORE_VALUE.contains(word),
            Some((_, Token::Mark(mark))) => !matches!(mark, b')' | b']'),
            Some((_, Token::Text(_) | Token::Template | Token::Regex)) => false,
        }
    }

    fn line(&mut self) {
        self.at = memchr::memchr(b'\n', &self.bytes[self.at..]).map_or(self.bytes.len(), |end| self.at + end);
    }

    fn text(&mut self, quote: u8) {
        let start = self.at;
        let mut at = start + 1;
        while let Some(&byte) = self.bytes.get(at) {
            match byte {
                b'\\' => at += 1,
                b'\n' => break,
                _ if byte == quote => break,
                _ => {}
            }
            at += 1;
        }
        let end = at.min(self.bytes.len());
        self.found.push((start, Token::Text(self.source.get(start + 1..end).unwrap_or_default())));
        self.at = (end + 1).min(self.bytes.len());
    }

    /// From behind the opening, or behind the end of a substitution.
    fn template(&mut self, start: usize) {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'`' => break,
                b'$' if self.bytes.get(self.at) == Some(&b'{') => {
                    self.at += 1;
                    self.braces.push(true);
                    self.found.push((start, Token::Mark(b'+')));
                    return;
                }
                _ => {}
            }
        }
        self.found.push((start, Token::Template));
    }

    fn regex(&mut self) {
        let start = self.at;
        let (mut at, mut in_class) = (start + 1, false);
        loop {
            match self.bytes.get(at) {
                None | Some(b'\n') => {
                    // It was a division after all.
                    self.at = start + 1;
                    self.found.push((start, Token::Mark(b'/')));
                    return;
                }
                Some(b'\\') => at += 1,
                Some(b'[') => in_class = true,
                Some(b']') => in_class = false,
                Some(b'/') if !in_class => break,
                Some(_) => {}
            }
            at += 1;
        }
        self.at = at + 1;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_alphabetic) {
            self.at += 1;
        }
        self.found.push((start, Token::Regex));
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'\\' | b'#') || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_templates_and_regular_expressions_hide_what_is_in_them() {
        let words = |source: &'static str| -> Vec<&str> {
            let word = |(_, token)| if let Token::Word(word) = token { Some(word) } else { None };
            tokens(source).into_iter().filter_map(word).collect()
        };
        assert_eq!(words("a 'b' \"c\\\"d\"; = /e/g // f\n g /* h */ i"), ["a", "g", "i"]);
        assert_eq!(words("x = a / b / c; `t ${u + `v ${w}`} y` z"), ["x", "a", "b", "c", "u", "w", "z"]);
        assert_eq!(words("return /[/]a/.b; if (x) /c/.d; (y) / e / f"), ["return", "b", "if", "x", "d", "y", "e", "f"]);
        assert_eq!(words("#!/usr/bin/env node\nä"), ["ä"]);
        assert_eq!(words("'unfinished\na"), ["a"]);
    }
}
