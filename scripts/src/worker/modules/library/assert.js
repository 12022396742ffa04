// `node:assert` and `node:assert/strict`: the checks and the errors of Node.js 20. What differs is shown line by line.
(function (native, load) {
  "use strict";
  const { inspect } = load("inspect");
  const { isDeepEqual, isDeepStrictEqual } = load("equal");
  const { kind } = native;
  const { defineProperty, keys, assign, is, hasOwn, getPrototypeOf } = Object;
  // Lines of a comparison; of longer texts only the first that differ are shown.
  const MOST_LINES = 400, SHOWN_LINES = 60;

  const show = (value) => inspect(value, {
    compact: false, customInspect: false, depth: 1000, maxArrayLength: Infinity, showHidden: false, showProxy: false, sorted: true, getters: true, breakLength: Infinity,
  });
  const brief = (value) => inspect(value, { depth: 2, breakLength: Infinity, compact: 3 });
  const TITLES = {
    deepStrictEqual: "Expected values to be strictly deep-equal:", strictEqual: "Expected values to be strictly equal:",
    deepEqual: "Expected values to be loosely deep-equal:",
    notDeepStrictEqual: 'Expected "actual" not to be strictly deep-equal to:', notStrictEqual: 'Expected "actual" to be strictly unequal to:',
    notDeepEqual: 'Expected "actual" not to be loosely deep-equal to:',
  };

  // What differs, by the longest common lines.
  function difference(actual, expected) {
    const a = show(actual).split("\n"), b = show(expected).split("\n");
    if (a.length > MOST_LINES || b.length > MOST_LINES) {
      let from = 0;
      while (from < a.length && a[from] === b[from]) from++;
      const part = (lines, sign) => lines.slice(from, from + SHOWN_LINES / 2).map((line) => `${sign} ${line}`);
      return [`... ${from} equal lines`, ...part(a, "+"), ...part(b, "-"), "..."].join("\n");
    }
    const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
      }
    }
    const lines = [];
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { lines.push(`  ${a[i]}`); i++; j++; }
      else if (i < a.length && (j >= b.length || common[i + 1][j] >= common[i][j + 1])) lines.push(`+ ${a[i++]}`);
      else lines.push(`- ${b[j++]}`);
    }
    // Lines far from any that differs are left out.
    const isNear = (at) => lines.slice(Math.max(0, at - 4), at + 5).some((line) => line[0] !== " ");
    // One line alone takes no more room than the dots for it.
    const near = lines.map((_, at) => isNear(at) || ((at === 0 || isNear(at - 1)) && (at === lines.length - 1 || isNear(at + 1))));
    const shown = [];
    lines.forEach((line, at) => { if (near[at]) shown.push(line); else if (shown[shown.length - 1] !== "...") shown.push("..."); });
    return shown.length > SHOWN_LINES ? [...shown.slice(0, SHOWN_LINES), "..."].join("\n") : shown.join("\n");
  }

  const isPrimitive = (value) => (typeof value !== "object" && typeof value !== "function") || value === null;
  function generated(actual, expected, operator) {
    const title = TITLES[operator];
    if (operator === "deepStrictEqual" || operator === "strictEqual") {
      if (isPrimitive(actual) && isPrimitive(expected) && !(is(actual, 0) && is(expected, -0)) && !(is(actual, -0) && is(expected, 0))) {
        const [a, b] = [brief(actual), brief(expected)];
        if (!a.includes("\n") && !b.includes("\n") && a.length + b.length < 1_000) return `${title}\n\n${a} !== ${b}\n`;
      }
      if (operator === "strictEqual" && isDeepStrictEqual(actual, expected)) return `Values have same structure but are not reference-equal:\n\n${show(actual)}\n`;
      return `${title}\n+ actual - expected\n\n${difference(actual, expected)}`;
    }
    if (operator === "deepEqual") return `${title}\n\n${difference(actual, expected)}`;
    if (title) {
      const text = show(actual);
      return text.includes("\n") || text.length > 50 ? `${title}\n\n${text}\n` : `${title} ${text}`;
    }
    return `${brief(actual)} ${operator} ${brief(expected)}`;
  }

  class AssertionError extends Error {
    constructor(options) {
      if (typeof options !== "object" || options === null) throw coded(new TypeError('The "options" argument must be of type object'), "ERR_INVALID_ARG_TYPE");
      const { message, actual, expected, operator } = options;
      super(message === undefined ? generated(actual, expected, operator) : `${message}`);
      this.generatedMessage = message === undefined;
      this.code = "ERR_ASSERTION";
      this.actual = actual;
      this.expected = expected;
      this.operator = operator;
      defineProperty(this, "name", { value: "AssertionError", enumerable: false, writable: true, configurable: true });
    }
    toString() { return `${this.name} [${this.code}]: ${this.message}`; }
  }
  const coded = (error, code) => assign(error, { code });
  function fail(actual, expected, message, operator, otherwise, isGenerated = true) {
    if (message instanceof Error) throw message;
    const error = new AssertionError({ message: message ?? otherwise, actual, expected, operator });
    if (message === undefined && otherwise !== undefined) error.generatedMessage = isGenerated;
    throw error;
  }

  function makeOk(of) {
    return function (value, message) {
      if (arguments.length === 0) fail(undefined, true, undefined, "==", "No value argument passed to `assert.ok()`");
      if (!value) fail(value, true, message, "==", `The expression evaluated to a falsy value: ${brief(value)}`);
    };
  }
  const check = (operator, holds) => function (actual, expected, message) {
    if (arguments.length < 2) throw coded(new TypeError('The "actual" and "expected" arguments must be specified'), "ERR_MISSING_ARGS");
    if (!holds(actual, expected)) fail(actual, expected, message, operator);
  };
  // eslint-disable-next-line eqeqeq
  const loosely = (a, b) => a == b || (a !== a && b !== b);
  const not = (holds) => (a, b) => !holds(a, b);

  // Is what was thrown what was expected? Throws if it is not.
  function expectThrown(thrown, expected, message, operator) {
    if (expected === undefined) return;
    if (typeof expected === "function") {
      if (expected.prototype !== undefined && thrown instanceof expected) return;
      if (expected === Error || expected.prototype instanceof Error) {
        fail(thrown, expected, message, operator, `The error is expected to be an instance of "${expected.name}". Received "${thrown?.constructor?.name ?? brief(thrown)}"\n\nError message:\n\n${thrown?.message ?? brief(thrown)}`);
      }
      if (expected.call({}, thrown) === true) return;
      fail(thrown, expected, message, operator, `The ${expected.name ? `"${expected.name}" ` : ""}validation function is expected to return "true". Received ${brief(false)}\n\nCaught error:\n\n${thrown}`);
    }
    if (kind(expected) === "RegExp") {
      if (expected.test(String(thrown))) return;
      fail(thrown, expected, message, operator, `The input did not match the regular expression ${inspect(expected)}. Input:\n\n${inspect(String(thrown))}\n`);
    }
    if (typeof expected !== "object" || expected === null) {
      throw coded(new TypeError('The "expected" argument must be of type function or an instance of Error, RegExp, or Object.'), "ERR_INVALID_ARG_TYPE");
    }
    if (isPrimitive(thrown)) fail(thrown, expected, message, operator);
    const names = keys(expected);
    if (kind(expected) === "Error") names.push("name", "message");
    if (names.length === 0) throw coded(new TypeError("The argument 'error' may not be an empty object. Received {}"), "ERR_INVALID_ARG_VALUE");
    for (const name of names) {
      const wanted = expected[name], got = thrown[name];
      if (typeof got === "string" && typeof wanted === "object" && kind(wanted) === "RegExp" && wanted.test(got)) continue;
      if (name in thrown && isDeepStrictEqual(got, wanted)) continue;
      const pick = (of) => Object.fromEntries(names.filter((name) => name in of).map((name) => [name, of[name]]));
      const shown = pick(thrown);
      for (const name of names) if (kind(Object(expected[name])) === "RegExp" && typeof shown[name] === "string" && expected[name].test(shown[name])) shown[name] = expected[name];
      fail(thrown, expected, message, operator, `${TITLES.deepStrictEqual}\n+ actual - expected\n\n${difference(shown, pick(expected))}`);
    }
  }
  // `throws(f, message)` as well as `throws(f, expected, message)`.
  function sorted(expected, message) {
    return typeof expected === "string" ? [undefined, expected] : [expected, message];
  }
  const NOTHING = Symbol("nothing");
  // A value that is not what was asked for, in Node.js's words.
  function received(value) {
    if (value === null || value === undefined) return `${value}`;
    if (typeof value === "function") return `function ${value.name}`;
    if (typeof value === "object") return value.constructor?.name ? `an instance of ${value.constructor.name}` : inspect(value, { depth: -1 });
    const shown = inspect(value);
    return `type ${typeof value} (${shown.length > 28 ? `${shown.slice(0, 25)}...` : shown})`;
  }
  function caught(f) {
    if (typeof f !== "function") throw coded(new TypeError(`The "fn" argument must be of type function. Received ${received(f)}`), "ERR_INVALID_ARG_TYPE");
    try { f(); } catch (error) { return error; }
    return NOTHING;
  }
  async function rejection(promise) {
    const of = typeof promise === "function" ? promise() : promise;
    if (typeof of?.then !== "function") {
      if (typeof promise !== "function") throw coded(new TypeError(`The "promiseFn" argument must be of type function or an instance of Promise. Received ${received(of)}`), "ERR_INVALID_ARG_TYPE");
      throw coded(new TypeError(`Expected instance of Promise to be returned from the "promiseFn" function but got ${received(of)}.`), "ERR_INVALID_RETURN_VALUE");
    }
    try { await of; } catch (error) { return error; }
    return NOTHING;
  }
  function missing(expected, message, what, operator) {
    const name = expected?.name ? ` (${expected.name})` : "";
    fail(undefined, expected, undefined, operator, `Missing expected ${what}${name}${message ? `: ${message}` : "."}`, false);
  }
  function unwanted(error, expected, message, what, operator) {
    if (expected !== undefined && !(typeof expected === "function" && error instanceof expected) && !(kind(Object(expected)) === "RegExp" && expected.test(String(error)))) throw error;
    fail(error, expected, undefined, operator, `Got unwanted ${what}${message ? `: ${message}` : "."}\nActual message: "${error?.message}"`, false);
  }
  const checkMatch = (operator, wanted) => function (text, pattern, message) {
    if (kind(Object(pattern)) !== "RegExp") throw coded(new TypeError('The "regexp" argument must be an instance of RegExp.'), "ERR_INVALID_ARG_TYPE");
    if (typeof text === "string" && pattern.test(text) === wanted) return;
    const why = typeof text !== "string" ? `The "string" argument must be of type string. Received type ${typeof text} (${brief(text)})`
      : `The input ${wanted ? "did not match the regular expression" : "was expected to not match the regular expression"} ${inspect(pattern)}. Input:\n\n${inspect(text)}\n`;
    fail(text, pattern, message, operator, why);
  };

  const assert = makeOk("assert");
  defineProperty(assert, "name", { value: "ok" });
  assign(assert, {
    ok: makeOk("assert.ok"),
    fail(message = "Failed") { if (message instanceof Error) throw message; const error = new AssertionError({ message, operator: "fail" }); error.generatedMessage = arguments.length === 0; throw error; },
    equal: check("==", loosely), notEqual: check("!=", not(loosely)),
    strictEqual: check("strictEqual", is), notStrictEqual: check("notStrictEqual", not(is)),
    deepEqual: check("deepEqual", isDeepEqual), notDeepEqual: check("notDeepEqual", not(isDeepEqual)),
    deepStrictEqual: check("deepStrictEqual", isDeepStrictEqual), notDeepStrictEqual: check("notDeepStrictEqual", not(isDeepStrictEqual)),
    throws(f, wanted, text) {
      const [expected, message] = sorted(wanted, text), thrown = caught(f);
      if (thrown === NOTHING) missing(expected, message, "exception", "throws");
      expectThrown(thrown, expected, message, "throws");
    },
    doesNotThrow(f, wanted, text) {
      const [expected, message] = sorted(wanted, text), thrown = caught(f);
      if (thrown !== NOTHING) unwanted(thrown, expected, message, "exception", "doesNotThrow");
    },
    async rejects(promise, wanted, text) {
      const [expected, message] = sorted(wanted, text), thrown = await rejection(promise);
      if (thrown === NOTHING) missing(expected, message, "rejection", "rejects");
      expectThrown(thrown, expected, message, "rejects");
    },
    async doesNotReject(promise, wanted, text) {
      const [expected, message] = sorted(wanted, text), thrown = await rejection(promise);
      if (thrown !== NOTHING) unwanted(thrown, expected, message, "rejection", "doesNotReject");
    },
    ifError(error) {
      if (error === null || error === undefined) return;
      const text = typeof error === "object" && typeof error.message === "string" ? (error.message === "" && error.constructor ? error.constructor.name : error.message) : brief(error);
      fail(error, null, undefined, "ifError", `ifError got unwanted exception: ${text}`, false);
    },
    match: checkMatch("match", true), doesNotMatch: checkMatch("doesNotMatch", false),
    AssertionError,
  });
  const strict = makeOk("strict");
  assign(strict, assert, {
    equal: assert.strictEqual, notEqual: assert.notStrictEqual, deepEqual: assert.deepStrictEqual, notDeepEqual: assert.notDeepStrictEqual,
  });
  defineProperty(strict, "name", { value: "strict" });
  assert.strict = strict;
  strict.strict = strict;
  return { assert, strict, AssertionError };
})
