// fetch, Headers, Request, Response: as in Node.js, with bodies that are whole (no streams).
(function (native, load) {
  "use strict";
  const { decode } = native;
  const { begin, forget, bytes } = load("slow");
  const { parse } = JSON;
  const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
  const NULL_BODY = [101, 103, 204, 205, 304];
  const tag = (of, name) => Object.defineProperty(of.prototype, Symbol.toStringTag, { value: name, configurable: true });

  class Headers {
    #all = new Map();
    constructor(init) {
      if (init === undefined || init === null) return;
      if (typeof init !== "object") throw new TypeError("Headers constructor: init is not an object");
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const pair of pairs) {
        const [name, value] = [...pair];
        this.append(name, value);
      }
    }
    static #name(name) {
      name = `${name}`;
      if (!NAME.test(name)) throw new TypeError(`Headers: ${name} is an invalid header name.`);
      return name.toLowerCase();
    }
    static #value(value) {
      value = `${value}`.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
      if (/[\0\r\n]/.test(value)) throw new TypeError("Headers: invalid header value.");
      return value;
    }
    append(name, value) {
      const key = Headers.#name(name), text = Headers.#value(value);
      this.#all.set(key, [...(this.#all.get(key) ?? []), text]);
    }
    set(name, value) { this.#all.set(Headers.#name(name), [Headers.#value(value)]); }
    get(name) { const found = this.#all.get(Headers.#name(name)); return found === undefined ? null : found.join(", "); }
    has(name) { return this.#all.has(Headers.#name(name)); }
    delete(name) { this.#all.delete(Headers.#name(name)); }
    getSetCookie() { return [...(this.#all.get("set-cookie") ?? [])]; }
    *entries() {
      for (const name of [...this.#all.keys()].sort()) {
        const values = this.#all.get(name);
        if (name === "set-cookie") for (const value of values) yield [name, value];
        else yield [name, values.join(", ")];
      }
    }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    forEach(f, self) { for (const [name, value] of this.entries()) f.call(self, value, name, this); }
    [Symbol.iterator]() { return this.entries(); }
  }
  tag(Headers, "Headers");

  // Body: bytes, and the type that they have if nothing else is said.
  function extract(body) {
    if (body === undefined || body === null) return [null, null];
    if (typeof body === "string") return [bytes(body), "text/plain;charset=UTF-8"];
    if (body instanceof URLSearchParams) return [bytes(`${body}`), "application/x-www-form-urlencoded;charset=UTF-8"];
    if (ArrayBuffer.isView(body) || body instanceof ArrayBuffer) return [new Uint8Array(bytes(body)), null];
    return [bytes(String(body)), "text/plain;charset=UTF-8"];
  }
  class Body {
    #bytes = null; #used = false;
    static init(of, given) { of.#bytes = given; return of; }
    static given(of) { return of.#bytes; }
    get bodyUsed() { return this.#used; }
    #take() {
      if (this.#used) throw new TypeError("Body is unusable: Body has already been read");
      this.#used = this.#bytes !== null;
      return this.#bytes ?? new Uint8Array(0);
    }
    async text() {
      const text = decode(this.#take(), "utf8", false);
      return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
    }
    async json() { return parse(await this.text()); }
    async bytes() { return new Uint8Array(this.#take()); }
    async arrayBuffer() { return new Uint8Array(this.#take()).buffer; }
    static unused(of) {
      if (of.#used) throw new TypeError("Response.clone: Body has already been consumed.");
      return of.#bytes;
    }
  }
  const { init, given, unused } = Body;
  for (const name of ["init", "given", "unused"]) delete Body[name];

  class Response extends Body {
    #status; #text; #headers; #url = ""; #redirected = false; #type = "default";
    constructor(body, { status = 200, statusText = "", headers } = {}) {
      super();
      if (!Number.isInteger(status) || status < 200 || status > 599) throw new RangeError("init[\"status\"] must be in the range of 200 to 599, inclusive.");
      this.#status = status;
      this.#text = `${statusText}`;
      this.#headers = new Headers(headers);
      const [content, type] = extract(body);
      if (content !== null && NULL_BODY.includes(status)) throw new TypeError(`Response constructor: Invalid response status code ${status}`);
      if (type !== null && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
      init(this, content);
    }
    get status() { return this.#status; }
    get ok() { return this.#status >= 200 && this.#status <= 299; }
    get statusText() { return this.#text; }
    get headers() { return this.#headers; }
    get url() { return this.#url; }
    get redirected() { return this.#redirected; }
    get type() { return this.#type; }
    clone() {
      const copy = received({ status: this.#status, statusText: this.#text, headers: this.#headers, url: this.#url, redirected: this.#redirected }, unused(this));
      copy.#type = this.#type;
      return copy;
    }
    static of(about, content) {
      const response = new Response(null);
      response.#status = about.status;
      response.#text = about.statusText;
      response.#headers = new Headers(about.headers);
      response.#url = about.url;
      response.#redirected = about.redirected;
      response.#type = "basic";
      return init(response, content);
    }
    static json(data, options) {
      const response = new Response(JSON.stringify(data), options);
      if (!new Headers(options?.headers).has("content-type")) response.headers.set("content-type", "application/json");
      return response;
    }
    static error() { const response = received({ status: 0, statusText: "", headers: [], url: "", redirected: false }, null); response.#type = "error"; return response; }
  }
  const received = Response.of;
  delete Response.of;
  tag(Response, "Response");

  class Request extends Body {
    #url; #method; #headers; #redirect; #signal;
    constructor(input, options = {}) {
      super();
      const from = input instanceof Request ? input : null;
      options ??= {};
      let url;
      try { url = new URL(from ? from.url : `${input}`); } catch (error) { throw new TypeError(`Failed to parse URL from ${input}`, { cause: error }); }
      this.#url = url.href;
      const method = `${options.method ?? from?.method ?? "GET"}`;
      if (!NAME.test(method) || /^(connect|trace|track)$/i.test(method)) throw new TypeError(`'${method}' is not a valid HTTP method.`);
      this.#method = /^(delete|get|head|options|post|put)$/i.test(method) ? method.toUpperCase() : method;
      this.#headers = new Headers(options.headers ?? from?.headers);
      this.#redirect = options.redirect ?? from?.redirect ?? "follow";
      if (!["follow", "error", "manual"].includes(this.#redirect)) throw new TypeError(`Request constructor: ${this.#redirect} is not an accepted type. Expected one of follow, error, manual.`);
      this.#signal = options.signal ?? from?.signal ?? null;
      const [content, type] = options.body === undefined && from ? [given(from), null] : extract(options.body);
      if (content !== null && (this.#method === "GET" || this.#method === "HEAD")) throw new TypeError("Request with GET/HEAD method cannot have body.");
      if (type !== null && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
      init(this, content);
    }
    get url() { return this.#url; }
    get method() { return this.#method; }
    get headers() { return this.#headers; }
    get redirect() { return this.#redirect; }
    get signal() { return this.#signal; }
    clone() { return new Request(this); }
  }
  tag(Request, "Request");

  function fetch(input, options) {
    // Made here: it knows where it was asked for.
    const error = new TypeError("fetch failed");
    return new Promise((resolve, reject) => {
      const request = new Request(input, options);
      const { signal } = request;
      if (signal?.aborted) return reject(signal.reason);
      const content = given(request);
      const args = { url: request.url, method: request.method, headers: [...request.headers], redirect: request.redirect };
      const stop = () => { if (id !== undefined) forget(id); reject(signal.reason); };
      const id = begin("fetch", args, content === null ? [] : [content], (failed, about, given) => {
        signal?.removeEventListener("abort", stop);
        if (failed) return reject(failed);
        const empty = NULL_BODY.includes(about.status) || request.method === "HEAD";
        resolve(received(about, empty ? null : given));
      }, error);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
  return { fetch, Headers, Request, Response };
})
