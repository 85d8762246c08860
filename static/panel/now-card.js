// The card of the item on stage, or of the next one, with the main button. On a phone that button and its neighbour are
// always at the same place at the bottom of the screen; the buttons that end a request early are apart from them.
import { length } from "../lib/cards.js";
import { button, el, setAttribute, setText, show } from "../lib/dom.js";
import { featureName, inLine, stopwatch, tokens } from "../lib/format.js";
import { holdable, isHoldWanted } from "./hold.js";
import { icon } from "../lib/icons.js";
import { t } from "../lib/messages.js";
import { isStill, onStage, stageSeconds } from "../lib/stage.js";

const GUARD_MS = 400;
const RED_AFTER = 0.1;
const RED_AFTER_SECONDS = 10;

/**
 * The time of an item on stage at `now`: {elapsed, over, used, note}; `elapsed` in seconds, `over`: null, "amber" or
 * "red", `used`: the share of the declared duration, 0 to 1, or null.
 */
export function stageTime(item, room, now) {
  const elapsed = stageSeconds(item, now);
  const declared = item.durationSeconds;
  const excess = declared ? elapsed - declared : -1;
  const red = Math.max(RED_AFTER_SECONDS, declared * RED_AFTER);
  const over = excess >= 1 ? t("now.over", { time: stopwatch(excess) }) : "";
  const limit = declared ? t("stage.of", { time: stopwatch(declared) }) : t("now.noLimit");
  const still = isStill(item) && t(room?.paused ? "now.onBreak" : "stage.paused");
  return {
    elapsed,
    over: excess < 0 ? null : excess < red ? "amber" : "red",
    used: declared ? Math.min(1, elapsed / declared) : null,
    note: inLine(still, limit, over),
  };
}

/** `desk`: {client, isReady, isSending, redraw, acts}, see panel.js. */
export function nowCard(now, desk) {
  const { client, acts } = desk;
  let guardedUntil = 0;
  let refocus = false;
  let parts = null;

  const kindOf = (item) => (item === null ? "empty" : item.status === "started" ? "stage" : "next");

  function build(kind) {
    const action = (key, name, act, look) =>
      button(look, () => act(), icon(name), el("span", {}, t(key)));
    const isStage = kind === "stage";
    parts = {
      viewer: el("p", { class: "now-viewer" }),
      title: el("p", { class: "now-title", dir: "auto" }),
      detail: el("p", { class: "muted now-detail" }),
      note: el("blockquote", { class: "now-note", dir: "auto" }),
      clock: el(
        "div",
        { class: "now-time", hidden: !isStage },
        el("p", { class: "now-clock" }, el("span", { class: "timer" }), el("span", { class: "muted" })),
        el("div", { class: "meter" }, el("i")),
      ),
      side: isStage
        ? action("action.pause", "pause", acts.pause, "side")
        : action("action.break", "pause", acts.takeBreak, "side"),
      primary: isStage
        ? holdable(action("action.finish", "check", () => {}, "primary dominant"), acts.finish)
        : action("action.start", "play", () => acts.start(), "primary dominant"),
      split: isStage && action("action.split", "split", () => acts.split(), "quiet small"),
    };
    const apart =
      kind === "empty"
        ? []
        : [
            parts.split,
            action("action.abandon", "stop", () => acts.abandon(), "quiet small"),
            action("action.refund", "undo", () => acts.refund(), "quiet small"),
          ];
    parts.apart = el("div", { class: "apart" }, apart);
    now.replaceChildren(
      el(
        "div",
        { class: "now-head" },
        el("h2", { class: "eyebrow", id: "now-title" }, t(`now.${kind}Title`)),
        parts.viewer,
      ),
      parts.title,
      parts.detail,
      parts.note,
      parts.clock,
      el("div", { class: "deck", "data-testid": "deck" }, parts.side, parts.primary),
      parts.apart,
    );
  }

  function draw() {
    const item = client.state.items[0] ?? null;
    const { room } = client.state;
    const kind = kindOf(item);
    if (now.dataset.kind !== kind) {
      refocus ||= now.contains(document.activeElement);
      if (now.dataset.kind) guardedUntil = Date.now() + GUARD_MS;
      setTimeout(desk.redraw, GUARD_MS + 20);
      now.dataset.kind = kind;
      build(kind);
    }
    const isOnBreak = Boolean(room?.paused);
    setAttribute(now, "data-paused", item !== null && kind === "stage" && isStill(item));
    setText(parts.title, item ? item.title : t("now.empty"));
    setAttribute(parts.title, "title", item?.title);
    setText(parts.viewer, item ? item.userId : "");
    setText(parts.detail, item ? about(item, kind) : t(emptyReason(room)));
    const note = item?.description ?? "";
    if (parts.note.textContent !== note || parts.note.hidden !== (note === "")) {
      setText(parts.note, note);
      show(parts.note, note !== "");
      parts.isUnmeasured = true;
    }
    const ready = desk.isReady();
    parts.primary.disabled = !ready || item === null || Date.now() < guardedUntil;
    setAttribute(parts.primary, "aria-busy", desk.isSending());
    setText(parts.primary.lastChild, t(mainWords(kind, isOnBreak)));
    parts.side.disabled = !ready || Date.now() < guardedUntil;
    // During a break there is nothing to pause; the banner has the button that ends it.
    setAttribute(parts.side, "data-away", isOnBreak);
    for (const each of parts.apart.children) each.disabled = !ready;
    if (kind === "stage") {
      drawSide(item.paused);
      show(parts.split, item.tokens > 1);
      drawClock();
    }
    if (refocus && !parts.primary.disabled) {
      refocus = false;
      if (document.activeElement === document.body) parts.primary.focus();
    }
  }

  function drawSide(paused) {
    setText(parts.side.lastChild, t(paused ? "action.resume" : "action.pause"));
    const sign = paused ? "play" : "pause";
    if (parts.side.dataset.sign === sign) return;
    parts.side.dataset.sign = sign;
    parts.side.firstChild.replaceWith(icon(sign));
  }

  function drawClock() {
    const item = onStage(client.state.items);
    if (now.dataset.kind !== "stage" || !item) return;
    const { elapsed, over, used, note } = stageTime(item, client.state.room, client.now());
    const { clock } = parts;
    setAttribute(clock, "data-over", over);
    const [timer, words] = clock.firstChild.children;
    setText(timer, stopwatch(elapsed));
    setText(words, note);
    show(clock.lastChild, used !== null);
    clock.lastChild.firstChild.style.setProperty("inline-size", `${(used ?? 0) * 100}%`);
  }

  /** Makes a note that scrolls focusable. Called last in a frame, so that it forces no extra layout. */
  function measure() {
    if (!parts?.isUnmeasured) return;
    parts.isUnmeasured = false;
    setAttribute(parts.note, "tabindex", parts.note.scrollHeight > parts.note.clientHeight ? "0" : null);
  }

  return { draw, drawClock, measure };
}

function mainWords(kind, isOnBreak) {
  if (kind === "stage") return isHoldWanted() ? "action.holdFinish" : "action.finish";
  return isOnBreak ? "action.startAfterBreak" : "action.start";
}

const about = (item, kind) =>
  inLine(featureName(item.sourceFeature), tokens(item.tokens), kind === "next" && length(item));

function emptyReason(room) {
  if (room?.mode === "off") return "now.modeOff";
  return room && !room.accepting ? "now.closed" : "now.quiet";
}
