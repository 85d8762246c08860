// The client of the live queue. Owns the socket and everything that keeps its state right: resume, gap detection,
// resync, authentication, pings, reconnection, and commands. It renders nothing and depends on no page.
//
//   const client = new QueueClient({ performerId: "aria", token });
//   client.addEventListener("change", (event) => draw(event.detail.state));
//   client.connect();
//
// Events: "change" {state, previous, events, frame} · "connection" {status, …} · "recovered" {before, after} ·
// "position" (frame) · "notice" (frame) · "pending" {commands} · "problem" (a QueueError without a command; its `hint`
// is for the developer of the page).

import { hintFor, whyRefused } from "./lib/hints.js";
import { post, request } from "./lib/http.js";
import { QueueError, claims, isActive, itemPath, newId } from "./lib/protocol.js";
import { onStage, stageSeconds } from "./lib/stage.js";

export { QueueError, isActive };

const PROTOCOL = "performance-queue.v1";
const BEARER = "bearer.";
/** The characters of a subprotocol, and the longest one that the service accepts. */
const FITS = /^[\w.-]{1,800}$/;
const COMMAND_TIMEOUT_MS = 15_000;
const OPEN_TIMEOUT_MS = 10_000;
const PONG_TIMEOUT_MS = 8_000;
const WAKE_PONG_MS = 800;
const SLEPT_MS = 180_000;
const RESYNC_TIMEOUT_MS = 4_000;
const AFTER_AUTH_MS = 1_000;
const NO_WELCOME_MS = 3_000;
const REFRESH_EARLY_MS = 30_000;
const WAKING = ["online", "offline", "pageshow", "visibilitychange"];
const REFUSALS_BEFORE_ASKING = 2;
const LONGEST_TIMER_MS = 2_000_000_000;

export const emptyState = Object.freeze({
  epoch: null,
  version: null,
  serverTime: null,
  room: null,
  items: Object.freeze([]),
  mine: Object.freeze([]),
  behind: false,
});

/** The served order: the started item, then arrival, ties by id. Numbers positions; unchanged items keep identity. */
export function orderItems(items) {
  const rank = (item) => (item.status === "started" ? 0 : 1);
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return [...items]
    .sort((a, b) => rank(a) - rank(b) || compare(a.createdAt, b.createdAt) || compare(a.itemId, b.itemId))
    .map((item, index) => (item.position === index + 1 ? item : { ...item, position: index + 1 }));
}

/** The next state after a frame. Pure. `behind` in the result: a snapshot is needed. */
export function reduce(state, frame) {
  if (frame.type === "snapshot") {
    const items = orderItems(frame.items.filter(isActive));
    return {
      epoch: frame.epoch,
      version: frame.version,
      serverTime: frame.serverTime,
      room: frame.room,
      items,
      mine: (frame.mine ?? []).map((entry) => stamped(entry, items, frame)),
      behind: false,
    };
  }
  if (frame.type === "update") {
    if (state.version !== null && frame.version <= state.version) return state;
    // `from` may be older than our version: the server sends no update without events for this client, and the next
    // one reaches back over it. Each event holds its whole item, so applying one again changes nothing.
    if (state.version === null || frame.from > state.version) return { ...state, behind: true };
    const items = new Map(state.items.map((item) => [item.itemId, item]));
    for (const { item } of frame.events) {
      if (!item) continue;
      if (isActive(item)) items.set(item.itemId, item);
      else items.delete(item.itemId);
    }
    return {
      ...state,
      version: frame.version,
      serverTime: frame.serverTime,
      // `frame.room` is there only if a field other than these two has changed.
      room: { ...(frame.room ?? state.room), depth: items.size, version: frame.version },
      items: orderItems([...items.values()]),
      mine: state.mine.filter((entry) => items.has(entry.itemId)),
    };
  }
  if (frame.type === "position") {
    const others = state.mine.filter((entry) => entry.itemId !== frame.itemId);
    return { ...state, mine: isActive(frame) ? [...others, stamped(frame, state.items, frame)] : others };
  }
  return state;
}

/** An own item's entry with the stage's time in service when its wait was sent: the wait counts down from there. */
function stamped({ type, receivedAt, ...entry }, items, frame) {
  const current = onStage(items);
  const sentAt = frame.receivedAt ?? Date.parse(frame.serverTime);
  return { ...entry, stage: current && { itemId: current.itemId, seconds: stageSeconds(current, sentAt) } };
}

export class QueueClient extends EventTarget {
  #socket = null;
  #timers = new Map();
  #pending = new Map();
  #failures = 0;
  #refusals = 0;
  #ping = 20;
  #retry = [0.5, 3];
  #authenticated = false;
  #heard = 0;
  #pingSentAt = 0;
  #roundTrip = 0;
  #offset = null;
  #before = null;
  #wanted = false;
  #refreshing = false;
  #ticker = null;
  #lastTick = 0;
  #isReady;
  #wake = ({ type, persisted }) => {
    const idle =
      type === "pageshow" ? !persisted : type === "visibilitychange" && document.visibilityState === "hidden";
    if (!idle) this.check();
  };

  /**
   * `refreshToken` is an async function that returns a fresh token (or null). It is called shortly before the token
   * expires, and when the server closes the connection because it has expired.
   */
  constructor({ performerId, token = null, server = location.origin, refreshToken = null }) {
    super();
    this.performerId = performerId;
    this.server = server;
    this.token = token;
    this.refreshToken = refreshToken;
    this.state = emptyState;
    this.identity = { role: null, sub: null };
    /** Resolves with the first state. */
    this.ready = new Promise((resolve) => (this.#isReady = resolve));
    /** The reason why no connection is possible until a setting changes: a QueueError, or null. */
    this.problem = null;
    /**
     * status: idle, connecting, live, reconnecting, stopped. `asOf`: when the state was last known to be right,
     * `lostAt`: when the loss of the connection was noticed; both in ms on this device's clock. `code`: its close code.
     */
    this.connection = { status: "idle", asOf: null, lostAt: null, code: null };
  }

  connect() {
    if (this.#wanted) return;
    this.#wanted = true;
    // Outside a page, as in Node, these events do not exist.
    for (const name of WAKING) globalThis.addEventListener?.(name, this.#wake);
    this.#lastTick = Date.now();
    this.#ticker = setInterval(() => this.#tick(), 1_000);
    this.#announce({ status: "connecting" });
    this.#open();
  }

  /** Closes the socket, and stops the timers and the listeners on the page's events. */
  close() {
    this.#wanted = false;
    for (const name of WAKING) globalThis.removeEventListener?.(name, this.#wake);
    clearInterval(this.#ticker);
    this.#drop();
    this.#settleAll(new QueueError("DISCONNECTED"));
    this.connection = { ...this.connection, status: "idle", code: null };
  }

  /** A new token for the running connection (null: be an anonymous viewer from the next connection on). */
  setToken(token) {
    const changed = token !== this.token;
    this.token = token;
    // A state that another person's token received must not be resumed.
    if ((claims(token).sub ?? null) !== this.identity.sub) this.state = { ...this.state, epoch: null };
    if (!changed || !this.#wanted) return;
    if (this.connection.status === "stopped") this.retry();
    else if (token && this.#socket?.readyState === WebSocket.OPEN) this.#authenticate();
    else this.#lost({ delay: 0 });
  }

  /** Connects again at once, after a stop or instead of waiting. */
  retry() {
    if (!this.#wanted) return;
    this.#failures = 0;
    this.#announce({ status: this.state.version === null ? "connecting" : "reconnecting", code: null });
    this.#open();
  }

  /** The server's clock, in milliseconds since 1970. */
  now() {
    return Date.now() + (this.#offset ?? 0);
  }

  /**
   * Sends a command, at once or as soon as there is a connection; resolves with the item (or null), rejects with a
   * QueueError: TIMEOUT if it was sent and no answer came, DISCONNECTED if it could not be sent. The id is the
   * idempotency key: a command whose answer was lost with the connection is sent again with the same id on the next.
   */
  command(type, fields = {}) {
    const { status } = this.connection;
    if (status === "idle" || status === "stopped") return Promise.reject(new QueueError("DISCONNECTED"));
    const id = newId();
    return new Promise((resolve, reject) => {
      const late = () => this.#settle(id, new QueueError(this.#pending.get(id).isSent ? "TIMEOUT" : "DISCONNECTED"));
      const timer = setTimeout(late, COMMAND_TIMEOUT_MS);
      this.#pending.set(id, { frame: { type, id, ...fields }, resolve, reject, timer, isSent: false });
      this.#emit("pending", { commands: this.pending });
      if (status === "live") this.#sendCommand(this.#pending.get(id));
    });
  }

  /** The commands that have no answer yet, oldest first: [{id, type, …}]. */
  get pending() {
    return [...this.#pending.values()].map(({ frame }) => frame);
  }

  /** An item that the token may read, over HTTP. */
  item(itemId) {
    return request(this.#origin, this.token, "GET", itemPath(itemId));
  }

  /** Cancels the viewer's own waiting item; resolves with the refunded item. */
  cancel(itemId) {
    return post(this.#origin, this.token, `${itemPath(itemId)}/refund`, { reason: "user_cancelled" });
  }

  /** Applies a position of an own item that was read over HTTP. */
  adopt(position) {
    if (this.connection.status === "live") this.#fold({ ...position, type: "position", receivedAt: this.now() });
  }

  resync() {
    this.#send({ type: "resync" });
    this.#arm("resync", RESYNC_TIMEOUT_MS, () => this.#lost());
  }

  /** Checks that the connection still works. Called when the device wakes, comes online or the page becomes visible. */
  check() {
    if (!this.#wanted || this.connection.status === "stopped") return;
    if (this.#socket?.readyState !== WebSocket.OPEN || Date.now() - this.#heard > SLEPT_MS) this.#lost({ delay: 0 });
    else this.#sendPing(Math.max(WAKE_PONG_MS, this.#roundTrip * 4));
  }

  get #origin() {
    return new URL(this.server).origin;
  }

  // The socket

  #open() {
    this.#drop();
    this.#authenticated = !this.token;
    const url = new URL(`/v1/performers/${encodeURIComponent(this.performerId)}/queue/live`, this.server);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (this.state.epoch !== null) {
      url.searchParams.set("epoch", this.state.epoch);
      url.searchParams.set("since", this.state.version);
    }
    let socket;
    try {
      // A token in the handshake saves a round trip, and the anonymous viewer's snapshot before it.
      socket = new WebSocket(url, FITS.test(this.token ?? "") ? [PROTOCOL, BEARER + this.token] : PROTOCOL);
    } catch {
      this.#stop(4501); // the address is not valid; another attempt would fail as well
      return;
    }
    this.#socket = socket;
    this.#arm("open", OPEN_TIMEOUT_MS, () => this.#lost());
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.#refusals = 0;
      this.#heard = Date.now();
      if (!this.token) return;
      // A service that does not read tokens from subprotocols sends nothing in a private room until an `auth` frame.
      if (FITS.test(this.token)) this.#arm("auth", NO_WELCOME_MS, () => this.#authenticate());
      else this.#authenticate();
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = (event) => {
      if (socket !== this.#socket) return;
      if (!opened) this.#refusedHandshake();
      this.#closed(event.code);
    };
  }

  /** Forgets the socket and every timer that belongs to it. */
  #drop() {
    for (const name of [...this.#timers.keys()]) this.#disarm(name);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #closed(code) {
    if (code >= 4500 && code <= 4999) {
      this.#stop(code);
    } else if (code === 4002) {
      this.#expired();
    } else {
      this.#lost({ code });
    }
  }

  /** Finds out why a handshake failed: browsers hide it from scripts, so it asks the service over HTTP. */
  async #refusedHandshake() {
    this.#refusals += 1;
    if (this.#refusals !== REFUSALS_BEFORE_ASKING) return;
    const problem = await whyRefused(this.#origin);
    if (!problem || !this.#refusals || !this.#wanted) return;
    this.problem = problem;
    this.#report(problem);
    this.#announce({});
  }

  /** Emits "problem", and writes it to the console for developers without a listener. */
  #report(problem) {
    if (problem.hint) console.warn(`performance-queue: ${problem.message} ${problem.hint}`);
    this.#emit("problem", problem);
  }

  async #expired() {
    this.#lost({ code: 4002, delay: null });
    if (await this.#refresh()) this.#open();
    else if (this.#wanted) this.#stop(4002);
  }

  #stop(code) {
    this.#drop();
    const error = new QueueError("DISCONNECTED", { detail: `The service closed the connection with ${code}.` });
    error.hint = hintFor(code, this.token !== null);
    this.#report(error);
    this.#announce({ status: "stopped", code, ...this.#last() });
    this.#settleAll(new QueueError("DISCONNECTED"));
  }

  /** `delay` in milliseconds; undefined: random, within the server's `retrySeconds`; null: the caller reconnects. */
  #lost({ code = null, delay } = {}) {
    this.#drop();
    if (!this.#wanted) return;
    const last = this.#last();
    this.#before ??= this.state.version === null ? null : this.state;
    this.#announce({ status: this.state.version === null ? "connecting" : "reconnecting", code, ...last });
    if (delay === null) return;
    if (delay === undefined) {
      const [least, most] = this.#retry;
      const patience = Math.min(1 + this.#failures / 4, 4) * (code === 1013 ? 2 : 1) * (this.problem ? 4 : 1);
      delay = (least + Math.random() * (most - least)) * patience * 1000;
      this.#failures += 1;
    }
    this.#arm("reconnect", delay, () => this.#open());
  }

  /** `asOf` and `lostAt` of a connection that ends now; unchanged if it was lost before. */
  #last() {
    const { status, asOf, lostAt } = this.connection;
    if (status !== "live") return { asOf, lostAt };
    return { asOf: this.#heard, lostAt: Date.now() };
  }

  #send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #sendCommand(command) {
    command.isSent = true;
    this.#send(command.frame);
  }

  #authenticate() {
    this.#authenticated = false;
    this.#send({ type: "auth", token: this.token });
  }

  #receive(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      this.#lost();
      return;
    }
    this.#heard = Date.now();
    if (frame.serverTime) this.#adjustClock(frame);
    frame.receivedAt = this.now();
    this.#disarm("pong");
    switch (frame.type) {
      case "welcome":
        return this.#welcome(frame);
      case "pong":
        return this.#pong(frame);
      case "ack":
        return this.#settle(frame.id, null, frame.item ?? null);
      case "error":
        return this.#refused(frame);
      case "snapshot":
      case "update":
      case "position":
        return this.#fold(frame);
      case "notice":
        return this.#emit("notice", frame);
    }
  }

  #welcome(frame) {
    this.#disarm("open");
    this.#ping = frame.pingSeconds || this.#ping;
    this.#retry = frame.retrySeconds || this.#retry;
    if (!this.token || frame.sub) {
      this.#authenticated = true;
      this.identity = { role: frame.role, sub: frame.sub ?? null };
      this.#planRefresh();
      // After the token is accepted a snapshot for this client must follow; if none comes, it is requested.
      this.#arm("auth", AFTER_AUTH_MS, () => this.resync());
    } else if (FITS.test(this.token)) {
      this.#disarm("auth");
      this.#authenticate();
    }
    this.#arm("ping", this.#ping * 1000, () => this.#sendPing(PONG_TIMEOUT_MS));
  }

  #fold(frame) {
    // Frames before the token is accepted are for an anonymous viewer and lack what this client may see.
    if (!this.#authenticated) return;
    const previous = this.state;
    this.state = reduce(previous, frame);
    if (this.state.behind) {
      if (!this.#timers.has("resync")) this.resync();
      return;
    }
    if (frame.type === "snapshot" || frame.recovered) {
      this.#disarm("auth");
      this.#disarm("resync");
      this.#arrived();
    }
    if (this.state !== previous) {
      this.#emit("change", { state: this.state, previous, events: frame.events ?? [], frame });
    }
    if (frame.type === "position") this.#emit("position", frame);
  }

  #arrived() {
    if (this.connection.status === "live") return;
    this.#failures = 0;
    this.problem = null;
    const before = this.#before;
    this.#before = null;
    this.#announce({ status: "live", code: null });
    this.#isReady(this.state);
    if (before) this.#emit("recovered", { before, after: this.state });
    for (const command of this.#pending.values()) this.#sendCommand(command);
  }

  // Clocks

  #sendPing(patience) {
    this.#pingSentAt = Date.now();
    this.#send({ type: "ping" });
    this.#arm("pong", patience, () => this.#lost({ delay: 0 }));
    this.#arm("ping", this.#ping * 1000, () => this.#sendPing(PONG_TIMEOUT_MS));
  }

  #pong(frame) {
    if (this.#pingSentAt) {
      this.#roundTrip = Date.now() - this.#pingSentAt;
      if (frame.serverTime) this.#offset = Date.parse(frame.serverTime) + this.#roundTrip / 2 - Date.now();
    }
    this.#pingSentAt = 0;
  }

  #adjustClock(frame) {
    const offset = Date.parse(frame.serverTime) - this.#heard;
    // Frames come late, never early: the larger of two offsets is nearer to the true one, unless a clock was set.
    if (this.#offset === null || offset > this.#offset || this.#offset - offset > 30_000) this.#offset = offset;
  }

  /** Checks the connection if the last tick is long ago: the device slept, which not every browser reports. */
  #tick() {
    const gap = Date.now() - this.#lastTick;
    this.#lastTick = Date.now();
    if (gap > 5_000 && globalThis.document?.visibilityState !== "hidden") this.check();
  }

  #planRefresh() {
    const { exp } = claims(this.token);
    if (typeof exp !== "number" || !this.refreshToken) return;
    const wait = Math.min(Math.max(exp * 1000 - this.now() - REFRESH_EARLY_MS, 1_000), LONGEST_TIMER_MS);
    this.#arm("refresh", wait, async () => {
      if (await this.#refresh()) this.#authenticate();
    });
  }

  async #refresh() {
    if (!this.refreshToken || this.#refreshing) return false;
    this.#refreshing = true;
    try {
      const token = await this.refreshToken();
      if (!token || token === this.token || !this.#wanted) return false;
      this.token = token;
      return true;
    } catch {
      return false; // the host page's function failed: as if it had no new token
    } finally {
      this.#refreshing = false;
    }
  }

  #arm(name, delay, run) {
    this.#disarm(name);
    this.#timers.set(
      name,
      setTimeout(() => {
        this.#timers.delete(name);
        run();
      }, delay),
    );
  }

  #disarm(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  // Answers

  #refused(frame) {
    const problem = frame.error ?? frame.problem ?? frame;
    const error = new QueueError(problem.code ?? "INTERNAL", problem);
    if (frame.id && this.#pending.has(frame.id)) this.#settle(frame.id, error);
    else this.#emit("problem", error);
  }

  #settle(id, error, item) {
    const entry = this.#pending.get(id);
    if (!entry) return;
    this.#pending.delete(id);
    clearTimeout(entry.timer);
    this.#emit("pending", { commands: this.pending });
    if (error) entry.reject(error);
    else entry.resolve(item);
  }

  #settleAll(error) {
    for (const id of [...this.#pending.keys()]) this.#settle(id, error);
  }

  #announce(change) {
    this.connection = { ...this.connection, ...change };
    this.#emit("connection", this.connection);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
