// structuredClone: as the HTML standard clones, for what there is here. Transferred buffers are detached where the engine can.
(function (native, load) {
  "use strict";
  const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const { defineProperty, getOwnPropertyDescriptor, keys } = Object;
  const { DOMException } = load("events");
  const stringOf = Object.prototype.toString;

  function refuse(value) {
    let shown = typeof value === "symbol" ? value.toString() : "#<Object>";
    if (typeof value === "function") shown = Function.prototype.toString.call(value);
    throw new DOMException(`${shown} could not be cloned.`, "DataCloneError");
  }

  function clone(value, seen) {
    if (typeof value === "symbol" || typeof value === "function") refuse(value);
    if (typeof value !== "object" || value === null) return value;
    if (seen.has(value)) return seen.get(value);
    const keep = (copy) => { seen.set(value, copy); return copy; };
    const fields = (copy) => {
      for (const key of keys(value)) {
        defineProperty(copy, key, { value: clone(value[key], seen), writable: true, enumerable: true, configurable: true });
      }
      return copy;
    };
    if (Array.isArray(value)) { const copy = keep([]); copy.length = value.length; return fields(copy); }
    if (ArrayBuffer.isView(value)) {
      const buffer = clone(value.buffer, seen);
      const type = value instanceof DataView ? DataView : globalThis[typeName(value)];
      return keep(new type(buffer, value.byteOffset, value instanceof DataView ? value.byteLength : value.length));
    }
    if (value instanceof ArrayBuffer) return keep(value.slice(0));
    if (value instanceof Date) return keep(new Date(value.getTime()));
    if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
    if (value instanceof Map) {
      const copy = keep(new Map());
      for (const [key, item] of [...value]) copy.set(clone(key, seen), clone(item, seen));
      return copy;
    }
    if (value instanceof Set) {
      const copy = keep(new Set());
      for (const item of [...value]) copy.add(clone(item, seen));
      return copy;
    }
    if (value instanceof Error) {
      const name = `${value.name}`;
      const message = getOwnPropertyDescriptor(value, "message")?.value;
      const copy = keep(new (ERRORS[name] ?? Error)(message));
      if ("cause" in value) defineProperty(copy, "cause", { value: clone(value.cause, seen), writable: true, configurable: true });
      return copy;
    }
    if (value instanceof Boolean || value instanceof Number || value instanceof String) return keep(Object(value.valueOf()));
    if (stringOf.call(value) === "[object BigInt]") return keep(Object(BigInt.prototype.valueOf.call(value)));
    if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet) refuse(value);
    return fields(keep({}));
  }
  const typeName = (view) => stringOf.call(view).slice(8, -1);

  function structuredClone(value, options) {
    if (arguments.length === 0) throw new TypeError("The \"value\" argument must be specified");
    const copy = clone(value, new Map());
    for (const item of options?.transfer ?? []) {
      if (!(item instanceof ArrayBuffer)) refuse(item);
      item.transfer?.();
    }
    return copy;
  }
  return { structuredClone, refuse };
})
