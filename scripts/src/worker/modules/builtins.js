// The modules of Node.js that scripts may import, as far as this host has what is in them.
(function (failure, group) {
  "use strict";
  const { defineProperty } = Object;

  function fileURLToPath(url) {
    const { protocol, pathname } = new URL(url);
    if (protocol !== "file:") throw failure(TypeError, "ERR_INVALID_URL_SCHEME", "The URL must be of scheme file");
    return decodeURIComponent(pathname);
  }
  function pathToFileURL(path) {
    const url = new URL("file:///");
    url.pathname = `${path}`.replace(/%/g, "%25").replace(/\\/g, "%5C").replace(/\n/g, "%0A").replace(/\r/g, "%0D").replace(/\t/g, "%09");
    return url;
  }

  const aborted = (signal) => {
    const error = new Error("The operation was aborted", { cause: signal.reason });
    error.name = "AbortError";
    return defineProperty(error, "code", { value: "ABORT_ERR", enumerable: true, writable: true, configurable: true });
  };
  // A promise of a timer, which a signal may call off.
  const promised = (begin, end) => (signal, ref) => new Promise((done, fail) => {
    if (signal?.aborted) return fail(aborted(signal));
    const timer = begin(() => { signal?.removeEventListener("abort", stop); done(); });
    const stop = () => { end(timer); fail(aborted(signal)); };
    if (ref === false) timer.unref();
    signal?.addEventListener("abort", stop, { once: true });
  });
  const timers = {
    setTimeout: (ms, value, { signal, ref } = {}) => promised((f) => setTimeout(f, ms), clearTimeout)(signal, ref).then(() => value),
    setImmediate: (value, { signal, ref } = {}) => promised((f) => setImmediate(f), clearImmediate)(signal, ref).then(() => value),
    async *setInterval(ms, value, options) { for (;;) yield await timers.setTimeout(ms, value, options); },
    scheduler: {
      wait: (ms, options) => timers.setTimeout(ms, undefined, options),
      yield: () => timers.setImmediate(),
    },
  };

  function promisify(f) {
    if (typeof f !== "function") {
      throw failure(TypeError, "ERR_INVALID_ARG_TYPE", 'The "original" argument must be of type function');
    }
    if (f[promisify.custom]) return f[promisify.custom];
    return function (...args) {
      return new Promise((done, fail) => f.call(this, ...args, (error, value) => (error ? fail(error) : done(value))));
    };
  }
  promisify.custom = Symbol.for("nodejs.util.promisify.custom");

  const util = () => Object.assign(group("util").util, { TextDecoder, TextEncoder, promisify });
  const WEB = ["setTimeout", "setInterval", "setImmediate", "clearTimeout", "clearInterval", "clearImmediate"];
  return {
    assert: () => group("assert").assert,
    "assert/strict": () => group("assert").strict,
    buffer: () => ({ Buffer, atob, btoa }),
    console: () => console,
    crypto: () => ({
      getRandomValues: (values) => crypto.getRandomValues(values), randomUUID: () => crypto.randomUUID(), webcrypto: crypto,
      ...group("hashes"),
    }),
    dns: () => group("dns"),
    "dns/promises": () => group("dns").promises,
    events: () => group("emitter").EventEmitter,
    fs: () => group("files"),
    "fs/promises": () => group("files").promises,
    path: () => group("path").path,
    "path/posix": () => group("path").path,
    perf_hooks: () => ({ performance }),
    process: () => process,
    querystring: () => group("text_modules").querystring,
    string_decoder: () => group("text_modules").string_decoder,
    test: () => group("test").test,
    "tidegate:test": () => group("test").tidegate,
    timers: () => ({ ...Object.fromEntries(WEB.map((name) => [name, globalThis[name]])), promises: timers }),
    "timers/promises": () => timers,
    url: () => ({ URL, URLSearchParams, fileURLToPath, pathToFileURL }),
    util,
    "util/types": () => util().types,
    sys: util,
    worker_threads: () => group("tasks").worker_threads,
    zlib: () => group("zlib"),
  };
})
