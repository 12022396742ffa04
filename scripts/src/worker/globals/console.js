// `console`, on the host's log.
(function (native, load) {
  "use strict";
  const { log } = native;
  const { defineProperty, keys } = Object;
  const counts = new Map(), times = new Map();
  let indent = "";

  // As Node.js prints. What is no text is shown as far as a line of the log has room.
  function format(values) {
    const isPlain = values.every((value) => typeof value !== "object" && typeof value !== "function" && typeof value !== "bigint" && !Object.is(value, -0));
    if (isPlain && (typeof values[0] !== "string" || !values[0].includes("%"))) return values;
    return [load("inspect").formatWith(load("inspect").BOUNDS, values)];
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
    dir: (value, options) => print("log", [load("inspect").inspect(value, { ...load("inspect").BOUNDS, customInspect: false, ...options })]),
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
