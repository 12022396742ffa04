// The timers, `process` and what else hands callbacks to the event loop, on the natives of `natives.rs`. Run like the files of
// `globals`, when a script first asks for one of these names.
(function (native) {
  "use strict";
  const { tick, microtask, start, immediate, clear, hold, call, elapsed, origin, fail, listen } = native;
  const { apply } = Reflect;
  const { defineProperty, defineProperties, freeze, create } = Object;
  const LONGEST = 2 ** 31 - 1;

  const hidden = (value) => ({ value, writable: true, enumerable: false, configurable: true });
  const all = {};

  function callable(f, name = "callback") {
    if (typeof f !== "function") {
      const error = new TypeError(`The "${name}" argument must be of type function. Received ${f === null ? "null" : typeof f}`);
      throw defineProperty(error, "code", hidden("ERR_INVALID_ARG_TYPE"));
    }
  }

  // The clock of a call begins with it, and moves on with its timers only.
  const performance = { now: elapsed, toJSON: () => ({ timeOrigin: origin() }) };
  defineProperty(performance, "timeOrigin", { get: origin, enumerable: true });
  all.performance = freeze(performance);

  // ---- timers

  class Timeout {
    #call = call();
    #id = 0;
    #f;
    #args;
    #ms;
    #repeats;
    #holds = true;
    constructor(f, ms, args, repeats) {
      ms *= 1;
      if (ms > LONGEST) {
        emitWarning(`${ms} does not fit into a 32-bit signed integer.\nTimeout duration was set to 1.`, "TimeoutOverflowWarning");
      }
      this.#ms = ms >= 1 && ms <= LONGEST ? Math.trunc(ms) : 1;
      this.#f = f;
      this.#args = args;
      this.#repeats = repeats;
      this.refresh();
    }
    refresh() {
      if (this.#f !== null) {
        if (this.#call !== call()) { this.#call = call(); this.#id = 0; }
        this.#id = start(this.#id, this.#ms, this.#repeats, this.#holds, this.#f, this, this.#args);
      }
      return this;
    }
    ref() { this.#holds = true; hold(this.#id, true); return this; }
    unref() { this.#holds = false; hold(this.#id, false); return this; }
    hasRef() { return this.#holds; }
    close() { this.#f = null; if (this.#call === call()) clear(this.#id); return this; }
    [Symbol.toPrimitive]() { return this.#id; }
    static is(value) { return typeof value === "object" && value !== null && #id in value; }
  }
  const { is: isTimeout } = Timeout;
  delete Timeout.is;

  class Immediate {
    #call = call();
    #id;
    #holds = true;
    constructor(f, args) { this.#id = immediate(f, this, args); }
    ref() { this.#holds = true; hold(this.#id, true); return this; }
    unref() { this.#holds = false; hold(this.#id, false); return this; }
    hasRef() { return this.#holds; }
    static clear(value) {
      if (typeof value === "object" && value !== null && #id in value && value.#call === call()) clear(value.#id);
    }
  }
  const { clear: clearOneImmediate } = Immediate;
  delete Immediate.clear;

  function clearTimeout(timer) {
    if (isTimeout(timer)) timer.close();
    else if (typeof timer === "number" || typeof timer === "string") clear(Number(timer));
  }

  all.setTimeout = function setTimeout(callback, ms, ...args) {
    callable(callback);
    return new Timeout(callback, ms, args, false);
  };
  all.setInterval = function setInterval(callback, ms, ...args) {
    callable(callback);
    return new Timeout(callback, ms, args, true);
  };
  all.setImmediate = function setImmediate(callback, ...args) {
    callable(callback);
    return new Immediate(callback, args);
  };
  all.clearTimeout = clearTimeout;
  all.clearInterval = function clearInterval(timer) { clearTimeout(timer); };
  all.clearImmediate = function clearImmediate(it) { clearOneImmediate(it); };
  all.queueMicrotask = function queueMicrotask(callback) {
    callable(callback);
    microtask(callback);
  };

  // ---- process

  const listeners = create(null);
  const of = (event) => [...(listeners[event] ?? [])];

  function add(event, f, once, first) {
    callable(f, "listener");
    const listener = { f, once };
    const all = listeners[event] ?? (listeners[event] = []);
    if (first) all.unshift(listener); else all.push(listener);
    if (of(event).length === 11) {
      emitWarning(`Possible EventEmitter memory leak detected. 11 ${String(event)} listeners added to [process].`, "MaxListenersExceededWarning");
    }
    return process;
  }
  function remove(event, f) {
    const at = (listeners[event] ?? []).findLastIndex((listener) => listener.f === f);
    if (at >= 0) listeners[event] = listeners[event].toSpliced(at, 1);
    return process;
  }
  function emit(event, ...args) {
    const heard = of(event);
    for (const { f, once } of heard) {
      if (once) remove(event, f);
      apply(f, process, args);
    }
    return heard.length > 0;
  }
  function emitWarning(warning, type = "Warning", code) {
    if (typeof type === "object" && type !== null) ({ type = "Warning", code } = type);
    let error = warning;
    if (!(warning instanceof Error)) {
      error = new Error(`${warning}`);
      error.name = `${type}`;
      if (code !== undefined) error.code = code;
    }
    tick(() => { if (!emit("warning", error)) console.warn(`${error.name}: ${error.message}`); });
  }

  const process = {
    on: (event, f) => add(event, f, false, false),
    addListener: (event, f) => add(event, f, false, false),
    once: (event, f) => add(event, f, true, false),
    prependListener: (event, f) => add(event, f, false, true),
    off: remove,
    removeListener: remove,
    removeAllListeners(event) {
      for (const name of event === undefined ? Reflect.ownKeys(listeners) : [event]) {
        delete listeners[name];
      }
      return process;
    },
    emit,
    listeners: (event) => of(event).map((listener) => listener.f),
    listenerCount: (event) => of(event).length,
    nextTick(callback, ...args) { callable(callback); tick(callback, undefined, args); },
    emitWarning,
    hrtime: defineProperties(function hrtime(since) {
      const ms = performance.now();
      const [s, ns] = [Math.floor(ms / 1e3), (ms % 1e3) * 1e6];
      if (since === undefined) return [s, ns];
      return ns < since[1] ? [s - since[0] - 1, ns - since[1] + 1e9] : [s - since[0], ns - since[1]];
    }, { bigint: hidden(() => BigInt(performance.now()) * 1000000n) }),
    uptime: () => performance.now() / 1e3,
    env: freeze({}),
    argv: freeze([]),
    exitCode: undefined,
  };
  // Only a task is a program that may end itself.
  if (native.task !== undefined) {
    process.exit = (code = process.exitCode ?? 0) => {
      process.exitCode = code;
      emit("exit", code);
      native.leave(Number(process.exitCode) || 0);
    };
  }
  all.process = process;

  // What the loop emits comes in through a `try`.
  listen((...event) => {
    try { return emit(...event); } catch (error) { fail(error); return true; }
  });
  return all;
})
