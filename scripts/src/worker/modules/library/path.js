// `node:path`: the POSIX half, as in Node.js 20. Scripts see `/handlers` as the directory that they are in.
(function () {
  "use strict";
  function text(value, name) {
    if (typeof value === "string") return;
    const got = value === null || value === undefined ? `${value}` : typeof value === "object" ? "an instance of " + (value.constructor?.name ?? "Object") : `type ${typeof value} (${String(value)})`;
    throw Object.assign(new TypeError(`The "${name}" argument must be of type string. Received ${got}`), { code: "ERR_INVALID_ARG_TYPE" });
  }
  // Without `.`, `..` and doubled slashes; `..` above the top stays unless the path is absolute.
  function parts(path, isAbsolute) {
    const out = [];
    for (const part of path.split("/")) {
      if (part === "" || part === ".") continue;
      if (part !== "..") out.push(part);
      else if (out.length > 0 && out[out.length - 1] !== "..") out.pop();
      else if (!isAbsolute) out.push("..");
    }
    return out.join("/");
  }
  const trimmed = (path) => { let end = path.length; while (end > 0 && path[end - 1] === "/") end--; return path.slice(0, end); };

  const path = {
    sep: "/",
    delimiter: ":",
    resolve(...all) {
      let found = "";
      for (let i = all.length - 1; i >= -1 && !found.startsWith("/"); i--) {
        const one = i >= 0 ? all[i] : "/handlers";
        if (i >= 0) text(one, `paths[${i}]`);
        if (one !== "") found = found === "" ? one : `${one}/${found}`;
      }
      return `/${parts(found, true)}`;
    },
    normalize(path) {
      text(path, "path");
      if (path === "") return ".";
      const isAbsolute = path.startsWith("/");
      let out = parts(path, isAbsolute);
      if (out === "" && !isAbsolute) return path.endsWith("/") ? "./" : ".";
      if (out !== "" && path.endsWith("/")) out += "/";
      return isAbsolute ? `/${out}` : out;
    },
    isAbsolute(path) { text(path, "path"); return path.startsWith("/"); },
    join(...all) {
      for (const one of all) text(one, "path");
      const joined = all.filter((one) => one !== "").join("/");
      return joined === "" ? "." : this_.normalize(joined);
    },
    relative(from, to) {
      text(from, "from");
      text(to, "to");
      if (from === to) return "";
      [from, to] = [this_.resolve(from), this_.resolve(to)];
      if (from === to) return "";
      const [a, b] = [from, to].map((path) => path.split("/").filter((part) => part !== ""));
      let same = 0;
      while (same < a.length && same < b.length && a[same] === b[same]) same++;
      return [...a.slice(same).map(() => ".."), ...b.slice(same)].join("/");
    },
    toNamespacedPath: (path) => path,
    dirname(path) {
      text(path, "path");
      if (path === "") return ".";
      const short = trimmed(path), at = short.lastIndexOf("/");
      if (short === "") return "/";
      if (at < 0) return ".";
      if (at === 0) return /^\/\/[^/]/.test(path) ? "//" : "/";
      let end = at;
      while (end > 1 && short[end - 1] === "/") end--;
      // As in Node.js: of two slashes at the beginning both stay.
      if (end === 1 && short[0] === "/" && short[1] === "/") return "//";
      return short.slice(0, at) === "/" ? "//" : short.slice(0, at);
    },
    basename(path, suffix) {
      if (suffix !== undefined) text(suffix, "suffix");
      text(path, "path");
      const plain = trimmed(path), base = plain.slice(plain.lastIndexOf("/") + 1);
      if (!suffix || suffix.length > path.length) return base;
      if (suffix === path) return "";
      // As in Node.js, whose search for the suffix goes on over slashes at the end.
      let start = 0, end = -1, first = -1, at = suffix.length - 1;
      for (let i = path.length - 1; i >= 0; i--) {
        if (path[i] === "/") {
          if (first !== -1) { start = i + 1; break; }
          continue;
        }
        if (first === -1) first = i + 1;
        if (at < 0) continue;
        if (path[i] !== suffix[at]) { at = -1; end = first; } else if (--at === -1) end = i;
      }
      if (start === end) end = first; else if (end === -1) end = path.length;
      return path.slice(start, end);
    },
    extname(path) {
      text(path, "path");
      const base = this_.basename(path), at = base.lastIndexOf(".");
      return at <= 0 || base === ".." ? "" : base.slice(at);
    },
    format(of) {
      if (of === null || typeof of !== "object") throw Object.assign(new TypeError(`The "pathObject" argument must be of type object. Received ${of === null ? "null" : `type ${typeof of} (${String(of)})`}`), { code: "ERR_INVALID_ARG_TYPE" });
      const dir = of.dir || of.root, ext = of.ext ? (of.ext[0] === "." ? of.ext : `.${of.ext}`) : "";
      const base = of.base || `${of.name || ""}${ext}`;
      if (!dir) return base;
      return dir === of.root ? `${dir}${base}` : `${dir}/${base}`;
    },
    parse(path) {
      text(path, "path");
      const root = path.startsWith("/") ? "/" : "";
      if (path === "") return { root: "", dir: "", base: "", ext: "", name: "" };
      // As in Node.js: directly below the top, `..` has an extension.
      const base = this_.basename(path), ext = trimmed(path) === "/.." ? "." : this_.extname(path);
      const short = trimmed(path), at = short.lastIndexOf("/");
      const dir = at > 0 ? short.slice(0, at) : root;
      return { root, dir, base, ext, name: ext === "" ? base : base.slice(0, -ext.length) };
    },
    posix: null,
    win32: null,
  };
  const this_ = path;
  path.posix = path;
  return { path };
})
