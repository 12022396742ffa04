// What a handler of Tidegate is given and what it exports (docs/handlers.md). In TypeScript:
//   import type { Handler } from "./tidegate";
// In JavaScript:
//   /** @type {import("./tidegate").OnMetric} */
// The globals of a worker, its `node:` modules and `tidegate:test` are declared in tidegate-worker.d.ts.

/** The fields of an object of JSON. */
export type Fields = Record<string, any>;

/** A reading: its JSON object, with the device and its time in front. */
export type Metric<Reading extends object = Fields> = {
  /** The device that reported it. */
  deviceId: string;
  /** The device's own time in milliseconds, or else the time of arrival. */
  ts: number;
} & Reading;

/** Which readings a handler wants. A list that is absent matches everything; both must match. */
export interface Match {
  /** Globs of device ids: `*` stands for any characters, `?` for one. */
  devices?: readonly string[];
  /** MQTT topic filters: `+`, `#`. */
  topics?: readonly string[];
}

/** The call under way. One frozen object for all calls: do not keep it for another one. */
export interface Context<State extends object = Fields, Kept extends object = Fields> {
  /** This script's own for this device, `{}` at first. Durable; change it or assign a new object. */
  state: State;
  /** The device's state before this reading. A late reading never becomes it. */
  readonly previous: Readonly<Kept> | null;
  /** When the node received the reading, in milliseconds. It stands still. */
  readonly now: number;
  readonly deviceId: string;
  readonly topic: string;
  /** Sends an event to dashboards and subscribers; at most 100 a call. Sent only if every handler succeeds. */
  emit(name: string, payload?: unknown): void;
  /** Sends a command to a device once the reading's outcome is durable; gives back its id. At most 20 a call. */
  command(deviceId: string, name: string, params?: unknown): string;
  /** A line in the node's log; at most 20 a call. */
  log(...values: unknown[]): void;
}

/** An object becomes the device's state; nothing keeps the reading as it came in; `null` drops it. Anything else parks it. */
export type Result = { [field: string]: unknown; then?: never } | (object & { then?: never }) | null | undefined | void;

/** Something that happened to a device. */
export type DeviceEvent<Content extends object = {}> = {
  deviceId: string;
  /** When the node knew of it, in milliseconds. */
  ts: number;
} & Content;

/** A command that is over, as it is shown over HTTP. */
export interface CommandReply {
  request: string;
  name: string;
  params: any;
  status: "sent" | "delivered" | "replied" | "expired" | "failed" | "cancelled";
  /** What the device answered. */
  reply?: any;
  /** Why it ended without a reply. */
  reason?: string;
  oneway: boolean;
  timeoutMs: number;
  expiryMs: number;
  createdTime: number;
  sentTime: number | null;
  deliveredTime: number | null;
  endedTime: number;
  /** How often it was sent. */
  tries: number;
}

/** A timer that is due. */
export interface Tick {
  timer: string;
  everyMs: number;
  script: string;
}

/** Called for an event of a device. An object becomes the device's state; nothing leaves it as it is; `null` drops the event. */
export type OnEvent<Content extends object = {}, State extends object = Fields, Kept extends object = Fields> = (
  event: DeviceEvent<Content>,
  ctx: Context<State, Kept>,
) => Result | Promise<Result>;

/** A time: a number of milliseconds, or text like `"30s"`, `"5m"`, `"12h"`, `"1d"`. At least a second. */
export type Every = number | `${number}${"ms" | "s" | "m" | "h" | "d"}`;

/** When `onTimer` is called, and on which device: by default on one of the script's own. At most 16. */
export type Timers = Readonly<Record<string, Every | { every: Every; device?: string }>>;

/** Called for each reading that matches. */
export type OnMetric<Reading extends object = Fields, State extends object = Fields, Kept extends object = Fields> = (
  metric: Metric<Reading>,
  ctx: Context<State, Kept>,
) => Result | Promise<Result>;

/** What the file of a handler exports: at least one of the functions. */
export interface Handler<Reading extends object = Fields, State extends object = Fields, Kept extends object = Fields> {
  onMetric?: OnMetric<Reading, State, Kept>;
  /** The device's first connection of its own is there. */
  onConnect?: OnEvent<{}, State, Kept>;
  /** Its last one has gone. */
  onDisconnect?: OnEvent<{}, State, Kept>;
  /** A command to the device is over. */
  onCommandReply?: OnEvent<CommandReply, State, Kept>;
  /** A timer is due. */
  onTimer?: OnEvent<Tick, State, Kept>;
  timers?: Timers;
  /** Its readings go before those that only others want. */
  priority?: "high" | "normal";
  match?: Match;
  /** Called when a worker has loaded the handler, with its configuration (`config.json`, `NAME.config.json`); awaited for up to 2 s. */
  initialize?(config: any): void | Promise<void>;
  /** Called before a worker ends in good order; awaited for up to 200 ms. */
  dispose?(): void | Promise<void>;
}
