// What both ways to the service, the socket and HTTP, share: which items count as active, refusals, tokens.

export const isActive = (item) => item.status === "created" || item.status === "started";

export const itemPath = (itemId) => `/v1/queue/items/${encodeURIComponent(itemId)}`;

/** A command or request the server refused, or that could not be delivered. `code` is the contract's. */
export class QueueError extends Error {
  constructor(code, problem = {}) {
    super(problem.detail || problem.title || code);
    this.name = "QueueError";
    this.code = code;
    this.problem = problem;
    /** What the developer of the page can do about it, in English; null where that is not known. */
    this.hint = null;
  }
}

/** A new id for a command. `crypto.randomUUID` is missing where a page came over plain http, as on a local network. */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What a token says of itself, unverified: fit for choosing what to show, never for deciding what is allowed. */
export function claims(token) {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (char) => char.charCodeAt(0))));
  } catch {
    return {};
  }
}
