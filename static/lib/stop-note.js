// Why a connection has ended for good. Loaded when one has.
import { button, el } from "./dom.js";
import { t } from "./messages.js";

const KNOWN = [4002, 4500, 4503, 4504, 4529];
const ABOUT_THE_TOKEN = [4002, 4500, 4503];

/** `actions.spectate`: goes on without the token, where a page can. */
export function explainStop(client, container, { spectate }) {
  const { code } = client.connection;
  const leave = spectate && client.token && ABOUT_THE_TOKEN.includes(code);
  const key = ABOUT_THE_TOKEN.includes(code) && !client.token ? "private" : KNOWN.includes(code) ? code : "other";
  container.replaceChildren(
    el("p", {}, t(`stopped.${key}`)),
    leave ? button("", spectate, t("stopped.spectate")) : button("", () => client.retry(), t("stopped.retry")),
  );
  container.hidden = client.connection.status !== "stopped";
}
