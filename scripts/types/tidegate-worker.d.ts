// What there is in a worker of Tidegate beyond the language itself (TypeScript's `lib` es2023, without `dom`): globals, modules of
// Node.js, and the API of `tidegate script test`. Leave this file out where @types/node is used: it declares more than there is.

interface TidegateTimer {
  ref(): this;
  unref(): this;
  hasRef(): boolean;
  refresh(): this;
  close(): this;
  [Symbol.toPrimitive](): number;
}
interface TidegateImmediate {
  ref(): this;
  unref(): this;
  hasRef(): boolean;
}
declare function setTimeout<Args extends any[]>(callback: (...args: Args) => void, ms?: number, ...args: Args): TidegateTimer;
declare function setInterval<Args extends any[]>(callback: (...args: Args) => void, ms?: number, ...args: Args): TidegateTimer;
declare function setImmediate<Args extends any[]>(callback: (...args: Args) => void, ...args: Args): TidegateImmediate;
declare function clearTimeout(timer: TidegateTimer | string | number | undefined): void;
declare function clearInterval(timer: TidegateTimer | string | number | undefined): void;
declare function clearImmediate(immediate: TidegateImmediate | undefined): void;
declare function queueMicrotask(callback: () => void): void;
/** The global object, as `globalThis`. */
declare var global: typeof globalThis;
declare function structuredClone<T>(value: T, options?: { transfer?: any[] }): T;
declare function atob(text: string): string;
declare function btoa(text: string): string;

interface Console {
  log(...values: any[]): void;
  info(...values: any[]): void;
  warn(...values: any[]): void;
  error(...values: any[]): void;
  debug(...values: any[]): void;
  trace(...values: any[]): void;
  dir(value: any, options?: InspectOptions): void;
  table(value: any): void;
  assert(holds: any, ...values: any[]): void;
  count(name?: string): void;
  countReset(name?: string): void;
  time(name?: string): void;
  timeLog(name?: string, ...values: any[]): void;
  timeEnd(name?: string): void;
  group(...values: any[]): void;
  groupEnd(): void;
}
declare var console: Console;

interface InspectOptions {
  showHidden?: boolean;
  depth?: number | null;
  customInspect?: boolean;
  maxArrayLength?: number | null;
  maxStringLength?: number | null;
  breakLength?: number;
  compact?: boolean | number;
  sorted?: boolean | ((a: string, b: string) => number);
  numericSeparator?: boolean;
}

declare var performance: {
  /** Milliseconds since the call began, by its own clock. */
  now(): number;
  readonly timeOrigin: number;
  toJSON(): { timeOrigin: number };
};

interface TidegateProcess {
  /** In a task only (`node:worker_threads`): a handler is no program that could end. */
  exit?(code?: number): never;
  exitCode?: number;
  nextTick(callback: (...args: any[]) => void, ...args: any[]): void;
  on(event: string | symbol, listener: (...args: any[]) => void): this;
  once(event: string | symbol, listener: (...args: any[]) => void): this;
  off(event: string | symbol, listener: (...args: any[]) => void): this;
  addListener(event: string | symbol, listener: (...args: any[]) => void): this;
  prependListener(event: string | symbol, listener: (...args: any[]) => void): this;
  removeListener(event: string | symbol, listener: (...args: any[]) => void): this;
  removeAllListeners(event?: string | symbol): this;
  emit(event: string | symbol, ...args: any[]): boolean;
  listeners(event: string | symbol): Function[];
  listenerCount(event: string | symbol): number;
  emitWarning(warning: string | Error, type?: string | { type?: string; code?: string }, code?: string): void;
  hrtime: { (since?: [number, number]): [number, number]; bigint(): bigint };
  uptime(): number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly argv: readonly string[];
}
declare var process: TidegateProcess;

declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(text?: string): Uint8Array;
  encodeInto(text: string, into: Uint8Array): { read: number; written: number };
}
declare class TextDecoder {
  constructor(encoding?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: ArrayBuffer | ArrayBufferView, options?: { stream?: boolean }): string;
}
declare class URL {
  constructor(url: string | URL, base?: string | URL);
  static canParse(url: string | URL, base?: string | URL): boolean;
  href: string;
  readonly origin: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  hash: string;
  readonly searchParams: URLSearchParams;
  toString(): string;
  toJSON(): string;
}
declare class URLSearchParams implements Iterable<[string, string]> {
  constructor(from?: string | Record<string, any> | Iterable<[string, string]>);
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  forEach(f: (value: string, name: string, all: URLSearchParams) => void): void;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  entries(): IterableIterator<[string, string]>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
  toString(): string;
}

type BufferEncoding = "utf8" | "utf-8" | "hex" | "base64" | "base64url" | "latin1" | "binary" | "ascii" | "ucs2" | "ucs-2" | "utf16le" | "utf-16le";
interface BufferConstructor {
  from(value: string, encoding?: BufferEncoding): Buffer;
  from(value: ArrayBuffer, offset?: number, length?: number): Buffer;
  from(value: ArrayLike<number> | { type: "Buffer"; data: number[] }): Buffer;
  alloc(size: number, fill?: string | number | Uint8Array, encoding?: BufferEncoding): Buffer;
  allocUnsafe(size: number): Buffer;
  isBuffer(value: unknown): value is Buffer;
  isEncoding(name: string): name is BufferEncoding;
  byteLength(value: string | ArrayBuffer | ArrayBufferView, encoding?: BufferEncoding): number;
  compare(a: Uint8Array, b: Uint8Array): -1 | 0 | 1;
  concat(list: readonly Uint8Array[], total?: number): Buffer;
  readonly prototype: Buffer;
}
declare var Buffer: BufferConstructor;
interface Buffer extends Uint8Array {
  toString(encoding?: BufferEncoding, start?: number, end?: number): string;
  toJSON(): { type: "Buffer"; data: number[] };
  equals(other: Uint8Array): boolean;
  compare(other: Uint8Array, from?: number, to?: number, start?: number, end?: number): number;
  slice(start?: number, end?: number): any;
  subarray(start?: number, end?: number): any;
  copy(target: Uint8Array, at?: number, start?: number, end?: number): number;
  write(text: string, at?: number, length?: number, encoding?: BufferEncoding): number;
  write(text: string, encoding?: BufferEncoding): number;
  indexOf(value: any, from?: number, encoding?: BufferEncoding): number;
  includes(value: any, from?: number, encoding?: BufferEncoding): boolean;
  readUInt8(at?: number): number; readInt8(at?: number): number;
  readUInt16LE(at?: number): number; readUInt16BE(at?: number): number; readInt16LE(at?: number): number; readInt16BE(at?: number): number;
  readUInt32LE(at?: number): number; readUInt32BE(at?: number): number; readInt32LE(at?: number): number; readInt32BE(at?: number): number;
  readBigUInt64LE(at?: number): bigint; readBigUInt64BE(at?: number): bigint; readBigInt64LE(at?: number): bigint; readBigInt64BE(at?: number): bigint;
  readFloatLE(at?: number): number; readFloatBE(at?: number): number; readDoubleLE(at?: number): number; readDoubleBE(at?: number): number;
  readUIntBE(at: number, size: number): number; readUIntLE(at: number, size: number): number; readIntBE(at: number, size: number): number; readIntLE(at: number, size: number): number;
  writeUInt8(value: number, at?: number): number; writeInt8(value: number, at?: number): number;
  writeUInt16LE(value: number, at?: number): number; writeUInt16BE(value: number, at?: number): number; writeInt16LE(value: number, at?: number): number; writeInt16BE(value: number, at?: number): number;
  writeUInt32LE(value: number, at?: number): number; writeUInt32BE(value: number, at?: number): number; writeInt32LE(value: number, at?: number): number; writeInt32BE(value: number, at?: number): number;
  writeBigUInt64LE(value: bigint, at?: number): number; writeBigUInt64BE(value: bigint, at?: number): number; writeBigInt64LE(value: bigint, at?: number): number; writeBigInt64BE(value: bigint, at?: number): number;
  writeFloatLE(value: number, at?: number): number; writeFloatBE(value: number, at?: number): number; writeDoubleLE(value: number, at?: number): number; writeDoubleBE(value: number, at?: number): number;
  swap16(): this; swap32(): this; swap64(): this;
}

declare class DOMException extends Error {
  constructor(message?: string, options?: string | { name?: string; cause?: unknown });
  readonly code: number;
}
declare class Event {
  constructor(type: string, options?: { bubbles?: boolean; cancelable?: boolean; composed?: boolean });
  readonly type: string;
  readonly target: EventTarget | null;
  readonly defaultPrevented: boolean;
  readonly timeStamp: number;
  preventDefault(): void;
  stopImmediatePropagation(): void;
}
declare class CustomEvent<T = any> extends Event {
  constructor(type: string, options?: { detail?: T });
  readonly detail: T;
}
type EventListener = ((event: any) => void) | { handleEvent(event: any): void } | null;
declare class EventTarget {
  addEventListener(type: string, listener: EventListener, options?: boolean | { once?: boolean; capture?: boolean; signal?: AbortSignal }): void;
  removeEventListener(type: string, listener: EventListener, options?: boolean | { capture?: boolean }): void;
  dispatchEvent(event: Event): boolean;
}
declare class AbortSignal extends EventTarget {
  static abort(reason?: any): AbortSignal;
  static timeout(ms: number): AbortSignal;
  static any(signals: Iterable<AbortSignal>): AbortSignal;
  readonly aborted: boolean;
  readonly reason: any;
  onabort: ((event: Event) => void) | null;
  throwIfAborted(): void;
}
declare class AbortController {
  readonly signal: AbortSignal;
  abort(reason?: any): void;
}
declare var crypto: {
  /** Seeded from the reading's place in the journal: no source of secrets. */
  randomUUID(): string;
  getRandomValues<T extends ArrayBufferView>(values: T): T;
};

// ---- slow work: done by the node, awaited here (docs/handlers.md)

declare class Headers implements Iterable<[string, string]> {
  constructor(init?: Headers | Iterable<readonly [string, string]> | Record<string, string> | null);
  append(name: string, value: string): void;
  set(name: string, value: string): void;
  get(name: string): string | null;
  has(name: string): boolean;
  delete(name: string): void;
  getSetCookie(): string[];
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  forEach(each: (value: string, name: string, headers: Headers) => void): void;
  [Symbol.iterator](): IterableIterator<[string, string]>;
}
declare class TidegateBody {
  readonly bodyUsed: boolean;
  text(): Promise<string>;
  json(): Promise<any>;
  bytes(): Promise<Uint8Array>;
  arrayBuffer(): Promise<ArrayBuffer>;
}
type BodyInit = string | URLSearchParams | ArrayBufferView | ArrayBuffer | null;
interface RequestInit {
  method?: string;
  headers?: Headers | Iterable<readonly [string, string]> | Record<string, string>;
  body?: BodyInit;
  redirect?: "follow" | "error" | "manual";
  signal?: AbortSignal | null;
}
declare class Request extends TidegateBody {
  constructor(input: string | URL | Request, options?: RequestInit);
  readonly url: string;
  readonly method: string;
  readonly headers: Headers;
  readonly redirect: string;
  readonly signal: AbortSignal | null;
  clone(): Request;
}
declare class Response extends TidegateBody {
  constructor(body?: BodyInit, options?: { status?: number; statusText?: string; headers?: RequestInit["headers"] });
  static json(data: any, options?: { status?: number; statusText?: string; headers?: RequestInit["headers"] }): Response;
  static error(): Response;
  readonly status: number;
  readonly ok: boolean;
  readonly statusText: string;
  readonly headers: Headers;
  readonly url: string;
  readonly redirected: boolean;
  readonly type: string;
  clone(): Response;
}
/** Only to the hosts of the setting `scripts.fetch_allow`. */
declare function fetch(input: string | URL | Request, options?: RequestInit): Promise<Response>;

// ---- CommonJS

declare var module: { exports: any; readonly id: string; readonly filename: string; readonly loaded: boolean };
declare var exports: any;
declare var __filename: string;
declare var __dirname: string;
interface NodeRequire {
  (id: string): any;
  resolve(id: string): string;
  cache: Record<string, any>;
}
declare var require: NodeRequire;
interface ImportMeta {
  readonly url: string;
  readonly filename: string;
  readonly dirname: string;
  resolve(specifier: string): string;
}

// ---- modules of Node.js

declare module "node:crypto" {
  type Data = string | ArrayBufferView;
  interface Hash {
    update(data: Data, encoding?: BufferEncoding): this;
    digest(): Buffer;
    digest(encoding: BufferEncoding): string;
    copy(): Hash;
  }
  interface Hmac {
    update(data: Data, encoding?: BufferEncoding): this;
    digest(): Buffer;
    digest(encoding: BufferEncoding): string;
  }
  type Derived = (error: Error | null, key: Buffer) => void;
  interface ScryptOptions { N?: number; r?: number; p?: number; cost?: number; blockSize?: number; parallelization?: number; maxmem?: number }
  export function createHash(algorithm: string): Hash;
  export function createHmac(algorithm: string, key: Data): Hmac;
  export function getHashes(): string[];
  export function pbkdf2(password: Data, salt: Data, iterations: number, keylen: number, digest: string, callback: Derived): void;
  export function pbkdf2Sync(password: Data, salt: Data, iterations: number, keylen: number, digest: string): Buffer;
  export function scrypt(password: Data, salt: Data, keylen: number, callback: Derived): void;
  export function scrypt(password: Data, salt: Data, keylen: number, options: ScryptOptions, callback: Derived): void;
  /** Seeded from the reading's place in the journal, as all that is random here: no source of secrets. */
  export function randomBytes(size: number): Buffer;
  export function randomBytes(size: number, callback: (error: Error | null, bytes: Buffer) => void): void;
  export function randomInt(max: number): number;
  export function randomInt(min: number, max: number): number;
  export function timingSafeEqual(a: ArrayBufferView, b: ArrayBufferView): boolean;
  export function randomUUID(): string;
  export function getRandomValues<T extends ArrayBufferView>(values: T): T;
  export const webcrypto: typeof crypto;
}
declare module "crypto" { export * from "node:crypto"; }
declare module "node:zlib" {
  type Input = string | ArrayBufferView | ArrayBuffer;
  interface Options { level?: number; params?: Record<number, number> }
  interface Later {
    (input: Input, callback: (error: Error | null, out: Buffer) => void): void;
    (input: Input, options: Options, callback: (error: Error | null, out: Buffer) => void): void;
  }
  type Now = (input: Input, options?: Options) => Buffer;
  export const gzip: Later, gunzip: Later, deflate: Later, inflate: Later, deflateRaw: Later, inflateRaw: Later, unzip: Later;
  export const brotliCompress: Later, brotliDecompress: Later;
  export const gzipSync: Now, gunzipSync: Now, deflateSync: Now, inflateSync: Now, deflateRawSync: Now, inflateRawSync: Now, unzipSync: Now;
  export const brotliCompressSync: Now, brotliDecompressSync: Now;
  export const constants: Readonly<Record<string, number>>;
  const all: {
    gzip: Later; gunzip: Later; deflate: Later; inflate: Later; deflateRaw: Later; inflateRaw: Later; unzip: Later; brotliCompress: Later; brotliDecompress: Later;
    gzipSync: Now; gunzipSync: Now; deflateSync: Now; inflateSync: Now; deflateRawSync: Now; inflateRawSync: Now; unzipSync: Now; brotliCompressSync: Now; brotliDecompressSync: Now;
    constants: Readonly<Record<string, number>>;
  };
  export default all;
}
declare module "zlib" { export * from "node:zlib"; export { default } from "node:zlib"; }
declare module "node:fs/promises" {
  type Encoded = BufferEncoding | { encoding: BufferEncoding };
  interface Stats {
    readonly mode: number; readonly size: number; readonly mtimeMs: number; readonly mtime: Date;
    isFile(): boolean; isDirectory(): boolean; isSymbolicLink(): boolean;
  }
  interface Dirent { readonly name: string; readonly parentPath: string; isFile(): boolean; isDirectory(): boolean; isSymbolicLink(): boolean }
  type WriteOptions = BufferEncoding | { encoding?: BufferEncoding; flag?: string };
  /** In the handler's own directory; paths lead nowhere else. */
  export function readFile(path: string): Promise<Buffer>;
  export function readFile(path: string, options: Encoded): Promise<string>;
  export function writeFile(path: string, data: string | ArrayBufferView, options?: WriteOptions): Promise<void>;
  export function appendFile(path: string, data: string | ArrayBufferView, options?: WriteOptions): Promise<void>;
  export function readdir(path: string): Promise<string[]>;
  export function readdir(path: string, options: { withFileTypes: true }): Promise<Dirent[]>;
  export function stat(path: string): Promise<Stats>;
  export function lstat(path: string): Promise<Stats>;
  export function access(path: string): Promise<void>;
  export function mkdir(path: string, options?: { recursive?: boolean }): Promise<void>;
  export function rm(path: string, options?: { recursive?: boolean; force?: boolean }): Promise<void>;
  export function rmdir(path: string): Promise<void>;
  export function unlink(path: string): Promise<void>;
  export function rename(path: string, to: string): Promise<void>;
  const all: {
    readFile: typeof readFile; writeFile: typeof writeFile; appendFile: typeof appendFile; readdir: typeof readdir; stat: typeof stat; lstat: typeof lstat;
    access: typeof access; mkdir: typeof mkdir; rm: typeof rm; rmdir: typeof rmdir; unlink: typeof unlink; rename: typeof rename;
  };
  export default all;
}
declare module "fs/promises" { export * from "node:fs/promises"; export { default } from "node:fs/promises"; }
declare module "node:fs" { export * as promises from "node:fs/promises"; }
declare module "fs" { export * from "node:fs"; }
declare module "node:dns/promises" {
  interface Found { address: string; family: 4 | 6 }
  export function lookup(hostname: string, options?: 0 | 4 | 6 | { family?: 0 | 4 | 6; all?: false }): Promise<Found>;
  export function lookup(hostname: string, options: { family?: 0 | 4 | 6; all: true }): Promise<Found[]>;
}
declare module "dns/promises" { export * from "node:dns/promises"; }
declare module "node:dns" {
  export function lookup(hostname: string, callback: (error: Error | null, address: string, family: number) => void): void;
  export * as promises from "node:dns/promises";
}
declare module "dns" { export * from "node:dns"; }
declare module "node:util" {
  export function inspect(value: any, options?: InspectOptions): string;
  export namespace inspect {
    const custom: unique symbol;
    const defaultOptions: InspectOptions;
  }
  export function format(...values: any[]): string;
  export function formatWithOptions(options: InspectOptions, ...values: any[]): string;
  export function isDeepStrictEqual(a: unknown, b: unknown): boolean;
  export function inherits(child: Function, parent: Function): void;
  export function deprecate<F extends Function>(f: F, message: string, code?: string): F;
  export function promisify(f: Function): (...args: any[]) => Promise<any>;
  export function callbackify(f: (...args: any[]) => Promise<any>): (...args: any[]) => void;
  export function stripVTControlCharacters(text: string): string;
  export function toUSVString(text: string): string;
  export const types: Record<`is${string}`, (value: unknown) => boolean>;
  const encoder: typeof TextEncoder, decoder: typeof TextDecoder;
  export { encoder as TextEncoder, decoder as TextDecoder };
}
declare module "util" { export * from "node:util"; }
declare module "node:path" {
  interface ParsedPath { root: string; dir: string; base: string; ext: string; name: string }
  interface Path {
    readonly sep: "/";
    readonly delimiter: ":";
    readonly posix: Path;
    resolve(...paths: string[]): string;
    normalize(path: string): string;
    isAbsolute(path: string): boolean;
    join(...paths: string[]): string;
    relative(from: string, to: string): string;
    dirname(path: string): string;
    basename(path: string, suffix?: string): string;
    extname(path: string): string;
    format(path: Partial<ParsedPath>): string;
    parse(path: string): ParsedPath;
  }
  const path: Path;
  export default path;
  export const resolve: Path["resolve"], normalize: Path["normalize"], isAbsolute: Path["isAbsolute"], join: Path["join"], relative: Path["relative"];
  export const dirname: Path["dirname"], basename: Path["basename"], extname: Path["extname"], format: Path["format"], parse: Path["parse"];
  export const sep: "/", delimiter: ":", posix: Path;
}
declare module "path" { export * from "node:path"; export { default } from "node:path"; }
declare module "node:events" {
  type Listener = (...args: any[]) => void;
  class EventEmitter {
    constructor(options?: { captureRejections?: boolean });
    static readonly EventEmitter: typeof EventEmitter;
    static defaultMaxListeners: number;
    static readonly errorMonitor: unique symbol;
    static once(emitter: EventEmitter | EventTarget, event: string | symbol, options?: { signal?: AbortSignal }): Promise<any[]>;
    static on(emitter: EventEmitter, event: string | symbol, options?: { signal?: AbortSignal }): AsyncIterableIterator<any[]>;
    on(event: string | symbol, listener: Listener): this;
    once(event: string | symbol, listener: Listener): this;
    off(event: string | symbol, listener: Listener): this;
    addListener(event: string | symbol, listener: Listener): this;
    removeListener(event: string | symbol, listener: Listener): this;
    removeAllListeners(event?: string | symbol): this;
    prependListener(event: string | symbol, listener: Listener): this;
    prependOnceListener(event: string | symbol, listener: Listener): this;
    emit(event: string | symbol, ...args: any[]): boolean;
    listeners(event: string | symbol): Function[];
    rawListeners(event: string | symbol): Function[];
    listenerCount(event: string | symbol, listener?: Function): number;
    eventNames(): (string | symbol)[];
    getMaxListeners(): number;
    setMaxListeners(n: number): this;
  }
  export default EventEmitter;
  export { EventEmitter };
  export const once: typeof EventEmitter.once, on: typeof EventEmitter.on, errorMonitor: typeof EventEmitter.errorMonitor;
}
declare module "events" { export * from "node:events"; export { default } from "node:events"; }
declare module "node:worker_threads" {
  import { EventEmitter } from "node:events";
  /** A file of the handlers that runs in a process of its own, once and by itself. */
  export class Worker extends EventEmitter {
    /** The file: from the one that asks (`./fft.task.js`), or as a `file:` URL. */
    constructor(filename: string | URL, options?: { workerData?: any; name?: string });
    /** Its number among those of its call; -1 once it is over. */
    readonly threadId: number;
    readonly resourceLimits: {};
    /** Only in the turn in which the Worker is made: then it begins. */
    postMessage(value: any): void;
    /** Ends it; gives its exit code. */
    terminate(): Promise<number | undefined>;
    ref(): this;
    unref(): this;
    on(event: "message", listener: (value: any) => void): this;
    on(event: "error", listener: (error: any) => void): this;
    on(event: "exit", listener: (code: number) => void): this;
    on(event: "online", listener: () => void): this;
    on(event: string | symbol, listener: (...args: any[]) => void): this;
    once(event: "message", listener: (value: any) => void): this;
    once(event: "error", listener: (error: any) => void): this;
    once(event: "exit", listener: (code: number) => void): this;
    once(event: "online", listener: () => void): this;
    once(event: string | symbol, listener: (...args: any[]) => void): this;
  }
  /** A task's end of the line to its call. */
  interface ParentPort extends EventEmitter {
    postMessage(value: any): void;
    start(): void;
    close(): void;
    ref(): void;
    unref(): void;
    onmessage: ((event: { data: any }) => void) | null;
    addEventListener(event: string, listener: (event: { data: any }) => void, options?: { once?: boolean }): void;
    removeEventListener(event: string, listener: (event: { data: any }) => void): void;
  }
  export const isMainThread: boolean;
  /** In a handler null. */
  export const parentPort: ParentPort | null;
  /** In a handler null. */
  export const workerData: any;
  /** In a handler 0. */
  export const threadId: number;
  export const resourceLimits: {};
  export const SHARE_ENV: unique symbol;
  export function receiveMessageOnPort(port: ParentPort): { message: any } | undefined;
  export function markAsUntransferable(value: any): void;
}
declare module "worker_threads" { export * from "node:worker_threads"; }
declare module "node:querystring" {
  export function parse(text: string, separator?: string | null, equals?: string | null, options?: { maxKeys?: number; decodeURIComponent?: (text: string) => string }): Record<string, string | string[]>;
  export function stringify(of: Record<string, any>, separator?: string | null, equals?: string | null, options?: { encodeURIComponent?: (text: string) => string }): string;
  export function escape(text: string): string;
  export function unescape(text: string): string;
  export const encode: typeof stringify, decode: typeof parse;
}
declare module "querystring" { export * from "node:querystring"; }
declare module "node:string_decoder" {
  export class StringDecoder {
    constructor(encoding?: BufferEncoding);
    readonly encoding: string;
    write(bytes: Uint8Array | string): string;
    end(bytes?: Uint8Array): string;
  }
}
declare module "string_decoder" { export * from "node:string_decoder"; }
declare module "node:timers/promises" {
  export function setTimeout<T = void>(ms?: number, value?: T, options?: { signal?: AbortSignal; ref?: boolean }): Promise<T>;
  export function setImmediate<T = void>(value?: T, options?: { signal?: AbortSignal; ref?: boolean }): Promise<T>;
  export function setInterval<T = void>(ms?: number, value?: T, options?: { signal?: AbortSignal; ref?: boolean }): AsyncIterable<T>;
  export const scheduler: { wait(ms: number, options?: { signal?: AbortSignal }): Promise<void>; yield(): Promise<void> };
}
declare module "timers/promises" { export * from "node:timers/promises"; }
declare module "node:assert" {
  type Thrown = RegExp | (new (...args: any[]) => any) | ((error: any) => boolean) | object | Error;
  class AssertionError extends Error {
    constructor(options: { message?: string; actual?: unknown; expected?: unknown; operator?: string });
    readonly code: "ERR_ASSERTION";
    actual: unknown;
    expected: unknown;
    operator: string;
    generatedMessage: boolean;
  }
  interface Assert {
    (value: unknown, message?: string | Error): asserts value;
    ok(value: unknown, message?: string | Error): asserts value;
    fail(message?: string | Error): never;
    equal(actual: unknown, expected: unknown, message?: string | Error): void;
    notEqual(actual: unknown, expected: unknown, message?: string | Error): void;
    strictEqual<T>(actual: unknown, expected: T, message?: string | Error): asserts actual is T;
    notStrictEqual(actual: unknown, expected: unknown, message?: string | Error): void;
    deepEqual(actual: unknown, expected: unknown, message?: string | Error): void;
    notDeepEqual(actual: unknown, expected: unknown, message?: string | Error): void;
    deepStrictEqual<T>(actual: unknown, expected: T, message?: string | Error): asserts actual is T;
    notDeepStrictEqual(actual: unknown, expected: unknown, message?: string | Error): void;
    throws(f: () => unknown, expected?: Thrown | string, message?: string | Error): void;
    doesNotThrow(f: () => unknown, expected?: Thrown | string, message?: string | Error): void;
    rejects(promise: Promise<unknown> | (() => Promise<unknown>), expected?: Thrown | string, message?: string | Error): Promise<void>;
    doesNotReject(promise: Promise<unknown> | (() => Promise<unknown>), expected?: Thrown | string, message?: string | Error): Promise<void>;
    match(text: string, pattern: RegExp, message?: string | Error): void;
    doesNotMatch(text: string, pattern: RegExp, message?: string | Error): void;
    ifError(error: unknown): asserts error is null | undefined;
    AssertionError: typeof AssertionError;
    strict: Assert;
  }
  const assert: Assert;
  export default assert;
  export const strict: Assert;
  export { AssertionError };
  export const ok: Assert["ok"], fail: Assert["fail"], equal: Assert["equal"], notEqual: Assert["notEqual"], strictEqual: Assert["strictEqual"], notStrictEqual: Assert["notStrictEqual"];
  export const deepEqual: Assert["deepEqual"], notDeepEqual: Assert["notDeepEqual"], deepStrictEqual: Assert["deepStrictEqual"], notDeepStrictEqual: Assert["notDeepStrictEqual"];
  export const throws: Assert["throws"], doesNotThrow: Assert["doesNotThrow"], rejects: Assert["rejects"], doesNotReject: Assert["doesNotReject"], match: Assert["match"], doesNotMatch: Assert["doesNotMatch"], ifError: Assert["ifError"];
}
declare module "node:assert/strict" { export * from "node:assert"; import { strict } from "node:assert"; export default strict; }
declare module "assert" { export * from "node:assert"; export { default } from "node:assert"; }
declare module "assert/strict" { export * from "node:assert"; import { strict } from "node:assert"; export default strict; }
declare module "node:test" {
  interface TestOptions { skip?: boolean | string; todo?: boolean | string; only?: boolean; timeout?: number }
  interface MockCall { arguments: any[]; result: any; error: any; this: any; target: any }
  interface MockContext {
    readonly calls: MockCall[];
    callCount(): number;
    mockImplementation(f: Function): void;
    mockImplementationOnce(f: Function, at?: number): void;
    resetCalls(): void;
    restore(): void;
  }
  type Mocked<F> = F & { mock: MockContext };
  interface MockTracker {
    fn<F extends (...args: any[]) => any = (...args: any[]) => any>(original?: F, implementation?: (...args: any[]) => any): Mocked<F>;
    method<T extends object, K extends keyof T>(object: T, name: K, implementation?: (...args: any[]) => any): Mocked<T[K]>;
    getter(object: object, name: string, implementation?: () => any): Mocked<() => any>;
    setter(object: object, name: string, implementation?: (value: any) => void): Mocked<(value: any) => void>;
    restoreAll(): void;
    reset(): void;
  }
  interface TestContext {
    readonly name: string;
    readonly fullName: string;
    readonly signal: AbortSignal;
    readonly mock: MockTracker;
    diagnostic(text: string): void;
    skip(why?: string): void;
    todo(why?: string): void;
    after(f: Hook): void;
    beforeEach(f: Hook): void;
    afterEach(f: Hook): void;
    test(name: string, f: TestFunction): Promise<void>;
    test(name: string, options: TestOptions, f: TestFunction): Promise<void>;
  }
  type TestFunction = (t: TestContext, done: (error?: unknown) => void) => void | Promise<void>;
  type Hook = TestFunction;
  interface Test {
    (name: string, f?: TestFunction): Promise<void>;
    (name: string, options: TestOptions, f?: TestFunction): Promise<void>;
    (f: TestFunction): Promise<void>;
  }
  interface Suite {
    (name: string, f: () => void): Promise<void>;
    (name: string, options: TestOptions, f: () => void): Promise<void>;
  }
  type WithMarks<T> = T & { skip: T; todo: T; only: T };
  export const test: WithMarks<Test>, it: WithMarks<Test>, describe: WithMarks<Suite>, suite: WithMarks<Suite>;
  export function before(f: Hook): void;
  export function after(f: Hook): void;
  export function beforeEach(f: Hook): void;
  export function afterEach(f: Hook): void;
  export const mock: MockTracker;
  export default test;
}
declare module "tidegate:test" {
  /** What came of a reading. */
  interface TestResult<State = any> {
    /** `conflated`: it was late, and a newer state stays. */
    readonly outcome: "committed" | "conflated" | "dropped" | "parked";
    /** The device's state after it; `null`: it has none yet. */
    readonly state: State;
    readonly emitted: readonly { name: string; payload: any }[];
    readonly commands: readonly { id: string; deviceId: string; name: string; params: any }[];
    readonly logs: readonly { level: "debug" | "info" | "warn" | "error"; handler: string; text: string }[];
    readonly parked: null | {
      reason: "threw" | "deadline" | "memory" | "crashed" | "bad-result";
      handler: string;
      message: string;
      file: string;
      line: number | null;
      column: number | null;
    };
    readonly droppedBy: string | null;
    /** The handlers that it was for. */
    readonly handlers: readonly string[];
    readonly receivedTime: number;
    /** `ctx.state` by handler. */
    readonly ctxStates: Readonly<Record<string, any>>;
    /** How long its handlers waited, in virtual milliseconds. */
    readonly waited: number;
  }
  interface SendOptions {
    /** The device's own time. */
    ts?: number | Date;
    channel?: "metrics" | "telemetry";
  }
  /** A device that has never reported. Its state is kept from one reading to the next. */
  interface TestDevice<State = any> {
    readonly id: string;
    readonly state: State | null;
    ctxState(handler?: string): any;
    /** Through the handlers, as a node would; a text is sent as JSON as it is. */
    send(metric: object | string, options?: SendOptions): Promise<TestResult<State>>;
  }
  type Duration = number | `${number}${"ms" | "s" | "m" | "min" | "h" | "d"}`;
  export function device<State = any>(id: string, options?: { handler?: string }): TestDevice<State>;
  export function send<State = any>(id: string, metric: object | string, options?: SendOptions): Promise<TestResult<State>>;
  export const clock: {
    now(): number;
    advance(by: Duration): Promise<void>;
    set(time: number | string | Date): Promise<void>;
  };
}
