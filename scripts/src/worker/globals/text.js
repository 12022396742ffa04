// TextEncoder, TextDecoder, atob, btoa.
(function (native, load) {
  "use strict";
  const { encode, decode } = native;
  const LABELS = { "utf-8": "utf8", utf8: "utf8", "unicode-1-1-utf-8": "utf8", "utf-16le": "utf16le", "utf-16": "utf16le", "iso-8859-1": "latin1", latin1: "latin1", ascii: "latin1", "us-ascii": "latin1", "windows-1252": "latin1" };
  const NAMES = { utf8: "utf-8", utf16le: "utf-16le", latin1: "windows-1252" };
  const tag = (type, name) => Object.defineProperty(type.prototype, Symbol.toStringTag, { value: name, configurable: true });

  class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(text = "") { return encode(`${text}`, "utf8"); }
    encodeInto(text, into) {
      let read = 0, written = 0;
      for (const char of `${text}`) {
        const bytes = encode(char, "utf8");
        if (written + bytes.length > into.length) break;
        into.set(bytes, written);
        written += bytes.length;
        read += char.length;
      }
      return { read, written };
    }
  }

  class TextDecoder {
    #encoding; #fatal; #ignoreBOM; #rest = []; #began = false;
    constructor(label = "utf-8", options = {}) {
      this.#encoding = LABELS[`${label}`.trim().toLowerCase()];
      if (this.#encoding === undefined) {
        throw Object.assign(new RangeError(`The "${label}" encoding is not supported`), { code: "ERR_ENCODING_NOT_SUPPORTED" });
      }
      this.#fatal = !!options?.fatal;
      this.#ignoreBOM = !!options?.ignoreBOM;
    }
    get encoding() { return NAMES[this.#encoding]; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#ignoreBOM; }
    decode(input = new Uint8Array(), options = {}) {
      let bytes = input instanceof ArrayBuffer ? new Uint8Array(input) : new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
      if (this.#rest.length > 0) bytes = Uint8Array.from([...this.#rest, ...bytes]);
      const whole = options?.stream ? complete(bytes, this.#encoding) : bytes.length;
      this.#rest = [...bytes.subarray(whole)];
      let text = decode(bytes.subarray(0, whole), this.#encoding, this.#fatal);
      if (text === undefined) {
        this.#rest = [];
        throw Object.assign(new TypeError("The encoded data was not valid for encoding utf-8"), { code: "ERR_ENCODING_INVALID_ENCODED_DATA" });
      }
      if (!this.#began && !this.#ignoreBOM && this.#encoding !== "latin1" && text.startsWith("\ufeff")) text = text.slice(1);
      this.#began = options?.stream ? this.#began || whole > 0 : false;
      return text;
    }
  }
  // How many bytes are there before a character that has only begun.
  function complete(bytes, encoding) {
    if (encoding === "latin1") return bytes.length;
    if (encoding === "utf16le") return bytes.length - (bytes.length % 2);
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const byte = bytes[bytes.length - back];
      if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? bytes.length - back : bytes.length;
      if (byte < 0x80) break;
    }
    return bytes.length;
  }

  const { DOMException } = load("events");
  const invalid = () => new DOMException("Invalid character", "InvalidCharacterError");
  function btoa(text) {
    text = `${text}`;
    for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 255) throw invalid();
    return decode(encode(text, "latin1"), "base64", false);
  }
  function atob(text) {
    text = `${text}`.replace(/[\t\n\f\r ]/g, "");
    if (text.length % 4 === 0) text = text.replace(/==?$/, "");
    if (text.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(text)) throw invalid();
    return decode(encode(text, "base64"), "latin1", false);
  }
  tag(TextEncoder, "TextEncoder");
  tag(TextDecoder, "TextDecoder");
  return { TextEncoder, TextDecoder, atob, btoa };
})
