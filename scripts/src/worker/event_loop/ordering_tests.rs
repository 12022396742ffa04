//! The order of callbacks beside that of Node.js: each case of `ordering_cases.js` and of `../globals/cases.js` runs in both, and
//! must print the same.

use std::{fs, process::Command, rc::Rc, thread, time::Instant};

use hashbrown::HashMap;
use tidegate_actors::limits;

use super::super::{
    engine::{Called, Engine, Sources},
    memory::Memory,
};
use crate::modules::Tree;

/// The cases of a file: `//// name`, then the source.
fn cases(text: &'static str) -> Vec<(&'static str, &'static str)> {
    text.split("//// ").skip(1).filter_map(|case| case.split_once('\n')).collect()
}

/// What Node.js prints.
fn by_node(source: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("case.js");
    fs::write(&file, source).expect("a file");
    let ran = Command::new("node").arg(&file).output().expect("node runs: it is needed for this test");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect()
}

/// What a handler of this body prints.
fn by_us(source: &str) -> Vec<String> {
    let heap = limits::SCRIPT_HEAP_BYTES;
    let file = format!("export function onMetric() {{\n{source}\n}}");
    let files = HashMap::from([("case.js".to_owned(), file)]);
    let sources = Sources { scripts: vec![("case.js".to_owned(), true)], tree: Rc::new(Tree::new(files)) };
    let mut engine = Engine::new(sources, Rc::new(Memory::new(heap)), heap, limits::SCRIPT_ASYNC_WALL);
    let loaded = engine.load(|_| {});
    engine.host.begin_reading();
    let metric = engine.metric(0, b"{}", 0).expect("a metric");
    let mut called = engine.call(0, 0, metric);
    let failed = loop {
        match called {
            Ok(Called::Done(_)) => break None,
            Ok(Called::Waits(id, at)) => {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                called = engine.go_on(0, id);
            }
            Err(fault) => break Some(format!("failed: {} ({loaded:?})", fault.message)),
        }
    };
    engine.end_call(0);
    // As a process would: the next thing after the last callback is the end.
    engine.exit();
    engine.host.logs.take().into_iter().map(|line| line.text).chain(failed).collect()
}

fn check(text: &'static str, least: usize) {
    let cases = cases(text);
    assert!(cases.len() >= least, "{} cases", cases.len());
    let mut wrong = String::new();
    for (name, source) in cases {
        let (ours, mut theirs) = (by_us(source), by_node(source));
        // The timers of Node.js are the machine's: where that was held up, the order may be another, and it is asked again.
        for _ in 0..4 {
            if ours != theirs {
                theirs = by_node(source);
            }
        }
        if ours != theirs {
            wrong += &format!("{name}:\n  node {theirs:?}\n  here {ours:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn callbacks_come_in_the_order_of_node() {
    check(include_str!("ordering_cases.js"), 40);
}

#[test]
fn globals_do_as_those_of_node() {
    check(include_str!("../globals/cases.js"), 20);
}

#[test]
fn the_classic_listing() {
    let classic = cases(include_str!("ordering_cases.js"))[0].1;
    assert_eq!(by_us(classic), ["script start", "script end", "nextTick", "promise 1", "promise 2", "timeout"]);
}
