// <queue-connection>: shows whether the page is up to date, and since when it is not. It also sets data-connection and
// data-stale on the document, so that pages dim content that may be outdated.
import { exactClock } from "./format.js";
import { t } from "./messages.js";
import { el, setText } from "./dom.js";

const GRACE_MS = 2_000;
const OLD_MS = 60_000;
const CHANGES_MS = 9_000;

export class QueueConnection extends HTMLElement {
  #client = null;
  #grace = null;
  #changes = "";
  #fade = null;

  connectedCallback() {
    if (this.firstChild) return;
    this.className = "connection";
    this.dataset.testid = "connection";
    this.setAttribute("role", "status");
    this.append(el("i", { "aria-hidden": "true" }), el("span", {}, t("connection.connecting")));
    this.dataset.status = "connecting";
  }

  /** `describe(before, after)` returns the changes during a loss of connection in words. */
  bind(client, describe = () => "") {
    this.#client = client;
    client.addEventListener("connection", () => this.#follow());
    client.addEventListener("recovered", (event) => {
      this.#changes = describe(event.detail.before, event.detail.after) || t("changes.none");
      clearTimeout(this.#fade);
      this.#fade = setTimeout(() => {
        this.#changes = "";
        this.#draw();
      }, CHANGES_MS);
      this.#draw();
    });
    this.#follow();
  }

  #follow() {
    const { status, asOf, lostAt } = this.#client.connection;
    clearTimeout(this.#grace);
    // A short loss is not shown, because most connections are back before a reader notices. A state from before a long
    // sleep is shown as old at once.
    const old = lostAt - asOf > OLD_MS;
    const rest = status === "reconnecting" && !old ? GRACE_MS - (Date.now() - lostAt) : 0;
    if (rest > 0) this.#grace = setTimeout(() => this.#draw(), rest);
    else this.#draw();
  }

  #draw() {
    const { status, asOf, code } = this.#client.connection;
    const root = document.documentElement;
    root.dataset.connection = this.dataset.status = status;
    root.toggleAttribute("data-stale", status !== "live" && asOf !== null);
    // On a narrow page only the dot is shown.
    this.toggleAttribute("data-brief", status === "live" ? !this.#changes : status === "connecting");
    const time = asOf === null ? "" : exactClock(asOf);
    setText(
      this.lastChild,
      {
        idle: () => t("connection.connecting"),
        connecting: () => t("connection.connecting"),
        live: () => (this.#changes ? t("connection.changed", { changes: this.#changes }) : t("connection.live")),
        reconnecting: () => t("connection.reconnecting", { time }),
        stopped: () => (time ? t("connection.stoppedAt", { time }) : t("connection.stopped")),
      }[status](),
    );
    this.dispatchEvent(new CustomEvent("drawn", { detail: { status, code } }));
  }
}

customElements.define("queue-connection", QueueConnection);

const isHopeless = ({ connection, problem }) => connection.status === "stopped" || problem !== null;

/** Shows in `container`, while the client cannot connect by itself, the reason and what the reader can do. */
export function stopNote(client, container, actions = {}) {
  client.addEventListener("connection", async () => {
    if (isHopeless(client)) (await import("./stop-note.js")).explainStop(client, container, actions);
    container.hidden = !isHopeless(client);
  });
}
