// <performance-queue-position>: shows a viewer's place in a performer's queue on any page of a host site.
//
//   <script type="module" src="https://queue.example/static/v1/position-element.js"></script>
//   <performance-queue-position performer="mira"></performance-queue-position>
//   <script type="module">
//     const place = document.querySelector("performance-queue-position");
//     place.refreshToken = () => fetch("/queue-token").then((answer) => answer.text());
//     place.token = await place.refreshToken();
//     place.addEventListener("queue-notice", (event) => console.log(event.detail.text));
//   </script>
//
// The guide static/docs/guides/embed.md lists attributes, properties, events, parts and custom properties; /docs has
// them to try. The service's ALLOWED_ORIGINS must include the origin of the host site.
import { el, oncePerFrame, setAttribute, setText, show } from "./lib/dom.js";
import { elementWords } from "./lib/element-words.js";
import { sheet } from "./lib/element-style.js";
import { isMoneyMoving, moneyState, outcomeOf } from "./lib/outcome.js";
import { standing } from "./lib/stage.js";
import { waitOf, waitText } from "./lib/wait.js";
import { QueueClient, isActive } from "./queue-client.js";

const GRACE_MS = 2_000;
const MONEY_POLL_MS = 3_000;
const PROPERTIES = ["token", "refreshToken", "strings"];

export class PerformanceQueuePosition extends HTMLElement {
  static observedAttributes = ["performer", "server", "item", "lang", "hide"];

  #parts;
  #token = null;
  #refreshToken = null;
  #strings = {};
  #client = null;
  #words = null;
  #timers = [];
  #last = null;
  #outcome = null;
  #asked = null;
  #said = "";
  #isCancelled = false;
  #ready;
  #isReady;
  #draw = oncePerFrame(() => this.#render());

  constructor() {
    super();
    const part = (name, attributes = {}, ...content) =>
      el(attributes.tag ?? "p", { class: name, part: name, ...attributes, tag: null }, ...content);
    const act = (name, run) => part(name, { tag: "button", type: "button", onclick: run });
    const parts = {
      position: part("position"),
      ahead: part("ahead", { "aria-live": "polite" }),
      wait: part("wait"),
      title: part("title", { dir: "auto" }),
      money: part("money"),
      state: part("state", { role: "status" }),
    };
    const buttons = {
      cancel: act("cancel", () => this.#ask(true)),
      confirm: act("confirm", () => this.#cancel()),
      back: act("back", () => this.#ask(false)),
      close: act("close", () => this.#close()),
    };
    this.#parts = { ...parts, ...buttons, actions: part("actions", { tag: "div" }, Object.values(buttons)) };
    // Before the first state only the state of the connection is shown.
    for (const node of Object.values(this.#parts)) node.hidden = node !== parts.state;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    root.append(part("card", { tag: "div" }, Object.values(parts), this.#parts.actions));
    this.#ready = new Promise((resolve) => (this.#isReady = resolve));
    // A page may have set these before the element was defined; such own properties would hide the accessors.
    for (const name of PROPERTIES.filter((property) => Object.hasOwn(this, property))) {
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
  }

  /** The QueueClient of the element; null while the element is in no document or has no performer. */
  get client() {
    return this.#client;
  }

  /** Resolves with the first state. */
  get ready() {
    return this.#ready;
  }

  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token || null;
    this.#client?.setToken(this.#token);
  }

  get refreshToken() {
    return this.#refreshToken;
  }

  set refreshToken(refresh) {
    this.#refreshToken = refresh;
    if (this.#client) this.#client.refreshToken = refresh;
  }

  /** Messages in place of the element's own, by their keys in messages/en-place.js and en-core.js. */
  get strings() {
    return this.#strings;
  }

  set strings(strings) {
    this.#strings = { ...strings };
    this.#words = null;
    this.#draw();
  }

  connectedCallback() {
    this.#open();
  }

  disconnectedCallback() {
    this.#shut();
  }

  attributeChangedCallback(name, before, after) {
    if (name === "lang") this.#words = null;
    if (before === after || !this.isConnected) return;
    if (name === "performer" || name === "server") this.#open();
    else this.#draw();
  }

  #open() {
    this.#shut();
    const performerId = this.getAttribute("performer");
    if (!performerId) return;
    const server = this.getAttribute("server") ?? new URL(import.meta.url).origin;
    const client = new QueueClient({ performerId, server, token: this.#token, refreshToken: this.#refreshToken });
    this.#client = client;
    client.ready.then((state) => this.#isReady(state));
    client.addEventListener("change", ({ detail: { state, previous } }) => {
      const here = new Set(state.items.map((item) => item.itemId));
      for (const { itemId } of previous.mine) if (!here.has(itemId)) this.#learn(itemId);
      this.#draw();
    });
    client.addEventListener("position", ({ detail }) => {
      if (!isActive(detail)) this.#learn(detail.itemId);
    });
    client.addEventListener("connection", ({ detail }) => {
      this.#emit("queue-connection", detail);
      this.#draw();
    });
    client.addEventListener("notice", ({ detail: { itemId, template, params } }) => {
      this.#emit("queue-notice", { itemId, template, params, text: this.#t(template, params) });
    });
    client.addEventListener("problem", ({ detail: { code, message, hint } }) => {
      this.#emit("queue-problem", { code, message, hint });
    });
    this.#timers = [setInterval(this.#draw, 5_000)];
    this.#draw();
    client.connect();
  }

  #shut() {
    this.#client?.close();
    this.#client = null;
    this.#timers.forEach(clearInterval);
    this.#last = this.#outcome = this.#asked = null;
  }

  /** The messages in the language of the nearest `lang`, else the browser's. */
  get #spoken() {
    return (this.#words ??= elementWords(
      this.closest("[lang]")?.lang || navigator.language || "en",
      this.#strings,
    ));
  }

  #t(key, params) {
    return this.#spoken.t(key, params);
  }

  // The outcome of an ended item

  async #learn(itemId) {
    const client = this.#client;
    if (!client?.token || this.#outcome?.itemId === itemId) return;
    const wanted = this.getAttribute("item");
    if (wanted && wanted !== itemId) return;
    let item = null;
    do {
      if (item) await new Promise((resolve) => setTimeout(resolve, MONEY_POLL_MS));
      item = await client.item(itemId).catch(() => null);
      if (!item || isActive(item) || client !== this.#client) return;
      if (this.#outcome && this.#outcome.itemId !== itemId && this.#outcome.updatedAt > item.updatedAt) return;
      const { text } = moneyState(item, this.#spoken);
      if (this.#outcome?.status !== item.status) this.#emit("queue-outcome", { item, text });
      this.#outcome = item;
      this.#draw();
    } while (isMoneyMoving(item) && this.isConnected);
  }

  #close() {
    this.#outcome = null;
    this.#draw();
  }

  #ask(asked) {
    this.#asked = asked ? this.#last?.itemId : null;
    this.#said = "";
    this.#render();
    this.#parts[asked ? "confirm" : "cancel"].focus();
  }

  async #cancel() {
    const itemId = this.#asked;
    this.#asked = null;
    this.#parts.confirm.disabled = true;
    try {
      await this.#client.cancel(itemId);
      this.#isCancelled = true;
      this.#learn(itemId);
    } catch (error) {
      this.#said = this.#t("cancel.failed");
      this.#emit("queue-problem", { code: error.code, message: error.message, hint: error.hint ?? null });
    }
    this.#parts.confirm.disabled = false;
    this.#draw();
  }

  // Drawing

  #render() {
    const client = this.#client;
    if (!client) return;
    const { state } = client;
    this.#drawConnection(client);
    if (state.version === null) return;
    const wanted = this.getAttribute("item");
    const own = new Map(state.mine.map((entry) => [entry.itemId, entry]));
    const found = state.items.find(({ itemId }) => own.has(itemId) && (!wanted || itemId === wanted));
    const item = found && { ...own.get(found.itemId), ...found };
    this.#report(item);
    if (item) this.#outcome = null;
    const hidden = new Set((this.getAttribute("hide") ?? "").split(/[\s,]+/));
    const outcome = hidden.has("outcome") ? null : this.#outcome;
    if (item) this.#drawPlace(item, state.items);
    else if (outcome) this.#drawOutcome(outcome);
    else setText(this.#parts.ahead, this.#t(client.identity.sub ? "visitor.ownDetail" : "element.line", { n: state.items.length }));
    this.#showParts(item, outcome, hidden);
  }

  #drawConnection({ connection, state, problem }) {
    const { status, lostAt, asOf } = connection;
    const lost = status === "stopped" || (status === "reconnecting" && Date.now() - lostAt >= GRACE_MS);
    setAttribute(this.shadowRoot.firstChild, "data-stale", lost);
    const said = problem
      ? this.#t("element.refused")
      : status === "stopped"
        ? this.#t("connection.stopped")
        : lost
          ? this.#t("connection.reconnecting", { time: this.#spoken.exactClock(asOf) })
          : state.version === null
            ? this.#t("connection.connecting")
            : this.#said;
    setText(this.#parts.state, said);
    show(this.#parts.state, said !== "");
  }

  #drawPlace(item, items) {
    const { position, ahead, wait, title } = this.#parts;
    setText(position, this.#spoken.count(item.position));
    setText(ahead, standing(item, items, this.#spoken));
    const words = waitText(waitOf(item, items, this.#client.now()), this.#spoken);
    const isOnBreak = this.#client.state.room.paused;
    setText(wait, this.#t("hero.wait", { wait: isOnBreak ? this.#t("wait.standing") : words }));
    setText(title, item.title);
  }

  #drawOutcome(item) {
    const { headline, detail } = outcomeOf(item, this.#spoken);
    setText(this.#parts.ahead, headline);
    setText(this.#parts.title, item.title);
    setText(this.#parts.wait, detail);
    setText(this.#parts.money, moneyState(item, this.#spoken).text);
  }

  #showParts(item, outcome, hidden) {
    const parts = this.#parts;
    const asked = item?.status === "created" && this.#asked === item.itemId;
    const may = item?.status === "created" && !hidden.has("cancel") && this.#client.connection.status === "live";
    show(parts.ahead, true);
    show(parts.position, item !== undefined);
    show(parts.wait, item?.status === "created" || Boolean(outcome && parts.wait.textContent));
    show(parts.title, Boolean(item ?? outcome) && !hidden.has("title"));
    show(parts.money, outcome !== null && !item);
    show(parts.cancel, may && !asked);
    show(parts.confirm, may && asked);
    show(parts.back, may && asked);
    show(parts.close, outcome !== null && !item);
    show(parts.actions, [...parts.actions.children].some((button) => !button.hidden));
    setText(parts.cancel, this.#t("cancel.button"));
    setText(parts.confirm, item ? this.#t("cancel.confirm", { n: item.tokens }) : "");
    setText(parts.back, this.#t("cancel.keep"));
    setText(parts.close, this.#t("outcome.close"));
    if (!this.#isCancelled || parts.close.hidden) return;
    this.#isCancelled = false;
    // The pressed button is gone. Move the focus, unless the reader has moved it already.
    if (document.activeElement === document.body) parts.close.focus();
  }

  #report(item) {
    const last = this.#last;
    if (last && last.itemId !== item?.itemId) this.#emit("queue-ended", { itemId: last.itemId });
    if (item && (last?.itemId !== item.itemId || last.position !== item.position || last.status !== item.status)) {
      const { itemId, status, position, estimatedWaitSeconds = null, estimatedWaitRange = null } = item;
      const ahead = position - 1;
      this.#emit("queue-position", { itemId, status, position, ahead, estimatedWaitSeconds, estimatedWaitRange });
    }
    this.#last = item ? { itemId: item.itemId, position: item.position, status: item.status } : null;
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}

// A page may load two copies of this module; the first one defines the element.
if (!customElements.get("performance-queue-position")) {
  customElements.define("performance-queue-position", PerformanceQueuePosition);
}
