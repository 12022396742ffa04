// Slow work, on the natives of `event_loop/asks.rs`: what `crypto`, `zlib`, `fs`, `dns` and `fetch` have in common.
(function (native, load) {
  "use strict";
  const { ask, forget, encode, tick } = native;
  const { parse, stringify } = JSON;
  const { defineProperty, entries } = Object;

  const coded = (error, code) => defineProperty(error, "code", { value: code, enumerable: true, writable: true, configurable: true });
  const type = (name, wanted, got) => {
    const what = got === null || got === undefined ? `${got}` : typeof got === "object" || typeof got === "function" ? `an instance of ${got.constructor?.name ?? "Object"}` : `type ${typeof got} (${String(got)})`;
    return coded(new TypeError(`The "${name}" argument must be ${wanted}. Received ${what}`), "ERR_INVALID_ARG_TYPE");
  };
  const range = (name, wanted, got) =>
    coded(new RangeError(`The value of "${name}" is out of range. It must be ${wanted}. Received ${got}`), "ERR_OUT_OF_RANGE");

  // The bytes of a text, a view or an ArrayBuffer.
  function bytes(value, name, encoding) {
    if (typeof value === "string") return encoding === undefined ? encode(value, "utf8") : load("buffer").Buffer.from(value, encoding);
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    throw type(name, "of type string or an instance of ArrayBuffer, Buffer, TypedArray, or DataView", value);
  }
  // What the natives take is a Uint8Array itself.
  const plain = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  function buffer(view) {
    const { Buffer } = load("buffer");
    return view === undefined ? Buffer.alloc(0) : Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  }
  function integer(value, name, low, high) {
    if (typeof value !== "number") throw type(name, "of type number", value);
    if (!Number.isInteger(value)) throw range(name, "an integer", value);
    if (value < low || value > high) throw range(name, `>= ${low} && <= ${high}`, value);
    return value;
  }
  function callable(value, name = "callback") {
    if (typeof value !== "function") throw type(name, "of type function", value);
    return value;
  }

  // Begins it: `done(error)` or `done(null, about, bytes)`. The error is made now, so that it knows where it was asked for.
  function begin(operation, args, parts, done, error = new Error("")) {
    const failed = (about) => {
      defineProperty(error, "message", { value: about.message, writable: true, configurable: true });
      for (const [name, value] of entries(about)) if (name !== "message") error[name] = value;
      done(error);
    };
    const id = ask(operation, stringify(args), parts.map(plain), (broke, about, given) => {
      if (broke) failed(parse(about)); else done(null, parse(about), given);
    });
    if (typeof id === "string") {
      tick(() => failed({ code: "ERR_TIDEGATE_LIMIT", message: id }), undefined, []);
      return undefined;
    }
    return id;
  }
  function later(operation, args, parts, map = (about) => about, error = new Error("")) {
    return new Promise((resolve, reject) => {
      begin(operation, args, parts, (failed, about, given) => {
        if (failed) return reject(failed);
        try { resolve(map(about, given)); } catch (thrown) { reject(thrown); }
      }, error);
    });
  }
  return { begin, later, forget, bytes, buffer, integer, callable, coded, type, range };
})
