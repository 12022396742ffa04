// `node:fs/promises`: the script's own directory. What is in it is not the same each time: it is no part of a reading's state.
(function (native, load) {
  "use strict";
  const { later, bytes, buffer, type } = load("slow");
  const text = (out, encoding) => (encoding === undefined || encoding === null || encoding === "buffer" ? out : out.toString(encoding));
  const encodingOf = (options) => (typeof options === "string" ? options : options?.encoding);
  const pathOf = (path, name = "path") => {
    if (typeof path !== "string") throw type(name, "of type string", path);
    return path;
  };

  class Stats {
    #about;
    constructor(about) {
      this.#about = about;
      this.mode = about.mode;
      this.size = about.size;
      this.mtimeMs = about.mtimeMs;
      this.mtime = new Date(about.mtimeMs);
    }
    isFile() { return this.#about.isFile; }
    isDirectory() { return this.#about.isDirectory; }
    isSymbolicLink() { return !this.#about.isFile && !this.#about.isDirectory; }
  }
  class Dirent {
    #folder;
    constructor(name, path, folder) { this.name = name; this.path = path; this.parentPath = path; this.#folder = folder; }
    isFile() { return !this.#folder; }
    isDirectory() { return this.#folder; }
    isSymbolicLink() { return false; }
  }

  const read = (call, path, map) => later("fs.read", { call, path: pathOf(path) }, [], map);
  const change = (args, parts = []) => later("fs.write", args, parts, () => undefined);
  function write(path, data, options, flag) {
    const parts = [bytes(data, "data", encodingOf(options))];
    return change({ call: "writefile", path: pathOf(path), flag: options?.flag ?? flag }, parts);
  }
  const stat = (path) => read("stat", path, (about) => new Stats(about));

  const promises = {
    readFile: async (path, options) => read("readfile", path, (_, out) => text(buffer(out), encodingOf(options))),
    writeFile: async (path, data, options) => write(path, data, options, "w"),
    appendFile: async (path, data, options) => write(path, data, options, "a"),
    readdir: async (path, options) =>
      read("readdir", path, (names) => names.map(([name, folder]) => (options?.withFileTypes ? new Dirent(name, path, folder) : name))),
    stat: async (path) => stat(path),
    lstat: async (path) => stat(path),
    access: async (path) => read("access", path, () => undefined),
    mkdir: async (path, options) => change({ call: "mkdir", path: pathOf(path), recursive: options?.recursive === true }),
    rm: async (path, options) =>
      change({ call: "rm", path: pathOf(path), recursive: options?.recursive === true, force: options?.force === true }),
    rmdir: async (path) => change({ call: "rmdir", path: pathOf(path) }),
    unlink: async (path) => change({ call: "unlink", path: pathOf(path) }),
    rename: async (path, to) => change({ call: "rename", path: pathOf(path, "oldPath"), to: pathOf(to, "newPath") }),
  };
  return { promises };
})
