// Runs once in every new realm, before any handler. It takes away what a handler has no use for or what is not deterministic,
// and returns the functions through which the host calls scripts. An exception must not cross from a JavaScript frame into the
// host (Boa 0.22 leaks its stack slots then), so every call from the host goes through a `try` here.
(function (native) {
  "use strict";
  const { fail, parse, random } = native;
  const { stringify } = JSON;
  const { apply } = Reflect;
  const { isArray } = Array;
  const { keys, defineProperty, getOwnPropertyDescriptor } = Object;
  const stackOf = getOwnPropertyDescriptor(Error.prototype, "stack").get;

  for (const name of ["Atomics", "SharedArrayBuffer", "WeakRef", "FinalizationRegistry"]) {
    delete globalThis[name];
  }

  const hidden = (value) => ({ value, writable: true, enumerable: false, configurable: true });

  defineProperty(Math, "random", hidden(random));

  function revive(holder, key, reviver) {
    const value = holder[key];
    if (value !== null && typeof value === "object") {
      const names = isArray(value) ? [...value.keys()].map(String) : keys(value);
      for (const name of names) {
        const revived = revive(value, name, reviver);
        if (revived === undefined) {
          delete value[name];
        } else {
          defineProperty(value, name, { value: revived, writable: true, enumerable: true, configurable: true });
        }
      }
    }
    return apply(reviver, holder, [key, value]);
  }

  defineProperty(JSON, "parse", hidden(function (text, reviver) {
    const value = parse(`${text}`);
    return typeof reviver === "function" ? revive({ "": value }, "", reviver) : value;
  }));

  return {
    call(handler, metric, ctx) {
      try { return handler(metric, ctx); } catch (error) { return fail(error); }
    },
    callback(f, self, values) {
      try { return apply(f, self, values); } catch (error) { return fail(error); }
    },
    stringify(value) {
      try { return stringify(value); } catch (error) { return fail(error); }
    },
    stackOf,
  };
})
