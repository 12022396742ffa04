//! `tidegate script types`, checked by the TypeScript compiler: what is right compiles, and what is wrong gives the error that its line
//! names, in TypeScript and in JavaScript with JSDoc.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use support::node::tidegate;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/types")
}

/// `file:line code` of each error of the compiler.
fn compile(dir: &Path) -> (BTreeSet<String>, String) {
    let compiler = sources().join("node_modules/typescript/lib/tsc.js");
    assert!(
        compiler.is_file(),
        "TypeScript is not installed; run: npm ci --prefix {} (test.sh does)",
        sources().display()
    );
    let ran = Command::new("node").arg(compiler).args(["-p", ".", "--pretty", "false"]).current_dir(dir).output();
    let text = String::from_utf8(ran.expect("node runs: it is needed for this test").stdout).expect("UTF-8");
    let error = |line: &str| {
        let (file, rest) = line.split_once('(')?;
        let (line, rest) = rest.split_once(',')?;
        let code = rest.split_once("error ")?.1.split(':').next()?;
        Some(format!("{file}:{line} {code}"))
    };
    (text.lines().filter_map(error).collect(), text)
}

#[test]
fn the_declarations_say_what_is_right_and_what_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let ran = tidegate(dir.path()).args(["script", "types", "."]).output().expect("the binary starts");
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "./tidegate.d.ts\n./tidegate-worker.d.ts\n");
    let mut expected = BTreeSet::new();
    for file in fs::read_dir(sources()).expect("the sources") {
        let name = file.expect("a file").file_name().into_string().expect("UTF-8");
        let path = sources().join(&name);
        if !path.is_file() || name.starts_with("package") || name.starts_with('.') {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source");
        for (number, line) in (1..).zip(text.lines()) {
            if let Some((_, code)) = line.rsplit_once("// TS") {
                expected.insert(format!("{name}:{number} TS{code}"));
            }
        }
        fs::write(dir.path().join(name), text).expect("written");
    }
    assert!(expected.len() >= 20, "{expected:?}");
    let (found, text) = compile(dir.path());
    assert_eq!(found, expected, "{text}");
}

#[test]
fn the_declarations_of_a_handler_are_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let ran = tidegate(dir.path()).args(["script", "types"]).output().expect("the binary starts");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("export interface Handler<"));
    let ran = tidegate(dir.path()).args(["script", "types", "nowhere"]).output().expect("the binary starts");
    let words = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success() && words.contains("cannot write nowhere/tidegate.d.ts"), "{words}");
}
