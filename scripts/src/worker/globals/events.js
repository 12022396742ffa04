// DOMException, Event, CustomEvent, EventTarget, AbortController, AbortSignal: as in Node.js, as far as they make sense without
// a document. Dispatching is synchronous; what a listener throws fails the call as an uncaught exception.
(function () {
  "use strict";
  const { defineProperty, entries } = Object;
  const CODES = { AbortError: 20, DataCloneError: 25, InvalidCharacterError: 5, QuotaExceededError: 22, TimeoutError: 23, NotSupportedError: 9 };
  const tag = (type, name) => defineProperty(type.prototype, Symbol.toStringTag, { value: name, configurable: true });

  class DOMException extends Error {
    constructor(message = "", options = "Error") {
      const { name = "Error", cause } = typeof options === "object" && options !== null ? options : { name: options };
      super(message, cause === undefined ? undefined : { cause });
      defineProperty(this, "name", { value: `${name}`, configurable: true });
      defineProperty(this, "code", { value: CODES[name] ?? 0, configurable: true });
    }
  }
  for (const [name, code] of entries({ ABORT_ERR: 20, DATA_CLONE_ERR: 25, INVALID_CHARACTER_ERR: 5, TIMEOUT_ERR: 23 })) {
    defineProperty(DOMException, name, { value: code, enumerable: true });
  }

  let inner;
  class Event {
    #type; #bubbles; #cancelable; #composed;
    #prevented = false; #target = null; #current = null; #stopped = false; #phase = 0; #stamp = performance.now();
    constructor(type, options = {}) {
      if (arguments.length === 0) throw new TypeError('The "type" argument must be specified');
      this.#type = `${type}`;
      ({ bubbles: this.#bubbles = false, cancelable: this.#cancelable = false, composed: this.#composed = false } = options ?? {});
    }
    get type() { return this.#type; }
    get target() { return this.#target; }
    get currentTarget() { return this.#current; }
    get srcElement() { return this.#target; }
    get eventPhase() { return this.#phase; }
    get bubbles() { return !!this.#bubbles; }
    get cancelable() { return !!this.#cancelable; }
    get composed() { return !!this.#composed; }
    get defaultPrevented() { return this.#prevented; }
    get returnValue() { return !this.#prevented; }
    get cancelBubble() { return this.#stopped; }
    get isTrusted() { return false; }
    get timeStamp() { return this.#stamp; }
    composedPath() { return this.#phase ? [this.#target] : []; }
    preventDefault() { if (this.#cancelable) this.#prevented = true; }
    stopPropagation() {}
    stopImmediatePropagation() { this.#stopped = true; }
    static {
      inner = {
        begin(event, target) {
          if (event.#phase) throw new DOMException("The event is already being dispatched", "InvalidStateError");
          event.#target = event.#current = target; event.#phase = 2;
        },
        end(event) { event.#current = null; event.#phase = 0; },
        stopped: (event) => event.#stopped,
        is: (value) => typeof value === "object" && value !== null && #type in value,
      };
    }
  }
  class CustomEvent extends Event {
    #detail;
    constructor(type, options) { super(type, options); this.#detail = options?.detail ?? null; }
    get detail() { return this.#detail; }
  }

  class EventTarget {
    #listeners = new Map();
    addEventListener(type, listener, options) {
      if (listener === null || listener === undefined) return;
      if (typeof listener !== "function" && typeof listener !== "object") {
        throw new TypeError('The "listener" argument must be an instance of EventListener');
      }
      const { once = false, capture = false, signal } = typeof options === "boolean" ? { capture: options } : options ?? {};
      if (signal?.aborted) return;
      type = `${type}`;
      const all = this.#listeners.get(type) ?? [];
      if (all.some((one) => one.listener === listener && one.capture === !!capture)) return;
      this.#listeners.set(type, [...all, { listener, once, capture: !!capture }]);
      signal?.addEventListener("abort", () => this.removeEventListener(type, listener, options), { once: true });
    }
    removeEventListener(type, listener, options) {
      const capture = !!(typeof options === "boolean" ? options : options?.capture);
      const all = this.#listeners.get(`${type}`) ?? [];
      this.#listeners.set(`${type}`, all.filter((one) => one.listener !== listener || one.capture !== capture));
    }
    dispatchEvent(event) {
      if (!inner.is(event)) throw new TypeError('The "event" argument must be an instance of Event');
      inner.begin(event, this);
      for (const one of this.#listeners.get(event.type) ?? []) {
        if (inner.stopped(event)) break;
        if (!this.#listeners.get(event.type).includes(one)) continue;
        if (one.once) this.removeEventListener(event.type, one.listener, one.capture);
        try {
          if (typeof one.listener === "function") one.listener.call(this, event); else one.listener.handleEvent(event);
        } catch (error) {
          process.nextTick(() => { throw error; });
        }
      }
      inner.end(event);
      return !event.defaultPrevented;
    }
  }
  // `target.onabort = f`
  function handler(type, name) {
    const handlers = new WeakMap();
    defineProperty(type.prototype, `on${name}`, {
      get() { return handlers.get(this) ?? null; },
      set(f) {
        const old = handlers.get(this);
        if (old) this.removeEventListener(name, old);
        if (typeof f === "function") { handlers.set(this, f); this.addEventListener(name, f); } else handlers.delete(this);
      },
      configurable: true, enumerable: true,
    });
  }

  let abort, make;
  const key = Symbol();
  class AbortSignal extends EventTarget {
    #aborted = false; #reason; #dependents = [];
    constructor(secret) {
      if (secret !== key) throw new TypeError("Illegal constructor");
      super();
    }
    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    throwIfAborted() { if (this.#aborted) throw this.#reason; }
    static abort(reason) { const signal = make(); abort(signal, reason); return signal; }
    static timeout(ms) {
      const signal = make();
      setTimeout(() => abort(signal, new DOMException("The operation was aborted due to timeout", "TimeoutError")), ms).unref();
      return signal;
    }
    static any(signals) {
      const all = [...signals], result = make(), gone = all.find((signal) => signal.aborted);
      if (gone) abort(result, gone.reason); else for (const signal of all) signal.#dependents.push(result);
      return result;
    }
    static {
      make = () => new AbortSignal(key);
      abort = (signal, reason = new DOMException("This operation was aborted", "AbortError")) => {
        if (signal.#aborted) return;
        signal.#aborted = true;
        signal.#reason = reason;
        signal.dispatchEvent(new Event("abort"));
        for (const dependent of signal.#dependents.splice(0)) abort(dependent, reason);
      };
    }
  }
  handler(AbortSignal, "abort");
  class AbortController {
    #signal = make();
    get signal() { return this.#signal; }
    abort(reason) { abort(this.#signal, reason); }
  }
  const all = { DOMException, Event, CustomEvent, EventTarget, AbortSignal, AbortController };
  for (const [name, type] of entries(all)) tag(type, name);
  return all;
})
