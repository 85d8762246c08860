// Glance mode: a full screen with the title, the viewer, the time left and one button. It keeps the screen on where the
// browser allows that.
import { addStyle, button, el, setAttribute, setText, show } from "../lib/dom.js";
import { inLine, stopwatch, tokens } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { t } from "../lib/messages.js";
import { onStage } from "../lib/stage.js";
import { holdable, isHoldWanted } from "./hold.js";
import { stageTime } from "./now-card.js";

addStyle(`
  .glance {
    inline-size: 100vw; block-size: 100dvh; max-inline-size: none; max-block-size: none; margin: 0; padding: 0; border: 0;
    background: var(--ground); color: var(--text);
  }
  .glance > div {
    display: grid; grid-template-rows: auto minmax(0, 1fr) auto; block-size: 100%; gap: 12px;
    padding: 14px max(20px, 5vw) max(20px, env(safe-area-inset-bottom)); text-align: center;
  }
  .glance-top { display: flex; align-items: center; justify-content: space-between; gap: 12px; color: var(--muted); }
  .glance-body { display: grid; align-content: center; gap: 2vmin; min-inline-size: 0; }
  .glance-title {
    font: 650 clamp(1.75rem, 7vmin, 5rem)/1.12 var(--display); letter-spacing: -.025em; overflow: hidden;
    display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; line-clamp: 3;
  }
  .glance-who { font-size: clamp(1.125rem, 3.4vmin, 2rem); color: var(--muted); }
  .glance-time {
    font: 650 clamp(4rem, 24vmin, 16rem)/1 var(--display); letter-spacing: -.04em; font-variant-numeric: tabular-nums;
  }
  .glance-time[data-over=amber] { color: var(--warn); }
  .glance-time[data-over=red] { color: var(--bad); }
  .glance-main { min-block-size: max(72px, 13vmin); font-size: clamp(1.25rem, 3.6vmin, 2rem); border-radius: 18px; }
`);

const GUARD_MS = 400;
const MAIN = {
  "break.resume": (acts) => acts.resume(),
  "action.finish": (acts) => acts.finish(),
  "action.start": (acts) => acts.start(),
};

/** Keeps the screen on until the function that it resolves with is called. */
async function keepAwake() {
  let lock = null;
  const take = async () => {
    if (document.visibilityState !== "visible") return;
    lock = await navigator.wakeLock?.request("screen").catch(() => null);
  };
  document.addEventListener("visibilitychange", take);
  await take();
  return () => {
    document.removeEventListener("visibilitychange", take);
    lock?.release();
  };
}

/** `desk`: {client, isReady, acts}, see panel.js. */
export async function glance({ client, isReady, acts }) {
  const state = el("p");
  const title = el("p", { class: "glance-title", dir: "auto", id: "glance-title" });
  const who = el("p", { class: "glance-who" });
  const time = el("p", { class: "glance-time" });
  const note = el("p", { class: "muted" });
  const main = button("primary glance-main", () => {}, icon("play"), el("span"));
  const dialog = el(
    "dialog",
    { class: "glance", "aria-labelledby": "glance-title", "data-testid": "glance" },
    el(
      "div",
      {},
      el(
        "div",
        { class: "glance-top" },
        state,
        button("quiet", () => dialog.close(), icon("close"), el("span", {}, t("glance.close"))),
      ),
      el("div", { class: "glance-body" }, title, who, time, note),
      main,
    ),
  );
  let now = null;
  let guardedUntil = 0;
  holdable(
    main,
    () => MAIN[now](acts),
    () => now === "action.finish" && isHoldWanted(),
  );

  function draw() {
    const { items, room } = client.state;
    const item = items[0] ?? null;
    const current = onStage(items);
    const waiting = items.length - (current ? 1 : 0);
    setText(state, inLine(t(room?.paused ? "break.title" : current ? "now.stageTitle" : "now.nextTitle"), t("glance.waiting", { n: waiting })));
    setText(title, item?.title ?? t("now.empty"));
    setText(who, item ? inLine(item.userId, tokens(item.tokens)) : "");
    show(time, current !== null);
    show(note, current !== null);
    if (current) {
      const shown = stageTime(current, room, client.now());
      const left = current.durationSeconds ? current.durationSeconds - shown.elapsed : null;
      setText(time, left === null ? stopwatch(shown.elapsed) : `${left < 0 ? "+" : ""}${stopwatch(Math.abs(left))}`);
      setAttribute(time, "data-over", shown.over);
      setText(note, left === null ? shown.note : inLine(t(left < 0 ? "glance.over" : "glance.left"), shown.note));
    }
    const next = room?.paused ? "break.resume" : current ? "action.finish" : "action.start";
    if (next !== now) {
      // The second tap of a double tap must not trigger the new action.
      if (now) guardedUntil = Date.now() + GUARD_MS;
      now = next;
      main.firstChild.replaceWith(icon(current && !room?.paused ? "check" : "play"));
    }
    setText(main.lastChild, t(next === "action.finish" && isHoldWanted() ? "action.holdFinish" : next));
    main.disabled = !isReady() || (item === null && !room?.paused) || Date.now() < guardedUntil;
  }

  document.body.append(dialog);
  dialog.showModal();
  draw();
  main.focus();
  client.addEventListener("change", draw);
  client.addEventListener("connection", draw);
  const ticks = setInterval(draw, 500);
  const isOurs = !document.fullscreenElement;
  document.documentElement.requestFullscreen?.().catch(() => null); // an iPhone has none: the dialog fills the window
  const awake = keepAwake();
  dialog.addEventListener("close", async () => {
    clearInterval(ticks);
    client.removeEventListener("change", draw);
    client.removeEventListener("connection", draw);
    dialog.remove();
    if (isOurs && document.fullscreenElement) document.exitFullscreen();
    (await awake)();
  });
}
