// `node:querystring` and `node:string_decoder`, as in Node.js 20.
(function () {
  "use strict";
  const { create, assign, hasOwn, keys } = Object;

  // ---- querystring

  const KEPT = /[A-Za-z0-9\-_.!~*'()]/;
  function escape(value) {
    const text = typeof value === "string" ? value : typeof value === "object" ? String(value) : `${value}`;
    let out = "";
    for (const char of text) {
      if (KEPT.test(char)) { out += char; continue; }
      if (char.length === 1 && char >= "\ud800" && char <= "\udfff") throw assign(new URIError("URI malformed"), { code: "ERR_INVALID_URI" });
      out += encodeURIComponent(char);
    }
    return out;
  }
  // Percent signs that say nothing stay as they are.
  function unescapeBuffer(text) {
    const bytes = [];
    for (let i = 0; i < text.length; i++) {
      const hex = text[i] === "%" ? text.slice(i + 1, i + 3) : "";
      if (/^[0-9a-fA-F]{2}$/.test(hex)) { bytes.push(parseInt(hex, 16)); i += 2; } else bytes.push(...Buffer.from(text[i]));
    }
    return Buffer.from(bytes);
  }
  function unescape(text) {
    try { return decodeURIComponent(text); } catch { return unescapeBuffer(text).toString(); }
  }
  function primitive(value, encode) {
    if (typeof value === "string") return value.length > 0 ? encode(value) : "";
    if (typeof value === "number") return Number.isFinite(value) ? encode(`${value}`) : "";
    return typeof value === "bigint" || typeof value === "boolean" ? encode(`${value}`) : "";
  }
  function stringify(of, separator = "&", equals = "=", options) {
    if (of === null || typeof of !== "object") return "";
    const encode = typeof options?.encodeURIComponent === "function" ? options.encodeURIComponent : querystring.escape;
    const pairs = [];
    for (const key of keys(of)) {
      const name = primitive(key, encode) + (equals ?? "=");
      if (Array.isArray(of[key])) for (const value of of[key]) pairs.push(name + primitive(value, encode));
      else pairs.push(name + primitive(of[key], encode));
    }
    return pairs.join(separator ?? "&");
  }
  function parse(text, separator = "&", equals = "=", options) {
    const found = create(null);
    if (typeof text !== "string" || text.length === 0) return found;
    const decode = typeof options?.decodeURIComponent === "function" ? options.decodeURIComponent : querystring.unescape;
    const most = typeof options?.maxKeys === "number" ? options.maxKeys : 1000;
    let pairs = text.split(separator || "&").filter((pair) => pair !== "");
    if (most > 0) pairs = pairs.slice(0, most);
    const decoded = (text) => { const spaced = text.replaceAll("+", " "); try { return decode(spaced); } catch { return unescape(spaced); } };
    for (const pair of pairs) {
      const sign = equals || "=", at = pair.indexOf(sign);
      const key = decoded(at < 0 ? pair : pair.slice(0, at)), value = at < 0 ? "" : decoded(pair.slice(at + sign.length));
      if (!hasOwn(found, key)) found[key] = value;
      else if (Array.isArray(found[key])) found[key].push(value);
      else found[key] = [found[key], value];
    }
    return found;
  }
  const querystring = { unescapeBuffer, unescape, escape, stringify, encode: stringify, parse, decode: parse };

  // ---- string_decoder

  const NAMES = { utf8: "utf8", "utf-8": "utf8", ucs2: "utf16le", "ucs-2": "utf16le", utf16le: "utf16le", "utf-16le": "utf16le", latin1: "latin1", binary: "latin1", base64: "base64", base64url: "base64url", ascii: "ascii", hex: "hex" };
  class StringDecoder {
    #kept = Buffer.alloc(0);
    constructor(encoding = "utf8") {
      const name = NAMES[`${encoding ?? "utf8"}`.toLowerCase()];
      if (name === undefined) throw assign(new TypeError(`Unknown encoding: ${encoding}`), { code: "ERR_UNKNOWN_ENCODING" });
      this.encoding = name;
    }
    write(chunk) {
      if (typeof chunk === "string") return chunk;
      if (!ArrayBuffer.isView(chunk)) throw assign(new TypeError('The "buf" argument must be an instance of Buffer, TypedArray, or DataView.'), { code: "ERR_INVALID_ARG_TYPE" });
      const bytes = Buffer.concat([this.#kept, Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)]);
      const end = bytes.length - this.#incomplete(bytes);
      this.#kept = bytes.subarray(end);
      return bytes.toString(this.encoding, 0, end);
    }
    end(chunk) {
      const text = chunk === undefined ? "" : this.write(chunk);
      const rest = this.#kept;
      this.#kept = Buffer.alloc(0);
      return text + (rest.length === 0 ? "" : this.encoding === "utf8" ? "\ufffd" : rest.toString(this.encoding));
    }
    get lastNeed() { return this.#kept.length === 0 ? 0 : this.#needed() - this.#kept.length; }
    get lastTotal() { return this.#kept.length === 0 ? 0 : this.#needed(); }
    #needed() {
      if (this.encoding !== "utf8") return { utf16le: this.#kept.length > 1 ? 4 : 2, base64: 3, base64url: 3 }[this.encoding] ?? 0;
      return this.#kept[0] >= 0xf0 ? 4 : this.#kept[0] >= 0xe0 ? 3 : 2;
    }
    // Bytes at the end of a character that is not there whole.
    #incomplete(bytes) {
      const length = bytes.length;
      switch (this.encoding) {
        case "utf8": {
          for (let back = 1; back <= Math.min(3, length); back++) {
            const byte = bytes[length - back];
            if ((byte & 0xc0) === 0x80) continue;
            const needs = byte >= 0xf5 ? 1 : byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
            return needs > back ? back : 0;
          }
          return 0;
        }
        case "utf16le": {
          const odd = length % 2;
          const high = length - odd >= 2 && (bytes[length - odd - 1] & 0xfc) === 0xd8;
          return odd + (high ? 2 : 0);
        }
        case "base64": case "base64url": return length % 3;
        default: return 0;
      }
    }
  }
  return { querystring, string_decoder: { StringDecoder } };
})
