// What compiles: a handler, its context, the globals of a worker, and a test.
import type { Handler, OnMetric, Match, Context } from "./tidegate";
import assert from "node:assert/strict";
import { test, describe, it, beforeEach, mock } from "node:test";
import { device, send, clock } from "tidegate:test";
import { inspect } from "node:util";
import path from "node:path";
import EventEmitter, { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { createHash, createHmac, pbkdf2, randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import fs from "node:fs/promises";
import { promises } from "node:fs";
import zlib, { gzipSync } from "node:zlib";
import { lookup } from "node:dns/promises";
import { Worker, isMainThread, parentPort, threadId, workerData } from "node:worker_threads";

interface Reading { temperature: number; humidity?: number }
interface State { readings?: number }
interface Kept extends Reading { comfort: "cold" | "good" }

export const match: Match = { devices: ["thermostat-*"], topics: ["devices/+/metrics"] };
export const onMetric: OnMetric<Reading, State, Kept> = async (metric, ctx) => {
  ctx.state.readings = (ctx.state.readings ?? 0) + 1;
  const comfort = metric.temperature < 18 ? "cold" : "good";
  if (comfort === "cold" && ctx.previous?.comfort === "good") {
    ctx.emit("cold-room", { at: metric.ts, of: metric.deviceId.toUpperCase() });
    const id: string = ctx.command(ctx.deviceId, "heat", { to: 20 });
    ctx.log("heating", id);
  }
  await pause(10);
  return { ...metric, comfort };
};
export const plain: Handler = {
  onMetric(metric, ctx) { return metric.whatever === 1 ? null : undefined; },
  initialize(config) { console.log(config.offset); },
  async dispose() {},
};
export const events: Handler<Reading, State, Kept> = {
  onConnect: (event, ctx) => ({ ...ctx.previous, online: true, at: event.ts }),
  onDisconnect(event) { console.log(event.deviceId); },
  onCommandReply: (reply, ctx) => (reply.status === "replied" ? { ...ctx.previous, got: reply.reply } : null),
  async onTimer(tick) { console.log(tick.timer, tick.everyMs / 1000); },
  timers: { sweep: "5m", often: 1500, nightly: { every: "1d", device: "plant" } },
  priority: "high",
};
export const slow: OnMetric = async (metric) => {
  const digest: string = createHash("sha256").update("a").update(Buffer.from("b")).digest("hex");
  const mac: Buffer = createHmac("sha1", "key").update(digest).digest();
  timingSafeEqual(mac, randomBytes(20));
  pbkdf2("password", "salt", 1000, 32, "sha256", (error, key) => { if (!error) console.log(key.length); });
  scrypt("password", "salt", 32, { N: 1024 }, (error, key) => { if (!error) console.log(key.toString("hex")); });
  zlib.gunzip(gzipSync("text"), (error, out) => { if (!error) console.log(String(out)); });
  await fs.writeFile("seen.txt", `${metric.deviceId}\n`, { flag: "a" });
  const seen: string = await promises.readFile("seen.txt", "utf8");
  const { address, family } = await lookup("example.com");
  const response = await fetch("https://example.com/", { method: "POST", body: JSON.stringify({ seen }), headers: { "content-type": "application/json" }, signal: AbortSignal.timeout(1000) });
  if (!response.ok) throw new Error(`${response.status} of ${address} ${family}`);
  return { ...(await response.json()), etag: response.headers.get("etag") };
};
function helper(ctx: Context): void { ctx.state = { fresh: true }; }

setTimeout((text: string) => console.log(text, inspect({ a: 1 }, { depth: null })), 10, "late").unref();
const bytes: Buffer = Buffer.from("aGk=", "base64");
console.warn(bytes.readUInt16BE(0), path.join("a", "b"), new URL("http://a/?b=1").searchParams.get("b"), structuredClone({ a: 1 }).a);
process.nextTick(() => queueMicrotask(() => {}));
const emitter = new EventEmitter();
once(emitter, "x").then(([value]) => value);
new AbortController().signal.addEventListener("abort", () => {});
export { helper };
export const heavy: OnMetric = (metric) => new Promise((resolve, reject) => {
  const worker = new Worker("./fft.task.js", { workerData: metric.samples });
  worker.once("message", (spectrum) => resolve({ spectrum })).once("error", reject);
  worker.on("exit", (code) => console.log(code.toFixed(), worker.threadId));
  worker.postMessage(new Float64Array(4));
  worker.terminate().then((code) => code);
});
if (!isMainThread) parentPort?.on("message", (value) => parentPort?.postMessage([workerData, value, threadId]));
process.exit?.(process.exitCode);

describe("comfort", () => {
  beforeEach(() => {});
  it("is cold", async (t) => {
    const d = device<Kept>("thermostat-1");
    const r = await d.send({ temperature: 20 }, { ts: new Date(), channel: "metrics" });
    assert.equal(r.state.comfort, "good");
    assert.ok(r.parked === null && r.outcome === "committed");
    await clock.advance("10s");
    await clock.advance(5);
    t.mock.fn((x: number) => x).mock.callCount();
    await t.test("inner", () => {});
  });
  it.skip("not yet", (t, done) => done());
});
test("without a suite", { timeout: 100 }, async () => {
  assert.deepEqual((await send("lamp", { on: true })).emitted, []);
  await assert.rejects(send("x", "{"), /no JSON/);
  mock.method({ f: () => 1 }, "f");
});
