// What the developer of a page can do about a connection that does not come to be. In English, for the console.
import { QueueError } from "./protocol.js";

const HINTS = {
  4002: "The token has expired: set refreshToken to a function that returns a new one.",
  4500: "The token was refused: check its key, role and exp.",
  4501: "The service could not read a frame: are client and service of one version?",
  4503: "The token gives no access to this room, or an administrator ended the connection.",
};

/** What a connection's end with this close code asks for; null where nothing can be done. */
export const hintFor = (code, hasToken) =>
  code === 4500 && !hasToken ? "This room is private: set a token." : (HINTS[code] ?? null);

/**
 * Why the service at `origin` refuses a socket: a QueueError with a hint, or null while it cannot be reached at all. A
 * request that a browser sends but does not let this page read tells a refused origin.
 */
export async function whyRefused(origin) {
  const ask = (mode) =>
    fetch(`${origin}/healthz`, { mode, cache: "no-store" }).then(
      () => true,
      () => false,
    );
  if (!(await ask("no-cors"))) return null;
  const isReadable = await ask("cors");
  // Not the address's: a sandboxed frame has none.
  const here = globalThis.origin ?? "this program";
  const error = new QueueError(isReadable ? "UNAVAILABLE" : "FORBIDDEN", {
    detail: `${origin} refuses a socket from ${here}.`,
  });
  error.hint = isReadable
    ? "Does a proxy before the service pass on WebSocket upgrades and the Host header?"
    : here === "null"
      ? "The frame is sandboxed: it needs allow-same-origin."
      : `Add ${here} to ALLOWED_ORIGINS of the service.`;
  return error;
}
