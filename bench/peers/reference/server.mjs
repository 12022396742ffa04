// The reference that Tidegate is measured against: the ingestion service a Node.js developer would write by hand.
//
//   POST /metrics        one JSON object with a deviceId → the latest reading of that device → its WebSockets → 202
//   GET  /devices/{id}   the latest reading
//   GET  /ws?deviceId=a  WebSocket: the latest reading, then every update
//
// PORT (default 8080; 0 picks a free one, which is printed); --handler <file> runs an ES module's onMetric on each reading.

import { createServer } from "node:http";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { WebSocket, WebSocketServer } from "ws";

const BODY_LIMIT = 1024 * 1024;
const WS_BACKLOG_LIMIT = 256 * 1024;

const { values: options } = parseArgs({ options: { handler: { type: "string" } } });
const onMetric = options.handler ? (await import(pathToFileURL(resolve(options.handler)))).onMetric : null;

const devices = new Map(); // id → { deviceId, state, receivedTime, version }
const handlerStates = new Map(); // id → the handler's ctx.state
const viewers = new Map(); // id → Set of WebSockets

function ingest(metric) {
  const { deviceId } = metric;
  const now = Date.now();
  const previous = devices.get(deviceId);
  let state = metric;
  if (onMetric) {
    let own = handlerStates.get(deviceId);
    if (!own) handlerStates.set(deviceId, (own = {}));
    const ctx = { state: own, previous: previous?.state, now, emit() {}, command() {}, log: console.error };
    const result = onMetric(metric, ctx);
    if (result === null) return;
    if (result !== undefined) state = result;
  }
  const device = { deviceId, state, receivedTime: now, version: (previous?.version ?? 0) + 1 };
  devices.set(deviceId, device);
  const sockets = viewers.get(deviceId);
  if (sockets) broadcast(sockets, device);
}

function broadcast(sockets, device) {
  const message = Buffer.from(JSON.stringify({ type: "state", ...device }));
  for (const socket of sockets) {
    if (socket.readyState === WebSocket.OPEN && socket.bufferedAmount < WS_BACKLOG_LIMIT) {
      socket.send(message, { binary: false });
    }
  }
}

function reply(response, status, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  response.end(text);
}

function postMetrics(request, response) {
  const chunks = [];
  let size = 0;
  request.on("data", (chunk) => {
    size += chunk.length;
    if (size <= BODY_LIMIT) chunks.push(chunk);
  });
  request.on("end", () => {
    if (size > BODY_LIMIT) return reply(response, 413, { title: "body too large" });
    let metric;
    try {
      metric = JSON.parse(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks));
    } catch (error) {
      return reply(response, 400, { title: "not JSON", detail: error.message });
    }
    if (typeof metric?.deviceId !== "string") return reply(response, 400, { title: "deviceId is missing" });
    try {
      ingest(metric);
    } catch (error) {
      return reply(response, 500, { title: "the handler threw", detail: error.message });
    }
    reply(response, 202, { deviceId: metric.deviceId, accepted: 1 });
  });
}

const server = createServer((request, response) => {
  const { method, url } = request;
  if (method === "POST" && url === "/metrics") return postMetrics(request, response);
  if (method === "GET" && url.startsWith("/devices/")) {
    const device = devices.get(decodeURIComponent(url.slice("/devices/".length)));
    return device ? reply(response, 200, device) : reply(response, 404, { title: "no such device" });
  }
  reply(response, 404, { title: "no such page" });
});

const sockets = new WebSocketServer({ server, path: "/ws" });
sockets.on("connection", (socket, request) => {
  const ids = new URL(request.url, "http://localhost").searchParams.getAll("deviceId");
  for (const id of ids) {
    if (!viewers.has(id)) viewers.set(id, new Set());
    viewers.get(id).add(socket);
    if (devices.has(id)) socket.send(JSON.stringify({ type: "state", ...devices.get(id) }));
  }
  socket.on("error", () => socket.terminate());
  socket.on("close", () => {
    for (const id of ids) {
      viewers.get(id).delete(socket);
      if (viewers.get(id).size === 0) viewers.delete(id);
    }
  });
});

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  console.log(`reference ready http=http://127.0.0.1:${server.address().port}/`);
});
process.on("SIGTERM", () => process.exit(0));
