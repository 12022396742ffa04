//! Users and tokens of a test's node, made as an operator makes them: by the commands.

use std::{
    io::Write as _,
    path::Path,
    process::{Output, Stdio},
};

use super::{House, node};

/// Runs `tidegate` with these arguments on the house's data directory; `stdin` is what it reads.
pub(crate) fn command(house: &House, arguments: &[&str], stdin: &str) -> Output {
    let data = house.data();
    let mut command = node::tidegate(data.parent().unwrap_or(Path::new(".")));
    command.args(arguments).arg("--data-dir").arg(&data);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // It may not read it all.
    let _ = child.stdin.take().expect("stdin is a pipe").write_all(stdin.as_bytes());
    child.wait_with_output().expect("its output")
}

/// As [`command`], and it must succeed; what it wrote to stdout.
#[track_caller]
pub(crate) fn done(house: &House, arguments: &[&str], stdin: &str) -> String {
    let output = command(house, arguments, stdin);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Adds a user.
#[track_caller]
pub(crate) fn user(house: &House, name: &str, role: &str, password: &str) {
    done(house, &["user", "add", name, "--role", role], password);
}

/// Makes a token and gives it back.
#[track_caller]
pub(crate) fn token(house: &House, name: &str, role: &str) -> String {
    done(house, &["token", "create", name, "--role", role], "").trim().to_owned()
}

/// The lines of the audit log with these words.
pub(crate) fn audited(house: &House, words: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(house.data().join("audit.log")).unwrap_or_default();
    text.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}
