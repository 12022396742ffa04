//! Plugins in a real node: folders with a `package.json`, CommonJS beside ES modules, packages from `node_modules`, and a broken
//! one beside good ones.

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::raw::{RawNode as Node, holds, run};

const MANIFEST: &str = r##"{ "name": "calibrate", "type": "module", "exports": "./src/index.js", "imports": { "#round": "./src/round.cjs" } }"##;
const INDEX: &str = "import round from '#round';
import { twice } from 'twice';
let offset;
export const match = { devices: ['cal-*'] };
export async function initialize(config) {
  await new Promise((done) => setTimeout(done, 5));
  offset = config.offset;
  console.log('initialized with', offset);
}
export function onMetric(metric, ctx) {
  if (metric.fail) throw new Error('on purpose');
  return { ...metric, t: round(twice(metric.t) + offset) };
}
export function dispose() { console.log('disposed'); }
";

/// The files of a folder plugin.
fn calibrate(prefix: &str) -> Vec<(String, &'static str)> {
    [
        ("package.json", MANIFEST),
        ("src/index.js", INDEX),
        ("src/round.cjs", "module.exports = (x) => Math.round(x * 10) / 10;"),
        ("config.json", r#"{ "offset": -0.44 }"#),
        ("node_modules/twice/package.json", r#"{ "main": "lib", "version": "1.0.0" }"#),
        ("node_modules/twice/lib/index.js", "exports.twice = (x) => 2 * x;"),
    ]
    .map(|(path, text)| (format!("{prefix}/{path}"), text))
    .into()
}

fn write(handlers: &Path, files: &[(String, &str)]) {
    for (path, text) in files {
        let path = handlers.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

fn kept(node: &Node, device: &str, metric: &Value) -> Value {
    let mut metric = metric.clone();
    metric["deviceId"] = json!(device);
    let answer = node.post("/metrics?ack=processed", &metric.to_string());
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("kept")), "{answer:?}");
    node.get(&format!("/devices/{device}"))["state"].clone()
}

fn scripts(node: &Node) -> Vec<(String, String)> {
    let overview = node.get("/api/overview");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let scripts = overview["scripts"].as_array().expect("scripts");
    scripts.iter().map(|script| (text(&script["name"]), text(&script["status"]))).collect()
}

#[test]
fn a_folder_is_a_handler_with_a_configuration_and_a_beginning_and_an_end() {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("handlers"), &calibrate("10-calibrate"));
    let mut node = Node::start_in(dir);
    assert_eq!(scripts(&node), [("10-calibrate".to_owned(), "closed".to_owned())]);
    assert_eq!(kept(&node, "cal-1", &json!({"t": 10.0})), json!({"t": 19.6}));
    assert_eq!(kept(&node, "other", &json!({"t": 10.0})), json!({"t": 10.0}), "its match holds");
    assert!(holds(|| !node.logged(&["initialized with -0.44"]).is_empty()), "{}", node.log());

    // What it throws is told with the place in its own file.
    let answer = node.post("/metrics?ack=processed", r#"{"deviceId":"cal-2","fail":true}"#);
    assert_eq!(answer.json()["outcome"], "parked: threw", "{answer:?}");
    let parked = node.get("/parked?limit=10");
    let message = parked["parked"][0]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("on purpose (10-calibrate/src/index.js:11:"), "{message}");

    assert_eq!(node.node.stop(), Some(0));
    assert!(!node.logged(&["disposed"]).is_empty(), "{}", node.log());
}

#[test]
fn a_common_js_handler_works_as_an_es_module_does() {
    let node = Node::start(&[
        (
            "10-old.cjs",
            "const { add } = require('./lib/add'); module.exports = { match: { devices: ['old-*'] }, onMetric: (m) => ({ ...m, t: add(m.t, 1) }) };",
        ),
        ("20-plain.js", "exports.onMetric = async function (m) { return { ...m, file: __filename }; };"),
        (
            "30-new.mjs",
            "import add from './lib/add.js'; export function onMetric(m) { return { ...m, again: add.add(m.t, 1) }; }",
        ),
        ("lib/add.js", "exports.add = (a, b) => a + b;"),
    ]);
    let closed = |name: &str| (name.to_owned(), "closed".to_owned());
    assert_eq!(scripts(&node), [closed("10-old.cjs"), closed("20-plain.js"), closed("30-new.mjs")]);
    assert_eq!(kept(&node, "old-1", &json!({"t": 1})), json!({"t": 2, "file": "/handlers/20-plain.js", "again": 3}));
}

#[test]
fn a_broken_plugin_stops_no_other_and_is_told_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let handlers = dir.path().join("handlers");
    write(&handlers, &calibrate("50-good"));
    let outside = tempfile::tempdir().expect("a directory");
    write(outside.path(), &calibrate("secret"));
    std::os::unix::fs::symlink(outside.path().join("secret"), handlers.join("45-link")).expect("a link");
    let broken = [
        ("10-syntax/package.json", r#"{ "main": "a.js" }"#),
        ("10-syntax/a.js", "module.exports = {\n  onMetric(m) { return m.; },\n};"),
        ("15-manifest/package.json", "{\n  \"main\" \"a.js\" }"),
        ("20-nofile/package.json", r#"{ "main": "none.js" }"#),
        ("25-import/package.json", r#"{ "exports": "./a.mjs" }"#),
        ("25-import/a.mjs", "export function onMetric() {}\nimport nothing from 'nothing';"),
        ("30-init/package.json", r#"{ "type": "module", "exports": "./a.js" }"#),
        (
            "30-init/a.js",
            "export function onMetric() {}\nexport async function initialize(config) {\n  await null;\n  throw new Error(`no ${Object.keys(config).length}`);\n}",
        ),
        ("35-config.js", "export function onMetric() {}\nexport function initialize() {}"),
        ("35-config.config.json", "{\n  bad"),
        (
            "40-slow.mjs",
            "export function onMetric() {}\nexport const initialize = () => new Promise((done) => setTimeout(done, 60000));",
        ),
        ("60-require.cjs", "exports.onMetric = () => {};\nrequire('./lib/none');"),
        ("lib/package.json", r#"{ "type": "commonjs" }"#),
    ];
    write(&handlers, &broken.map(|(path, text)| (path.to_owned(), text)));

    let output = run(dir.path(), &["script", "check", "handlers"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let wanted = [
        ("10-syntax", "10-syntax/a.js:2:"),
        ("15-manifest", "15-manifest/package.json:2:10: it is no JSON"),
        ("20-nofile", "20-nofile/package.json: 20-nofile/package.json names 20-nofile/none.js as its main file"),
        ("25-import", "25-import/a.mjs:2:21: Error: Cannot find package 'nothing'"),
        ("30-init", "30-init/a.js:4:"),
        ("35-config.js", "35-config.config.json:2:3: its configuration is no JSON"),
        ("40-slow.mjs", "40-slow.mjs: while it loads: initialize: it is not done within 2000 ms"),
        ("45-link", "45-link: the link leads out of the handlers' directory"),
        ("60-require.cjs", "60-require.cjs:2:"),
    ];
    for (_, words) in wanted {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert!(said.contains("initialize: Error: no 0") && said.contains("50-good: ok"), "{said}");
    assert!(said.contains("2 |   onMetric(m) { return m.; },\n"), "the line and a caret: {said}");

    let node = Node::start_in(dir);
    let mut all: Vec<_> = wanted.iter().map(|(name, _)| ((*name).to_owned(), "broken".to_owned())).collect();
    all.push(("50-good".to_owned(), "closed".to_owned()));
    all.sort();
    assert_eq!(scripts(&node), all);
    assert_eq!(kept(&node, "cal-1", &json!({"t": 10.0})), json!({"t": 19.6}));
    let log = node.log();
    assert!(log.contains("25-import/a.mjs") && log.contains("Cannot find package 'nothing'"), "{log}");
}

#[test]
fn one_plugin_can_be_checked_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("handlers"), &calibrate("10-calibrate"));
    let output = run(dir.path(), &["script", "check", "handlers/10-calibrate"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "10-calibrate: ok\n");
    let output = run(dir.path(), &["script", "check", "--json", "handlers"]);
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rows, json!([{"name": "10-calibrate", "error": null}]));
}
