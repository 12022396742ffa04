// `node:dns`: lookup only.
(function (native, load) {
  "use strict";
  const { begin, callable, integer, type } = load("slow");

  function start(hostname, options, done) {
    if (typeof hostname !== "string") throw type("hostname", "of type string", hostname);
    const { family = 0, all = false } = typeof options === "number" ? { family: options } : options ?? {};
    integer(family, "family", 0, 6);
    begin("dns.lookup", { hostname, family }, [], (error, found) => {
      if (error) return done(error);
      const addresses = found.map(([address, of]) => ({ address, family: of }));
      done(null, all ? addresses : addresses[0], all);
    });
  }
  function lookup(hostname, options, callback) {
    if (typeof options === "function") [options, callback] = [{}, options];
    callable(callback);
    start(hostname, options, (error, found, all) => {
      if (error) callback(error); else if (all) callback(null, found); else callback(null, found.address, found.family);
    });
  }
  const promised = (hostname, options) =>
    new Promise((resolve, reject) => start(hostname, options, (error, found) => (error ? reject(error) : resolve(found))));
  Object.defineProperty(lookup, Symbol.for("nodejs.util.promisify.custom"), { value: promised });
  return { lookup, promises: { lookup: promised } };
})
