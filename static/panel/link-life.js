// Renews the panel's token: by postMessage from the site that frames or has opened the panel, or from the renewal
// address in the link. Warns ten minutes before the token expires.
import { button, el, setText, show } from "../lib/dom.js";
import { duration } from "../lib/format.js";
import { t } from "../lib/messages.js";
import { claims } from "../lib/protocol.js";

const WARN_MS = 600_000;
const ANSWER_MS = 5_000;
const TRY_AGAIN_MS = 30_000;

const NEEDED = "queue-token-needed";
const TOKEN = "queue-token";

/** The windows of the site that frames the panel, or that has opened it. */
const sites = () => [window.parent !== window && window.parent, window.opener].filter(Boolean);
const isTheirs = ({ source, data }) => sites().includes(source) && data?.type === TOKEN;

/** Whether `token` is for the same person as `than` and expires later. */
function isNewer(token, than) {
  const [is, was] = [claims(token), claims(than)];
  const isSame = ["role", "sub", "performerId"].every((name) => is[name] === was[name]);
  return isSame && Number(is.exp) > Number(was.exp);
}

/** The token that the site posts as {type: "queue-token", token}; null if none comes within ANSWER_MS. */
function fromSite(current) {
  if (sites().length === 0) return null;
  return new Promise((resolve) => {
    const end = (token) => {
      removeEventListener("message", receive);
      clearTimeout(timer);
      resolve(token);
    };
    const receive = (message) => {
      if (isTheirs(message) && isNewer(message.data.token, current)) end(message.data.token);
    };
    const timer = setTimeout(() => end(null), ANSWER_MS);
    addEventListener("message", receive);
    // The origin is unknown, so the message holds no secret.
    const question = { type: NEEDED, expiresAt: new Date(claims(current).exp * 1000).toISOString() };
    for (const site of sites()) site.postMessage(question, "*");
  });
}

/** The token that a renewal address of this origin answers with: as text, or as JSON {token}. */
async function fromAddress(renewal, current) {
  if (renewal?.origin !== location.origin) return null;
  const response = await fetch(renewal, { headers: { Authorization: `Bearer ${current}` }, cache: "no-store" });
  if (!response.ok) return null;
  const text = (await response.text()).trim();
  return text.startsWith("{") ? (JSON.parse(text).token ?? null) : text;
}

/** Keeps the client's token fresh; shows in `note` when it expires if it could not be renewed. */
export function watchLink(client, session, note) {
  let triedAt = null;
  let isTrying = false;
  const { renewal } = session;
  const canTry = () => sites().length > 0 || renewal?.origin === location.origin;

  client.refreshToken = async () => {
    for (const way of [fromSite, (current) => fromAddress(renewal, current)]) {
      const token = await Promise.resolve(way(client.token)).catch(() => null);
      if (token && isNewer(token, client.token)) {
        session.keep(token);
        return token;
      }
    }
    return null;
  };

  async function renew() {
    triedAt = Date.now();
    isTrying = true;
    const token = await client.refreshToken();
    if (token) client.setToken(token);
    isTrying = false;
    draw();
  }

  // A site may post a token at any time, also when the old one has expired.
  addEventListener("message", (message) => {
    if (!isTheirs(message) || !isNewer(message.data.token, client.token)) return;
    session.keep(message.data.token);
    client.setToken(session.token);
    draw();
  });

  const words = el("p");
  const again = button("", renew, t("link.renew"));
  const away = renewal && renewal.origin !== location.origin && el("a", { class: "button", href: renewal.href }, t("link.renew"));
  note.append(words, ...[canTry() && again, away].filter(Boolean));

  function draw() {
    const rest = claims(client.token ?? "").exp * 1000 - client.now();
    const isNear = rest > 0 && rest < WARN_MS && client.connection.status !== "stopped";
    if (isNear && canTry() && !isTrying && (triedAt === null || Date.now() - triedAt > TRY_AGAIN_MS)) renew();
    show(note, isNear && !(isTrying && note.hidden));
    if (note.hidden) return;
    setText(words, t(away || canTry() ? "link.endsRenew" : "link.ends", { time: duration(Math.max(60, rest / 1000)) }));
    again.disabled = isTrying;
  }

  setInterval(draw, 1_000);
}
