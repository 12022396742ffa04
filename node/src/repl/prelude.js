// What can be called at the prompt of `tidegate repl`. Everything that asks the node gives a promise; the prompt waits for the one
// that a line ends in.
(function (native) {
  "use strict";
  const { ask, sleep, print, inspect } = native;
  const { defineProperty, entries, keys } = Object;
  const { isArray } = Array;
  const custom = Symbol.for("nodejs.util.inspect.custom");

  // What the node, or the way to it, refused.
  class NodeError extends Error {}
  defineProperty(NodeError.prototype, "name", { value: "NodeError", configurable: true, writable: true });

  // The error is made here, so that its place is the call's.
  async function of(error, answer) {
    const { ok, value, error: wrong } = await answer;
    if (ok) return value;
    error.message = wrong.message;
    if (wrong.status !== undefined) error.status = wrong.status;
    if (wrong.kind) error.kind = wrong.kind;
    throw error;
  }
  const operation = (name, argument) => of(new NodeError(""), ask(name, argument));

  function call(method, path, body) {
    if (typeof method !== "string" || typeof path !== "string" || !path.startsWith("/")) {
      throw new TypeError('call(method, path, body): such as call("GET", "/devices")');
    }
    const text = body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body);
    return operation("request", { method: method.toUpperCase(), path, body: text });
  }
  const get = (path) => call("GET", path);
  const encode = encodeURIComponent;

  // A query as JSON: /x/i is { $regex: "x", $options: "i" }, a Date is its milliseconds.
  // (The engine's source has two backslashes before a slash.)
  const sourceOf = (regex) => regex.source.replaceAll("\\\\/", "/");
  function plain(value) {
    if (value instanceof RegExp) return { $regex: sourceOf(value), $options: value.flags };
    if (value instanceof Date) return value.getTime();
    if (isArray(value)) return value.map(plain);
    if (value === null || typeof value !== "object") return value;
    const made = {};
    for (const [name, member] of entries(value)) {
      if (member instanceof RegExp && name !== "$regex") made[name] = plain(member);
      else if (member instanceof RegExp) { made.$regex = sourceOf(member); made.$options = member.flags; }
      else made[name] = plain(member);
    }
    return made;
  }

  async function find(query = {}, options = {}) {
    for (const name of keys(options)) {
      if (!["limit", "fields", "prefix"].includes(name)) throw new TypeError(`there is no option ${name}; allowed: limit, fields, prefix`);
    }
    const { limit, fields, prefix } = options;
    const found = await of(new NodeError(""), ask("find", {
      query: plain(query), limit, prefix, fields: fields === undefined ? undefined : [].concat(fields),
    }));
    if (found.more) print(`the first ${found.devices.length}; there may be more: find(query, { limit: ${found.devices.length * 10} })`, true);
    return found.devices;
  }
  const count = (query) => operation("count", { query: plain(query ?? {}) });
  const devices = (prefix = "", options = {}) => find({}, { ...options, prefix });

  // Something of a device that is not known yet: to be awaited, or gone further into, as device("d1").state.temperature.
  function later(read, words) {
    return new Proxy({}, {
      get(_, name) {
        if (name === "then") return (done, failed) => read().then(done, failed);
        if (name === "catch") return (failed) => read().catch(failed);
        if (name === custom) return () => `[${words}: await it]`;
        if (name === Symbol.toPrimitive) throw new TypeError(`${words} is a promise: await it, as (await ${words})`);
        if (typeof name === "symbol") return undefined;
        return later(async () => (await read())?.[name], `${words}.${name}`);
      },
      set() { throw new TypeError(`${words} is read only`); },
    });
  }

  class Device {
    #id;
    constructor(id) { this.#id = id; }
    #document() { return get(`/devices/${encode(this.#id)}`); }
    #field(name) { return later(async () => (await this.#document())[name], `device(${JSON.stringify(this.#id)}).${name}`); }
    get id() { return this.#id; }
    get state() { return this.#field("state"); }
    get version() { return this.#field("version"); }
    get connected() { return this.#field("connected"); }
    get deviceTime() { return later(async () => time((await this.#document()).deviceTime), "deviceTime"); }
    get receivedTime() { return later(async () => time((await this.#document()).receivedTime), "receivedTime"); }
    get at() { return later(async () => { const it = await this.#document(); return time(it.deviceTime ?? it.receivedTime); }, "at"); }
    get ledger() { return get(`/ledger?deviceId=${encode(this.#id)}`); }
    get shadow() { return get(`/devices/${encode(this.#id)}/shadow`); }
    get commands() { return get(`/devices/${encode(this.#id)}/commands`); }
    get parked() { return get(`/parked?deviceId=${encode(this.#id)}`).then((list) => list.parked); }
    command(name, params = {}, options = {}) {
      const { wait, ...rest } = options;
      const query = wait === undefined ? "" : `?wait=${encode(wait)}`;
      return call("POST", `/devices/${encode(this.#id)}/commands${query}`, { name, params, ...rest });
    }
    // By itself it is its document.
    then(done, failed) { return this.#document().then(done, failed); }
    [custom]() { return `device(${JSON.stringify(this.#id)})`; }
  }
  function device(id) {
    if (typeof id !== "string" || id === "") throw new TypeError('device(id): such as device("d1")');
    return new Device(id);
  }

  const time = (ms) => ms === null || ms === undefined ? null : new Date(ms);
  const ledger = () => get("/ledger");
  const scripts = () => get("/scripts").then((it) => it.scripts);
  const overview = () => get("/api/overview");
  const loops = () => overview().then((it) => it.loops);
  const parked = () => get("/parked").then((it) => it.parked);

  async function metrics(prefix = "") {
    const text = await get("/metrics");
    const made = {};
    for (const line of text.split("\n")) {
      if (line === "" || line.startsWith("#") || !line.startsWith(prefix)) continue;
      const at = line.lastIndexOf(" ");
      made[line.slice(0, at)] = Number(line.slice(at + 1));
    }
    return made;
  }

  // ---- tables

  const plainText = (value) => String(value ?? "").replace(/[\x00-\x1f\x7f-\x9f]/g, " ");
  function table(head, rows) {
    const lines = [head, ...rows].map((row) => row.map(plainText));
    const widths = head.map((_, column) => Math.max(...lines.map((row) => row[column].length)));
    const isNumber = head.map((_, column) => rows.length > 0 && lines.slice(1).every((row) => /^-?[\d.]*%?$/.test(row[column])));
    return lines.map((row) => row.map((cell, column) =>
      isNumber[column] ? cell.padStart(widths[column]) : cell.padEnd(widths[column])).join("  ").trimEnd()).join("\n");
  }
  const short = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;
  const ago = (ms) => {
    const seconds = Math.max(0, Math.round((Date.now() - ms) / 1000));
    return seconds < 120 ? `${seconds} s ago` : seconds < 7200 ? `${Math.round(seconds / 60)} min ago`
      : seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} d ago`;
  };
  const counts = (reasons) => typeof reasons === "number" ? [[null, reasons]] : entries(reasons ?? {});

  const dot = {
    async devices(prefix) {
      const page = await get(`/devices?limit=50&prefix=${encode(prefix)}`);
      if (page.devices.length === 0) return prefix === "" ? "no devices" : `no devices whose id begins with ${prefix}`;
      const rows = page.devices.map((it) =>
        [short(it.deviceId, 40), it.connected ? "yes" : "no", it.version, ago(it.receivedTime), short(JSON.stringify(it.state), 60)]);
      const more = page.next === null ? "" : `\nthe first ${page.devices.length} of ${page.total} in all: .devices PREFIX, or find()`;
      return table(["DEVICE", "CONNECTED", "VERSION", "RECEIVED", "STATE"], rows) + more;
    },
    async scripts() {
      const list = await scripts();
      if (list.length === 0) return "no handlers";
      const rows = list.map((it) => [it.name, it.status.toUpperCase().replace(/-/g, "_"), it.calls, it.p50Us, it.p99Us, it.errors, it.parked, it.enabled === false ? "no" : "yes"]);
      return table(["SCRIPT", "BREAKER", "CALLS", "P50 us", "P99 us", "FAILED", "PARKED", "ENABLED"], rows);
    },
    async loops() {
      return table(["LOOP", "LAG ms", "DEVICES", "CONNECTIONS"], (await loops()).map((it) => [it.id, it.lagMs, it.devices, it.connections]));
    },
    async ledger() {
      const it = await ledger();
      const rows = [];
      for (const name of ["received", "committed", "conflated", "rejected", "dropped", "parked"]) {
        const life = new Map(counts(it.lifetime[name]));
        const list = counts(it[name]);
        const names = new Set([...list.map(([reason]) => reason), ...life.keys()]);
        if (names.size === 0) rows.push([name, 0, ""]);
        for (const reason of names) {
          const since = new Map(list).get(reason) ?? 0;
          rows.push([reason === null ? name : `${name} ${reason}`, since, life.get(reason) ?? ""]);
        }
      }
      rows.push(["in flight", it.inFlight, ""]);
      return `${table(["READINGS", "SINCE THE START", "LIFETIME"], rows)}\nbalanced: ${it.balanced ? "yes" : "NO"}`;
    },
    async services() {
      const list = await operation("services", {});
      const rows = list.map((it, at) => [it.current ? "*" : "", at + 1, it.node, it.health, it.version, it.devices, it.uptimeSeconds]);
      return table(["", "", "NODE", "HEALTH", "VERSION", "DEVICES", "UPTIME s"], rows);
    },
    async connect(node) {
      const { node: name } = await operation("connect", { node });
      return `connected: ${name}`;
    },
  };

  // ---- console

  let indent = "";
  const show = (values) => values.map((value) => typeof value === "string" ? value : inspect(value)).join(" ");
  const out = (isError) => (...values) => {
    const text = show(values).replace(/[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[\d{1,2}m)/g, "?");
    print(indent + text.replace(/\n/g, `\n${indent}`), isError);
  };
  const console = {
    log: out(false), info: out(false), debug: out(false), dir: out(false), warn: out(true), error: out(true),
    table(rows) {
      if (!isArray(rows) || rows.length === 0) return console.log(rows);
      const names = [...new Set(rows.flatMap((row) => Object(row) === row ? keys(row) : ["value"]))];
      const cell = (value) => typeof value === "string" ? value : value === undefined ? "" : inspect(value).replace(/\x1b\[\d+m/g, "");
      print(table(["#", ...names], rows.map((row, at) => [at, ...names.map((name) => cell(Object(row) === row ? row[name] : name === "value" ? row : undefined))])), false);
    },
    group(...values) { if (values.length > 0) console.log(...values); indent += "  "; },
    groupEnd() { indent = indent.slice(2); },
  };

  const globals = {
    call, device, devices, find, count, ledger, scripts, loops, metrics, overview, parked, sleep, console, NodeError,
    global: globalThis,
  };
  for (const [name, value] of entries(globals)) {
    defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
  // What the dot commands are evaluated as.
  defineProperty(globalThis, "__dot__", {
    value: async (name, argument) => { print(await dot[name](argument), false); },
  });
})
