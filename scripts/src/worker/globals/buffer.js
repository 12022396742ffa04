// Buffer: a Uint8Array with the part of Node.js's methods that handlers of payloads use.
(function (native) {
  "use strict";
  const { encode, decode } = native;
  const ENCODINGS = { utf8: "utf8", "utf-8": "utf8", hex: "hex", base64: "base64", base64url: "base64url", latin1: "latin1", binary: "latin1", ascii: "ascii", ucs2: "utf16le", "ucs-2": "utf16le", utf16le: "utf16le", "utf-16le": "utf16le" };
  const { defineProperty } = Object;

  const coded = (error, code) => defineProperty(error, "code", { value: code, configurable: true, writable: true });
  function encoding(name = "utf8") {
    const known = ENCODINGS[`${name}`.toLowerCase()];
    if (known === undefined) throw coded(new TypeError(`Unknown encoding: ${name}`), "ERR_UNKNOWN_ENCODING");
    return known;
  }
  const bytesOf = (value, name) => (typeof value === "string" ? encode(value, encoding(name)) : value);
  const over = (bytes) => new Buffer(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  function view(buffer, offset, size) {
    if (typeof offset !== "number") throw coded(new TypeError('The "offset" argument must be of type number.'), "ERR_INVALID_ARG_TYPE");
    if (!Number.isInteger(offset) || offset < 0 || offset + size > buffer.length) {
      throw coded(new RangeError(`The value of "offset" is out of range. It must be >= 0 and <= ${buffer.length - size}. Received ${offset}`), "ERR_OUT_OF_RANGE");
    }
    return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  class Buffer extends Uint8Array {
    static from(value, second, length) {
      if (typeof value === "string") return over(encode(value, encoding(second)));
      if (value instanceof ArrayBuffer) return new Buffer(value, second, length);
      if (value?.type === "Buffer" && Array.isArray(value.data)) value = value.data;
      if (value === null || typeof value !== "object") {
        throw coded(new TypeError("The first argument must be of type string or an instance of Buffer, ArrayBuffer, or Array or an Array-like Object."), "ERR_INVALID_ARG_TYPE");
      }
      if (typeof value.valueOf() === "string") return Buffer.from(value.valueOf(), second);
      const buffer = new Buffer(value.length ?? 0);
      for (let i = 0; i < buffer.length; i++) buffer[i] = value[i];
      return buffer;
    }
    static of(...bytes) { return Buffer.from(bytes); }
    static alloc(size, fill, name) {
      const buffer = new Buffer(size);
      return fill === undefined || fill === 0 ? buffer : buffer.fill(fill, name);
    }
    static allocUnsafe(size) { return new Buffer(size); }
    static allocUnsafeSlow(size) { return new Buffer(size); }
    static isBuffer(value) { return value instanceof Buffer; }
    static isEncoding(name) { return typeof name === "string" && name.toLowerCase() in ENCODINGS; }
    static byteLength(value, name) { return typeof value === "string" ? bytesOf(value, name).length : value.byteLength; }
    static compare(a, b) {
      const shared = Math.min(a.length, b.length);
      for (let i = 0; i < shared; i++) if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
      return Math.sign(a.length - b.length);
    }
    static concat(list, total = list.reduce((sum, one) => sum + one.length, 0)) {
      const buffer = new Buffer(total);
      let at = 0;
      for (const one of list) {
        const part = one.length > total - at ? one.subarray(0, total - at) : one;
        buffer.set(part, at);
        at += part.length;
      }
      return buffer;
    }
    toString(name, start = 0, end = this.length) {
      start = Math.max(start, 0);
      return end <= start ? "" : decode(super.subarray(start, end), encoding(name), false);
    }
    toLocaleString(...all) { return this.toString(...all); }
    toJSON() { return { type: "Buffer", data: Array.from(this) }; }
    equals(other) { return this === other || Buffer.compare(this, other) === 0; }
    compare(other, from = 0, to = other.length, start = 0, end = this.length) {
      return Buffer.compare(this.subarray(start, end), other.subarray(from, to));
    }
    slice(start, end) { return this.subarray(start, end); }
    copy(target, at = 0, start = 0, end = this.length) {
      const part = this.subarray(start, Math.min(end, start + target.length - at));
      target.set(part, at);
      return part.length;
    }
    fill(value, start = 0, end = this.length, name) {
      if (typeof start === "string") [start, end, name] = [0, this.length, start];
      if (typeof end === "string") [end, name] = [this.length, end];
      if (typeof value === "number" || typeof value === "boolean") { super.fill(value & 255, start, end); return this; }
      const bytes = bytesOf(value, name);
      for (let i = start; i < end; i++) this[i] = bytes.length === 0 ? 0 : bytes[(i - start) % bytes.length];
      return this;
    }
    write(text, at = 0, length = this.length - at, name) {
      if (typeof at === "string") [at, length, name] = [0, this.length, at];
      if (typeof length === "string") [length, name] = [this.length - at, length];
      let bytes = encode(text, encoding(name));
      const room = Math.min(length, this.length - at);
      if (bytes.length > room) {
        let end = room;
        // A character is written whole or not at all.
        if (encoding(name) === "utf8") while (end > 0 && (bytes[end] & 0xc0) === 0x80) end--;
        bytes = bytes.subarray(0, end);
      }
      this.set(bytes, at);
      return bytes.length;
    }
    indexOf(value, from = 0, name) { return search(this, value, from, name, 1); }
    lastIndexOf(value, from = this.length, name) { return search(this, value, from, name, -1); }
    includes(value, from, name) { return this.indexOf(value, from, name) !== -1; }
    swap16() { return swap(this, 2); }
    swap32() { return swap(this, 4); }
    swap64() { return swap(this, 8); }
    readUIntBE(at, size) { let n = 0; view(this, at, size); for (let i = 0; i < size; i++) n = n * 256 + this[at + i]; return n; }
    readUIntLE(at, size) { let n = 0; view(this, at, size); for (let i = size; i-- > 0;) n = n * 256 + this[at + i]; return n; }
    readIntBE(at, size) { return signed(this.readUIntBE(at, size), size); }
    readIntLE(at, size) { return signed(this.readUIntLE(at, size), size); }
    get parent() { return this.buffer; }
    get offset() { return this.byteOffset; }
  }
  const signed = (n, size) => (n >= 2 ** (8 * size - 1) ? n - 2 ** (8 * size) : n);
  function swap(buffer, size) {
    if (buffer.length % size) throw coded(new RangeError(`Buffer size must be a multiple of ${size * 8}-bits`), "ERR_INVALID_BUFFER_SIZE");
    for (let at = 0; at < buffer.length; at += size) Uint8Array.prototype.reverse.call(new Uint8Array(buffer.buffer, buffer.byteOffset + at, size));
    return buffer;
  }
  function search(buffer, value, from, name, step) {
    if (typeof from === "string") [from, name] = [step > 0 ? 0 : buffer.length, from];
    const bytes = typeof value === "number" ? [value & 255] : bytesOf(value, name);
    if (from < 0) from = Math.max(from + buffer.length, step > 0 ? 0 : -1);
    if (step < 0) from = Math.min(from, buffer.length - bytes.length);
    for (let at = from; at >= 0 && at + bytes.length <= buffer.length; at += step) {
      let same = 0;
      while (same < bytes.length && buffer[at + same] === bytes[same]) same++;
      if (same === bytes.length) return at;
    }
    return -1;
  }
  // readUInt8, readUint16LE, writeDoubleBE …
  const NUMBERS = { UInt8: [1, "Uint8"], Int8: [1, "Int8"], UInt16: [2, "Uint16"], Int16: [2, "Int16"], UInt32: [4, "Uint32"], Int32: [4, "Int32"], BigUInt64: [8, "BigUint64"], BigInt64: [8, "BigInt64"], Float: [4, "Float32"], Double: [8, "Float64"] };
  for (const [name, [size, kind]] of Object.entries(NUMBERS)) {
    for (const end of size === 1 ? [""] : ["LE", "BE"]) {
      const read = function (at = 0) { return view(this, at, size)[`get${kind}`](at, end === "LE"); };
      const write = function (value, at = 0) {
        const data = view(this, at, size), bits = size * 8;
        if (/Int(8|16|32)$/.test(name)) {
          const [low, high] = name.startsWith("U") ? [0, 2 ** bits - 1] : [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
          if (!(value >= low && value <= high)) throw coded(new RangeError(`The value of "value" is out of range. It must be >= ${low} and <= ${high}. Received ${value}`), "ERR_OUT_OF_RANGE");
        }
        data[`set${kind}`](at, value, end === "LE");
        return at + size;
      };
      for (const alias of new Set([name, name.replace("UInt", "Uint")])) {
        defineProperty(Buffer.prototype, `read${alias}${end}`, { value: read, writable: true, configurable: true });
        defineProperty(Buffer.prototype, `write${alias}${end}`, { value: write, writable: true, configurable: true });
      }
    }
  }
  defineProperty(Buffer, "poolSize", { value: 8192, writable: true, configurable: true });
  return { Buffer };
})
