// `node:util`: what `inspect.js` and `equal.js` do not have of it.
(function (native, load) {
  "use strict";
  const { inspect, formatWith } = load("inspect");
  const { isDeepStrictEqual, types } = load("equal");
  const { assign, setPrototypeOf, defineProperty } = Object;
  const { apply } = Reflect;
  const wrong = (name, type, value) => assign(new TypeError(`The "${name}" argument must be of type ${type}. Received ${value === null || value === undefined ? value : `type ${typeof value}`}`), { code: "ERR_INVALID_ARG_TYPE" });

  function inherits(child, parent) {
    if (typeof child !== "function") throw wrong("ctor", "function", child);
    if (typeof parent !== "function") throw wrong("superCtor", "function", parent);
    defineProperty(child, "super_", { value: parent, writable: true, configurable: true });
    setPrototypeOf(child.prototype, parent.prototype);
  }
  const told = new Set();
  function deprecate(f, message, code) {
    let warned = false;
    return function (...args) {
      if (!warned) {
        warned = true;
        if (code === undefined || !told.has(code)) { told.add(code); process.emitWarning(message, "DeprecationWarning", code); }
      }
      return new.target ? Reflect.construct(f, args, new.target) : apply(f, this, args);
    };
  }
  function callbackify(f) {
    if (typeof f !== "function") throw wrong("original", "function", f);
    return function (...args) {
      const done = args.pop();
      if (typeof done !== "function") throw wrong("last argument", "function", done);
      apply(f, this, args).then((value) => process.nextTick(done, null, value), (error) => process.nextTick(done, error ?? assign(new Error("Promise was rejected with a falsy value"), { code: "ERR_FALSY_VALUE_REJECTION", reason: error })));
    };
  }
  const util = {
    inspect, isDeepStrictEqual, types, inherits, deprecate, callbackify,
    format: (...values) => formatWith(undefined, values),
    formatWithOptions: (options, ...values) => formatWith(options, values),
    isArray: Array.isArray,
    isError: (value) => types.isNativeError(value) || value instanceof Error,
    toUSVString: (text) => `${text}`.toWellFormed(),
    stripVTControlCharacters: (text) => `${text}`.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007/g, ""),
    debuglog: () => assign(() => {}, { enabled: false }),
    debug: () => assign(() => {}, { enabled: false }),
  };
  return { util };
})
