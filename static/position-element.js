// <performance-queue-position>: a viewer's place in a performer's queue, for any page of a host site.
//
//   <script type="module" src="https://queue.example/static/position-element.js"></script>
//   <performance-queue-position performer="aria"></performance-queue-position>
//   <script type="module">
//     const place = document.querySelector("performance-queue-position");
//     place.refreshToken = async () => (await fetch("/queue-token")).text();   // optional
//     place.token = await place.refreshToken();
//     place.addEventListener("queue-notice", (event) => console.log(event.detail.text));
//   </script>
//
// Attributes: performer; server (default: where this module came from); item (one item's id; default: the viewer's
// first). Properties: token, refreshToken, and client, the QueueClient behind it.
// Events (they bubble): queue-position {itemId, status, position, ahead, estimatedWaitSeconds, estimatedWaitRange},
// queue-ended {itemId}, queue-notice {itemId, template, params, text}, queue-connection {status, asOf, code}.
// Custom properties: --queue-accent, --queue-text, --queue-muted, --queue-surface, --queue-line, --queue-radius,
// --queue-font. Parts: card, position, ahead, wait, state.
// The host's origin has to be among the service's ALLOWED_ORIGINS.
import { StageClock } from "./lib/cards.js";
import { el, oncePerFrame, setText, show } from "./lib/dom.js";
import { exactClock } from "./lib/format.js";
import { t } from "./lib/messages.js";
import { QueueClient } from "./queue-client.js";
import { waitOf, waitText } from "./lib/wait.js";

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
  :host { display: block; }
  :host([hidden]), [hidden] { display: none; }
  .card {
    display: grid; grid-template-columns: auto minmax(0, 1fr); align-items: center; gap: 2px 16px; padding: 16px 20px;
    font: 400 1rem/1.4 var(--queue-font, system-ui, sans-serif);
    color: var(--queue-text, light-dark(#16171b, #f1f2f4)); background: var(--queue-surface, light-dark(#fff, #16181d));
    border: 1px solid var(--queue-line, light-dark(#e3e1d9, #282c34)); border-radius: var(--queue-radius, 14px);
  }
  p { margin: 0; }
  .position {
    grid-row: span 2; font-size: 3rem; font-weight: 650; line-height: 1; letter-spacing: -.04em;
    font-variant-numeric: tabular-nums; color: var(--queue-accent, light-dark(#2747e8, #93a9ff));
  }
  .ahead { font-weight: 600; }
  .wait, .state { font-size: .875rem; color: var(--queue-muted, light-dark(#5d5e63, #a3a8b3)); font-variant-numeric: tabular-nums; }
  .state { grid-column: 1 / -1; }
  .stale .position, .stale .ahead { color: var(--queue-muted, light-dark(#5d5e63, #a3a8b3)); }
`);

const GRACE_MS = 2_000;

export class PerformanceQueuePosition extends HTMLElement {
  static observedAttributes = ["performer", "server", "item"];

  #parts;
  #token = null;
  #timers = [];
  #stage = null;
  #last = null;
  #draw = oncePerFrame(() => this.#render());
  refreshToken = null;
  client = null;

  constructor() {
    super();
    this.#parts = {
      position: el("p", { class: "position", part: "position" }),
      ahead: el("p", { class: "ahead", part: "ahead", "aria-live": "polite" }),
      wait: el("p", { class: "wait", part: "wait" }),
      state: el("p", { class: "state", part: "state", role: "status" }),
    };
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    root.append(el("div", { class: "card", part: "card" }, Object.values(this.#parts)));
  }

  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token;
    this.client?.setToken(token);
  }

  connectedCallback() {
    this.#open();
  }

  disconnectedCallback() {
    this.#close();
  }

  attributeChangedCallback(name, before, after) {
    if (!this.client || before === after) return;
    if (name === "item") this.#draw();
    else this.#open();
  }

  #open() {
    this.#close();
    const performerId = this.getAttribute("performer");
    if (!performerId) return;
    const server = this.getAttribute("server") ?? new URL(import.meta.url).origin;
    const client = new QueueClient({
      performerId,
      server,
      token: this.#token,
      refreshToken: async () => (this.refreshToken ? this.refreshToken() : null),
    });
    this.client = client;
    this.#stage = new StageClock();
    client.addEventListener("change", ({ detail }) => {
      this.#stage.follow(detail, client.now());
      this.#draw();
    });
    client.addEventListener("connection", ({ detail }) => {
      this.#tell("queue-connection", detail);
      this.#draw();
    });
    client.addEventListener("notice", ({ detail: { itemId, template, params } }) => {
      this.#tell("queue-notice", { itemId, template, params, text: t(template, params) });
    });
    this.#timers = [setInterval(this.#draw, 5_000)];
    this.#draw();
    client.connect();
  }

  #close() {
    this.client?.close();
    this.client = null;
    this.#timers.forEach(clearInterval);
  }

  #render() {
    const { client } = this;
    if (!client) return;
    const { state, connection } = client;
    const { position, ahead, wait, state: note } = this.#parts;
    const lost =
      connection.status === "stopped" ||
      (connection.status === "reconnecting" && Date.now() - connection.lostAt >= GRACE_MS);
    this.shadowRoot.firstChild.classList.toggle("stale", lost);
    setText(
      note,
      lost && connection.status === "stopped"
        ? t("connection.stopped")
        : lost
          ? t("connection.reconnecting", { time: exactClock(connection.asOf) })
          : state.version === null
            ? t("connection.connecting")
            : "",
    );
    show(note, note.textContent !== "");
    if (state.version === null) return;
    const wanted = this.getAttribute("item");
    const waits = new Map(state.mine.map((entry) => [entry.itemId, entry]));
    const item = state.items.find(({ itemId }) => waits.has(itemId) && (!wanted || itemId === wanted));
    show(position, item !== undefined);
    show(wait, item?.status === "created");
    this.#report(item && { ...waits.get(item.itemId), ...item });
    if (!item) {
      setText(ahead, t(client.identity.sub ? "visitor.ownDetail" : "element.line", { n: state.items.length }));
      return;
    }
    setText(position, String(item.position));
    const before = item.position - 1;
    setText(
      ahead,
      item.status === "started" ? t("hero.onStage") : before === 0 ? t("hero.next") : t("hero.ahead", { n: before }),
    );
    setText(wait, t("hero.wait", { wait: waitText(this.#wait({ ...waits.get(item.itemId), ...item })) }));
  }

  #wait(item) {
    const { client } = this;
    const current = client.state.items[0];
    const skew = client.now() - Date.now();
    if (current.status !== "started") return waitOf(item, Infinity, 0);
    return waitOf(item, Date.parse(current.startedAt) - skew, this.#stage.moment(client.now()) - skew);
  }

  #report(item) {
    const last = this.#last;
    if (last && last.itemId !== item?.itemId) this.#tell("queue-ended", { itemId: last.itemId });
    if (item && (last?.itemId !== item.itemId || last.position !== item.position || last.status !== item.status)) {
      const { itemId, status, position, estimatedWaitSeconds = null, estimatedWaitRange = null } = item;
      this.#tell("queue-position", {
        itemId,
        status,
        position,
        ahead: position - 1,
        estimatedWaitSeconds,
        estimatedWaitRange,
      });
    }
    this.#last = item ? { itemId: item.itemId, position: item.position, status: item.status } : null;
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}

customElements.define("performance-queue-position", PerformanceQueuePosition);
