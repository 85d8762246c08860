// Shared by socket and HTTP: active items, paths, refusals, ids and tokens.

export const isActive = (item) => item.status === "created" || item.status === "started";

export const itemPath = (itemId) => `/v1/queue/items/${encodeURIComponent(itemId)}`;

/** A command or request that the service refused or that could not be delivered. `code`: see the API. */
export class QueueError extends Error {
  constructor(code, problem = {}) {
    super(problem.detail || problem.title || code);
    this.name = "QueueError";
    this.code = code;
    this.problem = problem;
    /** How the developer of the page can solve it, in English, or null. */
    this.hint = null;
  }
}

/** A new id for a command. Not `crypto.randomUUID`, which pages over plain http do not have. */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A token's claims, unverified: use them to choose what to show, never to decide what is allowed. */
export function claims(token) {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (char) => char.charCodeAt(0))));
  } catch {
    return {};
  }
}
