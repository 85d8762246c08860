// Explains why a connection has ended for good or is not possible. Loaded when that happens.
import { button, el } from "./dom.js";
import { t } from "./messages.js";

const KNOWN = [4002, 4500, 4503, 4504, 4529];
const ABOUT_THE_TOKEN = [4002, 4500, 4503];
/** Codes after which the same token will never be accepted. */
const DEAD = [4002, 4500];

/** The text for `client.problem`. */
export const refusalText = ({ code }) => t(code === "FORBIDDEN" ? "refused.origin" : "refused.socket", { origin: location.origin });

/** `spectate()`: continues without the token, on pages that can. `renewal`: the URL for a fresh link. */
export function explainStop(client, container, { spectate, renewal }) {
  const { code, status } = client.connection;
  if (status !== "stopped") {
    container.replaceChildren(el("p", {}, refusalText(client.problem)));
    return;
  }
  const leave = spectate && client.token && ABOUT_THE_TOKEN.includes(code);
  const isDead = client.token && DEAD.includes(code);
  const key = ABOUT_THE_TOKEN.includes(code) && !client.token ? "private" : KNOWN.includes(code) ? code : "other";
  container.replaceChildren(
    ...[
    el("p", {}, t(`stopped.${key}`)),
    leave && button("", spectate, t("stopped.spectate")),
    isDead && renewal && el("a", { class: "button", href: renewal.href }, t("stopped.renew")),
    !leave && !isDead && button("", () => client.retry(), t("stopped.retry")),
    ].filter(Boolean),
  );
}
