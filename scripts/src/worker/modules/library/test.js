// `node:test` and `tidegate:test`. Tests are collected while their file loads; the host then runs them one by one (`step`), each as a
// call of its own. Time is virtual: it stands still while code runs, and passes when everything waits.
(function (native, load) {
  "use strict";
  const { place, askNode } = native;
  const { assign, freeze, isFrozen, defineProperty, hasOwn, getPrototypeOf, getOwnPropertyDescriptor } = Object;
  const { apply, construct } = Reflect;
  const { inspect } = load("inspect");
  const MOST_TESTS = 10_000, MESSAGE_CHARS = 4_000, MOST_NOTES = 100;

  const wrong = (message, code = "ERR_INVALID_ARG_VALUE") => assign(new TypeError(message), { code });

  // ---- collecting

  const suite = (name, parent, options = {}) => ({
    name, parent, options, before: [], after: [], beforeEach: [], afterEach: [], begun: false, failed: null, left: 0,
  });
  const root = suite("", null);
  let current = root, isRunning = false, onlyAny = false;
  let leaves = [];

  function split(name, options, f) {
    if (typeof name === "function") [name, options, f] = [name.name, {}, name];
    else if (typeof name === "object" && name !== null) [name, options, f] = [options?.name, name, options];
    if (typeof options === "function") [options, f] = [{}, options];
    if (f !== undefined && typeof f !== "function") throw wrong(`the function of the test ${inspect(name)} is no function, but ${inspect(f)}`, "ERR_INVALID_ARG_TYPE");
    return [name === undefined || name === "" ? f?.name || "<anonymous>" : `${name}`, options ?? {}, f];
  }
  function collect(more) {
    return function test(...all) {
      const [name, options, f] = split(...all);
      if (isRunning) throw wrong(`the test ${inspect(name)} is made inside of a test: use t.test(), and await it`);
      if (leaves.length >= MOST_TESTS) throw assign(new RangeError(`a file has at most ${MOST_TESTS} tests (limit script_tests)`), { code: "ERR_OUT_OF_RANGE" });
      const given = { ...options, ...more };
      onlyAny ||= Boolean(given.only);
      leaves.push({ name, suite: current, options: given, f });
      return Promise.resolve();
    };
  }
  function collectSuite(more) {
    return function describe(...all) {
      const [name, options, f] = split(...all);
      if (isRunning) throw wrong(`the suite ${inspect(name)} is made inside of a test`);
      const given = { ...options, ...more };
      onlyAny ||= Boolean(given.only);
      const outer = current;
      current = suite(name, outer, given);
      try {
        const made = f?.(freeze({ name }));
        if (typeof made?.then === "function") throw wrong(`the function of the suite ${inspect(name)} is async: tests of a suite are made at once, what they wait for belongs into before()`);
      } finally { current = outer; }
      return Promise.resolve();
    };
  }
  const kinds = (collect) => {
    const made = collect({});
    for (const name of ["skip", "todo", "only"]) made[name] = collect({ [name]: true });
    return made;
  };
  const test = kinds(collect), describe = kinds(collectSuite);
  const hook = (name) => (f, options = {}) => {
    if (typeof f !== "function") throw wrong(`${name}() takes a function`, "ERR_INVALID_ARG_TYPE");
    (running?.hooks ?? current)[name].push({ f, options });
  };

  // ---- mocks

  const mocks = new Set();
  class MockContext {
    #calls = []; #original; #now; #once = new Map(); #restore;
    constructor(original, now, restore) { this.#original = original; this.#now = now; this.#restore = restore; }
    get calls() { return [...this.#calls]; }
    callCount() { return this.#calls.length; }
    mockImplementation(f) { this.#now = f; }
    mockImplementationOnce(f, at = this.#calls.length) { this.#once.set(at, f); }
    resetCalls() { this.#calls = []; }
    restore() { this.#restore?.(); this.#now = this.#original; this.#once.clear(); }
    static run(context, self, args, target) {
      const at = context.#calls.length, f = context.#once.get(at) ?? context.#now;
      context.#once.delete(at);
      const call = { arguments: args, error: undefined, result: undefined, stack: new Error(), target, this: self };
      context.#calls.push(call);
      try {
        call.result = target === undefined ? apply(f, self, args) : construct(f, args, target);
        if (target !== undefined) call.this = call.result;
        return call.result;
      } catch (error) { call.error = error; throw error; }
    }
  }
  const { run: runMock } = MockContext;
  delete MockContext.run;
  function mockOf(original, implementation, restore) {
    const context = new MockContext(original, implementation, restore);
    const mocked = function (...args) { return runMock(context, this, args, new.target); };
    defineProperty(mocked, "name", { value: original.name });
    defineProperty(mocked, "length", { value: original.length });
    mocked.mock = context;
    return mocked;
  }
  class MockTracker {
    #made = [];
    fn(original = function () {}, implementation = original) {
      if (typeof original !== "function") [original, implementation] = [function () {}, function () {}];
      if (typeof implementation !== "function") implementation = original;
      const mocked = mockOf(original, implementation);
      this.#made.push(mocked.mock);
      return mocked;
    }
    method(object, name, implementation, options = {}) {
      if (typeof implementation === "object") [implementation, options] = [undefined, implementation];
      let holder = object;
      while (holder !== null && !hasOwn(holder, name)) holder = getPrototypeOf(holder);
      let found = holder === null ? undefined : getOwnPropertyDescriptor(holder, name);
      const slot = options.getter ? "get" : options.setter ? "set" : "value";
      // Of what the language brings with it, an accessor may stand for a method.
      const stands = slot === "value" && typeof found?.get === "function" ? getOwnPropertyDescriptor(found.get, "originalValue") : undefined;
      if (stands !== undefined) found = { value: stands.value, writable: true, enumerable: false };
      if (typeof found?.[slot] !== "function") throw wrong(`The argument 'methodName' must be a method. Received ${inspect(found?.[slot])}`);
      const isOwn = holder === object;
      if (isOwn && isFrozen(object)) throw wrong(`The argument 'object' is frozen, as all that the language brings with it: ${name} cannot be mocked there`);
      const mocked = mockOf(found[slot], implementation ?? found[slot], () => { if (isOwn) defineProperty(object, name, found); else delete object[name]; });
      defineProperty(object, name, { ...found, configurable: true, [slot]: mocked });
      this.#made.push(mocked.mock);
      return mocked;
    }
    getter(object, name, implementation, options) { return this.method(object, name, implementation, { ...options, getter: true }); }
    setter(object, name, implementation, options) { return this.method(object, name, implementation, { ...options, setter: true }); }
    restoreAll() { for (const mock of this.#made) mock.restore(); }
    reset() { this.restoreAll(); this.#made = []; }
    get timers() { throw assign(new Error("the time of tests is virtual already: move it with clock.advance() of tidegate:test"), { code: "ERR_METHOD_NOT_IMPLEMENTED" }); }
    module() { throw assign(new Error("modules cannot be mocked here"), { code: "ERR_METHOD_NOT_IMPLEMENTED" }); }
  }
  const mock = new MockTracker();

  // ---- running

  let running = null;
  const clip = (text) => (text.length > MESSAGE_CHARS ? `${text.slice(0, MESSAGE_CHARS)}…` : text);
  function told(error, before = "") {
    let message;
    try {
      message = error instanceof Error ? `${error.name}: ${error.message}` : `threw ${inspect(error)}`;
      if (error instanceof Error && error.cause !== undefined) message += `\n  cause: ${inspect(error.cause)}`;
    } catch { message = "threw something that cannot be shown"; }
    const [file, line, column] = place(error) ?? [];
    return { message: clip(before + message), file, line, column };
  }
  function reason(value) { return typeof value === "string" ? clip(value) : ""; }

  class Skip {}
  class TestContext {
    #report; #leaf;
    constructor(name, fullName, report, leaf) {
      this.name = name;
      this.fullName = fullName;
      this.#report = report;
      this.#leaf = leaf;
      this.mock = new MockTracker();
      this.hooks = { before: [], after: [], beforeEach: [], afterEach: [] };
      defineProperty(this, "hooks", { enumerable: false });
    }
    get signal() { return (this.controller_ ??= new AbortController()).signal; }
    diagnostic(text) { if (this.#report.notes.length < MOST_NOTES) this.#report.notes.push(clip(`${text}`)); }
    skip(why) { this.#report.skip = reason(why); }
    todo(why) { this.#report.todo = reason(why); }
    before(f) { return f(this); }
    after(f) { this.hooks.after.push({ f }); }
    beforeEach(f) { this.hooks.beforeEach.push({ f }); }
    afterEach(f) { this.hooks.afterEach.push({ f }); }
    runOnly() {}
    async test(...all) {
      const [name, options, f] = split(...all);
      if (this.#report.subtests.length >= MOST_TESTS) throw new RangeError(`a test has at most ${MOST_TESTS} subtests (limit script_tests)`);
      const report = { name, state: "passed", subtests: [], notes: [] };
      this.#report.subtests.push(report);
      const outer = running;
      try {
        await runOne({ name, options, f }, `${this.fullName} > ${name}`, report, this.hooks.beforeEach, this.hooks.afterEach);
      } finally { running = outer; }
      if (report.state === "failed") this.#report.failed = (this.#report.failed ?? 0) + 1;
    }
  }

  async function callHook({ f }, context) { await invoke(f, context); }
  function invoke(f, context) {
    // With a second parameter it is called back.
    if (f.length < 2) return apply(f, context, [context]);
    return new Promise((done, fail) => {
      const returned = apply(f, context, [context, (error) => (error ? fail(error) : done())]);
      if (typeof returned?.then === "function") fail(new Error("passed a callback but also returned a Promise"));
    });
  }
  function within(promise, ms) {
    if (ms === undefined || ms === null || ms === Infinity) return promise;
    let timer;
    const late = new Promise((_, fail) => { timer = setTimeout(() => fail(assign(new Error(`test timed out after ${ms}ms`), { code: "ERR_TEST_FAILURE" })), ms); });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  }

  async function runOne({ options, f, name }, fullName, report, beforeEach, afterEach) {
    if (options.skip) { report.state = "skipped"; report.skip = reason(options.skip); return; }
    if (options.todo !== undefined && options.todo !== false) report.todo = reason(options.todo);
    const context = new TestContext(name, fullName, report);
    running = context;
    const failures = [];
    const attempt = async (before, run) => { try { await run(); return true; } catch (error) { failures.push(told(error, before)); return false; } };
    let isReady = true;
    for (const hook of beforeEach) isReady = isReady && await attempt("the beforeEach hook failed: ", () => callHook(hook, context));
    if (isReady && f !== undefined) await attempt("", () => within(invoke(f, context), options.timeout));
    else if (f === undefined && report.todo === undefined) report.todo = "it has no function";
    for (const hook of [...context.hooks.after, ...afterEach]) await attempt("an after hook failed: ", () => callHook(hook, context));
    context.controller_?.abort();
    context.mock.reset();
    running = null;
    if (failures.length > 0) report.error = failures[0];
    else if (report.failed) report.error = { message: `${report.failed} subtest${report.failed > 1 ? "s" : ""} failed` };
    if (report.error !== undefined) report.state = "failed";
    else if (report.skip !== undefined) report.state = "skipped";
    // What is to be done may fail.
    if (report.todo !== undefined && report.state !== "skipped") report.state = "todo";
  }

  const path = (of) => { const list = []; for (let s = of; s !== null; s = s.parent) list.unshift(s); return list; };
  const names = (leaf) => [...path(leaf.suite).slice(1).map((suite) => suite.name), leaf.name];
  const inherits = (leaf, name) => leaf.options[name] ?? path(leaf.suite).map((suite) => suite.options[name]).findLast((value) => value !== undefined);

  // The tests that are to run, by name.
  function plan(filter) {
    isRunning = true;
    const chosen = leaves.filter((leaf) => filter === "" || names(leaf).join(" > ").includes(filter));
    leaves = onlyAny ? chosen.map((leaf) => (inherits(leaf, "only") ? leaf : { ...leaf, options: { ...leaf.options, skip: "others are marked `only`" } })) : chosen;
    for (const leaf of leaves) for (const suite of path(leaf.suite)) suite.left++;
    return JSON.stringify(leaves.map(names));
  }

  async function step(index) {
    const leaf = leaves[index], suites = path(leaf.suite);
    const report = { name: leaf.name, state: "passed", subtests: [], notes: [] };
    const options = { ...leaf.options };
    for (const name of ["skip", "todo", "timeout"]) { const value = inherits(leaf, name); if (value !== undefined) options[name] = value; }
    let broken = null;
    if (!options.skip) {
      for (const suite of suites) {
        if (!suite.begun) {
          suite.begun = true;
          for (const hook of suite.before) {
            try { if (suite.failed === null) await callHook(hook, freeze({ name: suite.name })); } catch (error) { suite.failed = told(error, "the before hook failed: "); }
          }
        }
        broken ??= suite.failed;
      }
    }
    if (broken !== null) { report.state = "failed"; report.error = broken; } else {
      const all = (name) => suites.flatMap((suite) => suite[name]);
      await runOne({ ...leaf, options }, names(leaf).join(" > "), report, all("beforeEach"), suites.toReversed().flatMap((suite) => suite.afterEach));
    }
    for (const suite of suites.toReversed()) {
      if (--suite.left > 0 || !suite.begun) continue;
      for (const hook of suite.after) {
        try { await callHook(hook, freeze({ name: suite.name })); } catch (error) { report.error ??= told(error, "the after hook failed: "); report.state = "failed"; }
      }
      if (suite === root) mock.reset();
    }
    return JSON.stringify(report);
  }

  assign(test, {
    test, it: test, describe, suite: describe, mock,
    before: hook("before"), after: hook("after"), beforeEach: hook("beforeEach"), afterEach: hook("afterEach"),
  });

  // ---- tidegate:test

  const UNITS = { ms: 1, s: 1_000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 };
  const LONGEST = 2 ** 31 - 1;
  function duration(of) {
    if (typeof of === "number" && of >= 0 && Number.isFinite(of)) return Math.trunc(of);
    const [, amount, unit] = typeof of === "string" ? /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\s*$/.exec(of) ?? [] : [];
    if (amount === undefined) throw wrong(`a duration is milliseconds or a text as "250ms", "10s", "5m", "2h", "1d", not ${inspect(of)}`);
    return Math.round(Number(amount) * UNITS[unit]);
  }
  const clock = {
    now: () => Date.now(),
    async advance(by) {
      let left = duration(by);
      do {
        const part = Math.min(left, LONGEST);
        left -= part;
        await new Promise((done) => (part === 0 ? setImmediate(done) : setTimeout(done, part)));
      } while (left > 0);
    },
    async set(time) {
      const at = typeof time === "number" ? time : time instanceof Date ? time.getTime() : Date.parse(time);
      if (Number.isNaN(at)) throw wrong(`this is no time: ${inspect(time)}`);
      if (at < Date.now()) throw wrong(`the clock goes forward only: it is ${new Date().toISOString()}, later than ${new Date(at).toISOString()}`);
      if (at > Date.now()) await clock.advance(at - Date.now());
    },
  };
  freeze(clock);

  let handles = 0;
  class Device {
    #handle = handles++; #busy = 0; #handler; #state = null; #ctxStates = {};
    constructor(id, { handler, ...others } = {}) {
      if (typeof id !== "string") throw wrong(`a device's id is a string, not ${inspect(id)}`, "ERR_INVALID_ARG_TYPE");
      const unknown = Object.keys(others)[0];
      if (unknown !== undefined) throw wrong(`device() knows no option ${inspect(unknown)}: only handler`);
      this.#handler = handler;
      defineProperty(this, "id", { value: id, enumerable: true });
    }
    get state() { return this.#state; }
    ctxState(handler) {
      if (handler !== undefined) return this.#ctxStates[handler] ?? {};
      const all = Object.values(this.#ctxStates);
      if (all.length > 1) throw wrong(`several handlers have a ctx.state: name one of ${Object.keys(this.#ctxStates).join(", ")}`);
      return all[0] ?? {};
    }
    send(metric, { ts, channel = "metrics", ...others } = {}) {
      const unknown = Object.keys(others)[0];
      if (unknown !== undefined) return Promise.reject(wrong(`send() knows no option ${inspect(unknown)}: only ts, channel`));
      let payload = metric;
      if (typeof metric !== "string") {
        if (typeof metric !== "object" || metric === null || Array.isArray(metric)) return Promise.reject(wrong(`a reading is an object, not ${inspect(metric)}`, "ERR_INVALID_ARG_TYPE"));
        const { ts: own, deviceId: _, ...rest } = metric;
        ts ??= own;
        payload = JSON.stringify(rest);
      }
      if (ts instanceof Date) ts = ts.getTime();
      if (ts !== undefined && !Number.isSafeInteger(ts)) return Promise.reject(wrong(`ts is a time in milliseconds, not ${inspect(ts)}`));
      const now = Date.now();
      let answer;
      try {
        answer = JSON.parse(askNode(JSON.stringify({ handle: this.#handle, device: this.id, handler: this.#handler, channel, ts, now, payload })));
      } catch (error) { return Promise.reject(error); }
      if (answer.error !== undefined) return Promise.reject(assign(new Error(answer.error), { code: "ERR_TIDEGATE_TEST" }));
      const { waited, ctxStates, ...result } = answer;
      // A device's readings are worked on one after the other.
      const begins = Math.max(now, this.#busy), ends = begins + waited;
      this.#busy = ends;
      const finish = () => {
        this.#state = result.state;
        this.#ctxStates = ctxStates;
        return freeze({ ...result, ctxStates, waited });
      };
      return ends === now ? Promise.resolve(finish()) : new Promise((done) => setTimeout(() => done(finish()), ends - now));
    }
  }
  const device = (id, options) => new Device(id, options);
  const tidegate = { device, send: (id, metric, options) => device(id).send(metric, options), clock };

  return { test, tidegate, plan, step };
})
