// CommonJS as in Node.js, on natives that resolve and compile: `require`, `module`, the cache, cycles. Runs in a realm when a script
// first needs it. What Node.js reads from files comes from the sources that the node sent; nothing here opens a file.
(function (native, makeBuiltins, group) {
  "use strict";
  const { resolve, kind, compile, read, namespace, facade, paths, ROOT, BUILTINS } = native;
  const { defineProperty, hasOwn, create, keys } = Object;
  const { apply } = Reflect;
  const { isArray } = Array;

  const hidden = (value) => ({ value, writable: true, enumerable: false, configurable: true });
  const shown = (path) => `${ROOT}/${path}`;
  const below = (filename) => filename.slice(ROOT.length + 1);
  const folder = (filename) => filename.slice(0, filename.lastIndexOf("/")) || "/";

  function failure(Type, code, message) {
    return defineProperty(new Type(message), "code", { ...hidden(code), enumerable: true });
  }
  function text(value, name) {
    if (typeof value === "string") return;
    const got = value === null || value === undefined ? `${value}` : `type ${typeof value}`;
    throw failure(TypeError, "ERR_INVALID_ARG_TYPE", `The "${name}" argument must be of type string. Received ${got}`);
  }

  const cache = create(null), extensions = create(null);
  for (const name of [".js", ".json", ".cjs", ".mjs"]) {
    extensions[name] = (module, filename) => { run(module, below(filename)); };
  }

  function Module(id = "", parent = undefined) {
    this.id = id;
    this.path = folder(id);
    defineProperty(this, "exports", { ...hidden({}), enumerable: true });
    defineProperty(this, "parent", hidden(parent));
    this.filename = null;
    this.loaded = false;
    this.children = [];
    parent?.children.push(this);
  }
  Module.prototype.require = function (id) {
    text(id, "id");
    if (id === "") throw failure(TypeError, "ERR_INVALID_ARG_VALUE", "The argument 'id' must be a non-empty string. Received ''");
    return load(id, this);
  };
  defineProperty(Module, "_cache", { value: cache });
  defineProperty(Module, "_extensions", { value: extensions });

  // Where a request leads: a path below the root, or `node:name`. Errors tell who asked whom.
  function locate(request, parent, from = parent.filename) {
    try {
      return resolve(request, below(from));
    } catch (error) {
      if (error.code === "MODULE_NOT_FOUND") {
        const stack = [];
        for (let asked = parent; asked; asked = asked.parent) stack.push(asked.filename ?? asked.id);
        if (stack.length > 0) error.message += `\nRequire stack:\n- ${stack.join("\n- ")}`;
        error.requireStack = stack;
      }
      throw error;
    }
  }

  function load(request, parent) {
    const path = locate(request, parent);
    return path.startsWith("node:") ? builtin(path.slice(5)) : loadFile(path, parent).exports;
  }

  function loadFile(path, parent) {
    const filename = shown(path);
    const cached = cache[filename];
    if (cached !== undefined) {
      if (parent && !parent.children.includes(cached)) parent.children.push(cached);
      return cached;
    }
    const module = new Module(filename, parent);
    cache[filename] = module;
    let done = false;
    try {
      module.filename = filename;
      module.paths = paths("x", path);
      run(module, path);
      done = true;
    } finally {
      if (!done) {
        delete cache[filename];
        const at = parent ? parent.children.indexOf(module) : -1;
        if (at !== -1) parent.children.splice(at, 1);
      }
    }
    return module;
  }

  function run(module, path) {
    switch (kind(path)) {
      case "json": module.exports = read(path); break;
      case "module": module.exports = required(path, module.parent); break;
      default: {
        const { exports, filename } = module;
        const more = path.endsWith(".nodered.js") ? [group("nodered")] : [];
        apply(compile(path), exports, [exports, makeRequire(module), module, filename, folder(filename), ...more]);
      }
    }
    module.loaded = true;
  }

  // What `require` gives for an ES module.
  function required(path, parent) {
    const running = keys(cache).filter((filename) => !cache[filename]?.loaded).map(below);
    const all = namespace(path, parent ? below(parent.filename) : "", running);
    if (hasOwn(all, "module.exports")) return all["module.exports"];
    return hasOwn(all, "default") && !hasOwn(all, "__esModule") ? facade(path) : all;
  }

  function makeRequire(module) {
    const require = function require(id) { return module.require(id); };
    require.resolve = function resolve(request, options) {
      text(request, "request");
      const from = options?.paths ? [...options.paths].map((path) => `${path}/x`) : [module.filename];
      let last;
      for (const name of from) {
        try {
          const path = locate(request, module, name);
          return path.startsWith("node:") ? request : shown(path);
        } catch (error) { last = error; }
      }
      throw last;
    };
    require.resolve.paths = function (request) {
      text(request, "request");
      return paths(request, below(module.filename));
    };
    require.main = undefined;
    require.extensions = extensions;
    require.cache = cache;
    return require;
  }

  function createRequire(from) {
    let filename = typeof from === "string" ? from : from?.href;
    if (typeof filename === "string" && filename.startsWith("file:")) filename = decodeURIComponent(new URL(filename).pathname);
    if (typeof filename !== "string" || !filename.startsWith(`${ROOT}/`)) {
      const message = `The argument 'filename' must be a file URL object, file URL string, or absolute path string below ${ROOT}`;
      throw failure(TypeError, "ERR_INVALID_ARG_VALUE", message);
    }
    const module = new Module(filename);
    module.filename = filename;
    module.paths = paths("x", below(filename));
    return makeRequire(module);
  }

  const builtins = makeBuiltins(failure, group);
  const isBuiltin = (name) => `${name}` !== "test" && BUILTINS.includes(`${name}`.replace(/^node:/, ""));
  builtins.module = () => {
    defineProperty(Module, "Module", hidden(Module));
    Module.createRequire = createRequire;
    Module.isBuiltin = isBuiltin;
    Module.builtinModules = BUILTINS;
    return Module;
  };
  const made = create(null);
  const builtin = (name) => (made[name] ??= builtins[name]());

  return {
    // The default export of a CommonJS file, then its named ones.
    imported(path, names) {
      const { exports } = loadFile(path);
      const own = exports !== null && (typeof exports === "object" || typeof exports === "function");
      const value = (name) => {
        if (!own || !hasOwn(exports, name)) return undefined;
        try { return exports[name]; } catch { return undefined; }
      };
      return [exports, ...names.map(value)];
    },
    // A JSON file, shared with `require`.
    json(path) {
      const cached = cache[shown(path)];
      return cached?.loaded ? cached.exports : loadFile(path).exports;
    },
    builtin,
    names: (name) => { const all = builtin(name); return [all, ...keys(all)]; },
    values: (name, names) => { const all = builtin(name); return names.map((of) => all[of]); },
    main: (path) => loadFile(path).exports,
    // What the host wants of a handler.
    pick: (exports, names) => names.map((name) => exports?.[name]),
  };
})
