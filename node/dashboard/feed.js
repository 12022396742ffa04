// Owns one WebSocket to the node: connecting, backing off, parsing, counting what does not parse.
// Knows no view and no device; it hands checked messages on.

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 15000;

export class Feed {
  /**
   * `path` as `/ws?deviceId=d1`. `on` has any of: hello(message), state(message, live), event(message), synced(), status(feed).
   * `live` is false while the snapshot comes in.
   */
  constructor(path, on) {
    this.path = path;
    this.on = on;
    this.status = 'connecting'; // connecting → syncing → live; on a loss: reconnecting
    this.since = Date.now();
    this.malformed = 0;
    this.messages = 0;
    this.retryAt = 0;
    this.attempts = 0;
    this.closed = false;
    this.online = () => { if (this.status === 'reconnecting') this.restart(); };
    addEventListener('online', this.online);
    this.open();
  }

  /** Ends the feed for good. */
  close() {
    this.closed = true;
    clearTimeout(this.timer);
    removeEventListener('online', this.online);
    this.drop();
  }

  /** Connects anew at once: the network came back, or the node stopped answering elsewhere. */
  restart() {
    clearTimeout(this.timer);
    this.drop();
    this.attempts = 0;
    if (this.status !== 'reconnecting') this.become('reconnecting');
    this.open();
  }

  open() {
    if (this.closed) return;
    const address = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${this.path}`;
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.onmessage = (message) => this.receive(message.data);
    socket.onclose = () => this.lost();
    // An error is always followed by a close, which has the handling.
    socket.onerror = null;
  }

  receive(text) {
    this.messages += 1;
    let message = null;
    try { message = JSON.parse(text); } catch { /* counted below */ }
    const type = message?.type;
    if (type === 'state' && isState(message)) this.on.state?.(message, this.status === 'live');
    else if (type === 'event' && isEvent(message)) this.on.event?.(message);
    else if (type === 'hello') { this.attempts = 0; this.become('syncing'); this.on.hello?.(message); }
    else if (type === 'synced') { this.become('live'); this.on.synced?.(); }
    // Types that this page does not know are a newer node's; only broken ones are counted.
    else if (typeof type !== 'string' || type === 'state' || type === 'event') { this.malformed += 1; this.on.status?.(this); }
  }

  lost() {
    if (this.closed) return;
    if (this.status !== 'reconnecting') this.become('reconnecting');
    // Jitter keeps a hundred open dashboards from coming back in the same instant.
    const wait = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 1.8 ** this.attempts) * (0.75 + Math.random() / 2);
    this.attempts += 1;
    this.retryAt = Date.now() + wait;
    this.timer = setTimeout(() => this.open(), wait);
  }

  drop() {
    if (!this.socket) return;
    this.socket.onclose = null;
    this.socket.onmessage = null;
    this.socket.close();
    this.socket = null;
  }

  become(status) {
    if (this.status === status) return;
    // Between losing the node and being live again, `since` stays at the moment of the loss.
    if (!(this.status === 'reconnecting' && status === 'syncing')) this.since = Date.now();
    this.status = status;
    this.on.status?.(this);
  }
}

const isState = (m) => typeof m.deviceId === 'string' && m.state !== null && typeof m.state === 'object'
  && !Array.isArray(m.state) && Number.isFinite(m.version) && Number.isFinite(m.receivedTime);
const isEvent = (m) => typeof m.deviceId === 'string' && typeof m.name === 'string';
