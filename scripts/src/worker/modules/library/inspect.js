// `util.inspect` and `util.format` of Node.js 20, for `console` too. Bounded beyond Node.js's own bounds: a text ends at MOST_CHARS.
(function (native) {
  "use strict";
  const { kind, settled } = native;
  const { getPrototypeOf, getOwnPropertyDescriptor, getOwnPropertyNames, getOwnPropertySymbols, keys, hasOwn, is } = Object;
  const { isArray } = Array;
  const { apply } = Reflect;
  const { floor, max, min, round, sqrt } = Math;
  const { propertyIsEnumerable, toString: plainToString } = Object.prototype;
  const MOST_CHARS = 100_000, LONG = 10_000;
  const custom = Symbol.for("nodejs.util.inspect.custom");
  const DEFAULTS = {
    showHidden: false, depth: 2, colors: false, customInspect: true, showProxy: false, maxArrayLength: 100,
    maxStringLength: 10_000, breakLength: 80, compact: 3, sorted: false, getters: false, numericSeparator: false,
  };
  const TypedArray = getPrototypeOf(Uint8Array);
  const typedName = getOwnPropertyDescriptor(TypedArray.prototype, Symbol.toStringTag).get;
  const typed = (value) => apply(typedName, value, []);

  // ---- primitives

  const META = { "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", "\\": "\\\\" };
  function quote(text) {
    let mark = "'";
    if (text.includes("'")) {
      if (!text.includes('"')) mark = '"';
      else if (!text.includes("`") && !text.includes("${")) mark = "`";
    }
    let out = mark;
    for (const char of text) {
      const code = char.charCodeAt(0);
      if (char === mark) out += `\\${char}`;
      else if (META[char] !== undefined) out += META[char];
      else if (code < 32 || (code > 126 && code < 160)) out += `\\x${code.toString(16).toUpperCase().padStart(2, "0")}`;
      else if (char.length === 1 && code >= 0xd800 && code <= 0xdfff) out += `\\u${code.toString(16).toUpperCase()}`;
      else out += char;
    }
    return out + mark;
  }
  function separated(digits, fromLeft) {
    let out = "";
    for (let i = 0; i < digits.length; i++) {
      if (i > 0 && (fromLeft ? i : digits.length - i) % 3 === 0) out += "_";
      out += digits[i];
    }
    return out;
  }
  function number(value, separator) {
    if (!separator) return is(value, -0) ? "-0" : `${value}`;
    const [, sign, whole, part] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(`${value}`) ?? [];
    if (whole === undefined) return is(value, -0) ? "-0" : `${value}`;
    return `${sign}${separated(whole, false)}${part === undefined ? "" : `.${separated(part, true)}`}`;
  }
  function primitive(ctx, value) {
    switch (typeof value) {
      case "string": {
        let text = value, rest = "";
        if (text.length > ctx.maxStringLength) {
          const left = text.length - ctx.maxStringLength;
          text = text.slice(0, ctx.maxStringLength);
          rest = `... ${left} more character${left > 1 ? "s" : ""}`;
        }
        if (ctx.compact !== true && text.length > 16 && text.length > ctx.breakLength - ctx.indentation - 4 && text.includes("\n")) {
          const lines = text.split("\n");
          const shown = lines.map((line, at) => (at < lines.length - 1 ? `${line}\n` : line)).filter((line) => line !== "");
          return shown.map(quote).join(` +\n${" ".repeat(ctx.indentation + 2)}`) + rest;
        }
        return quote(text) + rest;
      }
      case "number": return number(value, ctx.numericSeparator);
      case "bigint": return `${ctx.numericSeparator ? separated(`${value}`, false) : value}n`;
      case "symbol": return String(value);
      default: return `${value}`;
    }
  }

  // ---- names

  // An own `constructor`, also where frozen intrinsics have an accessor that stands for it.
  function ownConstructor(of) {
    const found = getOwnPropertyDescriptor(of, "constructor");
    return found?.get === undefined ? found?.value : getOwnPropertyDescriptor(found.get, "originalValue")?.value;
  }
  function constructorName(value) {
    for (let of = value; of !== null; of = getPrototypeOf(of)) {
      const made = ownConstructor(of);
      if (typeof made === "function" && made.name !== "") return `${made.name}`;
    }
    return null;
  }
  function prefix(name, tag, fallback, size = "") {
    if (name === null) return `[${fallback}${size}: null prototype] ${tag !== "" && fallback !== tag ? `[${tag}] ` : ""}`;
    return tag !== "" && name !== tag ? `${name}${size} [${tag}] ` : `${name}${size} `;
  }
  function shownKeys(value, ctx) {
    const symbols = getOwnPropertySymbols(value);
    if (ctx.showHidden) return [...getOwnPropertyNames(value), ...symbols];
    return [...keys(value), ...symbols.filter((symbol) => apply(propertyIsEnumerable, value, [symbol]))];
  }
  const isIndex = (key) => /^(0|[1-9][0-9]*)$/.test(key) && Number(key) < 2 ** 32 - 1;

  // ---- values

  function format(ctx, value, depth, typedItem) {
    if ((typeof value !== "object" && typeof value !== "function") || value === null) return spend(ctx, primitive(ctx, value));
    if (ctx.left <= 0) return "...";
    if (ctx.customInspect) {
      const own = value[custom];
      if (typeof own === "function" && own !== inspect && !(value.constructor && value.constructor.prototype === value)) {
        const left = ctx.depth === null ? null : ctx.depth - depth;
        const shown = apply(own, value, [left, options(ctx, { depth: left }), inspect]);
        if (shown !== value) return typeof shown === "object" && shown !== null ? format(ctx, shown, depth) : spend(ctx, `${shown}`.replaceAll("\n", `\n${" ".repeat(ctx.indentation)}`));
      }
    }
    if (ctx.seen.includes(value)) {
      let index = ctx.circular.get(value);
      if (index === undefined) ctx.circular.set(value, (index = ctx.circular.size + 1));
      return `[Circular *${index}]`;
    }
    return raw(ctx, value, depth, typedItem);
  }
  function spend(ctx, text) { ctx.left -= text.length; return text; }
  const options = (ctx, more) => {
    const all = {};
    for (const name of keys(DEFAULTS)) all[name] = ctx[name];
    return { ...all, stylize: (text) => `${text}`, ...more };
  };

  function functionBase(value, name, tag) {
    const source = apply(Function.prototype.toString, value, []);
    // The engine's own classes are functions to Node.js, too.
    const own = getOwnPropertyDescriptor(value, "prototype");
    if (own?.writable === false && globalThis[value.name] !== value && !source.startsWith("function*")) {
      let base = `[class ${hasOwn(value, "name") && value.name !== "" ? value.name : "(anonymous)"}`;
      if (name !== "Function" && name !== null) base += ` [${name}]`;
      if (tag !== "" && name !== tag) base += ` [${tag}]`;
      const parent = getPrototypeOf(value);
      if (name === null) base += " extends [null prototype]";
      else if (parent?.name) base += ` extends ${parent.name}`;
      return `${base}]`;
    }
    let type = "Function";
    if (/^async\s*(function\s*)?\*|^async\s*\*/.test(source)) type = "AsyncGeneratorFunction";
    else if (/^async\b/.test(source)) type = "AsyncFunction";
    else if (/^function\s*\*|^\*/.test(source)) type = "GeneratorFunction";
    let base = `[${type}`;
    if (name === null) base += " (null prototype)";
    base += value.name === "" || typeof value.name !== "string" ? " (anonymous)" : `: ${value.name}`;
    base += "]";
    if (name !== type && name !== null && name !== "Function") base += ` ${name}`;
    if (tag !== "" && name !== tag) base += ` [${tag}]`;
    return base;
  }
  function errorBase(value, isInner) {
    const name = typeof value.name === "string" && value.name !== "" ? value.name : "Error";
    const message = typeof value.message === "string" ? value.message : "";
    const text = message === "" ? name : `${name}: ${message}`;
    return isInner ? `[${text}]` : text;
  }

  function raw(ctx, value, depth, typedItem) {
    const name = constructorName(value), of = kind(value);
    let tag = value[Symbol.toStringTag];
    if (typeof tag !== "string" || (tag !== "" && (ctx.showHidden ? hasOwn(value, Symbol.toStringTag) : apply(propertyIsEnumerable, value, [Symbol.toStringTag])))) tag = "";
    const isIndexed = of === "Array" || of === "TypedArray";
    // What else a long list has is not looked for: that would take as long as it is.
    let names = isIndexed && value.length > LONG ? [] : shownKeys(value, ctx);
    if (isIndexed) names = names.filter((key) => typeof key === "symbol" || !isIndex(key));
    if (ctx.showHidden && isIndexed) names = names.filter((key) => key !== "length" || of === "Array");
    let base = "", braces = ["{", "}"], items = () => [], isList = false;
    switch (of) {
      case "Array": {
        const head = name !== "Array" || tag !== "" ? prefix(name, tag, "Array", `(${value.length})`) : "";
        braces = [`${head}[`, "]"];
        if (value.length === 0 && names.length === 0) return `${braces[0]}]`;
        isList = true;
        items = () => listItems(ctx, value, depth);
        break;
      }
      case "TypedArray": {
        const type = typed(value);
        if (name === "Buffer" || value instanceof Uint8Array && globalThis.Buffer?.isBuffer?.(value)) {
          const bytes = [...value.subarray(0, 50)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
          const left = value.length - 50;
          return `<Buffer${bytes === "" ? "" : ` ${bytes}`}${left > 0 ? ` ... ${left} more byte${left > 1 ? "s" : ""}` : ""}>`;
        }
        braces = [`${prefix(name, tag, type, `(${value.length})`)}[`, "]"];
        if (value.length === 0 && names.length === 0) return `${braces[0]}]`;
        isList = true;
        items = () => bounded(ctx, value, value.length, (item) => (typeof item === "bigint" ? `${item}n` : number(item, ctx.numericSeparator)));
        break;
      }
      case "Set":
        base = ""; braces[0] = `${prefix(name, tag, "Set", `(${value.size})`)}{`;
        if (value.size === 0 && names.length === 0) return `${braces[0]}}`;
        items = () => bounded(ctx, apply(Set.prototype.values, value, []), value.size, (item) => format(ctx, item, depth + 1));
        break;
      case "Map":
        braces[0] = `${prefix(name, tag, "Map", `(${value.size})`)}{`;
        if (value.size === 0 && names.length === 0) return `${braces[0]}}`;
        items = () => bounded(ctx, apply(Map.prototype.entries, value, []), value.size, ([key, item]) => `${format(ctx, key, depth + 1)} => ${format(ctx, item, depth + 1)}`);
        break;
      case "Function":
        base = functionBase(value, name, tag);
        if (names.length === 0) return base;
        break;
      case "RegExp":
        base = `${value}`;
        if (name !== "RegExp") base = `${prefix(name, tag, "RegExp")}${base}`;
        if (names.length === 0 || beyond(ctx, depth)) return base;
        break;
      case "Date":
        base = Number.isNaN(value.getTime()) ? "Invalid Date" : value.toISOString();
        if (name !== "Date") base = `${prefix(name, tag, "Date")}${base}`;
        if (names.length === 0) return base;
        break;
      case "Error":
        base = errorBase(value, depth > 0);
        names = names.filter((key) => key !== "stack" && key !== "message" && !(key === "name" && base.includes(`${value.name}`)));
        if (hasOwn(value, "cause") && !names.includes("cause")) names.push("cause");
        if (names.length === 0) return base;
        break;
      case "ArrayBuffer": {
        braces[0] = `${prefix(name, tag, "ArrayBuffer")}{`;
        if (typedItem === undefined) {
          const bytes = [...new Uint8Array(value, 0, min(50, value.byteLength))].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
          const left = value.byteLength - 50;
          items = () => [`[Uint8Contents]: <${bytes}${left > 0 ? ` ... ${left} more byte${left > 1 ? "s" : ""}` : ""}>`, `byteLength: ${value.byteLength}`];
        }
        break;
      }
      case "DataView":
        braces[0] = `${prefix(name, tag, "DataView")}{`;
        items = () => ["byteLength", "byteOffset", "buffer"].map((key) => nested(ctx, 2, () => `${key}: ${format(ctx, value[key], depth + 1)}`));
        break;
      case "Promise":
        braces[0] = `${prefix(name, tag, "Promise")}{`;
        items = () => {
          const [state, result] = settled(value);
          if (state === "pending") return ["<pending>"];
          const text = nested(ctx, 2, () => format(ctx, result, depth + 1));
          return [state === "rejected" ? `<rejected> ${text}` : text];
        };
        break;
      case "WeakSet": case "WeakMap":
        braces[0] = `${prefix(name, tag, of)}{`;
        items = () => ["<items unknown>"];
        break;
      case "Generator":
        braces[0] = `${prefix(name, tag, "Generator")}{`;
        if (names.length === 0) return `${braces[0]}}`;
        break;
      case "Arguments": braces = ["[Arguments] [", "]"]; isList = true; names = names.filter((key) => typeof key === "symbol" || !isIndex(key)); items = () => listItems(ctx, value, depth); break;
      case "Number": case "String": case "Boolean": case "BigInt": case "Symbol": {
        const inner = value.valueOf();
        if (of === "String") names = names.filter((key) => typeof key === "symbol" || !isIndex(key));
        let type = of;
        if (name !== of) type += name === null ? " (null prototype)" : ` (${name})`;
        base = `[${type}: ${primitive({ ...ctx, breakLength: Infinity }, inner)}]`;
        if (tag !== "" && tag !== name) base += ` [${tag}]`;
        if (names.length === 0) return base;
        break;
      }
      default:
        if (name === "Object" && tag === "") {
          if (names.length === 0) return "{}";
        } else {
          braces[0] = `${prefix(name, tag, "Object")}{`;
          if (names.length === 0) return `${braces[0]}}`;
        }
    }
    if (beyond(ctx, depth)) {
      const shown = prefix(name, tag, of === "" || of === "Proxy" ? "Object" : of).slice(0, -1);
      return `[${of === "Array" && name === "Array" ? "Array" : name === null && tag === "" ? "Object: null prototype" : shown}]`;
    }
    ctx.seen.push(value);
    ctx.current = depth;
    const output = items();
    for (const key of names) {
      if (ctx.left <= 0) { output.push("..."); break; }
      output.push(property(ctx, value, key, depth, isList));
    }
    ctx.seen.pop();
    const index = ctx.circular.get(value);
    if (index !== undefined) {
      const ref = `<ref *${index}>`;
      if (ctx.compact !== true) base = base === "" ? ref : `${ref} ${base}`; else braces[0] = `${ref} ${braces[0]}`;
    }
    if (ctx.sorted) {
      // Of a list only what is no item of it.
      const items = isList ? output.splice(0, output.length - names.length) : [];
      output.sort(ctx.sorted === true ? undefined : ctx.sorted).unshift(...items);
    }
    const text = reduce(ctx, output, base, braces, isList, depth, value);
    return text;
  }
  const beyond = (ctx, depth) => ctx.depth !== null && depth > ctx.depth;

  function nested(ctx, by, f) {
    ctx.indentation += by;
    try { return f(); } finally { ctx.indentation -= by; }
  }
  function bounded(ctx, values, size, show) {
    const most = max(0, min(ctx.maxArrayLength, size)), output = [];
    nested(ctx, 2, () => {
      for (const item of values) {
        if (output.length >= most || ctx.left <= 0) break;
        output.push(show(item));
      }
    });
    const left = size - output.length;
    if (left > 0) output.push(`... ${left} more item${left > 1 ? "s" : ""}`);
    return output;
  }
  function listItems(ctx, value, depth) {
    const most = max(0, min(ctx.maxArrayLength, value.length)), output = [];
    let at = 0;
    while (at < value.length && output.length < most && ctx.left > 0) {
      if (hasOwn(value, at)) {
        output.push(property(ctx, value, `${at}`, depth, true));
        at++;
      } else {
        const from = at;
        while (at < value.length && at - from < LONG && !hasOwn(value, at)) at++;
        if (at - from === LONG) at = Number(keys(value).find((key) => isIndex(key) && Number(key) > from) ?? value.length);
        output.push(`<${at - from} empty item${at - from > 1 ? "s" : ""}>`);
      }
    }
    const left = value.length - at;
    if (left > 0) output.push(`... ${left} more item${left > 1 ? "s" : ""}`);
    return output;
  }
  function property(ctx, value, key, depth, isList) {
    const found = getOwnPropertyDescriptor(value, key) ?? { value: value[key], enumerable: true };
    const isItem = isList && typeof key === "string" && isIndex(key);
    let text, gap = " ";
    if (found.value !== undefined || (found.get === undefined && found.set === undefined)) {
      const by = ctx.compact !== true || isItem ? 2 : 3;
      nested(ctx, by, () => {
        text = format(ctx, found.value, depth + 1);
        if (by === 3 && text.length > ctx.breakLength) gap = `\n${" ".repeat(ctx.indentation)}`;
      });
    } else if (found.get === undefined) text = found.set === undefined ? "undefined" : "[Setter]";
    else text = found.set === undefined ? "[Getter]" : "[Getter/Setter]";
    if (isItem) return text;
    let name;
    if (typeof key === "symbol") name = `[${String(key)}]`;
    else if (key === "__proto__") name = "['__proto__']";
    else if (found.enumerable === false) name = `[${key}]`;
    else name = /^[a-zA-Z_][a-zA-Z_0-9]*$/.test(key) ? key : quote(key);
    return `${spend(ctx, name)}:${gap}${text}`;
  }

  // ---- lines

  function isShort(ctx, output, start, base) {
    let total = output.length + start;
    if (total + output.length > ctx.breakLength) return false;
    for (const text of output) {
      total += text.length;
      if (total > ctx.breakLength) return false;
    }
    return base === "" || !base.includes("\n");
  }
  function reduce(ctx, output, base, braces, isList, depth, value) {
    const before = base === "" ? "" : `${base} `;
    const indentation = `\n${" ".repeat(ctx.indentation)}`;
    if (ctx.compact !== true) {
      if (typeof ctx.compact === "number" && ctx.compact >= 1) {
        const entries = output.length;
        if (isList && entries > 6) output = grouped(ctx, output, value);
        if (ctx.current - depth < ctx.compact && entries === output.length) {
          const start = output.length + ctx.indentation + braces[0].length + base.length + 10;
          if (isShort(ctx, output, start, base)) {
            const joined = output.join(", ");
            if (!joined.includes("\n")) return `${before}${braces[0]} ${joined} ${braces[1]}`;
          }
        }
      }
      return `${before}${braces[0]}${indentation}  ${output.join(`,${indentation}  `)}${indentation}${braces[1]}`;
    }
    if (isShort(ctx, output, 0, base)) return `${braces[0]}${base === "" ? "" : ` ${base}`} ${output.join(", ")} ${braces[1]}`;
    const line = base === "" && braces[0].length === 1 ? " " : `${base === "" ? "" : ` ${base}`}\n${indentation.slice(1)}  `;
    return `${braces[0]}${line}${output.join(`,\n${indentation.slice(1)}  `)} ${braces[1]}`;
  }
  // Short items of a long list, in columns.
  function grouped(ctx, output, value) {
    const count = ctx.maxArrayLength < output.length ? output.length - 1 : output.length;
    const lengths = [];
    let total = 0, longest = 0;
    for (let i = 0; i < count; i++) {
      lengths.push(output[i].length);
      total += output[i].length + 2;
      longest = max(longest, output[i].length);
    }
    const actual = longest + 2;
    if (actual * 3 + ctx.indentation >= ctx.breakLength || !(total / actual > 5 || longest <= 6)) return output;
    const biased = max(actual - 3 - sqrt(actual - total / output.length), 1);
    const columns = min(round(sqrt(2.5 * biased * count) / biased), floor((ctx.breakLength - ctx.indentation) / actual), ctx.compact * 4, 15);
    if (columns <= 1) return output;
    const widths = [];
    for (let i = 0; i < columns; i++) {
      let width = 0;
      for (let j = i; j < count; j += columns) width = max(width, lengths[j]);
      widths.push(width + 2);
    }
    let end = false;
    for (let i = 0; i < output.length && !end; i++) end = typeof value[i] !== "number" && typeof value[i] !== "bigint";
    const lines = [];
    for (let i = 0; i < count; i += columns) {
      const last = min(i + columns, count) - 1;
      let line = "";
      for (let j = i; j < last; j++) line += end ? `${output[j]}, `.padEnd(widths[j - i]) : `${output[j]}, `.padStart(widths[j - i]);
      lines.push(line + (end ? output[last] : output[last].padStart(widths[last - i] - 2)));
    }
    if (count < output.length) lines.push(output[count]);
    return lines;
  }

  function inspect(value, given, depth, colors) {
    const ctx = { ...DEFAULTS, indentation: 0, seen: [], circular: new Map(), current: 0, left: given?.most ?? MOST_CHARS };
    if (typeof given === "boolean") {
      ctx.showHidden = given;
      if (depth !== undefined) ctx.depth = depth;
    } else if (given) {
      for (const name of keys(given)) if (hasOwn(DEFAULTS, name) && given[name] !== undefined) ctx[name] = given[name];
    }
    if (ctx.depth === Infinity) ctx.depth = null;
    if (ctx.maxArrayLength === null) ctx.maxArrayLength = Infinity;
    if (ctx.maxStringLength === null) ctx.maxStringLength = Infinity;
    if (typeof ctx.compact === "boolean" && !ctx.compact) ctx.compact = 0;
    return format(ctx, value, 0);
  }
  inspect.custom = custom;
  inspect.defaultOptions = DEFAULTS;

  // ---- format

  // Has a value no `toString` but the engine's?
  function hasPlainToString(value) {
    if (typeof value.toString !== "function") return true;
    if (hasOwn(value, "toString")) return false;
    let of = value;
    do of = getPrototypeOf(of); while (of !== null && !hasOwn(of, "toString"));
    const made = of === null ? undefined : ownConstructor(of);
    return typeof made === "function" && /\[native code\]/.test(apply(Function.prototype.toString, made, []));
  }
  function stringify(value) {
    try { return JSON.stringify(value); } catch (error) {
      if (error instanceof TypeError) return "[Circular]";
      throw error;
    }
  }
  function formatWith(given, values) {
    const first = values[0];
    let at = 0, text = "", join = "";
    if (typeof first === "string") {
      if (values.length === 1) return first;
      let from = 0;
      for (let i = 0; i < first.length - 1; i++) {
        if (first[i] !== "%") continue;
        const letter = first[++i];
        let part;
        if (letter === "%") {
          text += first.slice(from, i);
          from = i + 1;
          continue;
        }
        if (at + 1 === values.length) continue;
        const value = values[at + 1];
        switch (letter) {
          case "s":
            if (typeof value === "number") part = number(value, false);
            else if (typeof value === "bigint") part = `${value}n`;
            else if (typeof value !== "object" || value === null || !hasPlainToString(value)) part = String(value);
            else part = inspect(value, { ...given, depth: 0, compact: 3 });
            break;
          case "j": part = stringify(value); break;
          case "d": part = typeof value === "bigint" ? `${value}n` : number(typeof value === "symbol" ? NaN : Number(value), false); break;
          case "O": part = inspect(value, given); break;
          case "o": part = inspect(value, { ...given, showHidden: true, showProxy: true, depth: 4 }); break;
          case "i": part = typeof value === "bigint" ? `${value}n` : number(typeof value === "symbol" ? NaN : parseInt(value), false); break;
          case "f": part = number(typeof value === "symbol" ? NaN : parseFloat(value), false); break;
          case "c": part = ""; break;
          default: continue;
        }
        at++;
        text += first.slice(from, i - 1) + part;
        from = i + 1;
      }
      if (from !== 0) {
        at++;
        join = " ";
        text += first.slice(from);
      }
    }
    for (; at < values.length; at++) {
      text += join + (typeof values[at] === "string" ? values[at] : inspect(values[at], given));
      join = " ";
    }
    return text;
  }
  // For a line of the log: what does not fit into it anyway is not made.
  const BOUNDS = { most: 2_000, maxStringLength: 2_000 };
  return { inspect, formatWith, BOUNDS, shown: (value) => inspect(value, BOUNDS) };
})
