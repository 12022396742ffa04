// Runs once in every new realm: the names of the groups, each of which is loaded when a script first asks for one of its names.
(function (native) {
  "use strict";
  const { defineProperty, entries } = Object;
  const GROUPS = {
    loop: ["setTimeout", "setInterval", "setImmediate", "clearTimeout", "clearInterval", "clearImmediate", "queueMicrotask", "process", "performance"],
    console: ["console"],
    events: ["DOMException", "Event", "CustomEvent", "EventTarget", "AbortSignal", "AbortController"],
    clone: ["structuredClone"],
    text: ["TextEncoder", "TextDecoder", "atob", "btoa"],
    url: ["URL", "URLSearchParams"],
    crypto: ["crypto"],
    buffer: ["Buffer"],
    fetch: ["fetch", "Headers", "Request", "Response"],
  };
  const loaded = {};
  const load = (group) => (loaded[group] ??= native.load(group)(native, load));
  for (const [group, names] of entries(GROUPS)) {
    for (const name of names) {
      // It stays an accessor: the engine's inline caches take a property of the global object that becomes another kind for what
      // it was, and would call the value.
      let value, known = false;
      const set = (to) => { value = to; known = true; };
      const get = () => { if (!known) set(load(group)[name]); return value; };
      defineProperty(globalThis, name, { get, set, enumerable: false, configurable: true });
    }
  }
  // The global object's name in Node.js, by which packages that are older than `globalThis` look for it.
  defineProperty(globalThis, "global", { value: globalThis, writable: true, enumerable: false, configurable: true });
  return load;
})
