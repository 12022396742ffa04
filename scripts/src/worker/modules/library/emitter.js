// `node:events`: EventEmitter with `once`, `on`, `errorMonitor` and the basics of `captureRejections`.
(function (native, load) {
  "use strict";
  const { apply, ownKeys } = Reflect;
  const { create, assign, defineProperty } = Object;
  const errorMonitor = Symbol("events.errorMonitor"), captureRejectionSymbol = Symbol.for("nodejs.rejection");
  const kCapture = Symbol("kCapture");

  function callable(f) {
    if (typeof f !== "function") {
      const got = f === null || f === undefined ? `${f}` : typeof f === "object" ? `an instance of ${f.constructor?.name ?? "Object"}` : `type ${typeof f} (${load("inspect").inspect(f)})`;
      throw assign(new TypeError(`The "listener" argument must be of type function. Received ${got}`), { code: "ERR_INVALID_ARG_TYPE" });
    }
  }
  const aborted = (signal) => assign(new Error("The operation was aborted", { cause: signal?.reason }), { name: "AbortError", code: "ABORT_ERR" });

  function EventEmitter(options) { EventEmitter.init.call(this, options); }
  EventEmitter.prototype._events = undefined;
  EventEmitter.prototype._eventsCount = 0;
  EventEmitter.prototype._maxListeners = undefined;
  let defaultMaxListeners = 10;
  EventEmitter.init = function (options) {
    if (this._events === undefined || this._events === Object.getPrototypeOf(this)._events) {
      this._events = create(null);
      this._eventsCount = 0;
    }
    this._maxListeners = this._maxListeners || undefined;
    defineProperty(this, kCapture, { value: Boolean(options?.captureRejections ?? EventEmitter.captureRejections), writable: true, configurable: true });
  };

  const of = (emitter, event) => emitter._events?.[event] ?? [];
  function put(emitter, event, list) {
    const had = emitter._events[event] !== undefined;
    if (list.length > 0) {
      emitter._events[event] = list;
      if (!had) emitter._eventsCount++;
    } else if (had) {
      delete emitter._events[event];
      emitter._eventsCount--;
    }
  }
  function add(emitter, event, f, first) {
    callable(f);
    if (emitter._events === undefined) { emitter._events = create(null); emitter._eventsCount = 0; }
    if (emitter._events.newListener !== undefined) emitter.emit("newListener", event, f.listener ?? f);
    const list = of(emitter, event);
    put(emitter, event, first ? [f, ...list] : [...list, f]);
    const most = emitter.getMaxListeners();
    if (most > 0 && list.length + 1 > most && !list.warned) {
      emitter._events[event].warned = true;
      const warning = new Error(`Possible EventEmitter memory leak detected. ${list.length + 1} ${String(event)} listeners added to [${emitter.constructor?.name ?? "EventEmitter"}]. MaxListeners is ${most}. Use emitter.setMaxListeners() to increase limit`);
      process.emitWarning(assign(warning, { name: "MaxListenersExceededWarning", emitter, type: event, count: list.length + 1 }));
    } else if (list.warned) emitter._events[event].warned = true;
    return emitter;
  }
  function onceWrapper(emitter, event, f) {
    let fired = false;
    const wrapped = function (...args) {
      if (fired) return undefined;
      fired = true;
      emitter.removeListener(event, wrapped);
      return apply(f, emitter, args);
    };
    wrapped.listener = f;
    return wrapped;
  }

  const methods = {
    setMaxListeners(n) {
      if (typeof n !== "number" || n < 0 || Number.isNaN(n)) throw assign(new RangeError(`The value of "setMaxListeners" is out of range. It must be >= 0. Received ${load("inspect").inspect(n)}`), { code: "ERR_OUT_OF_RANGE" });
      this._maxListeners = n;
      return this;
    },
    getMaxListeners() { return this._maxListeners ?? defaultMaxListeners; },
    emit(event, ...args) {
      if (event === "error") {
        if (this._events?.[errorMonitor] !== undefined) this.emit(errorMonitor, ...args);
        if (this._events?.error === undefined) {
          if (args[0] instanceof Error) throw args[0];
          const shown = typeof args[0] === "string" ? `'${args[0]}'` : load("inspect").inspect(args[0]);
          throw assign(new Error(`Unhandled error. (${shown})`), { code: "ERR_UNHANDLED_ERROR", context: args[0] });
        }
      }
      const list = of(this, event);
      for (const f of list) {
        const result = apply(f, this, args);
        if (result !== undefined && result !== null && this[kCapture] && typeof result.then === "function") {
          result.then(undefined, (error) => process.nextTick(() => {
            if (typeof this[captureRejectionSymbol] === "function") { this[captureRejectionSymbol](error, event, ...args); return; }
            const before = this[kCapture];
            try { this[kCapture] = false; this.emit("error", error); } finally { this[kCapture] = before; }
          }));
        }
      }
      return list.length > 0;
    },
    addListener(event, f) { return add(this, event, f, false); },
    prependListener(event, f) { return add(this, event, f, true); },
    once(event, f) { callable(f); return this.on(event, onceWrapper(this, event, f)); },
    prependOnceListener(event, f) { callable(f); return this.prependListener(event, onceWrapper(this, event, f)); },
    removeListener(event, f) {
      callable(f);
      const list = of(this, event), at = list.findLastIndex((one) => one === f || one.listener === f);
      if (at < 0) return this;
      const left = list.toSpliced(at, 1);
      if (list.warned) left.warned = true;
      put(this, event, left);
      if (this._events.removeListener !== undefined) this.emit("removeListener", event, f.listener ?? f);
      return this;
    },
    removeAllListeners(event) {
      if (this._events === undefined) return this;
      if (event !== undefined && this._events.removeListener === undefined) { put(this, event, []); return this; }
      for (const name of event === undefined ? ownKeys(this._events) : [event]) {
        if (name === "removeListener" && event === undefined) continue;
        for (const f of of(this, name).toReversed()) this.removeListener(name, f);
      }
      if (event === undefined) put(this, "removeListener", []);
      return this;
    },
    listeners(event) { return of(this, event).map((f) => f.listener ?? f); },
    rawListeners(event) { return [...of(this, event)]; },
    listenerCount(event, f) { return of(this, event).filter((one) => f === undefined || f === null || one === f || one.listener === f).length; },
    eventNames() { return this._events === undefined ? [] : ownKeys(this._events); },
  };
  methods.on = methods.addListener;
  methods.off = methods.removeListener;
  for (const name of Object.keys(methods)) defineProperty(EventEmitter.prototype, name, { value: methods[name], writable: true, enumerable: true, configurable: true });

  async function once(emitter, event, { signal } = {}) {
    return new Promise((done, fail) => {
      if (signal?.aborted) { fail(aborted(signal)); return; }
      if (typeof emitter.once !== "function") {
        emitter.addEventListener(event, (...args) => done(args), { once: true });
        return;
      }
      const stop = () => { emitter.removeListener(event, hear); emitter.removeListener("error", failed); signal?.removeEventListener("abort", abort); };
      const hear = (...args) => { stop(); done(args); };
      const failed = (error) => { stop(); fail(error); };
      const abort = () => { stop(); fail(aborted(signal)); };
      emitter.once(event, hear);
      if (event !== "error") emitter.once("error", failed);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }
  function on(emitter, event, { signal } = {}) {
    if (signal?.aborted) throw aborted(signal);
    const heard = [], waiting = [];
    let error = null, isOver = false;
    const hear = (...args) => { if (waiting.length > 0) waiting.shift().done({ value: args, done: false }); else heard.push(args); };
    const failed = (reason) => { if (waiting.length > 0) waiting.shift().fail(reason); else error = reason; it.return(); };
    const abort = () => failed(aborted(signal));
    const it = {
      next() {
        if (heard.length > 0) return Promise.resolve({ value: heard.shift(), done: false });
        if (error !== null) { const reason = error; error = null; return Promise.reject(reason); }
        if (isOver) return Promise.resolve({ value: undefined, done: true });
        return new Promise((done, fail) => waiting.push({ done, fail }));
      },
      return() {
        isOver = true;
        emitter.removeListener(event, hear);
        emitter.removeListener("error", failed);
        signal?.removeEventListener("abort", abort);
        for (const one of waiting.splice(0)) one.done({ value: undefined, done: true });
        return Promise.resolve({ value: undefined, done: true });
      },
      throw(reason) { error = reason; emitter.removeListener(event, hear); return Promise.resolve({ value: undefined, done: true }); },
      [Symbol.asyncIterator]() { return it; },
    };
    emitter.on(event, hear);
    if (event !== "error") emitter.on("error", failed);
    signal?.addEventListener("abort", abort, { once: true });
    return it;
  }
  assign(EventEmitter, {
    EventEmitter, once, on, errorMonitor, captureRejectionSymbol, captureRejections: false, usingDomains: false,
    listenerCount: (emitter, event) => emitter.listenerCount(event),
    getEventListeners: (emitter, event) => emitter.listeners(event),
    getMaxListeners: (emitter) => emitter.getMaxListeners(),
    setMaxListeners(n = 10, ...emitters) { if (emitters.length === 0) defaultMaxListeners = n; else for (const one of emitters) one.setMaxListeners(n); },
  });
  defineProperty(EventEmitter, "defaultMaxListeners", { get: () => defaultMaxListeners, set(n) { defaultMaxListeners = n; }, enumerable: true });
  return { EventEmitter };
})
