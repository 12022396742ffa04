//! What is typed → what is evaluated. The input becomes the body of an async function, so that it may `await`; its declarations
//! become globals, and its last expression is what it returns. Places in the evaluated text are led back to the typed one.

use std::fmt::Write as _;

use boa_engine::{
    Source,
    ast::{
        Position, Spanned, StatementListItem,
        expression::{
            Expression,
            access::PropertyAccess,
            operator::{assign::AssignTarget, update::UpdateTarget},
        },
        function::FunctionBody,
        operations::{lexically_declared_names, var_declared_names},
        scope::Scope,
        statement::Statement,
    },
    interner::{Interner, Sym},
    parser::{Error as ParseError, Parser, lexer::Error as LexError},
};

use crate::precheck;

/// What an input is called in places: `REPL3:1:7`.
pub(super) const NAME: &str = "REPL";
/// Inputs whose places can be led back; of older ones places in their first line are a little to the right.
pub(super) const PLACES: usize = 1_000;

const RETURN: &str = "return ";

/// An input that can be evaluated.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The text for the engine.
    pub(super) text: String,
    /// Does it end in an expression?
    pub(super) has_value: bool,
    pub(super) places: Places,
}

/// What cannot be evaluated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It goes on.
    Incomplete,
    /// A syntax error, with its place.
    Wrong { message: String, line: u32, column: u32 },
}

/// How columns of the evaluated text come from those of the typed one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    /// Characters before the first line.
    before: u32,
    /// Line and column where `return ` stands.
    returns: Option<(u32, u32)>,
    /// Lines that were typed; what is below is the wrapping's.
    lines: u32,
}

impl Places {
    /// Line and column as typed; without a column if the engine does not know better. `None`: it is not of what was typed.
    pub(super) fn typed(self, line: u32, column: u32) -> Option<(u32, Option<u32>)> {
        if line > self.lines {
            return None;
        }
        let mut typed = Some(column);
        if line == 1 {
            typed = column.checked_sub(self.before).filter(|column| *column > 0);
        }
        if let (Some((of, at)), Some(column)) = (self.returns, typed)
            && of == line
            && column > at
        {
            typed = Some(column.saturating_sub(u32::try_from(RETURN.len()).unwrap_or(0)).max(at));
        }
        Some((line, typed))
    }
}

/// Prepares an input. `define` is the name of the global function that makes globals of declarations.
///
/// # Errors
/// [`Refused`].
pub(super) fn prepare(typed: &str, define: &str) -> Result<Prepared, Refused> {
    precheck::check(typed, precheck::HANDLER).map_err(|refusal| Refused::Wrong {
        message: refusal.message,
        line: refusal.line,
        column: refusal.column,
    })?;
    let lines = u32::try_from(typed.lines().count().max(1)).unwrap_or(u32::MAX);
    // An object, not a block, if it can be one.
    if typed.trim_start().starts_with('{') && !typed.trim_end().ends_with(';') {
        let as_object = format!("({typed}\n)");
        if parse(&as_object, &mut Interner::new()).is_ok() {
            let before = format!("(async () => {{{RETURN}(");
            let places = Places { before: count(&before), returns: None, lines };
            return Ok(Prepared { text: format!("{before}{typed}\n)}})()"), has_value: true, places });
        }
    }
    let mut interner = Interner::new();
    let body = parse(typed, &mut interner)?;
    let before = format!("(async () => {{{}", definitions(&body, &interner, define));
    let mut places = Places { before: count(&before), returns: None, lines };
    let mut text = typed.to_owned();
    if let Some(start) = last_expression(&body)
        && let Some(at) = offset(typed, start)
    {
        text.insert_str(at, RETURN);
        // The engine's places of expressions are for people: what they lead to is looked at before it is believed.
        if parse(&text, &mut Interner::new()).is_ok_and(|body| ends_in_return(&body)) {
            places.returns = Some((start.line_number(), start.column_number()));
        } else {
            text.truncate(0);
            text.push_str(typed);
        }
    }
    let text = format!("{before}{text}\n}})()");
    // The parser of a function's body is content with what ends at a brace too many.
    if let Err(error) = Parser::new(Source::from_bytes(&text)).parse_script(&Scope::new_global(), &mut Interner::new())
    {
        let (message, position) = told(&error);
        let (line, column) = places.typed(position.line_number(), position.column_number()).unwrap_or((lines, None));
        return Err(Refused::Wrong { message, line, column: column.unwrap_or(1) });
    }
    Ok(Prepared { text, has_value: places.returns.is_some(), places })
}

fn parse(text: &str, interner: &mut Interner) -> Result<FunctionBody, Refused> {
    let parsed = Parser::new(Source::from_bytes(text)).parse_function_body(interner, false, true);
    parsed.map_err(|error| {
        let (message, position) = told(&error);
        let open = ["unterminated template literal", "unterminated multiline comment"];
        if matches!(error, ParseError::AbruptEnd) || open.iter().any(|words| message.contains(words)) {
            return Refused::Incomplete;
        }
        Refused::Wrong { message, line: position.line_number(), column: position.column_number() }
    })
}

/// An error's words, and its place.
fn told(error: &ParseError) -> (String, Position) {
    let position = match error {
        ParseError::Expected { span, .. } | ParseError::Unexpected { span, .. } => span.start(),
        ParseError::Lex { err: LexError::Syntax(_, position) } | ParseError::General { position, .. } => *position,
        _ => Position::default(),
    };
    let mut message = error.to_string();
    message.truncate(message.rfind(" at line ").unwrap_or(message.len()));
    (message, position)
}

/// The call that makes globals of the declarations: each reads and writes the variable itself, so that closures and later inputs
/// see the same.
fn definitions(body: &FunctionBody, interner: &Interner, define: &str) -> String {
    let mut names: Vec<Sym> = lexically_declared_names(body);
    let vars = var_declared_names(body);
    names.extend(vars);
    let mut names: Vec<String> =
        names.iter().filter_map(|name| interner.resolve(*name)?.utf8().map(str::to_owned)).collect();
    names.sort_unstable();
    names.dedup();
    let mut call = String::new();
    for name in &names {
        let _ = write!(call, "{define}(\"{name}\",()=>{name},($)=>{name}=$);");
    }
    call
}

/// Where the last statement begins, if it is an expression.
fn last_expression(body: &FunctionBody) -> Option<Position> {
    let last = body.statements().iter().rfind(|item| !is_empty(item))?;
    let StatementListItem::Statement(statement) = last else { return None };
    let Statement::Expression(expression) = &**statement else { return None };
    Some(start(expression))
}

/// Where an expression begins: the engine's places are those of its operators, more often than not.
fn start(expression: &Expression) -> Position {
    let first = match expression {
        Expression::Call(call) => start(call.function()),
        Expression::PropertyAccess(access) => start_of_access(access),
        Expression::Optional(optional) => start(optional.target()),
        Expression::TaggedTemplate(template) => start(template.tag()),
        Expression::Binary(binary) => start(binary.lhs()),
        Expression::Conditional(conditional) => start(conditional.condition()),
        Expression::Assign(assign) => match assign.lhs() {
            AssignTarget::Access(access) => start_of_access(access),
            target => target.span().start(),
        },
        Expression::Update(update) => match update.target() {
            UpdateTarget::PropertyAccess(access) => start_of_access(access),
            UpdateTarget::Identifier(name) => name.span().start(),
        },
        other => other.span().start(),
    };
    first.min(expression.span().start())
}

fn start_of_access(access: &PropertyAccess) -> Position {
    match access {
        PropertyAccess::Simple(access) => start(access.target()),
        PropertyAccess::Private(access) => start(access.target()),
        PropertyAccess::Super(access) => access.span().start(),
    }
}

fn ends_in_return(body: &FunctionBody) -> bool {
    let last = body.statements().iter().rfind(|item| !is_empty(item));
    matches!(last, Some(StatementListItem::Statement(statement)) if matches!(**statement, Statement::Return(_)))
}

fn is_empty(item: &StatementListItem) -> bool {
    matches!(item, StatementListItem::Statement(statement) if matches!(**statement, Statement::Empty))
}

/// The byte at a place; columns count characters.
fn offset(text: &str, place: Position) -> Option<usize> {
    let (mut line, mut column) = (1, 1);
    for (at, character) in text.char_indices() {
        if (line, column) == (place.line_number(), place.column_number()) {
            return Some(at);
        }
        if matches!(character, '\n' | '\u{2028}' | '\u{2029}') {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    None
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(typed: &str) -> String {
        prepare(typed, "d").unwrap_or_else(|refused| panic!("{typed}: {refused:?}")).text
    }

    #[test]
    fn the_last_expression_is_returned() {
        for (typed, body) in [
            ("1 + 2", "return 1 + 2"),
            ("a; b.c()", "a; return b.c()"),
            ("a\nb?.c[0]\n;", "a\nreturn b?.c[0]\n;"),
            ("(1, 2)", "return (1, 2)"),
            ("x = y, z", "return x = y, z"),
            ("await f() // it waits", "return await f() // it waits"),
            ("`a${b}`", "return `a${b}`"),
            ("t`x`", "return t`x`"),
            ("x => x", "return x => x"),
            ("async (a) => a", "return async (a) => a"),
            ("!a && b ? c : d", "return !a && b ? c : d"),
            ("i++", "return i++"),
            ("-1", "return -1"),
            ("new A().b", "return new A().b"),
            ("[1].map(x => x)", "return [1].map(x => x)"),
            ("'ä'; 'b'", "'ä'; return 'b'"),
            ("/x/.test(y)", "return /x/.test(y)"),
            ("if (a) b", "if (a) b"),
            ("{ a: 1 }", "return ({ a: 1 }"),
            ("{ a; b }", "{ a; b }"),
            ("", ""),
        ] {
            let end = if typed.starts_with("{ a: ") { "\n)})()" } else { "\n})()" };
            assert_eq!(text(typed), format!("(async () => {{{body}{end}"), "{typed}");
        }
    }

    #[test]
    fn declarations_become_globals() {
        for (typed, names) in [
            ("let a = 1, { b, c: [e] } = x;", vec!["a", "b", "e"]),
            ("const k = 1", vec!["k"]),
            ("var v = 1; for (var i = 0;;) {}", vec!["i", "v"]),
            ("function f() { let inner }", vec!["f"]),
            ("async function* g() {}", vec!["g"]),
            ("class C {}", vec!["C"]),
            ("{ let inside = 1 }", vec![]),
        ] {
            let text = text(typed);
            assert_eq!(text.matches("d(\"").count(), names.len(), "{typed}: {text}");
            names.iter().for_each(|name| assert!(text.contains(&format!("d(\"{name}\",")), "{typed}: {text}"));
        }
    }

    #[test]
    fn what_goes_on_is_told_from_what_is_wrong() {
        for open in
            ["f(", "{ a:", "let x = {", "`a", "/* a", "if (x) {", "a +", "await g(1,", "() =>", "function f() {\n  a\n"]
        {
            assert_eq!(prepare(open, "d").err(), Some(Refused::Incomplete), "{open}");
        }
        for (wrong, line, column) in [("let = = 3", 1, 7), ("a\n  b )", 2, 5), ("'abc", 1, 1), ("}", 1, 1)] {
            match prepare(wrong, "d") {
                Err(Refused::Wrong { line: at, column: of, message }) => {
                    assert_eq!((at, of), (line, column), "{wrong}: {message}");
                    assert!(!message.contains(" at line "), "{message}");
                }
                other => panic!("{wrong}: {other:?}"),
            }
        }
        let deep = "(".repeat(200);
        assert!(
            matches!(prepare(&deep, "d"), Err(Refused::Wrong { message, .. }) if message.contains("script_nesting"))
        );
    }

    #[test]
    fn places_are_those_that_were_typed() {
        let places = prepare("let a = 1; boom(a)", "d").expect("sound").places;
        assert_eq!(places.typed(1, places.before + 9), Some((1, Some(9))));
        assert_eq!(places.typed(1, places.before + 12 + 7 + 3), Some((1, Some(15))));
        assert_eq!(places.typed(1, 3), Some((1, None)), "of the definitions");
        assert_eq!(places.typed(2, 3), None, "of the wrapping");
        let places = prepare("a\n  b()", "d").expect("sound").places;
        assert_eq!(places.typed(2, 3 + 7), Some((2, Some(3))));
        assert_eq!(places.typed(1, places.before + 1), Some((1, Some(1))));
    }
}
