// The page's token, from the link's fragment: it is kept for this window and removed from the address bar. And requests
// with that token.
import { post, request } from "./http.js";
import { QueueError, claims } from "./protocol.js";
import { windowStorage } from "./storage.js";

const SLOT = `queue.token:${location.pathname}`;
const RENEWAL_SLOT = `queue.renewal:${location.pathname}`;

function takeFromFragment() {
  const link = new URLSearchParams(location.hash.slice(1));
  const token = link.get("token");
  if (token === null) return null;
  if (link.has("renew")) windowStorage.setItem(RENEWAL_SLOT, link.get("renew"));
  history.replaceState(history.state, "", location.pathname + location.search);
  return token;
}

// At once, not when the page begins: by then the address may have changed.
const opened = takeFromFragment();
if (opened !== null) windowStorage.setItem(SLOT, opened);

export class Session extends EventTarget {
  /** Dispatches "change" when a new link is opened in this tab. */
  constructor() {
    super();
    this.token = windowStorage.getItem(SLOT) || null;
    addEventListener("hashchange", () => {
      const token = takeFromFragment();
      if (token !== null) this.use(token);
    });
  }

  get claims() {
    return claims(this.token ?? "");
  }

  /** The site's address for a fresh link, from `&renew=` in the link: a URL, or null. */
  get renewal() {
    const address = windowStorage.getItem(RENEWAL_SLOT);
    if (!address || !URL.canParse(address, location.href)) return null;
    const url = new URL(address, location.href);
    return ["http:", "https:"].includes(url.protocol) ? url : null;
  }

  use(token) {
    this.keep(token);
    this.dispatchEvent(new Event("change"));
  }

  /** Replaces the token by a newer one of the same person. */
  keep(token) {
    this.token = token || null;
    if (token) windowStorage.setItem(SLOT, token);
    else windowStorage.removeItem(SLOT);
  }

  get(path) {
    // The 503 of /readyz has the same report as its 200.
    return request("", this.token, "GET", path, { accepts: () => path === "/readyz" });
  }

  async text(path) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    const response = await fetch(path, { headers, cache: "no-store" });
    if (!response.ok) throw new QueueError("INTERNAL");
    return response.text();
  }

  post(path, body = {}) {
    return post("", this.token, path, body);
  }

  /** A request that may be repeated as it is. */
  send(method, path, body) {
    return request("", this.token, method, path, { body });
  }
}
