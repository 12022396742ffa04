// What does not compile: each line that is wrong ends with the compiler's code for it.
import type { Handler, OnMetric, Match } from "./tidegate";
import assert from "node:assert/strict";
import { test } from "node:test";
import { device, clock } from "tidegate:test";
import nothing from "node:nothing"; // TS2307
import { createHash } from "node:crypto";
import { Worker, parentPort } from "node:worker_threads";

export const match: Match = { device: ["a"] }; // TS2561
export const topics: Match = { topics: "a/#" }; // TS2322
export const number: OnMetric = () => 5; // TS2322
export const text: OnMetric = async () => "text"; // TS2322
export const typed: OnMetric<{ temperature: number }, { count?: number }, { kept: string }> = (metric, ctx) => {
  metric.temperatur; // TS2551
  metric.deviceId = 5; // TS2322
  ctx.state.count = "one"; // TS2322
  ctx.previous.kept; // TS18047
  ctx.now = 1; // TS2540
  ctx.emit(); // TS2554
  ctx.command("a"); // TS2554
  ctx.send("a"); // TS2339
};
export const handler: Handler = { matching: {} }; // TS2353
export const timers: Handler = { timers: { sweep: "5 minutes" } }; // TS2322
export const priority: Handler = { priority: "urgent" }; // TS2322
export const reply: NonNullable<Handler["onCommandReply"]> = (reply) => { reply.replied; }; // TS2339
createHash(5); // TS2345
fetch("http://a/", { method: 5 }); // TS2322
document.title; // TS2584
fetchAll(); // TS2304
setTimeout("text", 5); // TS2345
new Worker("1", { eval: true }); // TS2353
new Worker(5); // TS2345
parentPort.close(); // TS18047
test("x", async () => {
  const r = await device("a").send(5); // TS2345
  device("a", { handlers: [] }); // TS2561
  await clock.advance("soon"); // TS2345
  r.outcome === "lost"; // TS2367
  assert.throws("x"); // TS2345
});
