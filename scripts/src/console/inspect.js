// How values look at a prompt, in the manner of Node.js's util.inspect, and what else the console asks of its context. What a
// device or a script has put into a string never reaches the terminal as a control character.
(function (typed, colored, defineName) {
  "use strict";
  const { getOwnPropertyDescriptor, getPrototypeOf, defineProperty, keys, prototype: objectPrototype } = Object;
  const { ownKeys, apply } = Reflect;
  const { isArray } = Array;
  const { stringify } = JSON;
  const stackOf = getOwnPropertyDescriptor(Error.prototype, "stack")?.get;
  const custom = Symbol.for("nodejs.util.inspect.custom");
  const toISO = Date.prototype.toISOString, timeOf = Date.prototype.getTime;
  const mapEach = Map.prototype.forEach, setEach = Set.prototype.forEach;
  const typedArray = getPrototypeOf(Uint8Array);
  const DEPTH = 4, ITEMS = 100, STRING = 10000, WIDTH = 80, COMPACT = 3, MEMBERS = 1000;

  const colors = {
    number: [33, 39], bigint: [33, 39], boolean: [33, 39], string: [32, 39], symbol: [32, 39], undefined: [90, 39], null: [1, 22],
    special: [36, 39], date: [35, 39], regexp: [31, 39],
  };
  const paint = (text, kind) => colored ? `\u001b[${colors[kind][0]}m${text}\u001b[${colors[kind][1]}m` : text;
  const bare = (text) => text.replace(/\u001b\[\d+m/g, "");

  const builtins = new Set(ownKeys(globalThis).map((name) => getOwnPropertyDescriptor(globalThis, name).value));

  const hex = (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  // For what is not in quotes: lines and tabs may stay.
  const clean = (text) => text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, hex);
  const one = (text) => clean(text).replace(/[\n\t]/g, " ");

  function quote(text) {
    const mark = !text.includes("'") ? "'" : !text.includes('"') ? '"' : !text.includes("`") ? "`" : "'";
    const body = text.replace(/[\x00-\x1f\x7f-\x9f\\]/g, (character) => {
      switch (character) {
        case "\n": return "\\n";
        case "\t": return "\\t";
        case "\r": return "\\r";
        case "\\": return "\\\\";
        default: return hex(character);
      }
    });
    return mark + (mark === "'" ? body.replace(/'/g, "\\'") : body) + mark;
  }

  function primitive(value) {
    switch (typeof value) {
      case "string": {
        const more = value.length - STRING;
        return more > 0
          ? `${paint(quote(value.slice(0, STRING)), "string")}... ${more} more character${more > 1 ? "s" : ""}`
          : paint(quote(value), "string");
      }
      case "number": return paint(Object.is(value, -0) ? "-0" : `${value}`, "number");
      case "bigint": return paint(`${value}n`, "bigint");
      case "symbol": return paint(one(value.toString()), "symbol");
      case "undefined": return paint("undefined", "undefined");
      case "boolean": return paint(`${value}`, "boolean");
      default: return paint("null", "null");
    }
  }

  const key = (name) => typeof name === "symbol" ? `[${paint(one(name.toString()), "symbol")}]`
    : /^[A-Za-z_$][\w$]*$/.test(name) ? name : paint(quote(name), "string");

  // The name of what made an object; null: it has no prototype.
  function maker(value) {
    for (let object = value, steps = 0; object !== null && steps < 16; object = getPrototypeOf(object), steps++) {
      const made = getOwnPropertyDescriptor(object, "constructor")?.value;
      if (typeof made === "function") {
        const name = getOwnPropertyDescriptor(made, "name")?.value;
        if (typeof name === "string" && name !== "") return one(name);
      }
    }
    return null;
  }

  const works = (method, value, ...args) => { try { apply(method, value, args); return true; } catch { return false; } };

  function frames(error) {
    let stack = "";
    try { stack = `${apply(stackOf, error, [])}`; } catch { /* not an error of the engine */ }
    const places = [];
    for (const line of stack.split("\n")) {
      const found = /^\s*at (?:(.*) \()?REPL(\d+):(\d+|\?):(\d+|\?)\)?$/.exec(line);
      if (!found) continue;
      const [, name, input, row, column] = found;
      const place = row === "?" || column === "?" ? "" : typed(+input, +row, +column);
      // The wrapping of the input: what called it is older inputs, which were ended.
      if (place === null) break;
      const own = name === undefined || name === "" || name.startsWith("<");
      const text = own ? `    at REPL${input}${place}` : `    at ${one(name)} (REPL${input}${place})`;
      if (places[places.length - 1] !== text) places.push(text);
    }
    return places.slice(0, 10);
  }

  const own = (object, name) => {
    for (let at = object, steps = 0; at !== null && steps < 16; at = getPrototypeOf(at), steps++) {
      const found = getOwnPropertyDescriptor(at, name);
      if (found) return found.value;
    }
  };

  function headOf(error) {
    const name = own(error, "name"), message = own(error, "message");
    const [kind, words] = [name, message].map((part) => typeof part === "string" ? clean(part) : "");
    return words === "" ? kind || "Error" : `${kind || "Error"}: ${words}`;
  }

  function inspect(value, options = {}) {
    const state = { seen: [], circular: new Map(), level: 0, indent: 0, depth: options.depth ?? DEPTH };
    return show(value, state, 0);
  }

  function show(value, state, level) {
    if (value === null || (typeof value !== "object" && typeof value !== "function")) return primitive(value);
    const own = custom in value ? value[custom] : undefined;
    if (typeof own === "function") {
      const shown = apply(own, value, [state.depth - level, { colors: colored }, inspect]);
      return typeof shown === "string" ? shown : show(shown, state, level);
    }
    if (state.seen.includes(value)) {
      if (!state.circular.has(value)) state.circular.set(value, state.circular.size + 1);
      return paint(`[Circular *${state.circular.get(value)}]`, "special");
    }
    return raw(value, state, level);
  }

  function raw(value, state, level) {
    const name = maker(value);
    const prefix = (kind) => name === null ? `[${kind}: null prototype] ` : name === kind ? "" : `${name} `;
    let names = ownKeys(value).filter((key) => getOwnPropertyDescriptor(value, key)?.enumerable);
    let open = "{", close = "}", base = "", parts = null, isList = false;

    if (isArray(value)) {
      names = names.filter((key) => typeof key === "symbol" || !/^\d+$/.test(key));
      open = `${name === "Array" ? "" : `${name ?? "[Array: null prototype]"}(${value.length}) `}[`;
      close = "]";
      isList = true;
      parts = () => {
        const items = [];
        let at = 0;
        while (at < value.length && items.length < ITEMS) {
          if (!(at in value)) {
            const begun = at;
            while (at < value.length && !(at in value) && at - begun < 1e6) at++;
            items.push(paint(`<${at - begun} empty item${at - begun > 1 ? "s" : ""}>`, "undefined"));
            continue;
          }
          items.push(property(value, at++, state, level, true));
        }
        if (at < value.length) items.push(`... ${value.length - at} more item${value.length - at > 1 ? "s" : ""}`);
        return items;
      };
    } else if (value instanceof Map && works(mapEach, value, () => {})) {
      open = `${name ?? "Map"}(${value.size}) {`;
      parts = () => {
        const items = [];
        apply(mapEach, value, [(item, key) => {
          if (items.length < ITEMS) items.push(`${nested(key, state, level)} => ${nested(item, state, level)}`);
        }]);
        if (value.size > ITEMS) items.push(`... ${value.size - ITEMS} more items`);
        return items;
      };
    } else if (value instanceof Set && works(setEach, value, () => {})) {
      open = `${name ?? "Set"}(${value.size}) {`;
      parts = () => {
        const items = [];
        apply(setEach, value, [(item) => { if (items.length < ITEMS) items.push(nested(item, state, level)); }]);
        if (value.size > ITEMS) items.push(`... ${value.size - ITEMS} more items`);
        return items;
      };
    } else if (value instanceof typedArray) {
      names = names.filter((key) => typeof key === "symbol" || !/^\d+$/.test(key));
      open = `${name}(${value.length}) [`;
      close = "]";
      isList = true;
      parts = () => {
        const items = [];
        for (let at = 0; at < value.length && at < ITEMS; at++) items.push(primitive(value[at]));
        if (value.length > ITEMS) items.push(`... ${value.length - ITEMS} more items`);
        return items;
      };
    } else if (typeof value === "function") {
      const source = (() => { try { return apply(Function.prototype.toString, value, []); } catch { return ""; } })();
      const label = getOwnPropertyDescriptor(value, "name")?.value;
      const called = typeof label === "string" && label !== "" ? one(label) : null;
      if (source.startsWith("class") || (!builtins.has(value) && getOwnPropertyDescriptor(value, "prototype")?.writable === false)) {
        const parent = getPrototypeOf(value)?.name;
        base = paint(`[class ${called ?? "(anonymous)"}${parent ? ` extends ${one(`${parent}`)}` : ""}]`, "special");
      } else {
        const kind = name === null || name === "Object" ? "Function" : name;
        base = paint(called === null ? `[${kind} (anonymous)]` : `[${kind}: ${called}]`, "special");
      }
      if (names.length === 0) return base;
    } else if (value instanceof Error) {
      const places = frames(value);
      base = headOf(value) + (places.length > 0 ? `\n${places.join("\n")}` : "");
      if (places.length === 0) base = `[${base}]`;
      const cause = getOwnPropertyDescriptor(value, "cause");
      if (cause && !names.includes("cause")) names.push("cause");
      names = names.filter((key) => key !== "name" && key !== "message" && key !== "stack");
      if (names.length === 0) return base;
    } else if (value instanceof RegExp) {
      base = paint(one(`${RegExp.prototype.toString.call(value)}`), "regexp");
      if (names.length === 0) return base;
    } else if (value instanceof Date && works(timeOf, value)) {
      const time = apply(timeOf, value, []);
      base = paint(Number.isNaN(time) ? "Invalid Date" : apply(toISO, value, []), "date");
      if (names.length === 0) return base;
    } else if (value instanceof Number || value instanceof String || value instanceof Boolean) {
      base = paint(`[${name}: ${bare(primitive(value.valueOf()))}]`, "string");
      names = names.filter((key) => typeof key === "symbol" || !/^\d+$/.test(key));
      if (names.length === 0) return base;
    } else {
      open = `${prefix("Object")}{`;
      if (names.length === 0) return `${open}}`;
    }

    if (level > state.depth) return paint(`[${name === null ? "Object: null prototype" : isList ? "Array" : name}]`, "special");
    state.seen.push(value);
    state.level = level;
    const items = parts === null ? [] : parts();
    for (const name of names.slice(0, MEMBERS)) items.push(property(value, name, state, level, false));
    if (names.length > MEMBERS) items.push(`... ${names.length - MEMBERS} more`);
    state.seen.pop();
    let text = join(items, base, open, close, state, level, isList);
    if (state.circular.has(value)) text = `${paint(`<ref *${state.circular.get(value)}>`, "special")} ${text}`;
    return text;
  }

  function nested(value, state, level) {
    state.indent += 2;
    const text = show(value, state, level + 1);
    state.indent -= 2;
    return text;
  }

  function property(object, name, state, level, isItem) {
    const found = getOwnPropertyDescriptor(object, name) ?? { value: undefined };
    const text = "value" in found ? nested(found.value, state, level)
      : paint(found.get === undefined ? "[Setter]" : found.set === undefined ? "[Getter]" : "[Getter/Setter]", "special");
    return isItem ? text : `${key(name)}: ${text}`;
  }

  function join(items, base, open, close, state, level, isList) {
    if (items.length === 0) return `${base === "" ? "" : `${base} `}${open}${close}`;
    const count = items.length;
    if (isList && count > 6) items = columns(items, state);
    if (state.level - level < COMPACT && count === items.length) {
      const length = items.reduce((sum, item) => sum + bare(item).length, items.length)
        + items.length + state.indent + open.length + base.length + 10;
      if (length <= WIDTH && !base.includes("\n") && !items.some((item) => item.includes("\n"))) {
        return `${base === "" ? "" : `${base} `}${open} ${items.join(", ")} ${close}`;
      }
    }
    const line = `\n${" ".repeat(state.indent)}`;
    return `${base === "" ? "" : `${base} `}${open}${line}  ${items.join(`,${line}  `)}${line}${close}`;
  }

  // Many short items go into columns.
  function columns(items, state) {
    const last = items[items.length - 1].startsWith("... ") ? 1 : 0;
    const many = items.slice(0, items.length - last);
    if (many.some((item) => item.includes("\n"))) return items;
    const sizes = many.map((item) => bare(item).length + 2);
    const widest = Math.max(...sizes);
    const all = sizes.reduce((sum, size) => sum + size, 0);
    if (widest * 3 + state.indent >= WIDTH || (all / widest <= 5 && widest - 2 > 6)) return items;
    const bias = Math.sqrt(widest - all / items.length);
    const wide = Math.max(widest - 3 - bias, 1);
    const per = Math.min(Math.round(Math.sqrt(2.5 * wide * many.length) / wide), Math.floor((WIDTH - state.indent) / widest), 12, 15);
    if (per <= 1) return items;
    const widths = [];
    for (let column = 0; column < per; column++) {
      let width = 0;
      for (let at = column; at < many.length; at += per) width = Math.max(width, sizes[at]);
      widths.push(width);
    }
    const toTheRight = many.every((item) => /^-?[\d.]/.test(bare(item)));
    const rows = [];
    for (let at = 0; at < many.length; at += per) {
      const row = many.slice(at, at + per).map((item, column) => {
        const isLast = at + column === many.length - 1 || column === per - 1;
        const text = isLast ? item : `${item}, `;
        const space = " ".repeat(Math.max(widths[column] - bare(item).length - 2, 0));
        return toTheRight ? space + text : isLast ? text : text + space;
      });
      rows.push(row.join(""));
    }
    if (last > 0) rows.push(items[items.length - 1]);
    return rows;
  }

  // Makes a global of a variable that an input declares.
  defineProperty(globalThis, defineName, {
    value: (name, get, set) => {
      try {
        defineProperty(globalThis, name, { get, set, enumerable: true, configurable: true });
        declared.add(name);
      } catch { /* one of the language's own, such as undefined */ }
    },
  });
  const declared = new Set();

  return {
    inspect: (value) => {
      try { return inspect(value); } catch (error) { return `[what cannot be shown: ${headOf(Object(error))}]`; }
    },
    // What an input threw.
    failed(value) {
      try {
        return `Uncaught ${inspect(value)}`;
      } catch {
        return "Uncaught [what cannot be shown]";
      }
    },
    // `_` is the last value.
    keep(value) {
      try { defineProperty(globalThis, "_", { value, writable: true, configurable: true, enumerable: false }); } catch { /* it is somebody's own */ }
      return value;
    },
    // The names that a path leads to, a line each.
    members(path) {
      try {
        let at = globalThis;
        for (const [index, name] of path.entries()) {
          let found, object = Object(at);
          for (let steps = 0; object !== null && steps < 16 && found === undefined; object = getPrototypeOf(object), steps++) {
            found = getOwnPropertyDescriptor(object, name);
          }
          at = found === undefined ? undefined : "value" in found ? found.value
            : index === 0 && declared.has(name) ? found.get() : undefined;
          if (at === undefined || at === null) return "";
        }
        const names = new Set();
        for (let object = Object(at), steps = 0; object !== null && steps < 16; object = getPrototypeOf(object), steps++) {
          if (object === objectPrototype && at !== objectPrototype) break;
          for (const name of ownKeys(object)) {
            if (typeof name === "string" && /^[A-Za-z$][\w$]*$/.test(name)) names.add(name);
            if (names.size >= MEMBERS) return [...names].join("\n");
          }
        }
        return [...names].join("\n");
      } catch {
        return "";
      }
    },
  };
})
