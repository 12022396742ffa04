//! `tidegate script test` from outside: the built binary on a directory of handlers with tests beside them.

mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::node::{handlers_in, tidegate};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    #[track_caller]
    fn has(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.out.contains(part), "{part:?} in\n{}\n{}", self.out, self.err);
        }
    }
}

fn test(dir: &Path, arguments: &[&str]) -> Ran {
    let ran = tidegate(dir).args(["script", "test"]).args(arguments).output().expect("the binary starts");
    Ran {
        code: ran.status.code().expect("it exits by itself"),
        out: String::from_utf8(ran.stdout).expect("UTF-8"),
        err: String::from_utf8(ran.stderr).expect("UTF-8"),
    }
}

const COMFORT: &str = r#"
export const match = { devices: ["thermostat-*"] };
export function onMetric(metric, ctx) {
  if (metric.drop) return null;
  ctx.state.readings = (ctx.state.readings ?? 0) + 1;
  console.log("reading", metric.temperature, { of: ctx.deviceId });
  const comfort = metric.temperature < 18 ? "cold" : "good";
  if (comfort === "cold" && ctx.previous?.comfort === "good") {
    ctx.emit("cold-room", { temperature: metric.temperature });
    ctx.command(ctx.deviceId, "heat", { to: 20 });
  }
  return { ...metric, comfort };
}
export const isCold = (t) => t < 18;
"#;
const SETTLE: &str = r#"
export const match = { devices: ["pump-*"] };
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export async function onMetric(metric, ctx) {
  const began = Date.now();
  await pause(metric.wait ?? 5_000);
  return { pressure: metric.pressure, settled: Date.now() - began, at: ctx.now };
}
"#;

#[test]
fn readings_go_through_the_handlers_as_in_a_node() {
    let house = handlers_in(&[
        ("10-comfort.js", COMFORT),
        ("20-settle.js", SETTLE),
        (
            "30-late.js",
            "exports.match = { devices: ['late-*', 'both-*'] }; exports.onMetric = (m) => ({ n: m.n, by: 30 });",
        ),
        ("40-more.js", "exports.match = { devices: ['both-*'] }; exports.onMetric = (m) => ({ ...m, more: true });"),
        (
            "all.test.js",
            r#"
import { test, describe, it, before, beforeEach, afterEach, after } from "node:test";
import assert from "node:assert/strict";
import { device, send, clock } from "tidegate:test";
import { isCold } from "./10-comfort.js";

test("a unit of a handler's file", () => assert.ok(isCold(17)));

test("states, events, commands, logs", async () => {
  const d = device("thermostat-1");
  assert.equal(d.state, null);
  const first = await d.send({ temperature: 20 });
  assert.deepEqual(first.state, { temperature: 20, comfort: "good" });
  assert.equal(first.outcome, "committed");
  assert.deepEqual(first.handlers, ["10-comfort.js"]);
  assert.deepEqual(first.emitted, []);
  const second = await d.send({ temperature: 15 });
  assert.deepEqual(second.emitted, [{ name: "cold-room", payload: { temperature: 15 } }]);
  assert.equal(second.commands.length, 1);
  const { deviceId, name, params } = second.commands[0];
  assert.deepEqual({ deviceId, name, params }, { deviceId: "thermostat-1", name: "heat", params: { to: 20 } });
  assert.deepEqual(second.logs, [{ level: "info", handler: "10-comfort.js", text: "reading 15 { of: 'thermostat-1' }" }]);
  assert.deepEqual(d.ctxState(), { readings: 2 });
  assert.deepEqual(d.ctxState("10-comfort.js"), { readings: 2 });
});

test("what a handler drops", async () => {
  const d = device("thermostat-2");
  await d.send({ temperature: 20 });
  const dropped = await d.send({ drop: true });
  assert.equal(dropped.outcome, "dropped");
  assert.equal(dropped.droppedBy, "10-comfort.js");
  assert.deepEqual(dropped.state, { temperature: 20, comfort: "good" });
});

test("another device is another one, and nobody wants it", async () => {
  const r = await send("lamp-1", { on: true, deviceId: "ignored" });
  assert.deepEqual([r.state, r.handlers, r.outcome], [{ on: true }, [], "committed"]);
});

test("waiting takes no time, but the clock moves", async () => {
  const d = device("pump-1"), began = Date.now();
  const r = await d.send({ pressure: 9 });
  assert.equal(r.state.settled, 5_000);
  assert.equal(r.waited, 5_000);
  assert.equal(Date.now() - began, 5_000);
  assert.equal(r.state.at, began);
});

test("the clock is moved by hand", async () => {
  const d = device("pump-1");
  let done = false;
  const sent = d.send({ pressure: 1, wait: 1_000 }).then(() => { done = true; });
  await clock.advance("999ms");
  assert.equal(done, false);
  assert.equal(d.state, null);
  await clock.advance(1);
  await sent;
  assert.equal(done, true);
  const before = clock.now();
  await clock.advance("40d");
  assert.equal(clock.now() - before, 40 * 86_400_000);
  await clock.set("2030-01-01T00:00:00Z");
  assert.equal(new Date().toISOString(), "2030-01-01T00:00:00.000Z");
  await assert.rejects(clock.set(0), /forward only/);
});

test("late readings never become the state", async () => {
  const d = device("late-1");
  await d.send({ n: 1, ts: 5_000 });
  const late = await d.send({ n: 2 }, { ts: 4_000 });
  assert.equal(late.outcome, "conflated");
  assert.deepEqual(late.state, { n: 1, by: 30 });
});

test("one handler alone, or all", async () => {
  assert.deepEqual((await send("both-1", { n: 1 })).state, { n: 1, by: 30, more: true });
  assert.deepEqual((await send("both-1", { n: 1 }, {})).handlers, ["30-late.js", "40-more.js"]);
  assert.deepEqual((await device("both-1", { handler: "40-more.js" }).send({ n: 1 })).state, { n: 1, more: true });
  await assert.rejects(device("x", { handler: "99.js" }).send({}), /no handler "99.js"/);
});

describe("hooks", () => {
  const order = [];
  before(() => order.push("before"));
  beforeEach(() => order.push("beforeEach"));
  afterEach(() => order.push("afterEach"));
  after(() => assert.deepEqual(order, ["before", "beforeEach", "one", "afterEach", "beforeEach", "two", "afterEach"]));
  it("one", () => { order.push("one"); });
  it("two", (t, done) => { order.push("two"); setTimeout(done, 60_000); });
});

test("subtests and mocks", async (t) => {
  await t.test("inner", (t) => t.diagnostic("noted"));
  const f = t.mock.fn((x) => x * 2);
  assert.equal(f(2), 4);
  assert.deepEqual(f.mock.calls[0].arguments, [2]);
  const object = { method: () => "real" };
  t.mock.method(object, "method", () => "mocked");
  assert.equal(object.method(), "mocked");
  assert.equal(object.method.mock.callCount(), 1);
});
test.skip("skipped", () => assert.fail());
test.todo("to be done");
test("nothing that cannot be a reading", async () => {
  await assert.rejects(send("a", [1]), /a reading is an object/);
  await assert.rejects(send("a b/#", {}), /the device id/);
  await assert.rejects(send("a", "{"), /no JSON/);
  await assert.rejects(send("a", {}, { channel: "x" }), /metrics or telemetry/);
});
"#,
        ),
    ]);
    let began = Instant::now();
    let ran = test(house.path(), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ran.has(&[
        "all.test.js\n",
        "✔ states, events, commands, logs",
        "  hooks\n    ✔ one",
        "✔ inner",
        "| noted",
        "- skipped # skipped",
        "- to be done # to be done",
    ]);
    ran.has(&["15 tests in 1 files: 13 passed, 0 failed, 1 skipped, 1 to be done"]);
    assert!(began.elapsed() < Duration::from_secs(30), "nothing waited: {:?}", began.elapsed());
    // The same again, and one of them.
    let one = test(house.path(), &["handlers/all.test.js", "--filter", "hooks > two", "--json"]);
    // Its `after` hook misses what the other one would have noted.
    assert_eq!((one.code, one.json()["tests"].clone()), (1, json!(1)), "{}", one.out);
}

#[test]
fn what_fails_is_told_with_its_place() {
    let house = handlers_in(&[
        (
            "10-a.js",
            "export function onMetric(m) { if (m.hang) for (;;); if (m.bad) throw new Error('bad reading'); return m; }",
        ),
        (
            "a.test.js",
            "import { test } from 'node:test';
import assert from 'node:assert';
import { device, send } from 'tidegate:test';

test('differs', async () => {
  const r = await send('d', { n: 1 });
  assert.deepStrictEqual(r.state, { n: 2 });
});
test('hangs', () => {
  for (;;);
});
test('hangs in one step', () => {
  /^(a+)+$/.test('a'.repeat(40) + 'b');
});
test('eats memory', () => {
  const all = [], base = 'x'.repeat(1000).repeat(1000);
  for (let i = 0; i < 900; i++) all.push(base + i);
});
test('fails in a callback', async () => {
  setTimeout(() => { throw new TypeError('from a timer'); }, 100);
  await new Promise((done) => setTimeout(done, 200));
});
test('is slow', { timeout: 1000 }, () => new Promise((done) => setTimeout(done, 1001)));
test('a handler that hangs parks its reading', async () => {
  const d = device('d');
  const r = await d.send({ hang: true });
  assert.deepEqual([r.outcome, r.parked.reason, r.parked.handler], ['parked', 'deadline', '10-a.js']);
  const bad = await d.send({ bad: true });
  assert.equal(bad.parked.message, 'Error: bad reading');
  assert.deepEqual([bad.parked.file, bad.parked.line], ['10-a.js', 1]);
  assert.equal((await d.send({ fine: true })).outcome, 'committed');
});
test('spins', () => new Promise(() => { setInterval(() => {}, 1); }));
test('passes after all', () => {});
",
        ),
        ("b.test.mjs", "import { test } from 'node:test';\nimport './nowhere.js';\n"),
        ("c.test.cjs", "const { test } = require('node:test');\ntest('common', () => {});\nconsole.log('printed');"),
        ("d.test.js", "import {test} from 'node:test'\nlet x = ;\n"),
    ]);
    let ran = test(house.path(), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    ran.has(&[
        "✖ differs",
        "AssertionError: Expected values to be strictly deep-equal:\n    + actual - expected",
        "+   n: 1\n    -   n: 2",
        "at a.test.js:7:",
        "7 |   assert.deepStrictEqual(r.state, { n: 2 });",
        "✖ hangs",
        "a loop went round more than 1000000 times",
        "✖ hangs in one step",
        "(limit script_test_wall) and was killed",
        "✖ eats memory",
        "it needed more memory than 128 MB",
        "✖ fails in a callback",
        "TypeError: from a timer",
        "at a.test.js:20:",
        "✖ is slow",
        "test timed out after 1000ms",
        "✔ a handler that hangs parks its reading",
        "✖ spins",
        "it queued more than 1000000 jobs in one call (limit script_test_jobs)",
        "✔ passes after all",
        "b.test.mjs\n  ✖ it does not load",
        "Cannot find module",
        "at b.test.mjs:2:8",
        "✔ common",
        "| printed",
        "at d.test.js:2:9",
        "10 tests in 4 files: 3 passed, 7 failed, 2 files that do not load",
    ]);
    let report =
        test(house.path(), &["handlers/c.test.cjs", "handlers/a.test.js", "--filter", "differs", "--json"]).json();
    let differs = &report["files"][1]["tests"][0];
    assert_eq!((&differs["name"], &differs["state"]), (&json!(["differs"]), &json!("failed")), "{report:#}");
    assert_eq!((&differs["error"]["file"], &differs["error"]["line"]), (&json!("a.test.js"), &json!(7)));
}

#[test]
fn what_cannot_be_tested_is_said() {
    let house = handlers_in(&[
        ("10-broken.js", "export function onMetric(m) {\n  return {\n"),
        ("20-good.js", "export function onMetric(m) { return m; }"),
        ("30-imports.js", "import test from 'node:test';\ntest('x', () => {});\nexport function onMetric(m) { return m; }"),
        (
            "a.test.js",
            "import { test } from 'node:test';
import assert from 'node:assert';
import { device } from 'tidegate:test';
test('all', async () => { await assert.rejects(device('a').send({}), /10-broken.js: abrupt end/); });
test('the good one', async () => { assert.equal((await device('a', { handler: '20-good.js' }).send({ n: 1 })).state.n, 1); });",
        ),
        ("60-plugin/package.json", r#"{ "main": "index.js" }"#),
        ("60-plugin/index.js", "exports.onMetric = (m) => ({ plugin: true });"),
        ("60-plugin/index.test.js", "const { test } = require('node:test'), assert = require('assert'), { device } = require('tidegate:test');
test('in a folder', async () => assert.deepEqual((await device('x', { handler: '60-plugin' }).send({})).state, { plugin: true }));"),
    ]);
    let ran = test(house.path(), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ran.has(&["60-plugin/index.test.js\n  ✔ in a folder", "3 passed"]);
    let file = test(house.path(), &["--handlers", "handlers", "handlers/60-plugin/index.test.js"]);
    assert_eq!(file.code, 0, "{}{}", file.out, file.err);
    for (arguments, words) in [
        (["handlers/20-good.js"].as_slice(), "not a file of tests"),
        (&["nowhere"], "nowhere"),
        (&["handlers/a.test.js", "--handlers", "handlers/60-plugin"], "not below the handlers' directory"),
    ] {
        let ran = test(house.path(), arguments);
        assert!(ran.code != 0 && ran.err.contains(words), "{words}: {}{}", ran.out, ran.err);
    }
    let none = test(house.path(), &["handlers/a.test.js", "--filter", "nothing"]);
    assert_eq!(none.code, 1);
    none.has(&["no test's name has \"nothing\" in it"]);
    fs::create_dir(house.path().join("empty")).expect("a directory");
    let empty = test(house.path(), &["empty"]);
    assert_eq!(empty.code, 1);
    empty.has(&["no tests (*.test.js"]);
}
