//! Modules beside those of Node.js: each case of `tests/modules/*.txt` runs in both, and must print the same. A case is
//! `//// name`, then files, each `--- path` and its source; the first file is the handler.

use std::{fs, process::Command, rc::Rc};

use hashbrown::HashMap;
use tidegate_actors::limits;

use super::super::{
    engine::{Engine, Sources},
    memory::Memory,
};
use crate::{
    frame::Loaded,
    modules::{ROOT, Tree},
};

/// What is printed last when an error was not caught.
const FAILED: &str = "(failed)";

type Files<'a> = Vec<(&'a str, &'a str)>;

/// The cases of a file.
fn cases(text: &str) -> Vec<(&str, Files<'_>)> {
    let mut cases = Vec::new();
    for case in text.split("//// ").skip(1) {
        let name = case.lines().next().unwrap_or_default();
        let files = case.trim_end().split("\n--- ").skip(1);
        cases.push((name, files.map(|file| file.split_once('\n').unwrap_or((file, ""))).collect()));
    }
    cases
}

/// What Node.js prints.
fn by_node(files: &Files<'_>) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let root = fs::canonicalize(dir.path()).expect("a directory");
    for (path, source) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, source).expect("a file");
    }
    let ran = Command::new("node").arg(root.join(files[0].0)).output().expect("node runs: it is needed for this test");
    let printed = String::from_utf8_lossy(&ran.stdout).replace(&*root.to_string_lossy(), ROOT);
    let failed = (!ran.status.success()).then(|| FAILED.to_owned());
    printed.lines().map(str::to_owned).chain(failed).collect()
}

/// What a worker prints that loads the first file as a handler.
fn by_us(files: &Files<'_>) -> Vec<String> {
    let heap = limits::SCRIPT_HEAP_BYTES;
    let tree: HashMap<_, _> = files.iter().map(|(path, source)| ((*path).to_owned(), (*source).to_owned())).collect();
    let sources = Sources { scripts: vec![(files[0].0.to_owned(), true)], tree: Rc::new(Tree::new(tree)) };
    let mut engine = Engine::new(sources, Rc::new(Memory::new(heap)), heap, limits::SCRIPT_ASYNC_WALL);
    let loaded = engine.load(|_| {});
    let failed = match &loaded[0] {
        Loaded::Broken(fault) if !fault.message.contains("exports no function onMetric") => {
            eprintln!("{}: {fault:?}", files[0].0);
            Some(FAILED.to_owned())
        }
        _ => None,
    };
    let logs = engine.host.logs.take();
    // A line of the log is one line: what was printed with line ends was made into one of spaces.
    logs.into_iter().map(|line| line.text).chain(failed).collect()
}

fn check(file: &str, least: usize) {
    let path = format!("{}/tests/modules/{file}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("the cases");
    let cases = cases(&text);
    assert!(cases.len() >= least, "{} cases", cases.len());
    let mut wrong = String::new();
    for (name, files) in cases {
        let (ours, theirs) = (by_us(&files).join(" "), by_node(&files).join(" "));
        if ours != theirs {
            wrong += &format!("{name}:\n  node {theirs}\n  here {ours}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn es_modules_are_those_of_node() {
    check("esm", 50);
}

#[test]
fn common_js_is_that_of_node() {
    check("commonjs", 35);
}

#[test]
fn both_kinds_use_each_other_as_in_node() {
    check("interop", 40);
}

#[test]
fn packages_are_resolved_as_in_node() {
    check("packages", 30);
}

#[test]
fn errors_of_modules_are_those_of_node() {
    check("errors", 15);
}

#[test]
fn built_in_modules_are_those_of_node() {
    check("builtins", 13);
}
