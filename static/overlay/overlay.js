// The overlay for a stream: the item on stage and the next ones, on a transparent ground. After ten seconds without a
// connection it hides, because its content may be outdated.
//   ?max=4 (1–10)   ?theme=dark|light|clear   ?scale=100 (50–300, percent)
//   ?hide=now,next,tokens,feature,count,time,message,life
import { byId, el, everySecond, oncePerFrame, setAttribute, setText, show } from "../lib/dom.js";
import { renderList } from "../lib/lists.js";
import { featureName, inLine, stopwatch, tokens } from "../lib/format.js";
import { t, translate } from "../lib/messages.js";
import { QueueClient } from "../queue-client.js";
import { Session } from "../lib/session.js";
import { onStage, stageSeconds } from "../lib/stage.js";

const HIDE_AFTER_MS = 10_000;

const query = new URLSearchParams(location.search);
const most = Math.min(10, Math.max(1, Number.parseInt(query.get("max") ?? "4", 10) || 4));
const hidden = new Set(
  (query.get("hide") ?? "")
    .split(",")
    .map((word) => word.trim())
    .filter(Boolean),
);
const theme = query.get("theme");
if (["dark", "light", "clear"].includes(theme)) document.documentElement.dataset.theme = theme;

const scale = Number.parseInt(query.get("scale") ?? "", 10);
if (scale >= 50 && scale <= 300) document.documentElement.style.setProperty("--scale", String(scale / 100));

const performer = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const session = new Session();
const client = new QueueClient({ performerId: performer, token: session.token });
let hiding = null;

translate(document);
setText(byId("current-label"), t("stage.title"));
setText(byId("next-label"), t("overlay.next"));
show(byId("next-count"), !hidden.has("count"));

const draw = oncePerFrame(() => {
  const { items, room, version } = client.state;
  if (version === null) return;
  const current = onStage(items);
  const next = items.filter((item) => item.status === "created");
  show(byId("current"), current !== null && !hidden.has("now"));
  if (current) {
    setText(byId("current-title"), current.title);
    drawClock();
  }
  show(byId("next"), next.length > 0 && !hidden.has("next"));
  setText(byId("next-count"), t("overlay.count", { n: next.length }));
  renderList(
    byId("queue"),
    next.slice(0, most),
    (item) => item.itemId,
    (item) =>
      el(
        "li",
        { "data-testid": "queue-item", "data-item-id": item.itemId },
        el("span", { class: "place" }),
        el("span", { class: "what", dir: "auto" }),
        el("span", { class: "cost" }),
      ),
    (row, item) => {
      const [place, what, cost] = row.children;
      setText(place, String(item.position));
      setText(what, item.title);
      show(cost, !hidden.has("tokens"));
      setText(cost, tokens(item.tokens));
    },
    true,
  );
  const message = hidden.has("message") ? "" : room?.announcement || stateOf(room, items.length);
  show(byId("message"), message !== "");
  setText(byId("message"), message);
  // An empty source would look broken to the streamer.
  const isIdle = ["current", "next", "message"].every((id) => byId(id).hidden);
  show(byId("life"), isIdle && !hidden.has("life"));
});

function stateOf(room, depth) {
  if (!room) return "";
  if (room.paused && room.pauseReason !== "performer_disconnected") return t("overlay.paused");
  if (!room.accepting) return t("overlay.closed");
  return depth === 0 && room.mode !== "off" ? t("overlay.open") : "";
}

function drawClock() {
  const item = onStage(client.state.items);
  if (!item) return;
  const elapsed = stageSeconds(item, client.now());
  const within = item.durationSeconds !== null && elapsed <= item.durationSeconds;
  const shown = !hidden.has("time");
  const time = within
    ? t("overlay.time", { elapsed: stopwatch(elapsed), of: stopwatch(item.durationSeconds) })
    : stopwatch(elapsed);
  setText(
    byId("current-detail"),
    inLine(
      !hidden.has("feature") && featureName(item.sourceFeature),
      !hidden.has("tokens") && tokens(item.tokens),
      shown && time,
    ),
  );
  show(byId("meter"), item.durationSeconds !== null && shown);
  byId("meter").firstChild.style.setProperty(
    "inline-size",
    `${Math.min(100, (elapsed / (item.durationSeconds || 60)) * 100)}%`,
  );
}

/** Shows why there is no connection, while the streamer sets the overlay up: only before the first state. */
async function explain() {
  const { refusalText } = await import("../lib/stop-note.js");
  const { problem, state } = client;
  if (!problem || state.version !== null) return;
  setText(byId("message"), refusalText(problem));
  show(byId("message"), true);
  byId("overlay").removeAttribute("data-away");
}

/** Hides the overlay if its state is too old. Also called on a visibility change: hidden sources run no timers. */
function checkAge() {
  const { status, lostAt } = client.connection;
  clearTimeout(hiding);
  if (status === "live") {
    byId("overlay").removeAttribute("data-away");
  } else {
    const rest = HIDE_AFTER_MS - (Date.now() - (lostAt ?? 0));
    if (rest <= 0) setAttribute(byId("overlay"), "data-away", true);
    else hiding = setTimeout(checkAge, rest);
  }
  setText(
    byId("connection"),
    t(status === "live" ? "connection.live" : status === "stopped" ? "connection.stopped" : "connection.connecting"),
  );
}

client.addEventListener("change", draw);
client.addEventListener("connection", () => {
  draw();
  checkAge();
  if (client.problem) explain();
});
document.addEventListener("visibilitychange", checkAge);
everySecond(drawClock);
client.connect();
