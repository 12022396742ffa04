// What `node:crypto` has beside the web's: hashes at once, derived keys by the pool. What is random comes from the reading's place.
(function (native, load) {
  "use strict";
  const { hashNames, hash, hmac, derive, tick } = native;
  const { begin, bytes, buffer, integer, callable, coded, type, range } = load("slow");
  const KEY = 1024;

  const text = (out, encoding) => (encoding === undefined || encoding === "buffer" ? out : out.toString(encoding));
  function joined(chunks) {
    if (chunks.length === 1) return chunks[0];
    const all = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let at = 0;
    for (const chunk of chunks) { all.set(chunk, at); at += chunk.length; }
    return all;
  }
  // A copy: what is hashed is what was given then.
  const copy = (data, encoding) => {
    if (data instanceof ArrayBuffer || (typeof data !== "string" && !ArrayBuffer.isView(data))) {
      throw type("data", "of type string or an instance of Buffer, TypedArray, or DataView", data);
    }
    return new Uint8Array(bytes(data, "data", encoding));
  };
  const known = (name, error) => {
    if (typeof name !== "string") throw type("algorithm", "of type string", name);
    if (!hash(name)) throw coded(error ?? new Error("Digest method not supported"), "ERR_CRYPTO_INVALID_DIGEST");
    return name;
  };
  const invalid = (name) => new TypeError(`Invalid digest: ${name}`);
  const finalized = () => coded(new Error("Digest already called"), "ERR_CRYPTO_HASH_FINALIZED");

  class Hash {
    #name; #chunks; #done = false;
    constructor(name, chunks = []) { this.#name = known(name); this.#chunks = chunks; }
    update(data, encoding) {
      if (this.#done) throw finalized();
      this.#chunks.push(copy(data, encoding));
      return this;
    }
    digest(encoding) {
      if (this.#done) throw finalized();
      this.#done = true;
      return text(buffer(hash(this.#name, joined(this.#chunks))), encoding);
    }
    copy() {
      if (this.#done) throw finalized();
      return new Hash(this.#name, [...this.#chunks]);
    }
  }
  class Hmac {
    #name; #key; #chunks = []; #done = false;
    constructor(name, key) {
      if (typeof name !== "string") throw type("hmac", "of type string", name);
      this.#name = known(name, invalid(name));
      this.#key = new Uint8Array(bytes(key, "key"));
    }
    update(data, encoding) {
      if (this.#done) throw finalized();
      this.#chunks.push(copy(data, encoding));
      return this;
    }
    digest(encoding) {
      if (this.#done) return text(buffer(undefined), encoding);
      this.#done = true;
      return text(buffer(hmac(this.#name, this.#key, joined(this.#chunks))), encoding);
    }
  }

  function pbkdf2Arguments(password, salt, iterations, keylen, digest) {
    if (typeof digest !== "string") throw type("digest", "of type string", digest);
    password = bytes(password, "password");
    salt = bytes(salt, "salt");
    integer(iterations, "iterations", 1, 2 ** 31 - 1);
    integer(keylen, "keylen", 0, 2 ** 31 - 1);
    known(digest, invalid(digest));
    return [password, salt];
  }
  function pbkdf2(password, salt, iterations, keylen, digest, callback) {
    if (typeof digest === "function") [digest, callback] = [undefined, digest];
    const parts = pbkdf2Arguments(password, salt, iterations, keylen, digest);
    callable(callback);
    begin("pbkdf2", { digest, iterations, length: keylen }, parts, (error, _, key) => (error ? callback(error) : callback(null, buffer(key))));
  }
  function pbkdf2Sync(password, salt, iterations, keylen, digest) {
    const [secret, salted] = pbkdf2Arguments(password, salt, iterations, keylen, digest);
    return buffer(derive(digest, secret, salted, iterations, keylen));
  }
  function scrypt(password, salt, keylen, options, callback) {
    if (typeof options === "function") [options, callback] = [{}, options];
    password = bytes(password, "password");
    salt = bytes(salt, "salt");
    integer(keylen, "keylen", 0, 2 ** 31 - 1);
    callable(callback);
    const n = options?.N ?? options?.cost ?? 16384, r = options?.r ?? options?.blockSize ?? 8, p = options?.p ?? options?.parallelization ?? 1;
    for (const [name, value] of [["N", n], ["r", r], ["p", p]]) integer(value, name, 0, 2 ** 32 - 1);
    const most = options?.maxmem ?? 32 * 1024 * 1024;
    if (128 * n * r > most) throw coded(new RangeError("Invalid scrypt params: memory limit exceeded"), "ERR_CRYPTO_INVALID_SCRYPT_PARAMS");
    begin("scrypt", { length: keylen, n, r, p }, [password, salt], (error, _, key) => (error ? callback(error) : callback(null, buffer(key))));
  }

  function randomBytes(size, callback) {
    integer(size, "size", 0, 65536);
    const out = buffer(crypto.getRandomValues(new Uint8Array(size)));
    if (callback === undefined) return out;
    callable(callback);
    tick(callback, undefined, [null, out]);
  }
  function randomInt(low, high, callback) {
    if (high === undefined || typeof high === "function") [low, high, callback] = [0, low, high];
    if (!Number.isSafeInteger(low)) throw type("min", "a safe integer", low);
    if (!Number.isSafeInteger(high)) throw type("max", "a safe integer", high);
    if (high <= low) throw range("max", `greater than the value of "min" (${low})`, high);
    const value = low + Math.floor(Math.random() * (high - low));
    if (callback === undefined) return value;
    callable(callback);
    tick(callback, undefined, [null, value]);
  }
  function timingSafeEqual(one, other) {
    for (const [name, value] of [["buf1", one], ["buf2", other]]) {
      if (!ArrayBuffer.isView(value) && !(value instanceof ArrayBuffer)) throw type(name, "an instance of ArrayBuffer, Buffer, TypedArray, or DataView", value);
    }
    const a = bytes(one), b = bytes(other);
    if (a.length !== b.length) throw coded(new RangeError("Input buffers must have the same byte length"), "ERR_CRYPTO_TIMING_SAFE_EQUAL_LENGTH");
    let difference = 0;
    for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
    return difference === 0;
  }
  return {
    createHash: (name) => new Hash(name), createHmac: (name, key) => new Hmac(name, key), getHashes: () => hashNames(),
    pbkdf2, pbkdf2Sync, scrypt, randomBytes, randomInt, timingSafeEqual, Hash, Hmac,
  };
})
