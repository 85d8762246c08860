// Hints for the developer of a page whose connection fails. In English, for the console.
import { QueueError } from "./protocol.js";

const HINTS = {
  4002: "The token has expired: set refreshToken to a function that returns a new one.",
  4500: "The token was refused: check its key, role and exp.",
  4501: "The service could not read a frame: are client and service of one version?",
  4503: "The token gives no access to this room, or an administrator ended the connection.",
};

/** The hint for a close code; null if there is none. */
export const hintFor = (code, hasToken) =>
  code === 4500 && !hasToken ? "This room is private: set a token." : (HINTS[code] ?? null);

/**
 * Finds out why the service at `origin` refuses a socket: a QueueError with a hint, or null if it cannot be reached. An
 * origin is refused if the service answers a no-cors request, and the browser does not let the page read a cors one.
 */
export async function whyRefused(origin) {
  const ask = (mode) =>
    fetch(`${origin}/healthz`, { mode, cache: "no-store" }).then(
      () => true,
      () => false,
    );
  if (!(await ask("no-cors"))) return null;
  const isReadable = await ask("cors");
  // Not location.origin: a sandboxed frame has the origin "null".
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
