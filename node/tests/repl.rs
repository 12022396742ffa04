//! `tidegate repl` from outside: one line and many, at a pipe and at a terminal, by the admin socket and by an address, with and
//! without the right to ask, and what the audit log has of it.

mod support;

use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use support::{
    House, Node,
    auth::{audited, command, token, user},
    eventually,
    node::tidegate,
    pty::Terminal,
};

/// Twelve pumps and three valves.
fn fleet(node: &Node) {
    let readings: Vec<Value> = (0..12)
        .map(|n| json!({"deviceId": format!("pump-{n:02}"), "temperature": 20 + n, "motor": {"speed": n * 100}, "mode": if n % 2 == 0 { "auto" } else { "manual" }}))
        .chain((0..3).map(|n| json!({"deviceId": format!("valve-{n}"), "angle": n * 30})))
        .collect();
    let answer = node.post("/metrics?ack=processed", &Value::from(readings).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn eval(house: &House, scripts: &[&str]) -> Output {
    let arguments: Vec<&str> = ["repl"].into_iter().chain(scripts.iter().flat_map(|script| ["-e", script])).collect();
    command(house, &arguments, "")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn check(house: &House, script: &str, expected: &str) {
    let output = eval(house, &[script]);
    assert_eq!(
        (out(&output).as_str(), output.status.code()),
        (format!("{expected}\n").as_str(), Some(0)),
        "{script}: {}",
        err(&output)
    );
}

#[test]
fn devices_are_asked_found_and_counted_by_the_admin_socket() {
    let house = House::new();
    let node = house.start();
    fleet(&node);
    for (script, expected) in [
        ("count()", "15"),
        ("count({ temperature: { $gt: 28 } })", "3"),
        ("count({ deviceId: /^PUMP-0/i })", "10"),
        ("count({ $or: [{ mode: 'manual' }, { angle: { $exists: true } }] })", "9"),
        (
            "find({ 'motor.speed': { $gte: 1100 } })",
            "[\n  {\n    deviceId: 'pump-11',\n    state: { mode: 'manual', motor: { speed: 1100 }, temperature: 31 },",
        ),
        (
            "find({ temperature: { $gte: 30 } }, { fields: ['temperature', 'motor.speed'] })",
            "[\n  { deviceId: 'pump-10', temperature: 30, 'motor.speed': 1000 },\n  { deviceId: 'pump-11', temperature: 31, 'motor.speed': 1100 }\n]",
        ),
        ("(await find({}, { limit: 3 })).map(it => it.deviceId)", "[ 'pump-00', 'pump-01', 'pump-02' ]"),
        ("(await devices('valve-')).length", "3"),
        ("device('pump-03').state", "{ mode: 'manual', motor: { speed: 300 }, temperature: 23 }"),
        ("device('pump-03').state.motor.speed", "300"),
        ("await device('pump-03').state.temperature > 20", "true"),
        ("(await device('pump-03')).version", "1"),
        ("device('pump-03').at.then(at => at instanceof Date && Date.now() - at < 600000)", "true"),
        ("(await device('pump-03').ledger).committed", "1"),
        ("(await call('GET', '/devices?limit=2')).devices.length", "2"),
        ("(await ledger()).committed", "15"),
        ("(await loops()).length", "2"),
        ("scripts()", "[]"),
        ("(await metrics('tidegate_devices'))", "{"),
        (
            "const all = await Promise.all(['a', 'b'].map(id => call('POST', `/devices/${id}/metrics?ack=processed`, { v: 1 }))); all.map(it => it.outcome)",
            "[ 'kept', 'kept' ]",
        ),
    ] {
        let output = eval(&house, &[script]);
        assert!(out(&output).starts_with(expected), "{script}: {} {}", out(&output), err(&output));
        assert_eq!(output.status.code(), Some(0), "{script}");
    }
    // The first of several that fails is the last.
    let output = eval(&house, &["x = 20", "x + 1", "x + y", "'not reached'"]);
    assert_eq!((out(&output).as_str(), output.status.code()), ("20\n21\n", Some(1)));
    assert!(err(&output).starts_with("Uncaught ReferenceError: y is not defined"), "{}", err(&output));
}

#[test]
fn a_pipe_takes_inputs_of_many_lines_and_commands() {
    let house = House::new();
    let node = house.start();
    fleet(&node);
    let typed = "
const warm = await find({
  temperature: { $gt: 29 },
}, { fields: ['temperature'] });
for (const it of warm) {
  console.log(it.deviceId, it.temperature);
}

.devices valve-
.ledger
.loops
.scripts
.services
warm.length
.exit
never
";
    let output = command(&house, &["repl"], typed);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{text} {}", err(&output));
    assert!(text.starts_with("pump-10 30\npump-11 31\n"), "{text}");
    for part in [
        "DEVICE ",
        "valve-0  no",
        "{\"angle\":60}",
        "READINGS",
        "committed",
        "balanced: yes",
        "LOOP  LAG ms",
        "no handlers",
        "ready",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(text.ends_with("\n2\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");

    for (typed, words) in [
        ("1 +", "the input ends before it is complete"),
        ("let x = = 1", "REPL1:1:9\nlet x = = 1\n        ^\nUncaught SyntaxError"),
        (".nothing", "there is no .nothing; there are .help"),
        ("await find({ a: { $over: 1 } })", "there is no $over for a field; allowed: $gt"),
        ("await find({}, { limit: 0 })", "allowed: 1 to 100000"),
        ("await call('GET', '/stream')", "has no end"),
        ("await device('nobody')", "NodeError: the node refused (404 unknown-device): no reading of device"),
        ("\n\nnull.x", "Uncaught TypeError"),
    ] {
        let output = command(&house, &["repl"], typed);
        assert_eq!(output.status.code(), Some(1), "{typed}: {}", out(&output));
        assert!(err(&output).contains(words), "{typed}: {}", err(&output));
    }
    let output = eval(
        &house,
        &[
            "try { await call('DELETE', '/parked/9') } catch (it) { [it.status, it.kind] } 1",
            "let caught; await call('DELETE', '/parked/9').catch(it => { caught = it }); [caught.status, caught.kind]",
        ],
    );
    assert!(out(&output).contains("[ 404, 'unknown-parked' ]"), "{} {}", out(&output), err(&output));
}

#[test]
fn who_may_not_ask_is_told_so_and_what_was_typed_is_in_the_audit_log() {
    let house = House::new();
    user(&house, "eye", "viewer", "secret");
    let (viewer, operator) = (token(&house, "eye2", "viewer"), token(&house, "op", "operator"));
    let node = house.start();
    let address = format!("http://{}", node.http);
    let socket = house.data().join("admin.sock");
    assert_eq!(std::fs::metadata(&socket).expect("the socket").permissions().mode() & 0o777, 0o600);

    // By the socket as an administrator, although nobody has a password for that.
    check(
        &house,
        "call('POST', '/devices/d1/metrics?ack=processed', { v: 1, password: 'hunter2' }).then(it => it.outcome)",
        "'kept'",
    );
    check(&house, "count()", "1");
    let uid = rustix::process::geteuid().as_raw();
    let lines = eventually("the lines of the audit log", || {
        Some(audited(&house, &["\"action\":\"repl\""])).filter(|lines| lines.len() >= 2)
    });
    assert!(lines[0].contains("password: …") && !lines[0].contains("hunter2"), "{lines:?}");
    for part in [
        format!("\"principal\":\"uid {uid}\""),
        "\"address\":\"admin.sock pid ".to_owned(),
        "\"detail\":\"count()\"".to_owned(),
    ] {
        assert!(lines[1].contains(&part), "{part} in {lines:?}");
    }
    // What changes something is there as for any other client.
    let output = eval(&house, &["await call('DELETE', '/parked/1').catch(it => it.status)"]);
    assert_eq!(out(&output), "404\n");
    eventually("the call in the audit log", || {
        (!audited(&house, &["\"action\":\"http\"", "DELETE /parked/1", &format!("uid {uid}")]).is_empty()).then_some(())
    });

    // By the address: nobody, a viewer, an operator.
    let ask = |token: &str, script: &str| {
        let dir = house.path("");
        let mut command = tidegate(&dir);
        if !token.is_empty() {
            command.env("TIDEGATE_TOKEN", token);
        }
        command.args(["repl", &address, "-e", script]).output().expect("the binary starts")
    };
    let output = ask("", "count()");
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("the node refused (401 unauthorized)"), "{}", err(&output));
    assert_eq!(out(&ask(&viewer, "count()")), "1\n");
    let output = ask(&viewer, "await call('POST', '/scripts/reload')");
    assert!(
        err(&output).contains("(403 forbidden): eye2 has the role viewer; this needs operator"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("at REPL1"), "{}", err(&output));
    assert_eq!(out(&ask(&operator, "call('DELETE', '/parked/1').catch(it => it.status)")), "404\n");
    eventually("the operator's line", || {
        (!audited(&house, &["\"action\":\"repl\"", "\"principal\":\"op\"", "DELETE"]).is_empty()).then_some(())
    });

    // Another user of the machine.
    if rustix::process::geteuid().is_root() {
        let open = |path: &std::path::Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        };
        open(&house.path(""));
        open(&house.data());
        let refused = Command::new("python3")
            .args(["-c", "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ntry: s.connect(sys.argv[1]); print('in')\nexcept PermissionError: print('refused')"])
            .arg(&socket)
            .uid(65_534)
            .gid(65_534)
            .current_dir("/")
            .output();
        assert_eq!(out(&refused.expect("python3 starts")), "refused\n");
    }
}

#[test]
fn other_commands_find_the_local_node_and_a_node_that_is_away_is_said_plainly() {
    let house = House::new();
    let mut node = house.start();
    // The default of --node is the data directory beside which a command runs.
    std::os::unix::fs::symlink(house.data(), house.path("tidegate-data")).expect("a link");
    let here = |arguments: &[&str]| {
        tidegate(&house.path("")).args(arguments).stdin(Stdio::null()).output().expect("the binary starts")
    };
    let output = here(&["parked", "list"]);
    assert_eq!((out(&output).as_str(), output.status.code()), ("nothing is parked\n", Some(0)), "{}", err(&output));
    assert_eq!(out(&here(&["repl", "-e", "1 + 1"])), "2\n");
    assert_eq!(out(&here(&["repl", "-e", "count()"])), "0\n");

    let address = node.http.to_string();
    let output = here(&["repl", &address, "http://127.0.0.1:1", "-e", ".services"]);
    let text = out(&output);
    assert!(text.contains(&format!("*  1  http://{address}  ready")), "{text}");
    assert!(text.contains("2  http://127.0.0.1:1") && text.contains("no node answers"), "{text}");
    let output = here(&["repl", &address, "-e", ".connect http://127.0.0.1:1"]);
    assert!(err(&output).contains("no node answers at http://127.0.0.1:1"), "{}", err(&output));
    assert_eq!(output.status.code(), Some(1));

    assert_eq!(node.stop(), Some(0));
    assert!(!house.data().join("admin.sock").exists(), "it goes with the node");
    let output = here(&["repl", &format!("http://{address}"), "-e", "count()"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains(&format!("no node answers at http://{address}")), "{}", err(&output));
    let output = here(&["repl", "https://a", "-e", "1"]);
    assert!(err(&output).contains("is no address of a node"), "{}", err(&output));
    // One that was killed leaves a socket behind, which the next start replaces.
    node = house.start();
    node.kill9();
    assert!(house.data().join("admin.sock").exists());
    node = house.start();
    assert_eq!(out(&here(&["repl", "-e", "count()"])), "0\n");
    assert_eq!(node.stop(), Some(0));
}

fn terminal(house: &House) -> Terminal {
    let mut command = tidegate(&house.path(""));
    command
        .args(["repl", "--data-dir"])
        .arg(house.data())
        .env("XDG_STATE_HOME", house.path("state"))
        .env_remove("NO_COLOR");
    Terminal::start(command)
}

#[test]
fn a_terminal_has_history_completion_colours_and_lines_that_go_on() {
    let house = House::new();
    let node = house.start();
    fleet(&node);
    let mut at = terminal(&house);
    at.shows("local> ");
    at.types("cou\t()\r");
    at.shows("local> count");
    at.shows("15");
    at.shows("local> ");
    at.types("device(\"val\t2\").sta\t.an\t\r");
    at.shows("60");
    at.shows("local> ");
    at.types("[1,\r");
    at.types("2]\r");
    at.shows("[ 1, 2 ]");
    at.shows("local> ");
    at.types("x = 'tg_0123456789abcdef'\r");
    at.shows("local> ");
    at.types(".led\t\r");
    at.shows("balanced: yes");
    at.shows("local> ");
    // Ctrl-C takes the line away, Ctrl-D leaves.
    at.types("nonsense(\u{3}");
    at.shows("local> ");
    at.types("'still here'\r");
    at.shows("still here");
    at.shows("local> ");
    at.types("\u{4}");
    assert!(at.ends().success());

    let file = house.path("state").join("tidegate/repl_history");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    let text = std::fs::read_to_string(&file).expect("text");
    assert!(text.contains("count()") && text.contains(".ledger"), "{text}");
    assert!(!text.contains("tg_"), "what looks like a secret is not kept: {text}");

    let mut at = terminal(&house);
    at.shows("local> ");
    // Up, three times: the third last.
    at.types("\u{1b}[A\u{1b}[A\u{1b}[A\r");
    at.shows("[ 1, 2 ]");
    at.shows("local> ");
    at.types(".history 2\r");
    at.shows(".history 2");
    at.shows("local> ");
    at.types(".exit\r");
    assert!(at.ends().success());
}

#[test]
fn ctrl_c_ends_what_runs_and_twice_leaves() {
    let house = House::new();
    let node = house.start();
    fleet(&node);
    let mut at = terminal(&house);
    at.shows("local> ");
    at.types("let kept = 1; print = console.log; print('go' + 'es'); while (true) {}\r");
    at.shows("goes");
    at.interrupt();
    at.shows("interrupted");
    at.shows("local> ");
    at.types("console.log('as' + 'leep'); await sleep(3600000)\r");
    at.shows("asleep");
    at.interrupt();
    at.shows("interrupted");
    at.shows("local> ");
    at.types("kept + (await count())\r");
    at.shows("16");
    at.shows("local> ");
    // Hopeless inside of the engine.
    at.types("console.log('ha' + 'ngs'); /^(a+)+$/.test('a'.repeat(64) + '!')\r");
    at.shows("hangs");
    at.interrupt();
    at.shows("Ctrl-C again leaves");
    at.interrupt();
    assert_eq!(at.ends().code(), Some(130));
}
