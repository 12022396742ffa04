// What the body of a Node-RED function node finds: `msg`, `node`, `context`, `flow`, `global`, `env`, `RED`, timers. By the
// documentation of Node-RED (https://nodered.org/docs/user-guide/writing-functions) and its function node; where a node of
// Tidegate is no Node-RED, docs/node-red.md says what is done instead.
(function (native, load) {
  "use strict";
  const { isDeepStrictEqual } = load("equal");
  const { inspect } = load("inspect");
  const { hasOwn, keys, entries, freeze, assign } = Object;

  // ---- RED.util

  // `a.b["c"][0]` → its parts.
  function parts(path) {
    const found = [], given = `${path}`;
    const piece = /(?:^|\.)([^.[\]"'\s]+)|\[\s*(\d+)\s*\]|\[\s*"([^"]*)"\s*\]|\[\s*'([^']*)'\s*\]/gy;
    let at = 0;
    while (at < given.length) {
      piece.lastIndex = at;
      const match = piece.exec(given);
      if (match === null) throw assign(new Error(`Invalid property expression: ${inspect(given)} at position ${at}`), { code: "INVALID_EXPR" });
      found.push(match[2] === undefined ? match[1] ?? match[3] ?? match[4] : Number(match[2]));
      at = piece.lastIndex;
    }
    if (found.length === 0) throw assign(new Error("Invalid property expression: zero-length"), { code: "INVALID_EXPR" });
    if (found.some((part) => part === "__proto__" || part === "constructor" || part === "prototype")) throw assign(new Error(`Invalid property expression: ${inspect(given)}`), { code: "INVALID_EXPR" });
    return found;
  }
  function getProperty(object, path) {
    let value = object;
    for (const part of parts(path)) {
      if (value === undefined || value === null) {
        if (value === object) return undefined;
        throw new TypeError(`Cannot read properties of ${value} (reading '${part}')`);
      }
      value = value[part];
    }
    return value;
  }
  function setProperty(object, path, value, creates = value !== undefined) {
    const all = parts(path), last = all.pop();
    let holder = object;
    for (let i = 0; i < all.length; i++) {
      const part = all[i];
      if (typeof holder[part] !== "object" || holder[part] === null) {
        if (!creates) return false;
        holder[part] = typeof (all[i + 1] ?? last) === "number" ? [] : {};
      }
      holder = holder[part];
    }
    if (value !== undefined) holder[last] = value;
    else if (Array.isArray(holder) && typeof last === "number") holder.splice(last, 1);
    else delete holder[last];
    return true;
  }
  const ofMessage = (path) => (`${path}`.startsWith("msg.") ? `${path}`.slice(4) : path);
  function cloneMessage(msg) {
    if (typeof msg !== "object" || msg === null) return msg;
    try { return structuredClone(msg); } catch { return Array.isArray(msg) ? [...msg] : { ...msg }; }
  }
  const generateId = () => { let id = ""; for (let i = 0; i < 16; i++) id += Math.floor(Math.random() * 16).toString(16); return id; };
  const util = freeze({
    cloneMessage, generateId,
    getMessageProperty: (msg, path) => getProperty(msg, ofMessage(path)), setMessageProperty: (msg, path, value, creates) => setProperty(msg, ofMessage(path), value, creates),
    getObjectProperty: getProperty, setObjectProperty: setProperty, normalisePropertyExpression: parts,
    compareObjects: (a, b) => isDeepStrictEqual(a, b),
    ensureString(value) { return Buffer.isBuffer(value) ? value.toString() : typeof value === "object" && value !== null ? JSON.stringify(value) : typeof value === "string" ? value : `${value}`; },
    ensureBuffer(value) { return Buffer.isBuffer(value) ? value : Buffer.from(typeof value === "object" && value !== null ? JSON.stringify(value) : `${value}`); },
  });

  // ---- context, flow, global: what is kept for this device and this file, in `ctx.state`

  function store(ctx, name) {
    const all = () => {
      if (ctx === null) throw new Error(`${name} belongs to a device, and there is none in On Stop`);
      return (ctx.state[name] ??= {});
    };
    const callback = (args) => (typeof args.at(-1) === "function" ? args.pop() : undefined);
    const answer = (done, work) => {
      if (done === undefined) return work();
      let value, error;
      try { value = work(); } catch (thrown) { error = thrown; }
      if (error !== undefined) done(error); else if (Array.isArray(value) && value.spread) done(undefined, ...value); else done(undefined, value);
      return undefined;
    };
    const one = (key) => { const of = all(); const [first] = parts(key); return hasOwn(of, first) ? getProperty(of, key) : undefined; };
    return {
      get(key, ...rest) {
        const done = callback(rest);
        return answer(done, () => {
          if (!Array.isArray(key)) return one(key);
          const values = key.map(one);
          if (done !== undefined) Object.defineProperty(values, "spread", { value: true });
          return values;
        });
      },
      set(key, value, ...rest) {
        const done = callback(rest);
        return answer(done, () => {
          if (!Array.isArray(key)) { setProperty(all(), key, value); return; }
          key.forEach((one, at) => setProperty(all(), one, Array.isArray(value) ? value[at] ?? null : at === 0 ? value : null));
        });
      },
      keys(...rest) { return answer(callback(rest), () => keys(all())); },
    };
  }

  return function nodered(module, require, settings, { message, start, stop }) {
    const events = new Map(settings.events), commands = new Map(settings.commands);
    const variables = new Map(settings.env);
    // As in Node-RED: a body that calls node.done() says itself when it is done.
    const { done: isAsync, util: wantsUtil } = settings;
    const libs = settings.libs.map(([, name]) => { const lib = require(name); return lib?.default || lib; });
    const env = freeze({
      get(name) {
        switch (name) {
          case "NR_NODE_ID": return settings.id;
          case "NR_NODE_NAME": return settings.name;
          default: return variables.get(name);
        }
      },
    });

    // The timers of one call: it is not over while one of them waits.
    function timersOf(call) {
      const own = new Set();
      const begin = (make, once) => (f, ...rest) => {
        const timer = make((...args) => {
          if (once) { own.delete(timer); call.waits--; }
          try { f(...args); } catch (error) { call.fail(error); }
          call.look();
        }, ...rest);
        own.add(timer);
        call.waits++;
        return timer;
      };
      const end = (clear) => (timer) => { if (own.delete(timer)) { call.waits--; call.look(); } clear(timer); };
      return [begin(setTimeout, true), end(clearTimeout), begin(setInterval, false), end(clearInterval), begin(setImmediate, true), end(clearImmediate)];
    }

    function callOf(ctx, id) {
      const call = { waits: 1, isDone: false, state: undefined, has: false, error: undefined, settle: null };
      call.look = () => { if (call.error !== undefined || (isAsync ? call.isDone : call.waits === 0)) call.settle(); };
      call.fail = (error) => { call.error ??= { error }; call.look(); };
      call.over = new Promise((done, fail) => { call.settle = () => (call.error === undefined ? done() : fail(call.error.error)); });
      // A message of an output: the first makes the state, the others are told.
      function one(output, msg) {
        if (msg === null || msg === undefined) return;
        if (typeof msg !== "object" || Buffer.isBuffer(msg) || Array.isArray(msg)) {
          node.error(`Function tried to send a message of type ${typeof msg !== "object" ? typeof msg : Array.isArray(msg) ? "Array" : "Buffer"}`);
          return;
        }
        if (ctx === null) throw new Error("there is no reading in On Stop: nothing can be sent");
        msg._msgid = id;
        const { payload } = msg;
        if (output === 1) {
          call.has = true;
          const isFields = typeof payload === "object" && payload !== null && !Array.isArray(payload) && !ArrayBuffer.isView(payload);
          call.state = isFields ? JSON.parse(JSON.stringify(payload)) : { payload };
        } else if (commands.has(output)) ctx.command(typeof msg.deviceId === "string" ? msg.deviceId : ctx.deviceId, commands.get(output), payload);
        else ctx.emit(events.get(output) ?? `output${output}`, payload);
      }
      function send(messages) {
        if (messages === null || messages === undefined) return;
        (Array.isArray(messages) ? messages : [messages]).forEach((of, at) => {
          if (at >= settings.outputs || !of) return;
          for (const msg of Array.isArray(of) ? of : [of]) one(at + 1, msg);
        });
      }
      const node = {
        id: settings.id, name: settings.name, path: settings.id, outputCount: settings.outputs,
        send, done(error) { if (error) node.error(error); call.isDone = true; call.look(); },
        warn: (...values) => console.warn(...values), error(what) { console.error(what instanceof Error ? `${what.name}: ${what.message}` : what); },
        log: (...values) => console.log(...values), debug: (...values) => console.debug(...values), trace: (...values) => console.debug(...values),
        status(status) { if (ctx !== null) ctx.emit("status", typeof status === "object" && status !== null ? status : { text: `${status}` }); },
        on(event) { if (event === "input") throw new Error("Cannot add listener to 'input' event within Function"); },
      };
      call.node = node;
      const flow = store(ctx, "flow"), global = store(ctx, "global"), context = assign(store(ctx, "context"), { flow, global });
      call.run = (f, msg) => f(msg, node, context, flow, global, env, { util }, wantsUtil ? load("util").util : undefined, ...timersOf(call), libs);
      return call;
    }

    const exports = {
      async onMetric(metric, ctx) {
        const { deviceId, ts, ...payload } = metric;
        const msg = { _msgid: generateId(), topic: ctx.topic, payload, deviceId, ts };
        const call = callOf(ctx, msg._msgid);
        if (start !== undefined && ctx.state.started !== settings.mark) {
          await call.run(start, undefined);
          ctx.state.started = settings.mark;
        }
        call.run(message, msg).then((sent) => { call.node.send(sent); call.waits--; call.look(); }).catch(call.fail);
        await call.over;
        if (settings.outputs === 0) return undefined;
        return call.has ? call.state : null;
      },
    };
    if (settings.devices !== null || settings.topics !== null) {
      exports.match = { ...(settings.devices !== null && { devices: settings.devices }), ...(settings.topics !== null && { topics: settings.topics }) };
    }
    if (stop !== undefined) exports.dispose = async () => { await callOf(null, undefined).run(stop, undefined); };
    module.exports = exports;
  };
})
