//! What a node refuses to start with, and what the commands refuse.

mod support;

use std::path::Path;

use support::{
    House,
    auth::{command, done, user},
    raw,
};

/// Starts a node that is expected not to; its exit code and what it says.
#[track_caller]
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = raw::run(dir, arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{arguments:?}: {words}");
    words
}

#[test]
fn an_address_that_others_can_reach_needs_users() {
    let house = House::new();
    std::fs::create_dir_all(house.data()).unwrap();
    let dir = house.data().parent().unwrap().to_owned();
    for (flag, other, key) in [("--mqtt-bind", "--http-bind", "mqtt.bind"), ("--http-bind", "--mqtt-bind", "http.bind")]
    {
        let arguments = ["serve", "--data-dir", "data", flag, "0.0.0.0:0", other, "127.0.0.1:0"];
        let words = refused(&dir, &arguments);
        for word in [key, "0.0.0.0:0", "tidegate user add", "--insecure-allow-anonymous"] {
            assert!(words.contains(word), "{words}");
        }
    }
    // With a user it starts; but not if that listener asks nobody.
    user(&house, "d1", "device", "secret");
    let open = house.flags(&["--mqtt-bind", "0.0.0.0:0", "--mqtt-bind", "127.0.0.1:0"]);
    drop(open.start());
    let open = open.variable("TIDEGATE_AUTH__ALLOW_ANONYMOUS", "http");
    drop(open.start());
    std::fs::write(dir.join("tidegate.toml"), "auth.allow_anonymous = \"mqtt\"\n").unwrap();
    let words =
        refused(&dir, &["serve", "--data-dir", "data", "--mqtt-bind", "0.0.0.0:0", "--http-bind", "127.0.0.1:0"]);
    assert!(words.contains("auth.allow_anonymous without this listener"), "{words}");
}

#[test]
fn a_bad_file_refuses_to_start_and_says_where() {
    let house = House::new();
    user(&house, "d1", "device", "secret");
    let dir = house.data().parent().unwrap().to_owned();
    let serve = |more: &[&str]| {
        let mut arguments = raw::SERVE.to_vec();
        arguments.extend(["--data-dir", "data"]);
        arguments.extend(more);
        refused(&dir, &arguments)
    };
    std::fs::write(dir.join("acl"), "user d1\ntopic raed a\n").unwrap();
    assert!(serve(&["--acl-file", "acl"]).contains("acl:2:7: \"raed\" is no access"));
    let checked = raw::run(&dir, &["config", "check", "--data-dir", "data", "--acl-file", "acl"]);
    let words = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.code() == Some(78) && words.contains("--acl-file: acl:2:7"), "{words}");
    assert!(serve(&["--acl-file", "missing"]).contains("missing: is not there"));
    assert!(serve(&["--users-file", "missing"]).contains("missing: is not there"));
    let users = house.data().join("users.jsonl");
    let text = std::fs::read_to_string(&users).unwrap();
    std::fs::write(&users, format!("{text}{{\"user\":\"d2\",\"password\":\"plain\"}}\n")).unwrap();
    assert!(serve(&[]).contains("users.jsonl:2:1: the password is not hashed"));
}

#[test]
fn the_commands_check_what_they_are_given() {
    let house = House::new();
    let no = |arguments: &[&str], stdin: &str, words: &str| {
        let output = command(&house, arguments, stdin);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    };
    no(&["user", "add", "a/b"], "x", "names no device");
    no(&["user", "add", "a:b", "--role", "viewer"], "x", "may not contain ':'");
    no(&["user", "add", "d1"], "", "the password is empty");
    no(&["user", "add", "d1", "--role", "root"], "x", "possible values");
    no(&["user", "passwd", "d1"], "x", "there is no user \"d1\"");
    no(&["user", "remove", "d1"], "", "there is no user \"d1\"");
    no(&["token", "create", "d1", "--from-stdin"], "short", "a token has 16 to 256 characters");
    no(&["token", "revoke", "x"], "", "there is no token \"x\"");
    assert!(!house.data().join("users.jsonl").exists(), "nothing of it was written");
    user(&house, "d1", "device", "secret");
    no(&["user", "add", "d1"], "x", "is there already");
    done(&house, &["user", "disable", "cert-7"], "");
    assert!(done(&house, &["user", "list"], "").contains("cert-7  device  no-password  disabled"));
    done(&house, &["user", "enable", "cert-7"], "");
    assert!(!done(&house, &["user", "list"], "").contains("cert-7"));
    let bad = house.data().join("bad");
    std::fs::write(&bad, "alice:plain\n").unwrap();
    no(&["user", "import", bad.to_str().unwrap()], "", "bad:1: the password is not hashed");
}
