// URL and URLSearchParams. The parser is the host's; `parse` and `change` give the parts of an address, or undefined.
(function (native) {
  "use strict";
  const { parse, change, encode, decode } = native;
  const PARTS = ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"];
  const SAFE = /[A-Za-z0-9*\-._]/;

  const escape = (text) => {
    let out = "";
    for (const byte of encode(`${text}`.toWellFormed?.() ?? `${text}`, "utf8")) {
      const char = String.fromCharCode(byte);
      out += char === " " ? "+" : SAFE.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
    }
    return out;
  };
  const unescape = (text) => {
    if (!/[%+]|[^\x00-\x7f]/.test(text)) return text;
    const bytes = encode(text.replaceAll("+", " "), "utf8"), out = [];
    for (let i = 0; i < bytes.length; i++) {
      const hex = bytes[i] === 37 ? decode(bytes.subarray(i + 1, i + 3), "latin1", false) : "";
      if (/^[0-9a-f]{2}$/i.test(hex)) { out.push(parseInt(hex, 16)); i += 2; } else out.push(bytes[i]);
    }
    return decode(Uint8Array.from(out), "utf8", false);
  };
  const read = (query) => query.split("&").filter((pair) => pair !== "").map((pair) => {
    const at = pair.indexOf("=");
    return at < 0 ? [unescape(pair), ""] : [unescape(pair.slice(0, at)), unescape(pair.slice(at + 1))];
  });

  let owned, refill;
  class URLSearchParams {
    #pairs = []; #changed = () => {};
    constructor(init = "") {
      if (typeof init === "object" && init !== null || typeof init === "function") {
        if (typeof init[Symbol.iterator] === "function") {
          for (const pair of init) {
            const both = [...pair];
            if (both.length !== 2) throw Object.assign(new TypeError("Each query pair must be an iterable [name, value] tuple"), { code: "ERR_INVALID_TUPLE" });
            this.#pairs.push(both.map(String));
          }
        } else for (const key of Reflect.ownKeys(init)) if (Object.prototype.propertyIsEnumerable.call(init, key)) this.#pairs.push([String(key), String(init[key])]);
      } else this.#pairs = read(`${init}`.replace(/^\?/, ""));
    }
    get size() { return this.#pairs.length; }
    append(name, value) { this.#pairs.push([`${name}`, `${value}`]); this.#changed(); }
    delete(name, value) {
      this.#pairs = this.#pairs.filter((pair) => pair[0] !== `${name}` || (value !== undefined && pair[1] !== `${value}`));
      this.#changed();
    }
    get(name) { return this.#pairs.find((pair) => pair[0] === `${name}`)?.[1] ?? null; }
    getAll(name) { return this.#pairs.filter((pair) => pair[0] === `${name}`).map((pair) => pair[1]); }
    has(name, value) { return this.#pairs.some((pair) => pair[0] === `${name}` && (value === undefined || pair[1] === `${value}`)); }
    set(name, value) {
      const at = this.#pairs.findIndex((pair) => pair[0] === `${name}`);
      if (at < 0) this.#pairs.push([`${name}`, `${value}`]);
      else this.#pairs = this.#pairs.filter((pair, i) => i <= at || pair[0] !== `${name}`).with(at, [`${name}`, `${value}`]);
      this.#changed();
    }
    sort() { this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)); this.#changed(); }
    forEach(f, self) { for (const [name, value] of this) f.call(self, value, name, this); }
    *entries() { for (let i = 0; i < this.#pairs.length; i++) yield [...this.#pairs[i]]; }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return this.#pairs.map(([name, value]) => `${escape(name)}=${escape(value)}`).join("&"); }
    static {
      owned = (query, changed) => { const params = new URLSearchParams(query); params.#changed = changed; return params; };
      refill = (params, query) => { params.#pairs = read(query.replace(/^\?/, "")); };
    }
  }

  const invalid = (input) => Object.assign(new TypeError("Invalid URL"), { code: "ERR_INVALID_URL", input });
  class URL {
    #parts; #params;
    constructor(address, base) {
      this.#parts = parse(`${address}`, base === undefined ? undefined : `${base}`);
      if (this.#parts === undefined) throw invalid(`${address}`);
    }
    static canParse(address, base) { return parse(`${address}`, base === undefined ? undefined : `${base}`) !== undefined; }
    get searchParams() {
      return this.#params ??= owned(this.search, () => {
        const query = this.#params.toString();
        this.#parts = change(this.href, "search", query) ?? this.#parts;
      });
    }
    toString() { return this.href; }
    toJSON() { return this.href; }
    static part(url, at) { return url.#parts[at]; }
    static change(url, name, value) {
      const parts = name === "href" ? parse(value) : change(url.href, name, value);
      if (parts === undefined) { if (name === "href") throw invalid(value); return; }
      url.#parts = parts;
      if (url.#params && (name === "search" || name === "href")) refill(url.#params, url.search);
    }
  }
  const { part, change: set } = URL;
  delete URL.part;
  delete URL.change;
  PARTS.forEach((name, at) => {
    Object.defineProperty(URL.prototype, name, {
      get() { return part(this, at); },
      set: name === "origin" ? undefined : function (value) { set(this, name, `${value}`); },
      enumerable: true, configurable: true,
    });
  });
  for (const type of [URL, URLSearchParams]) Object.defineProperty(type.prototype, Symbol.toStringTag, { value: type.name, configurable: true });
  return { URL, URLSearchParams };
})
