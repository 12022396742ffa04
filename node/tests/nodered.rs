//! Bodies of Node-RED's function nodes as handlers, driven by `tidegate script test`, and their import from an export of flows. What a body
//! finds is compared with Node-RED's documentation (https://nodered.org/docs/user-guide/writing-functions).

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::json;
use support::{
    House,
    node::{handlers_in, tidegate},
};

fn script(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command: Command = tidegate(dir);
    let Output { status, stdout, stderr } = command.arg("script").args(arguments).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("it exits by itself"), text(stdout), text(stderr))
}

const TESTS: &str = r#"
import { test } from "node:test";
import assert from "node:assert/strict";
import { device, clock } from "tidegate:test";

const through = (handler, id = "d1") => device(id, { handler: `${handler}.nodered.js` });

test("return msg: the payload is the state", async () => {
  const r = await through("plain").send({ temperature: 20.4, ts: 1000 });
  assert.deepEqual(r.state, { temperature: 20, seen: { deviceId: "d1", ts: 1000, topic: "devices/d1/metrics", id: 16 }, name: "round it", limit: "9" });
  assert.deepEqual(r.logs.map(({ level, text }) => [level, text]), [
    ["warn", "warned { a: 1 }"], ["error", "Error: told"], ["info", "logged"], ["debug", "debugged"], ["debug", "traced"],
  ]);
  assert.deepEqual(r.emitted, [{ name: "status", payload: { fill: "green", shape: "dot", text: "ok" } }]);
});

test("return null stops", async () => {
  const d = through("filter");
  assert.equal((await d.send({ n: 1 })).outcome, "committed");
  const r = await d.send({ n: -1 });
  assert.deepEqual([r.outcome, r.droppedBy, d.state], ["dropped", "filter.nodered.js", { n: 1 }]);
});

test("several outputs, several messages of one", async () => {
  const r = await through("outputs").send({ n: 1 });
  assert.deepEqual(r.state, { n: 1 });
  assert.deepEqual(r.emitted, [{ name: "output3", payload: { a: 1 } }, { name: "output3", payload: "b" }, { name: "high", payload: 5 }]);
  assert.deepEqual(r.commands.map(({ deviceId, name, params }) => [deviceId, name, params]), [["d1", "stop", { now: true }], ["d9", "stop", {}]]);
});

test("what is no message is an error in the log", async () => {
  const r = await through("wrong").send({});
  assert.deepEqual([r.outcome, ...r.logs.map((line) => `${line.level} ${line.text}`)], ["dropped", "error Function tried to send a message of type Array", "error Function tried to send a message of type number"]);
});

test("context, flow and global are kept for the device", async () => {
  const d = through("counter"), other = through("counter", "d2");
  for (const count of [1, 2, 3]) assert.equal((await d.send({})).state.count, count);
  assert.equal((await other.send({})).state.count, 1);
  assert.deepEqual(d.state, { count: 3, many: [3, "x"], nested: 3, keys: ["count", "a"], flow: 3, global: "g", back: 3, none: "undefined" });
});

test("On Start runs with the first reading of a device, once", async () => {
  const d = through("start");
  assert.deepEqual((await d.send({})).state, { begun: 1 });
  assert.deepEqual((await d.send({})).state, { begun: 1 });
});

test("asynchronous messages", async () => {
  const d = through("async"), began = clock.now();
  const r = await d.send({ n: 1 });
  assert.deepEqual([r.state, r.waited, r.emitted], [{ n: 2 }, 50, [{ name: "output2", payload: "soon" }]]);
  assert.equal(clock.now() - began, 50);
  assert.deepEqual((await through("done").send({})).state, { done: true });
  const never = await through("never").send({});
  assert.deepEqual([never.outcome, never.parked.reason], ["parked", "deadline"]);
});

test("errors", async () => {
  const r = await through("throws").send({});
  assert.deepEqual([r.outcome, r.parked.message, r.parked.file, r.parked.line], ["parked", "TypeError: on purpose", "throws.nodered.js", 3]);
  const late = await through("throws").send({ late: true });
  assert.deepEqual([late.parked.message, late.parked.line], ["Error: late", 2]);
});

test("RED.util, util, modules", async () => {
  const r = await through("utils").send({ a: { b: [{ "c d": 5 }] } });
  assert.deepEqual(r.state, {
    got: 5, set: { x: [{ y: 1 }] }, clone: true, text: '{"a":1}', buffer: 2, equal: true, inspect: "{ a: 1 }", lib: 42, prototype: "INVALID_EXPR",
  });
});

test("no output: the reading goes on as it is", async () => {
  const r = await through("sink").send({ n: 1 });
  assert.deepEqual([r.state, r.outcome], [{ n: 1 }, "committed"]);
});

test("which devices", async () => {
  assert.deepEqual((await device("pump-1").send({ only: 1 })).handlers.includes("only.nodered.js"), true);
  assert.deepEqual((await device("other").send({ only: 1 })).handlers.includes("only.nodered.js"), false);
});
"#;

#[test]
fn a_body_finds_what_it_finds_in_node_red() {
    let house = handlers_in(&[
        (
            "plain.nodered.js",
            "// nodered name: round it
// nodered env LIMIT: 9
msg.payload.temperature = Math.round(msg.payload.temperature);
msg.payload.seen = { deviceId: msg.deviceId, ts: msg.ts, topic: msg.topic, id: msg._msgid.length };
msg.payload.name = node.name;
msg.payload.limit = env.get('LIMIT');
node.warn('warned', { a: 1 });
node.error(new Error('told'), msg);
node.log('logged'); node.debug('debugged'); node.trace('traced');
node.status({ fill: 'green', shape: 'dot', text: 'ok' });
return msg;
",
        ),
        ("filter.nodered.js", "if (msg.payload.n < 0) return null;\nreturn msg;"),
        (
            "outputs.nodered.js",
            "// nodered outputs: 5
// nodered output 4: high
// nodered output 5: command stop
node.send([null, null, null, null, { payload: { now: true } }]);
return [msg, null, [{ payload: { a: 1 } }, { payload: 'b' }], { payload: 5 }, { payload: {}, deviceId: 'd9' }, { payload: 'too many' }];
",
        ),
        ("wrong.nodered.js", "// node.done() is called nowhere\nnode.send([[[]], false]); return 5;"),
        (
            "counter.nodered.js",
            "const count = (context.get('count') || 0) + 1;
context.set('count', count);
context.set(['a.b', 'a.c'], [count, 'x']);
flow.set('n', count); global.set('g.h', 'g');
let back;
context.get('count', (error, value) => { back = value; });
msg.payload = { count, many: context.get(['a.b', 'a.c']), nested: context.get('a').b, keys: context.keys(), flow: flow.get('n'), global: context.global.get('g.h'), back, none: typeof context.get('toString') };
return msg;
",
        ),
        ("start.nodered.js", "msg.payload = { begun: context.get('begun') };\nreturn msg;\n// nodered on start\ncontext.set('begun', (context.get('begun') || 0) + 1);\n// nodered on stop\nnode.log('stopped');\n"),
        (
            "async.nodered.js",
            "// nodered outputs: 2
setTimeout(() => { msg.payload.n++; node.send(msg); }, 50);
node.send([null, { payload: 'soon' }]);
",
        ),
        ("done.nodered.js", "Promise.resolve().then(() => { node.send({ payload: { done: true } }); node.done(); });"),
        ("never.nodered.js", "if (msg.never) node.done();"),
        (
            "throws.nodered.js",
            "if (msg.payload.late) {
  setTimeout(() => { throw new Error('late'); }, 5); return; }
throw new TypeError('on purpose');
",
        ),
        (
            "utils.nodered.js",
            "// nodered lib answer: ./lib/answer.js
const copy = RED.util.cloneMessage(msg);
const set = {};
RED.util.setMessageProperty(set, 'payload.x[0].y', 1, true);
let prototype;
try { RED.util.setMessageProperty({}, '__proto__.x', 1, true); } catch (error) { prototype = error.code; }
msg.payload = {
  got: RED.util.getMessageProperty(msg, 'msg.payload.a.b[0][\"c d\"]'), set: set.payload, clone: copy !== msg && copy.payload.a.b !== msg.payload.a.b,
  text: RED.util.ensureString({ a: 1 }), buffer: RED.util.ensureBuffer('hi').length, equal: RED.util.compareObjects({ a: [1] }, { a: [1] }),
  inspect: util.inspect({ a: 1 }), lib: answer.value, prototype,
};
return msg;
",
        ),
        ("lib/answer.js", "exports.value = 42;"),
        ("sink.nodered.js", "// nodered outputs: 0\ncontext.set('last', msg.payload);"),
        ("only.nodered.js", "// nodered devices: pump-*\nreturn msg;"),
        ("a.test.js", TESTS),
    ]);
    let (code, out, err) = script(house.path(), &["test"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = script(house.path(), &["check", "handlers"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn what_is_wrong_with_a_body_is_told_with_its_place() {
    let house = handlers_in(&[
        ("10-setting.nodered.js", "// nodered name: x\n// nodered output 1: y\nreturn msg;"),
        ("20-syntax.nodered.js", "return msg;\nlet a = ;\n"),
        ("30-first.nodered.js", "let a = ;\n"),
    ]);
    let (code, out, _) = script(house.path(), &["check", "handlers"]);
    assert_eq!(code, 1, "{out}");
    for part in [
        "10-setting.nodered.js:2:1: ",
        "1 is the device's state",
        "20-syntax.nodered.js:2:9: ",
        "30-first.nodered.js:1:9: ",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
}

#[test]
fn a_node_runs_bodies_beside_handlers() {
    let house = House::new()
        .handler("10-double.nodered.js", "// nodered devices: d-*\nmsg.payload.n *= 2;\nreturn msg;")
        .handler("20-after.js", "exports.onMetric = (m) => ({ n: m.n + 1 });");
    let mut node = house.start();
    node.post("/devices/d-1/metrics?ack=processed", r#"{"n":20}"#);
    assert_eq!(node.device("d-1").expect("known")["state"], json!({ "n": 41 }));
    assert_eq!(node.stop(), Some(0));
}

const FLOWS: &str = r##"[
  { "id": "tab1", "type": "tab", "label": "Pumps", "disabled": false, "env": [{ "name": "LIMIT", "value": "9", "type": "num" }] },
  { "id": "tab2", "type": "tab", "label": "Old", "disabled": true },
  { "id": "in1", "type": "mqtt in", "z": "tab1", "wires": [["f1"]] },
  { "id": "f1", "type": "function", "z": "tab1", "name": "Check pressure", "func": "msg.payload.high = msg.payload.pressure > Number(env.get('LIMIT'));\nflow.set('last', msg.payload);\nreturn [msg, msg.payload.high ? { payload: 'high' } : null];",
    "outputs": 2, "initialize": "// Code added here will be run once\ncontext.set('n', 0);", "finalize": "// nothing\n", "libs": [{ "var": "moment", "module": "moment" }], "wires": [["d1"], ["d1"]] },
  { "id": "f2", "type": "function", "z": "tab1", "name": "", "func": "return msg;", "outputs": 1, "wires": [[]] },
  { "id": "f3", "type": "function", "z": "tab2", "name": "old", "func": "return msg;", "outputs": 1, "wires": [[]] },
  { "id": "d1", "type": "debug", "z": "tab1", "wires": [] }, { "id": "d2", "type": "debug", "z": "tab1", "wires": [] }
]"##;

#[test]
fn the_function_nodes_of_a_flow_are_imported() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("flows.json"), FLOWS).expect("written");
    let (code, out, err) = script(dir.path(), &["import-nodered", "flows.json", "--out", "handlers"]);
    assert_eq!(code, 0, "{out}{err}");
    for part in [
        "handlers/10-check-pressure.nodered.js\nhandlers/20-f2.nodered.js\n",
        "10-check-pressure.nodered.js: flow is this file's own for each device",
        "the module \"moment\" must be in node_modules",
        "On Start runs with the first reading of each device",
        "output 1 is the device's state, 2 to 2 are the events",
        "its 2 wires",
        "\"old\" (f3): it is switched off",
        "nodes of other types: 2 debug, 1 mqtt in",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let text = fs::read_to_string(dir.path().join("handlers/10-check-pressure.nodered.js")).expect("written");
    let head = "// nodered name: Check pressure\n// nodered id: f1\n// nodered outputs: 2\n// nodered env LIMIT: 9\n// nodered lib moment: moment\nmsg.payload.high";
    assert!(text.starts_with(head), "{text}");
    assert!(
        text.ends_with("// nodered on start\n// Code added here will be run once\ncontext.set('n', 0);\n"),
        "{text}"
    );

    // What was imported runs, once its module is there.
    let write = |name: &str, text: &str| {
        let path = dir.path().join("handlers").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    };
    write("node_modules/moment/index.js", "module.exports = 'a module';");
    write(
        "a.test.js",
        "import { test } from 'node:test'; import assert from 'node:assert'; import { send } from 'tidegate:test';
test('imported', async () => {
  const r = await send('p', { pressure: 10 });
  assert.deepStrictEqual([r.state, r.emitted], [{ pressure: 10, high: true }, [{ name: 'output2', payload: 'high' }]]);
});",
    );
    let (code, out, err) = script(dir.path(), &["test"]);
    assert_eq!(code, 0, "{out}{err}");

    let (code, _, err) = script(dir.path(), &["import-nodered", "flows.json"]);
    assert!(code == 1 && err.contains("is there already; nothing was written"), "{err}");
    assert_eq!(script(dir.path(), &["import-nodered", "flows.json", "--force"]).0, 0);
    fs::write(dir.path().join("none.json"), "[]").expect("written");
    for (file, words) in [
        ("none.json", "no function nodes"),
        ("nowhere.json", "cannot read nowhere.json"),
        ("handlers/a.test.js", "no export of flows"),
    ] {
        let (code, _, err) = script(dir.path(), &["import-nodered", file, "--out", "other"]);
        assert!(code == 1 && err.contains(words), "{words}: {err}");
    }
}
