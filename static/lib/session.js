// Who is looking at this page: the token from the link's fragment, kept for this tab, out of the address bar.
// And requests in that person's name.
import { QueueError, claims } from "./protocol.js";
import { tabStorage } from "./storage.js";

const SLOT = `queue.token:${location.pathname}`;
const RETRY_AFTER_MS = [400, 1_200];

function takeFromFragment() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return null;
  history.replaceState(history.state, "", location.pathname + location.search);
  return token;
}

// At once, not when the words have come and the page begins: by then the address may be another.
const opened = takeFromFragment();
if (opened !== null) tabStorage.setItem(SLOT, opened);

export class Session extends EventTarget {
  /** Dispatches "change" when a new link is opened in this tab. */
  constructor() {
    super();
    this.token = tabStorage.getItem(SLOT) || null;
    addEventListener("hashchange", () => {
      const token = takeFromFragment();
      if (token !== null) this.use(token);
    });
  }

  get claims() {
    return claims(this.token ?? "");
  }

  use(token) {
    this.token = token || null;
    if (token) tabStorage.setItem(SLOT, token);
    else tabStorage.removeItem(SLOT);
    this.dispatchEvent(new Event("change"));
  }

  get(path) {
    return this.#request("GET", path);
  }

  async text(path) {
    const response = await fetch(path, { headers: this.#authorization, cache: "no-store" });
    if (!response.ok) throw new QueueError("INTERNAL");
    return response.text();
  }

  get #authorization() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  /** A lost answer is asked for again with the same idempotency key. */
  async post(path, body = {}) {
    const key = crypto.randomUUID();
    for (const pause of [...RETRY_AFTER_MS, null]) {
      try {
        return await this.#request("POST", path, body, { "Idempotency-Key": key });
      } catch (error) {
        if (error.code !== "DISCONNECTED" || pause === null) throw error;
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
  }

  async #request(method, path, body, extra = {}) {
    const headers = { ...this.#authorization, ...extra };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    } catch {
      throw new QueueError("DISCONNECTED");
    }
    const json = await response.json().catch(() => null);
    // /readyz answers 503 with the very report that is wanted.
    if (!response.ok && !(json && path === "/readyz")) {
      throw new QueueError(json?.code ?? "INTERNAL", json ?? { status: response.status });
    }
    return json;
  }
}
