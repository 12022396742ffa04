// What many fleets run today: mosquitto, and Node-RED behind it with the handler in a function node.
//
//   MQTT devices/{id}/metrics → mosquitto → mqtt in (JSON) → function → the latest reading of that device in the flow's context
//   POST /metrics             → http in                    → the same function                            → 202
//   GET  /devices/{id}        the latest reading
//   GET  /count               how many readings the function has seen
//
// --handler <file> is the ES module whose onMetric becomes the function node's body; --broker <program> is mosquitto, which is started with
// --config <file> and then listens on --port; Node-RED's own files go into --dir. HTTP has a free port, which is printed. The editor is off,
// logging is off, contexts are in memory: as light as Node-RED comes.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import express from "express";
import RED from "node-red";

const { values: options } = parseArgs({
  options: {
    handler: { type: "string" }, broker: { type: "string" }, config: { type: "string" }, port: { type: "string" }, dir: { type: "string" },
  },
});
const broker = Number(options.port);

// A function node is the body of a function: no exports, and a tail that calls the handler.
const handler = options.handler
  ? readFileSync(options.handler, "utf8").replaceAll(/^export /gm, "")
  : "function onMetric(metric) { return metric; }";
const body = `${handler}
let all = flow.get("all");
if (!all) flow.set("all", (all = { states: new Map(), latest: new Map(), count: 0 }));
const deviceId = msg.topic ? msg.topic.split("/")[1] : msg.payload.deviceId;
let state = all.states.get(deviceId);
if (!state) all.states.set(deviceId, (state = {}));
const now = Date.now();
const result = onMetric({ deviceId, ts: now, ...msg.payload }, { state, previous: all.latest.get(deviceId), now });
if (result !== null) all.latest.set(deviceId, result ?? msg.payload);
all.count += 1;
if (!msg.res) return null;
msg.statusCode = 202;
msg.payload = { accepted: 1 };
return msg;`;

const mosquitto = spawn(options.broker, ["-c", options.config], { stdio: "inherit" });
function stop(code) {
  mosquitto.kill();
  process.exit(code);
}
mosquitto.once("exit", (code) => stop(code ?? 1));
process.once("SIGTERM", () => stop(0));
process.once("SIGINT", () => stop(0));

const at = { x: 0, y: 0, z: "flow" };
const respond = (id) => ({ ...at, id, type: "http response", name: "", statusCode: "", headers: {}, wires: [] });
const func = (id, text, to) => ({
  ...at, id, type: "function", name: id, func: text, outputs: 1, timeout: 0, noerr: 0, initialize: "", finalize: "", libs: [], wires: [[to]],
});
const http = (id, method, url, to) => ({ ...at, id, type: "http in", name: "", url, method, upload: false, swaggerDoc: "", wires: [[to]] });
const flows = [
  { id: "flow", type: "tab", label: "bench", disabled: false, info: "" },
  {
    id: "broker", type: "mqtt-broker", name: "", broker: "127.0.0.1", port: String(broker), clientid: "node-red", autoConnect: true,
    usetls: false, protocolVersion: "4", keepalive: "60", cleansession: true, autoUnsubscribe: true,
  },
  {
    ...at, id: "in", type: "mqtt in", name: "", topic: "devices/+/metrics", qos: "1", datatype: "json", broker: "broker", nl: false, rap: true,
    rh: 0, inputs: 0, wires: [["handler"]],
  },
  http("post", "post", "/metrics", "handler"),
  func("handler", body, "accepted"),
  respond("accepted"),
  http("get", "get", "/devices/:id", "latest"),
  func("latest", 'msg.payload = flow.get("all")?.latest.get(msg.req.params.id) ?? {}; return msg;', "found"),
  respond("found"),
  http("ask", "get", "/count", "count"),
  func("count", 'msg.payload = String(flow.get("all")?.count ?? 0); return msg;', "counted"),
  respond("counted"),
];
writeFileSync(join(options.dir, "flows.json"), JSON.stringify(flows));

const app = express();
const server = createServer(app);
RED.init(server, {
  httpAdminRoot: false,
  httpNodeRoot: "/",
  userDir: options.dir,
  flowFile: "flows.json",
  credentialSecret: false,
  logging: { console: { level: "warn", metrics: false, audit: false } },
  telemetry: { enabled: false },
});
app.use("/", RED.httpNode);
server.listen(0, "127.0.0.1");
await once(server, "listening");
await RED.start();

// Ready is when the whole way is: a message to the broker has come to the function node.
const { port } = server.address();
const count = async () => Number(await (await fetch(`http://127.0.0.1:${port}/count`)).text());
const publish = () =>
  new Promise((resolve) => {
    const text = (string) => Buffer.concat([Buffer.from([0, string.length]), Buffer.from(string)]);
    const packet = (kind, rest) => Buffer.concat([Buffer.from([kind, rest.length]), rest]);
    const socket = connect(broker, "127.0.0.1");
    socket.once("error", resolve).once("close", resolve).resume();
    const hello = Buffer.concat([text("MQTT"), Buffer.from([4, 2, 0, 60]), text("ready")]);
    const reading = Buffer.concat([text("devices/ready/metrics"), Buffer.from('{"temperature":1,"pressure":1,"vibration":0,"battery":1}')]);
    socket.end(Buffer.concat([packet(0x10, hello), packet(0x30, reading), Buffer.from([0xe0, 0])]));
  });
for (;;) {
  await publish();
  await sleep(100);
  const seen = await count().catch(() => 0);
  if (seen > 0) break;
}
console.log(`node-red ready mqtt=127.0.0.1:${broker} http=http://127.0.0.1:${port}/`);
