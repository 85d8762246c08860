// Why a connection has ended for good, or does not come about. Loaded when that is so.
import { button, el } from "./dom.js";
import { t } from "./messages.js";

const KNOWN = [4002, 4500, 4503, 4504, 4529];
const ABOUT_THE_TOKEN = [4002, 4500, 4503];
/** A token that has ended or is none stays so: to connect again with it would be in vain. */
const DEAD = [4002, 4500];

/** Why no connection comes about: `client.problem` in words. */
export const refusalText = ({ code }) => t(code === "FORBIDDEN" ? "refused.origin" : "refused.socket", { origin: location.origin });

/** `actions.spectate`: goes on without the token, where a page can. `actions.renewal`: where a fresh link is to be had. */
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
