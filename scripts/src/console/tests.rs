//! What is typed and what comes of it, with a host that echoes what it is asked.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::*;

/// Answers every operation with what it was asked.
#[derive(Default)]
struct Echo {
    answers: VecDeque<(u64, String)>,
    printed: Rc<RefCell<String>>,
    interrupt: Arc<AtomicBool>,
    forgot: Arc<AtomicUsize>,
}

impl ConsoleHost for Echo {
    fn begin(&mut self, number: u64, operation: &str, argument: &Value) -> Result<(), String> {
        match operation {
            "refuse" => Err("it cannot begin".to_owned()),
            "never" => Ok(()),
            _ => {
                self.answers.push_back((number, json!({ "of": operation, "argument": argument }).to_string()));
                Ok(())
            }
        }
    }

    fn wait(&mut self, until: Option<Instant>) -> Waited {
        if let Some((number, json)) = self.answers.pop_front() {
            return Waited::Answer(number, json);
        }
        match until {
            Some(until) => {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                Waited::Time
            }
            // Nothing of this host comes any more: the person has enough of it.
            None => Waited::Interrupted,
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    fn forget(&mut self) {
        self.forgot.fetch_add(1, Ordering::Relaxed);
    }

    fn print(&mut self, text: &str, _: bool) {
        self.printed.borrow_mut().push_str(text);
    }
}

const PRELUDE: &str =
    "(function (native) { for (const name of ['ask', 'sleep', 'print']) globalThis[name] = native[name]; })";

/// Runs on a stack as large as a console's thread has.
fn with_console(test: impl FnOnce(&mut dyn FnMut(&str) -> Evaluated) + Send + 'static) {
    with(Echo::default, move |console| test(&mut |typed| console.evaluate(typed)));
}

fn with(host: impl FnOnce() -> Echo + Send + 'static, test: impl FnOnce(&mut Console) + Send + 'static) {
    let run = move || {
        let mut console = Console::new(Box::new(host()), PRELUDE, false).expect("it starts");
        test(&mut console);
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn value(text: &str) -> Evaluated {
    Evaluated::Value(Some(text.to_owned()))
}

#[test]
fn values_look_as_in_node() {
    with_console(|evaluate| {
        for (typed, shown) in [
            ("1 + 1", "2"),
            ("-0", "-0"),
            ("10n", "10n"),
            ("'it\\'s'", "\"it's\""),
            ("'a\\nb\\x1b[31m'", "'a\\nb\\x1b[31m'"),
            ("null", "null"),
            ("undefined", "undefined"),
            ("Symbol('s')", "Symbol(s)"),
            ("[1, 'a', , null]", "[ 1, 'a', <1 empty item>, null ]"),
            ("[]", "[]"),
            ("({})", "{}"),
            ("{ a: 1, 'b-c': { d: [] } }", "{ a: 1, 'b-c': { d: [] } }"),
            ("Object.create(null)", "[Object: null prototype] {}"),
            ("class A { x = 1 }; new A()", "A { x: 1 }"),
            ("A", "[class A]"),
            ("function f() {}; f", "[Function: f]"),
            ("() => 1", "[Function (anonymous)]"),
            ("async function g() {}; g", "[AsyncFunction: g]"),
            ("new Map([['a', 1]])", "Map(1) { 'a' => 1 }"),
            ("new Set([1])", "Set(1) { 1 }"),
            ("new Date(0)", "1970-01-01T00:00:00.000Z"),
            ("/a+b/gi", "/a+b/gi"),
            ("new Uint8Array([1, 2])", "Uint8Array(2) [ 1, 2 ]"),
            ("({ get x() { throw 1 }, set y(v) {} })", "{ x: [Getter], y: [Setter] }"),
            ("o = {}; o.self = o", "<ref *1> { self: [Circular *1] }"),
            ("({a:{b:{c:{d:{e:{f:1}}}}}})", "{\n  a: {\n    b: { c: { d: { e: [Object] } } }\n  }\n}"),
            ("new Number(3)", "[Number: 3]"),
            ("({[Symbol('k')]: 1})", "{ [Symbol(k)]: 1 }"),
            (
                "Array.from({length: 30}, (_, i) => i)",
                "[\n   0,  1,  2,  3,  4,  5,  6,  7,  8,\n   9, 10, 11, 12, 13, 14, 15, 16, 17,\n  18, 19, 20, 21, 22, 23, 24, 25, 26,\n  27, 28, 29\n]",
            ),
            ("Promise.resolve(7)", "7"),
        ] {
            assert_eq!(evaluate(typed), value(shown), "{typed}");
        }
        let Evaluated::Value(Some(long)) = evaluate("Array(500).fill('x')") else { panic!("a value") };
        assert!(long.contains("... 400 more items"), "{long}");
        let Evaluated::Value(Some(long)) = evaluate("'y'.repeat(20000)") else { panic!("a value") };
        assert!(long.ends_with("... 10000 more characters"), "{}", long.len());
        assert_eq!(
            evaluate("new Proxy({}, { ownKeys() { throw new Error('mine') } })"),
            value("[what cannot be shown: Error: mine]")
        );
    });
}

#[test]
fn variables_stay_and_may_be_declared_again() {
    with_console(|evaluate| {
        assert_eq!(evaluate("let n = 1; function up() { n += 1; return n }"), Evaluated::Value(None));
        assert_eq!(evaluate("up(); n"), value("2"));
        assert_eq!(evaluate("n = 10; up()"), value("11"));
        assert_eq!(evaluate("let n = 'again'"), Evaluated::Value(None));
        assert_eq!(evaluate("n"), value("'again'"));
        assert_eq!(evaluate("up()"), value("12"));
        assert_eq!(evaluate("_ + 1"), value("13"));
        assert_eq!(evaluate("undeclared = 5"), value("5"));
        assert_eq!(evaluate("undeclared"), value("5"));
        let Evaluated::Failed(text) = evaluate("const k = 1; k = 2") else { panic!("a constant") };
        assert!(text.starts_with("Uncaught TypeError"), "{text}");
        assert_eq!(evaluate("const { a, b: [c] } = { a: 1, b: [2] }; a + c"), value("3"));
    });
}

#[test]
fn operations_are_promises_and_await_works_at_the_top() {
    with_console(|evaluate| {
        assert_eq!(evaluate("const got = await ask('call', { x: [1] }); got.argument.x[0] + 1"), value("2"));
        assert_eq!(evaluate("got.of"), value("'call'"));
        assert_eq!(evaluate("ask('call').then(it => it.argument)"), value("null"));
        assert_eq!(
            evaluate("(await Promise.all([1, 2, 3].map(n => ask('x', n)))).map(it => it.argument)"),
            value("[ 1, 2, 3 ]")
        );
        assert_eq!(evaluate("await sleep(5); 'later'"), value("'later'"));
        let Evaluated::Failed(text) = evaluate("await new Promise(() => {})") else { panic!("never") };
        assert!(text.contains("nothing will settle"), "{text}");
        let Evaluated::Failed(text) = evaluate("await ask('refuse')") else { panic!("refused") };
        assert!(text.starts_with("Uncaught Error: it cannot begin"), "{text}");
        assert_eq!(evaluate("await ask('never')"), Evaluated::Interrupted);
        let Evaluated::Failed(text) = evaluate("for (let i = 0; i < 2000; i++) ask('never'); await ask('x')") else {
            panic!("too many")
        };
        assert!(text.contains("limit console_operations"), "{text}");
        // What an input left behind is gone with it.
        assert_eq!(evaluate("(await ask('x', 1)).argument"), value("1"));
    });
}

#[test]
fn errors_have_a_message_and_the_place_that_was_typed() {
    with_console(|evaluate| {
        for (number, typed, parts) in [
            (1, "let a = 1; nothere(a)", vec!["Uncaught ReferenceError: nothere is not defined", "at REPL1:1"]),
            (2, "1;\n  null.x", vec!["Uncaught TypeError", "REPL2:2:"]),
            (
                3,
                "function deep() { throw new RangeError('far') }\n\ndeep()",
                vec!["RangeError: far", "at deep (REPL3:1:", "REPL3:3:"],
            ),
            (4, "throw 5", vec!["Uncaught 5"]),
            (5, "throw new Error('red \\x1b[31m')", vec!["Error: red \\x1b[31m"]),
            (6, "let x = = 2", vec!["REPL6:1:9", "let x = = 2\n        ^", "SyntaxError"]),
            (7, "await Promise.reject(new TypeError('late'))", vec!["Uncaught TypeError: late"]),
        ] {
            let Evaluated::Failed(text) = evaluate(typed) else { panic!("{typed}") };
            for part in parts {
                assert!(text.contains(part), "input {number}: {part:?} in {text}");
            }
            assert!(!text.contains('\u{1b}'));
        }
        assert_eq!(evaluate("1"), value("1"));
    });
}

#[test]
fn a_loop_ends_with_an_interrupt_and_the_console_goes_on() {
    let stop = Arc::new(AtomicBool::new(false));
    let of_host = Arc::clone(&stop);
    with(
        move || Echo { interrupt: of_host, ..Echo::default() },
        move |console| {
            assert_eq!(console.evaluate("let kept = 7"), Evaluated::Value(None));
            for typed in ["while (true) {}", "function spin() { for (;;) {} }; spin()", "for (;;) await null"] {
                stop.store(true, Ordering::Relaxed);
                assert_eq!(console.evaluate(typed), Evaluated::Interrupted, "{typed}");
                stop.store(false, Ordering::Relaxed);
                assert_eq!(console.evaluate("kept + 1"), value("8"), "after {typed}");
                assert_eq!(
                    console.evaluate("(await ask('x', [1, 2].map(n => n * kept))).argument"),
                    value("[ 7, 14 ]")
                );
            }
        },
    );
}

#[test]
fn a_thousand_errors_leave_it_working() {
    with_console(|evaluate| {
        for _ in 0..1_500 {
            assert!(matches!(evaluate("[1].map(() => { throw new Error('x') })"), Evaluated::Failed(_)));
        }
        assert_eq!(evaluate("1 + 1"), value("2"));
    });
}

#[test]
fn names_are_found_without_calling_getters() {
    with(Echo::default, |console| {
        console.evaluate(
            "var calls = 0; const box = { one: 1, get two() { calls++; return { deep: 1 } }, three: { four: 4 } }",
        );
        assert_eq!(console.members(&["box"]), ["one", "two", "three"]);
        assert_eq!(console.members(&["box", "three"]), ["four"]);
        assert_eq!(console.members(&["box", "two"]), [""; 0]);
        assert_eq!(console.members(&["nowhere"]), [""; 0]);
        assert!(console.members(&[]).iter().any(|name| name == "box"));
        assert_eq!(console.evaluate("calls"), value("0"));
    });
}

#[test]
fn no_file_elsewhere_names_the_engine() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut folders: Vec<_> =
        ["actors", "scripts", "node", "simulator", "bench"].iter().map(|krate| root.join(krate).join("src")).collect();
    let (own, engine) = (root.join("scripts/src"), concat!("bo", "a_"));
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() && path != own.join("worker") && path != own.join("console") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read += 1;
                let text = std::fs::read_to_string(&path).expect("text");
                assert!(!text.contains(engine), "{}", path.display());
            }
        }
    }
    assert!(read > 100, "{read} files");
}
