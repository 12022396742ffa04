// `node:worker_threads`: a task is a file of the handlers that runs in a process of its own, once, and is pure: what it gives follows
// from what it is given. It begins when the turn ends in which it was made; its messages come when it is over, in order, and then
// its end. Values cross as `cloned/` packs them.
(function (native, load) {
  "use strict";
  const { ask, forget, post, number, random, pack, unpack, locate, place, immediate, log, task } = native;
  const { parse, stringify } = JSON;
  const { defineProperty, entries } = Object;
  const { now } = Date;
  const { EventEmitter } = load("emitter");
  const { coded, type } = load("slow");
  const { refuse } = load("clone");

  const unsupported = (what) =>
    coded(new Error(`${what} is not supported: a task runs once and by itself, and values cross to it as copies`), "ERR_TIDEGATE_UNSUPPORTED");
  const LIMIT = "ERR_TIDEGATE_LIMIT";

  function packed(value, transfer) {
    const list = Array.isArray(transfer) ? transfer : transfer?.transfer ?? [];
    if (list.length > 0) throw unsupported("transferList");
    const bytes = pack(value);
    if (Array.isArray(bytes)) refuse(bytes[0]);
    if (typeof bytes === "string") throw coded(new RangeError(bytes), LIMIT);
    return bytes;
  }

  function pathOf(filename) {
    if (filename instanceof URL) {
      if (filename.protocol !== "file:") throw coded(new TypeError("The URL must be of scheme file"), "ERR_INVALID_URL_SCHEME");
      return decodeURIComponent(filename.pathname);
    }
    if (typeof filename !== "string") throw type("filename", "of type string or an instance of URL", filename);
    if (!/^(\/|\.\.?\/)/.test(filename)) {
      const wrap = filename.startsWith("file:") ? " Wrap file:// URLs with `new URL`." : "";
      const message = `The worker script or module filename must be an absolute path or a relative path starting with './' or '../'.${wrap} Received "${filename}"`;
      throw coded(new TypeError(message), "ERR_WORKER_PATH");
    }
    return filename;
  }

  class Worker extends EventEmitter {
    #id;
    #number;
    #error = new Error("");
    #isOver = false;
    #isEnding = false;
    constructor(filename, options = {}) {
      super();
      if (task !== undefined) throw unsupported("a Worker within a task");
      for (const name of ["eval", "stdin", "stdout", "stderr"]) {
        if (options[name]) throw unsupported(`the option ${name} of Worker`);
      }
      for (const name of ["argv", "execArgv", "env"]) {
        if (options[name] !== undefined && options[name] !== null) throw unsupported(`the option ${name} of Worker`);
      }
      const path = locate(pathOf(filename), place(this.#error)?.[0] ?? "");
      const data = packed(options.workerData, options.transferList);
      this.#number = number();
      const given = { path, thread: this.#number, now: now(), seed: Math.floor(random() * 2 ** 53) };
      this.#id = ask("task", stringify(given), [data], (broke, about, bytes) => this.#hear(broke, parse(about), bytes));
      if (typeof this.#id === "string") throw coded(new Error(this.#id), LIMIT);
    }
    // What came of it, piece by piece.
    #hear(broke, about, bytes) {
      if (broke) return this.#fail(about);
      switch (about.kind) {
        case "online": this.emit("online"); break;
        case "log": log(about.level, about.text); break;
        case "message": this.emit("message", unpack(bytes)); break;
        case "error": this.emit("error", unpack(bytes)); break;
        default: this.#exit(about.code);
      }
    }
    // It was not begun or did not come to its end: the error is one of the place where it was made.
    #fail(about) {
      const error = this.#error;
      defineProperty(error, "message", { value: about.message, writable: true, configurable: true });
      for (const [name, value] of entries(about)) if (name !== "message") error[name] = value;
      this.emit("error", error);
    }
    #exit(code) {
      if (this.#isOver) return;
      this.#isOver = true;
      this.emit("exit", code);
    }
    get threadId() { return this.#isOver ? -1 : this.#number; }
    get resourceLimits() { return {}; }
    postMessage(value, transfer) {
      const bytes = packed(value, transfer);
      if (this.#isOver || this.#isEnding) return;
      const done = post(this.#id, bytes);
      if (typeof done === "string") throw coded(new RangeError(done), LIMIT);
      if (!done) throw unsupported("a message to a task that has begun (post it before the turn ends in which the Worker is made)");
    }
    terminate() {
      if (this.#isOver) return Promise.resolve();
      const ended = new Promise((resolve) => this.once("exit", resolve));
      if (!this.#isEnding) {
        this.#isEnding = true;
        forget(this.#id);
        immediate(() => this.#exit(1), undefined, []);
      }
      return ended;
    }
    ref() { return this; }
    unref() { return this; }
  }

  // The task's end of the line. What was posted to it comes once somebody listens, one message a turn.
  class Port extends EventEmitter {
    #queue;
    #isStarted = false;
    #isClosed = false;
    #handler = null;
    #wrapped = new Map();
    constructor(messages) { super(); this.#queue = messages; }
    #next() {
      if (this.#queue.length === 0 || this.#isClosed) return;
      immediate(() => {
        if (this.#isClosed) return;
        this.#next();
        this.emit("message", unpack(this.#queue.shift()));
      }, undefined, []);
    }
    postMessage(value, transfer) {
      const bytes = packed(value, transfer);
      if (this.#isClosed) return;
      const refused = native.say(bytes);
      if (refused !== undefined) throw coded(new RangeError(refused), LIMIT);
    }
    start() {
      if (this.#isStarted) return;
      this.#isStarted = true;
      // A turn of its own for each: the next is asked for before this one is told, so that a listener that throws holds up none.
      this.#next();
    }
    on(event, f) { super.on(event, f); if (event === "message") this.start(); return this; }
    addListener(event, f) { return this.on(event, f); }
    addEventListener(event, f, options) {
      const told = (data) => (typeof f === "function" ? f.call(this, { type: event, data, target: this }) : f.handleEvent({ type: event, data, target: this }));
      this.#wrapped.set(f, told);
      if (options?.once) this.once(event, told); else this.on(event, told);
    }
    removeEventListener(event, f) { const told = this.#wrapped.get(f); if (told) this.off(event, told); }
    get onmessage() { return this.#handler; }
    set onmessage(f) {
      if (this.#handler !== null) this.removeEventListener("message", this.#handler);
      this.#handler = typeof f === "function" ? f : null;
      if (this.#handler !== null) this.addEventListener("message", f);
    }
    close() {
      if (this.#isClosed) return;
      this.#isClosed = true;
      immediate(() => this.emit("close"), undefined, []);
    }
    ref() {}
    unref() {}
    // What is there, without waiting for its turn.
    take() { return this.#queue.length > 0 && !this.#isClosed ? { message: unpack(this.#queue.shift()) } : undefined; }
  }
  const { take } = Port.prototype;
  delete Port.prototype.take;

  // What there is none of says so when it is made.
  const none = (name) => ({ [name]: class { constructor() { throw unsupported(name); } } })[name];
  const refused = (name) => ({ [name]: () => { throw unsupported(name); } })[name];
  const given = task?.();
  const parentPort = given === undefined ? null : new Port(given.slice(2));
  return {
    worker_threads: {
      isMainThread: given === undefined,
      parentPort,
      workerData: given === undefined ? null : unpack(given[1]),
      threadId: given === undefined ? 0 : given[0],
      resourceLimits: {},
      SHARE_ENV: Symbol.for("nodejs.worker_threads.SHARE_ENV"),
      Worker,
      MessageChannel: none("MessageChannel"),
      MessagePort: none("MessagePort"),
      BroadcastChannel: none("BroadcastChannel"),
      receiveMessageOnPort(port) {
        if (parentPort === null || port !== parentPort) throw type("port", "a MessagePort instance", port);
        return Reflect.apply(take, port, []);
      },
      markAsUntransferable() {},
      moveMessagePortToContext: refused("moveMessagePortToContext"),
      getEnvironmentData: refused("getEnvironmentData"),
      setEnvironmentData: refused("setEnvironmentData"),
    },
  };
})
