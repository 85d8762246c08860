// Why a connection has ended for good. Loaded when one has.
import { button, el } from "./dom.js";
import { t } from "./messages.js";

const KNOWN = [4002, 4500, 4503, 4504, 4529];
const ABOUT_THE_TOKEN = [4002, 4500, 4503];
/** A token that has ended or is none stays so: to connect again with it would be in vain. */
const DEAD = [4002, 4500];

/** `actions.spectate`: goes on without the token, where a page can. `actions.renewal`: where a fresh link is to be had. */
export function explainStop(client, container, { spectate, renewal }) {
  const { code } = client.connection;
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
  container.hidden = client.connection.status !== "stopped";
}
