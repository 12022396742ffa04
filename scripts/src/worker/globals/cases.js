//// structuredClone copies deeply, with cycles
const original = { a: 1, list: [1, , 3], map: new Map([[{ k: 1 }, new Set([1, 2])]]), date: new Date(5), re: /a+/gi, bytes: new Uint8Array([1, 2, 3]), nothing: undefined, big: 10n };
original.self = original;
const copy = structuredClone(original);
console.log(copy !== original, copy.self === copy, copy.list.length, 1 in copy.list, copy.date.getTime(), String(copy.re), copy.bytes.join(), String(copy.big));
console.log([...copy.map][0][0].k, [...[...copy.map][0][1]].join(), "nothing" in copy, copy.map !== original.map, copy.date instanceof Date);
console.log(structuredClone("text"), structuredClone(null), structuredClone(Object("boxed")) instanceof String);

//// structuredClone of errors and of what cannot be cloned
const error = structuredClone(new RangeError("far", { cause: { n: 1 } }));
console.log(error instanceof RangeError, error.message, error.cause.n, error.name);
for (const bad of [() => 1, Symbol("s"), Promise.resolve(), { deep: [function named() {}] }]) {
  try { structuredClone(bad); console.log("cloned"); } catch (error) { console.log(error.name, error.code, error instanceof DOMException); }
}

//// structuredClone keeps views on one buffer and loses prototypes
class Point { constructor() { this.x = 1; } get y() { return 2; } }
const { a, b, point } = structuredClone({ a: new Uint8Array(4).subarray(1, 3), b: new DataView(new ArrayBuffer(8), 2, 4), point: new Point() });
console.log(a.byteOffset, a.length, a.buffer.byteLength, b.byteOffset, b.byteLength, point.constructor === Object, point.x, point.y);

//// TextEncoder
const encoder = new TextEncoder();
console.log(encoder.encoding, encoder.encode("aé€😀").join(), encoder.encode().length, encoder.encode("\ud800").join());
const into = new Uint8Array(5);
const did = encoder.encodeInto("a€😀", into);
console.log(did.read, did.written, into.join());

//// TextDecoder
const decoder = new TextDecoder();
console.log(decoder.decode(new Uint8Array([97, 195, 169, 226, 130, 172])), decoder.decode(new Uint8Array([0xff, 97])), decoder.encoding, decoder.fatal);
console.log(new TextDecoder("utf-16le").decode(new Uint8Array([0x61, 0, 0xac, 0x20])), new TextDecoder("latin1").encoding);
console.log(decoder.decode(new Uint8Array([0xef, 0xbb, 0xbf, 97])).length, new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array([0xef, 0xbb, 0xbf, 97])).length);
try { new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([0xc3])); } catch (error) { console.log(error.name, error.code); }
try { new TextDecoder("klingon"); } catch (error) { console.log(error.name, error.code); }

//// TextDecoder in pieces
const pieces = new TextDecoder();
console.log([[0xf0, 0x9f], [0x98, 0x80, 97], [0xe2, 0x82], [0xac]].map((part) => pieces.decode(new Uint8Array(part), { stream: true })).join("|"));
console.log(pieces.decode());

//// atob and btoa
console.log(btoa("hello"), atob("aGVsbG8="), atob(" aGk "), btoa("\u00ff"), atob("/w==").charCodeAt(0));
for (const bad of [() => btoa("€"), () => atob("a"), () => atob("a-b_")]) try { bad(); } catch (error) { console.log(error.name, error.code); }

//// URL
const url = new URL("https://user:pa%20ss@example.com:8080/a/../b c?x=1&y=ä#top");
for (const part of ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"]) console.log(part, url[part]);
console.log(String(new URL("../up?q", "http://a.b/c/d/e")), JSON.stringify({ url }));

//// URL parts can be changed
const changed = new URL("http://example.com/path");
changed.pathname = "/new path"; changed.search = "a=1"; changed.hash = "h"; changed.port = "8080"; changed.protocol = "https"; changed.hostname = "other.org"; changed.username = "me";
console.log(changed.href);
changed.port = ""; changed.hash = ""; changed.host = "x.y:99";
console.log(changed.href, changed.port);
changed.href = "mailto:a@b.c";
console.log(changed.protocol, changed.pathname, changed.origin);

//// what is no URL
for (const bad of ["", "relative", "http://", "http://a b/"]) try { new URL(bad); console.log("parsed", bad); } catch (error) { console.log(error.name, error.code, error.input); }
console.log(URL.canParse("http://a"), URL.canParse("a"), URL.canParse("a", "http://b"));

//// URLSearchParams
const params = new URLSearchParams("?a=1&b=two+words&a=3&c=%E2%82%AC&d");
console.log(params.get("a"), params.getAll("a").join(), params.get("b"), params.get("c"), params.get("d") === "", params.get("e"), params.size);
params.append("é", "&="); params.delete("b"); params.set("a", "only"); params.sort();
console.log(params.toString(), params.has("c"), params.has("a", "1"));
console.log([...params.keys()].join(), [...new URLSearchParams({ x: 1, y: [2, 3] })].join("|"), String(new URLSearchParams([["k", "v w"]])));

//// the parameters of a URL are its own
const linked = new URL("http://a/?x=1");
linked.searchParams.append("y", "2 3");
console.log(linked.href, linked.search);
linked.search = "?z=9";
console.log(linked.searchParams.get("z"), linked.searchParams.get("x"));
linked.searchParams.delete("z");
console.log(linked.href);

//// Buffer from and to text
console.log(Buffer.from("aé€").toString("hex"), Buffer.from("6869", "hex").toString(), Buffer.from("aGk", "base64").toString(), Buffer.from("aGk_-w", "base64url").toString("hex"));
console.log(Buffer.from("hello").toString("base64"), Buffer.from([251, 255]).toString("base64url"), Buffer.from("é", "latin1").length, Buffer.from("hi", "utf16le").toString("hex"), Buffer.from([0xe9]).toString("latin1"));
console.log(Buffer.from("hello world").toString("utf8", 6, 9), Buffer.byteLength("€"), Buffer.isEncoding("UTF-8"), Buffer.isEncoding("x"), JSON.stringify(Buffer.from("ab")));
try { Buffer.from("a", "klingon"); } catch (error) { console.log(error.name, error.code); }

//// Buffer as an array
const buffer = Buffer.from([1, 2, 3, 4, 5]);
console.log(buffer instanceof Uint8Array, Buffer.isBuffer(buffer.subarray(1)), buffer.subarray(1, 3).join(), buffer.slice(-2).join(), buffer.length);
const shared = buffer.subarray(2);
shared[0] = 99;
console.log(buffer.join(), Buffer.concat([buffer, Buffer.from("A")]).join(), Buffer.concat([buffer, buffer], 7).join());
console.log(Buffer.compare(Buffer.from("a"), Buffer.from("b")), Buffer.from("ab").equals(Buffer.from("ab")), Buffer.alloc(4, "ab").toString(), Buffer.alloc(3).join(), Buffer.from(new Uint16Array([1, 256])).join());

//// Buffer numbers
const numbers = Buffer.alloc(24);
numbers.writeUInt8(255, 0); numbers.writeInt16BE(-2, 1); numbers.writeUInt32LE(0xdeadbeef, 3); numbers.writeFloatBE(1.5, 7); numbers.writeDoubleLE(-0.1, 11); numbers.writeIntBE === undefined;
console.log(numbers.toString("hex"));
console.log(numbers.readUInt8(0), numbers.readInt16BE(1), numbers.readUint32LE(3), numbers.readFloatBE(7), numbers.readDoubleLE(11), numbers.readUIntBE(0, 3), numbers.readIntLE(0, 3), String(numbers.readBigUInt64BE(3)));
for (const bad of [() => numbers.readUInt16LE(23), () => numbers.writeUInt8(256, 0), () => numbers.readInt8(-1), () => numbers.readInt8("0")]) try { bad(); } catch (error) { console.log(error.name, error.code); }

//// Buffer search, copy, fill, write
const text = Buffer.from("the cat the dog");
console.log(text.indexOf("the"), text.indexOf("the", 1), text.lastIndexOf("the"), text.includes("cow"), text.indexOf(Buffer.from("dog")), text.indexOf(100), text.indexOf("cat", -20));
const target = Buffer.alloc(8, ".");
console.log(text.copy(target, 2, 4, 7), target.toString(), target.write("€uro", 5), target.toString(), target.fill("xy", 1, 4).toString("latin1", 0, 5));
console.log(Buffer.from([1, 2, 3, 4]).swap16().join(), Buffer.from([1, 2, 3, 4]).swap32().join());

//// Event and EventTarget
const target1 = new EventTarget();
const seen = (event) => console.log("seen", event.type, event.target === target1, event.detail, event instanceof Event);
target1.addEventListener("a", seen);
target1.addEventListener("a", seen);
target1.addEventListener("a", { handleEvent(event) { console.log("object", event.cancelable); event.preventDefault(); } });
target1.addEventListener("a", () => console.log("once"), { once: true });
console.log(target1.dispatchEvent(new CustomEvent("a", { detail: 7, cancelable: true })));
target1.removeEventListener("a", seen);
console.log(target1.dispatchEvent(new Event("a")), target1.dispatchEvent(new Event("b")));

//// an event can be stopped
const stopping = new EventTarget();
stopping.addEventListener("x", (event) => { console.log("first"); event.stopImmediatePropagation(); });
stopping.addEventListener("x", () => console.log("never"));
stopping.dispatchEvent(new Event("x"));

//// AbortController
const controller = new AbortController();
controller.signal.onabort = () => console.log("onabort");
controller.signal.addEventListener("abort", (event) => console.log("aborted", event.type, controller.signal.aborted));
console.log(controller.signal.aborted, controller.signal.reason);
controller.abort();
controller.abort("again");
console.log(controller.signal.reason.name, controller.signal.reason.code, controller.signal.reason.message);
try { controller.signal.throwIfAborted(); } catch (error) { console.log(error.name); }
console.log(AbortSignal.abort("why").reason, AbortSignal.any([AbortSignal.abort(1)]).reason);

//// AbortSignal.timeout and any
const late = AbortSignal.timeout(20);
const both = AbortSignal.any([late, new AbortController().signal]);
both.addEventListener("abort", () => console.log("both", both.reason === late.reason));
late.addEventListener("abort", () => console.log("late", late.reason.name, late.reason.code));
const gave = new Promise((resolve, reject) => both.addEventListener("abort", () => reject(both.reason)));
gave.catch((error) => console.log("gave up", error.name));
setTimeout(() => console.log("end"), 60);

//// DOMException
const dom = new DOMException("gone", "AbortError");
console.log(dom.name, dom.message, dom.code, dom instanceof Error, String(dom), DOMException.ABORT_ERR, new DOMException().name);

//// crypto
const uuid = crypto.randomUUID();
console.log(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(uuid), uuid !== crypto.randomUUID());
console.log(crypto.getRandomValues(new Uint32Array(4)).length);
try { crypto.getRandomValues(new Uint8Array(65537)); } catch (error) { console.log(error.name, error.code); }

//// performance and dates go with the timers
const begun = performance.now(), date = Date.now();
setTimeout(() => { const took = performance.now() - begun, passed = Date.now() - date; console.log(took >= 49 && took < 1000, passed >= 49 && passed < 1000); }, 50);
console.log(typeof performance.timeOrigin, performance.now() >= begun);

//// console formats
console.log("%s is %d years and %i, %f", "Bob", 42, 42.9, "1.5", "extra");
console.log("100%", "%s", 5);
console.log("%j", { a: 1 }, "%%");
console.log("%s%%", 5);
console.count(); console.count("x"); console.count(); console.countReset(); console.count();

//// what was defined lazily can be replaced
globalThis.Buffer = "mine";
console.log(Buffer, typeof globalThis.URL, Object.keys(globalThis).includes("URL"));
