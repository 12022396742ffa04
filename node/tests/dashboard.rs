//! The dashboard, in a real browser: runs the tests in `browser` against a node.

mod support;

use std::{path::Path, process::Command};

use support::{House, Node, auth::user, eventually, mosquitto::Mosquitto};

const HOT: &str = "export function onMetric(metric, ctx) {
  if (metric.temperature > 90) ctx.emit('hot', { temperature: metric.temperature });
}";

#[test]
fn the_dashboard_shows_what_the_node_has() {
    let broker = Mosquitto::start("");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("tidegate.toml");
    let text = format!(
        "[[bridge]]\nname = \"plant\"\nurl = \"mqtt://{}\"\n[[bridge.subscription]]\nfilter = \"plant/{{d}}\"\ndevice = \"{{d}}\"\n",
        broker.address
    );
    std::fs::write(&config, text).expect("the configuration is written");
    let node = House::new().flags(&["--config", &config.to_string_lossy()]).handler("10-hot.js", HOT).start();
    eventually("the bridge is connected", || {
        Some(()).filter(|()| node.metric("tidegate_bridge_connected{bridge=\"plant\"}") == 1.0)
    });
    broker.publish("plant/", "no device", &[]);
    run("dashboard.test.mjs", &node);
}

#[test]
fn where_there_are_users_the_dashboard_asks_who_one_is() {
    let house = House::new();
    user(&house, "anna", "viewer", "secret");
    user(&house, "d1", "device", "secret");
    let node = house.start();
    let reported = node.as_user("d1", "secret").post("/devices/d1/metrics?ack=processed", "{\"temperature\":21.5}");
    assert_eq!(reported.status, 200, "{}", reported.text());
    run("login.test.mjs", &node);
}

#[test]
fn the_dashboard_shows_which_version_of_the_handlers_runs_and_how_another_fares() {
    let house = House::new()
        .handler("10-a.js", "export function onMetric(m) { return { ...m, version: 1 }; }")
        .variable("TIDEGATE_SCRIPTS__CANARY_SHARE", "100")
        .variable("TIDEGATE_SCRIPTS__CANARY_READINGS", "1000")
        .variable("TIDEGATE_SCRIPTS__CANARY_MS", "60000");
    let node = house.start();
    run_with("versions.test.mjs", &node, Some(&house.path("handlers")));
}

fn run(file: &str, node: &Node) {
    run_with(file, node, None);
}

/// `handlers`: the directory that a test changes.
fn run_with(file: &str, node: &Node, handlers: Option<&Path>) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    assert!(
        tests.join("node_modules/playwright-core").is_dir(),
        "playwright-core is not installed; run: npm ci --prefix {} (test.sh does)",
        tests.display()
    );
    let run = Command::new("node")
        .args(["--test", "--test-reporter=spec", file])
        .current_dir(&tests)
        .env("TIDEGATE_URL", format!("http://{}/", node.http))
        .env("TIDEGATE_HANDLERS", handlers.unwrap_or(Path::new("")))
        .output()
        .expect("Node.js runs (test.sh installs it)");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}\nthe node's log:\n{}", node.log());
}
