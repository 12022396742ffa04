// `console`, on the host's log.
(function (native) {
  "use strict";
  const { log } = native;
  const { defineProperty, keys } = Object;
  const counts = new Map(), times = new Map();
  let indent = "";

  // `%s` and its kind, as far as a first text has any.
  function format(values) {
    if (typeof values[0] !== "string" || !values[0].includes("%")) return values;
    let at = 1;
    const text = values[0].replace(/%[sdifjoOc%]/g, (kind) => {
      if (kind === "%%") return "%";
      if (at >= values.length) return kind;
      const value = values[at++];
      switch (kind) {
        case "%s": return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
        case "%d": return typeof value === "object" || typeof value === "symbol" ? "NaN" : String(Number(value));
        case "%i": return typeof value === "object" || typeof value === "symbol" ? "NaN" : String(parseInt(value));
        case "%f": return typeof value === "symbol" ? "NaN" : String(parseFloat(value));
        case "%c": return "";
        default: return JSON.stringify(value);
      }
    });
    return [text, ...values.slice(at)];
  }
  const print = (level, values) => log(level, ...(indent === "" ? format(values) : [indent.slice(1), ...format(values)]));
  const label = (name = "default") => `${name}`;

  const console = {
    debug: (...values) => print("debug", values),
    log: (...values) => print("log", values),
    info: (...values) => print("info", values),
    warn: (...values) => print("warn", values),
    error: (...values) => print("error", values),
    trace: (...values) => print("error", ["Trace:", ...format(values)]),
    dir: (value) => print("log", [value]),
    table: (value) => print("log", [value]),
    assert(holds, ...values) {
      if (holds) return;
      if (typeof values[0] === "string") values[0] = `Assertion failed: ${values[0]}`; else values.unshift("Assertion failed");
      print("warn", values);
    },
    count(name) {
      const count = (counts.get(label(name)) ?? 0) + 1;
      counts.set(label(name), count);
      print("log", [`${label(name)}: ${count}`]);
    },
    countReset(name) { counts.delete(label(name)); },
    time(name) { times.set(label(name), performance.now()); },
    timeLog(name, ...values) {
      const begun = times.get(label(name));
      if (begun !== undefined) print("log", [`${label(name)}: ${performance.now() - begun}ms`, ...values]);
    },
    timeEnd(name) { console.timeLog(name); times.delete(label(name)); },
    group(...values) { if (values.length > 0) print("log", values); indent += "  "; },
    groupEnd() { indent = indent.slice(2); },
  };
  for (const name of keys(console)) defineProperty(console, name, { enumerable: false });
  return { console };
})
