// The card that shows the item on stage, or why there is none. Its height is always the same, so that nothing below it
// moves.
import { byId, el, setAttribute, setText, show } from "../lib/dom.js";
import { featureName, inLine, stopwatch, tokens } from "../lib/format.js";
import { t } from "../lib/messages.js";
import { isStill, onStage, stageSeconds } from "../lib/stage.js";
import { situationOf } from "./room-notes.js";

export function drawStage({ room, items }, performer, now) {
  const card = byId("now");
  const item = onStage(items);
  if (!card.firstChild) {
    card.append(
      el("h2", { class: "eyebrow", id: "now-title" }, t("stage.title")),
      el("p", { class: "now-title", dir: "auto" }),
      el("p", { class: "muted now-detail" }),
      el("div", { class: "meter" }, el("i")),
      el("p", { class: "now-clock" }, el("span", { class: "timer" }), el("span", { class: "muted" })),
    );
  }
  show(card, situationOf(room, items) !== "unknown");
  const [, title, detail] = card.children;
  setAttribute(card, "data-kind", item ? "stage" : "free");
  setText(title, item ? item.title : t("stage.free"));
  setText(
    detail,
    item ? inLine(featureName(item.sourceFeature), tokens(item.tokens)) : nextStep(room, items, performer),
  );
  drawClock(items, now);
}

/** The sentence about the next step on stage; empty if it is unknown. */
function nextStep(room, items, performer) {
  const situation = situationOf(room, items);
  if (situation === "dark" && items.length) return t("stage.dark", { performer });
  if (situation === "open" && items.length) return t("stage.soon");
  return situation === "open" && room.accepting ? t("stage.empty") : "";
}

/** `now`: ms on the server's clock. */
export function drawClock(items, now) {
  const card = byId("now");
  const item = onStage(items);
  const [, , , bar, clock] = card.children;
  setAttribute(bar, "data-blank", !item?.durationSeconds);
  if (!item) {
    setText(clock.firstChild, "");
    setText(clock.lastChild, "");
    return;
  }
  const elapsed = stageSeconds(item, now);
  const still = isStill(item);
  setAttribute(card, "data-paused", still);
  const left = (item.durationSeconds ?? 0) - elapsed;
  const limit =
    item.durationSeconds &&
    inLine(
      t("stage.of", { time: stopwatch(item.durationSeconds) }),
      left > 0 && t("stage.left", { time: stopwatch(left) }),
    );
  setText(clock.firstChild, stopwatch(elapsed));
  setText(clock.lastChild, (still ? t("stage.paused") : limit) || "");
  bar.firstChild.style.setProperty("inline-size", `${Math.min(100, (elapsed / (item.durationSeconds || 60)) * 100)}%`);
}
