//! A look at a handler's source before any parser sees it: Boa's parser recurses, and deep nesting overflows its stack, which
//! ends the process. A small lexer that knows strings, templates, comments and regular expressions bounds what could nest.

use tidegate_actors::limits;

/// What nests the parser as a bracket does, in one expression and those around it: prefix operators (`!`, `-`, `typeof`),
/// right-associative ones (`=`, `=>`, `**`, `? :`), and statements without braces.
const CHAIN: usize = 256;

/// Why a source is refused, and where (line and column from 1, in characters).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// How large a file may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) bytes: usize,
    limit: &'static str,
}

/// A file of who writes handlers.
pub(crate) const HANDLER: Most = Most { bytes: limits::SCRIPT_SOURCE_BYTES, limit: "script_source_bytes" };
/// A file of an installed package: some come in one piece.
pub(crate) const PACKAGE: Most =
    Most { bytes: limits::SCRIPT_PACKAGE_SOURCE_BYTES, limit: "script_package_source_bytes" };

impl Most {
    pub(crate) fn exceeded(self, bytes: u64) -> String {
        format!("the file has {bytes} bytes, more than {} (limit {})", self.bytes, self.limit)
    }
}

/// Checks a source's size and nesting.
///
/// # Errors
/// [`Refusal`] names the limit and the place.
pub(crate) fn check(source: &str, most: Most) -> Result<(), Refusal> {
    if source.len() > most.bytes {
        return Err(Refusal { message: most.exceeded(source.len() as u64), line: 1, column: 1 });
    }
    Lexer {
        bytes: source.as_bytes(),
        at: 0,
        brackets: Vec::new(),
        chain: 0,
        chains: Vec::new(),
        value_before: false,
        new_line: false,
    }
    .run()
    .map_err(|(offset, message)| {
        let (line, column) = place(source, offset);
        Refusal { message, line, column }
    })
}

/// Line and column of a byte offset.
fn place(source: &str, offset: usize) -> (u32, u32) {
    let before = &source.as_bytes()[..offset.min(source.len())];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Open brackets, and `` ` `` for a template whose `${` they are in.
    brackets: Vec<u8>,
    /// Operators that nest, in the statement or element under way and those around it.
    chain: usize,
    /// The same at each open bracket.
    chains: Vec<usize>,
    /// Did a value end just before (so that `/` divides and `-` subtracts)?
    value_before: bool,
    /// Did a line end since then?
    new_line: bool,
}

/// A byte offset and what is wrong there.
type Found = (usize, String);

impl Lexer<'_> {
    fn run(mut self) -> Result<(), Found> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.new_line = true;
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'"' | b'\'' => self.string(byte),
                b'`' => {
                    self.at += 1;
                    self.template()?;
                }
                b'/' if self.next_is(b'/') => self.at = self.find(b'\n', self.at),
                b'/' if self.next_is(b'*') => self.block_comment(),
                b'/' if !self.value_before => self.regex(),
                b'(' | b'[' | b'{' => self.open(byte)?,
                b')' | b']' | b'}' => self.close()?,
                b';' | b',' => {
                    self.statement();
                    self.operator(1);
                }
                _ if is_word(byte) => self.word()?,
                _ => self.punctuation(byte)?,
            }
        }
        Ok(())
    }

    /// An operator of one or more characters.
    fn punctuation(&mut self, byte: u8) -> Result<(), Found> {
        let rest = &self.bytes[self.at + 1..];
        let same = rest.iter().take_while(|next| **next == byte).count();
        match byte {
            // `==` and `===` do not nest, `=` and `=>` do.
            b'=' if same > 0 => self.operator(1 + same),
            b'<' | b'>' | b'!' if rest.first() == Some(&b'=') => {
                self.operator(1 + rest.iter().take_while(|next| **next == b'=').count());
            }
            b'=' | b':' => {
                self.nest()?;
                self.operator(1);
            }
            b'*' if same == 1 => {
                self.nest()?;
                self.operator(2);
            }
            b'?' if same == 1 || rest.first() == Some(&b'.') => self.operator(2),
            b'?' => {
                self.nest()?;
                self.operator(1);
            }
            b'!' | b'~' | b'+' | b'-' => {
                if !self.value_before {
                    self.nest()?;
                }
                self.operator(1);
            }
            _ => self.operator(1),
        }
        Ok(())
    }

    /// A statement or an element of a list begins: what was before it nests no more.
    fn statement(&mut self) {
        self.chain = self.chains.last().copied().unwrap_or(0);
    }

    fn operator(&mut self, bytes: usize) {
        self.at += bytes;
        self.after(false);
    }

    fn after(&mut self, value: bool) {
        self.value_before = value;
        self.new_line = false;
    }

    fn next_is(&self, byte: u8) -> bool {
        self.bytes.get(self.at + 1) == Some(&byte)
    }

    fn find(&self, byte: u8, from: usize) -> usize {
        memchr::memchr(byte, &self.bytes[from..]).map_or(self.bytes.len(), |found| from + found)
    }

    fn nest(&mut self) -> Result<(), Found> {
        self.chain += 1;
        if self.chain > CHAIN {
            return Err((self.at, format!("more than {CHAIN} operators that nest in one expression")));
        }
        Ok(())
    }

    fn open(&mut self, bracket: u8) -> Result<(), Found> {
        if self.brackets.len() >= limits::SCRIPT_NESTING {
            let message = format!("brackets nested deeper than {} (limit script_nesting)", limits::SCRIPT_NESTING);
            return Err((self.at, message));
        }
        self.brackets.push(bracket);
        self.chains.push(self.chain);
        self.operator(1);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Found> {
        let closed = self.brackets.pop();
        self.chain = self.chains.pop().unwrap_or(0);
        self.at += 1;
        if closed == Some(b'`') {
            return self.template();
        }
        if closed == Some(b'{') {
            // After a block a statement begins; after an object literal too few operators follow to matter.
            self.statement();
        }
        // After `)` and `]` a value has ended. After `}` it may be a block's end, where `/` starts a regular expression; after an
        // object literal it would divide, which nobody writes.
        self.after(closed != Some(b'{'));
        Ok(())
    }

    fn string(&mut self, quote: u8) {
        self.at += 1;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            // An unterminated string ends with its line: the parser will say so.
            if byte == quote || byte == b'\n' {
                break;
            }
        }
        self.after(true);
    }

    /// The rest of a template, up to its end or its next `${`.
    fn template(&mut self) -> Result<(), Found> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'`' => {
                    self.at += 1;
                    self.after(true);
                    return Ok(());
                }
                b'$' if self.next_is(b'{') => {
                    self.at += 1;
                    return self.open(b'`');
                }
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn block_comment(&mut self) {
        let mut end = self.at + 2;
        loop {
            end = self.find(b'*', end.min(self.bytes.len()));
            if end >= self.bytes.len() || self.bytes.get(end + 1) == Some(&b'/') {
                break;
            }
            end += 1;
        }
        self.at = end + 2;
    }

    fn regex(&mut self) {
        self.at += 1;
        let mut in_class = false;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            match byte {
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => break,
                b'\n' => break,
                _ => {}
            }
        }
        self.after(true);
    }

    fn word(&mut self) -> Result<(), Found> {
        let from = self.at;
        while self.bytes.get(self.at).copied().is_some_and(is_word) {
            self.at += 1;
        }
        let word = &self.bytes[from..self.at];
        let prefix: &[&[u8]] = &[b"typeof", b"void", b"delete", b"await", b"new", b"yield"];
        let before_value: &[&[u8]] = &[b"return", b"case", b"in", b"of", b"instanceof", b"throw", b"do", b"else"];
        if self.value_before && self.new_line && word != b"in" && word != b"instanceof" {
            // A word cannot follow a value: a statement begins, without a semicolon before it.
            self.statement();
        }
        if prefix.contains(&word) {
            self.after(false);
            return self.nest();
        }
        if word == b"if" || word == b"else" || word == b"while" || word == b"for" || word == b"do" || word == b"with" {
            // `if (a) if (b) …`: statements nest without brackets too.
            self.nest()?;
        }
        self.after(!before_value.contains(&word));
        Ok(())
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#') || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_sources_pass() {
        for source in [
            "",
            "export function onMetric(m, c) { return { ...m, x: [1, (2), `a${`b${m.x}`}c`] }; }",
            "const re = /[(\\[{]+(?:\\/|[/])/; const s = '((((' + \"[[[[\"; // ((((((\n/* {{{{ */",
            "x = a / b; y = (c) / d; z = e[0] / f; if (x) { } /re{/.test(y)",
            &"// (((((\n".repeat(200),
            &format!("const s = '{}';", "(".repeat(10_000)),
            &format!("const s = `{}`;", "[".repeat(10_000)),
            &format!("const r = /{}/;", "\\(".repeat(10_000)),
            &format!("const a = [{}];", "-1, !0, ".repeat(5_000)),
            &"const x = y ? 1 : 2;\n".repeat(2_000),
            &"if (a) { b = -c; }\n".repeat(2_000),
            &"a = b + c - d;\n".repeat(2_000),
            &"a = b ?? c?.d\nb = -a\n".repeat(2_000),
            &"x === 1 || x !== 2 && x >= 3 || ".repeat(2_000),
            &"switch (x) { case 1: a = 1; break\ncase 2: b = 2 }\n".repeat(1_000),
        ] {
            assert_eq!(check(source, HANDLER), Ok(()), "{}", &source[..source.len().min(80)]);
        }
    }

    #[test]
    fn what_would_overflow_a_parser_is_refused_with_its_place() {
        for (source, named) in [
            (format!("x = {}1{}", "(".repeat(10_000), ")".repeat(10_000)), "limit script_nesting"),
            (format!("x = {}", "[".repeat(500)), "limit script_nesting"),
            (format!("x = {}", "{a:".repeat(500)), "limit script_nesting"),
            (format!("x = {}", "`${".repeat(500)), "limit script_nesting"),
            (format!("x = {}1", "!".repeat(5_000)), "operators that nest"),
            (format!("x = {}1", "- ".repeat(5_000)), "operators that nest"),
            (format!("x = {}1", "typeof ".repeat(5_000)), "operators that nest"),
            (format!("x = {}1", "a=>".repeat(5_000)), "operators that nest"),
            (format!("x = {}1", "1 ? 2 : ".repeat(5_000)), "operators that nest"),
            (format!("x = {}1", "2 ** ".repeat(5_000)), "operators that nest"),
            (format!("{} x", "if (a) ".repeat(5_000)), "operators that nest"),
            ("x".repeat(limits::SCRIPT_SOURCE_BYTES + 1), "limit script_source_bytes"),
        ] {
            let refusal = check(&source, HANDLER).expect_err("too deep");
            assert!(refusal.message.contains(named), "{refusal:?} for {}", &source[..30]);
        }
        let source = format!("// one\nlet ü = {}", "(".repeat(100));
        let refusal = check(&source, HANDLER).expect_err("too deep");
        assert_eq!((refusal.line, refusal.column), (2, 73));
    }
}
