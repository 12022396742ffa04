// Deep equality as `assert.deepEqual` and `util.isDeepStrictEqual` of Node.js 20 have it, and `util.types`.
(function (native) {
  "use strict";
  const { kind } = native;
  const { getPrototypeOf, keys, getOwnPropertySymbols, hasOwn, is } = Object;
  const { propertyIsEnumerable } = Object.prototype;
  const { apply } = Reflect;

  const isObject = (value) => typeof value === "object" && value !== null;
  const enumerable = (value) => [...keys(value), ...getOwnPropertySymbols(value).filter((symbol) => apply(propertyIsEnumerable, value, [symbol]))];
  // eslint-disable-next-line eqeqeq
  const loosely = (a, b) => a == b || (a !== a && b !== b);

  function equal(a, b, strict, seen) {
    if (is(a, b)) return true;
    if (strict) {
      if (typeof a !== "object") return typeof a === "number" && Number.isNaN(a) && Number.isNaN(b);
      if (typeof b !== "object" || a === null || b === null) return false;
      if (getPrototypeOf(a) !== getPrototypeOf(b)) return false;
    } else {
      if (!isObject(a)) return !isObject(b) && typeof a !== "function" && typeof b !== "function" && loosely(a, b);
      if (!isObject(b)) return false;
    }
    const of = kind(a);
    if (of !== kind(b)) return false;
    switch (of) {
      case "Array": if (a.length !== b.length) return false; break;
      case "Date": if (a.getTime() !== b.getTime() && !(Number.isNaN(a.getTime()) && Number.isNaN(b.getTime()))) return false; break;
      case "RegExp": if (a.source !== b.source || a.flags !== b.flags || a.lastIndex !== b.lastIndex) return false; break;
      case "Error": if (a.message !== b.message || a.name !== b.name || !equal(a.cause, b.cause, strict, seen) || !equal(a.errors, b.errors, strict, seen)) return false; break;
      case "TypedArray":
        if (a[Symbol.toStringTag] !== b[Symbol.toStringTag] || a.length !== b.length) return false;
        for (let i = 0; i < a.length; i++) if (strict ? !is(a[i], b[i]) : a[i] !== b[i]) return false;
        return sameKeys(a, b, strict, seen, (key) => typeof key === "symbol" || !/^\d+$/.test(key));
      case "ArrayBuffer": case "DataView": {
        const bytes = (value) => (of === "DataView" ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : new Uint8Array(value));
        return equal(bytes(a), bytes(b), strict, seen);
      }
      case "Number": case "String": case "Boolean": case "BigInt": case "Symbol": if (!is(a.valueOf(), b.valueOf())) return false; break;
      case "WeakMap": case "WeakSet": return false;
      case "Function": return false;
      default:
    }
    if (seen.get(a)?.includes(b)) return true;
    seen.set(a, [...(seen.get(a) ?? []), b]);
    if (of === "Set" && !sameSet(a, b, strict, seen)) return false;
    if (of === "Map" && !sameMap(a, b, strict, seen)) return false;
    return sameKeys(a, b, strict, seen, () => true);
  }
  function sameKeys(a, b, strict, seen, counts) {
    const list = (strict ? enumerable : keys)(a).filter(counts), others = (strict ? enumerable : keys)(b).filter(counts);
    if (list.length !== others.length) return false;
    return list.every((key) => hasOwn(b, key) && equal(a[key], b[key], strict, seen));
  }
  function sameSet(a, b, strict, seen) {
    if (a.size !== b.size) return false;
    const left = [...b];
    for (const item of a) {
      let at = isObject(item) ? -1 : left.findIndex((other) => is(item, other));
      if (at < 0) at = left.findIndex((other) => (isObject(item) || !strict) && equal(item, other, strict, new Map(seen)));
      if (at < 0) return false;
      left.splice(at, 1);
    }
    return true;
  }
  function sameMap(a, b, strict, seen) {
    if (a.size !== b.size) return false;
    const left = new Map(b);
    for (const [key, item] of a) {
      if (left.has(key) && equal(item, left.get(key), strict, seen)) { left.delete(key); continue; }
      if (strict && !isObject(key)) return false;
      const found = [...left].find(([other, value]) => equal(key, other, strict, new Map(seen)) && equal(item, value, strict, new Map(seen)));
      if (found === undefined) return false;
      left.delete(found[0]);
    }
    return true;
  }

  const isKind = (...names) => (value) => (isObject(value) || typeof value === "function") && names.includes(kind(value));
  const types = {
    isAnyArrayBuffer: isKind("ArrayBuffer"), isArrayBuffer: isKind("ArrayBuffer"), isArrayBufferView: isKind("TypedArray", "DataView"),
    isAsyncFunction: (value) => typeof value === "function" && /^async\b/.test(apply(Function.prototype.toString, value, [])),
    isBoxedPrimitive: isKind("Number", "String", "Boolean", "BigInt", "Symbol"), isDataView: isKind("DataView"), isDate: isKind("Date"),
    isGeneratorFunction: (value) => typeof value === "function" && /^(async\s+)?(function\s*)?\*/.test(apply(Function.prototype.toString, value, [])),
    isGeneratorObject: isKind("Generator"), isMap: isKind("Map"), isNativeError: isKind("Error"), isNumberObject: isKind("Number"),
    isBigIntObject: isKind("BigInt"), isBooleanObject: isKind("Boolean"), isStringObject: isKind("String"), isSymbolObject: isKind("Symbol"),
    isPromise: isKind("Promise"), isProxy: isKind("Proxy"), isRegExp: isKind("RegExp"), isSet: isKind("Set"), isSharedArrayBuffer: () => false,
    isTypedArray: isKind("TypedArray"), isUint8Array: (value) => isKind("TypedArray")(value) && value[Symbol.toStringTag] === "Uint8Array",
    isWeakMap: isKind("WeakMap"), isWeakSet: isKind("WeakSet"),
  };
  for (const name of ["Uint8ClampedArray", "Uint16Array", "Uint32Array", "Int8Array", "Int16Array", "Int32Array", "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array"]) {
    types[`is${name}`] = (value) => isKind("TypedArray")(value) && value[Symbol.toStringTag] === name;
  }
  return {
    isDeepEqual: (a, b) => equal(a, b, false, new Map()),
    isDeepStrictEqual: (a, b) => equal(a, b, true, new Map()),
    types,
  };
})
