// `node:zlib`: the functions with a callback by the pool, those with Sync at once. There are no streams.
(function (native, load) {
  "use strict";
  const { zip } = native;
  const { begin, bytes, buffer, integer, callable, coded } = load("slow");
  const KINDS = ["gzip", "gunzip", "deflate", "inflate", "deflateRaw", "inflateRaw", "unzip", "brotliCompress", "brotliDecompress"];
  const constants = Object.freeze({
    Z_NO_COMPRESSION: 0, Z_BEST_SPEED: 1, Z_BEST_COMPRESSION: 9, Z_DEFAULT_COMPRESSION: -1,
    BROTLI_PARAM_QUALITY: 1, BROTLI_MIN_QUALITY: 0, BROTLI_MAX_QUALITY: 11, BROTLI_DEFAULT_QUALITY: 11,
  });

  function level(kind, options) {
    const wanted = kind.startsWith("brotli") ? options?.params?.[constants.BROTLI_PARAM_QUALITY] : options?.level;
    if (wanted === undefined || wanted === -1) return null;
    return integer(wanted, "options.level", 0, kind.startsWith("brotli") ? 11 : 9);
  }
  const all = { constants };
  for (const kind of KINDS) {
    const later = function (input, options, callback) {
      if (typeof options === "function") [options, callback] = [{}, options];
      input = bytes(input, "buffer");
      callable(callback);
      begin("zlib", { kind, level: level(kind, options) }, [input], (error, _, out) => (error ? callback(error) : callback(null, buffer(out))));
    };
    const now = function (input, options) {
      const out = zip(kind, level(kind, options) ?? undefined, new Uint8Array(bytes(input, "buffer")));
      if (typeof out !== "string") return buffer(out);
      const at = out.indexOf(" ");
      throw coded(new Error(out.slice(at + 1)), out.slice(0, at));
    };
    Object.defineProperty(later, "name", { value: kind });
    Object.defineProperty(now, "name", { value: `${kind}Sync` });
    all[kind] = later;
    all[`${kind}Sync`] = now;
  }
  return all;
})
