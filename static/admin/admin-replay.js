// A slider over a room's night: the queue at any moment, and each step with its actor, reason, estimate and payment.
// The steps are the room's timeline, loaded once; the queue is read for the version under the slider.
import { byId, el, setAttribute, setText, show } from "../lib/dom.js";
import { count, dayAndTime, duration, exactClock, featureName, inLine, tokens } from "../lib/format.js";
import { errorText, t } from "../lib/messages.js";
import { addUp, dayOf, loadNight, otherDay } from "./night.js";
import { roomState } from "./room-state.js";
import { drawTable } from "./table.js";

const SETTLE_MS = 120;
const KEPT = 60;
const AROUND = 4;
const CURVE = { width: 1000, height: 48 };
const UNKNOWN = new Set(["PERFORMER_NOT_FOUND", "NOT_FOUND", "VALIDATION_ERROR"]);

const stepName = (step) => inLine(t(`step.${step.event}`), step.title);

function why({ actorRole, actorId, reason }) {
  const overtook = /^overtook (\d+)$/.exec(reason ?? "");
  const known = reason && t(`reason.${reason}`);
  const text = overtook ? t("replay.overtook", { n: Number(overtook[1]) }) : known === `reason.${reason}` ? reason : known;
  return inLine(t(`who.${actorRole}`, { id: actorId }), text);
}

function waitWords(estimate) {
  if (!estimate || estimate.seconds === null) return "–";
  const { seconds, range } = estimate;
  const words = range && t("replay.range", { from: duration(range[0]), to: duration(range[1]) });
  return words ? `${duration(seconds)} (${words})` : duration(seconds);
}

export function openReplay(session) {
  let performer = "";
  let night = null; // {steps, sums, estimates}
  let at = 0;
  const states = new Map(); // the room by version, the newest KEPT
  let timer = null;
  let asking = false;

  const slider = byId("replay-at");
  const whose = byId("replay-whose");
  const day = byId("replay-day");

  const address = () => `#replay/${encodeURIComponent(whose.value.trim())}/${day.value}`;
  byId("replay-search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (location.hash === address()) load();
    else location.hash = address();
  });
  for (const [id, days] of [
    ["replay-before", -1],
    ["replay-after", 1],
  ]) {
    byId(id).addEventListener("click", () => {
      if (!day.value) return;
      day.value = otherDay(day.value, days);
      location.hash = address();
    });
  }
  slider.addEventListener("input", () => go(Number(slider.value)));
  for (const [id, by] of [
    ["replay-back", -1],
    ["replay-on", 1],
  ])
    byId(id).addEventListener("click", () => go(at + by));

  async function refresh(asked) {
    if (!asked) return; // the past does not change
    const [, name = "", date = ""] = location.hash.slice(1).split("/").map(decodeURIComponent);
    if (!name) {
      say(t("replay.hint"));
      return;
    }
    whose.value = name;
    if (/^\d{4}-\d\d-\d\d$/.test(date)) day.value = date;
    else day.value = await lastNight(name);
    await load();
  }

  /** The day of the last night with an event. */
  async function lastNight(performerId) {
    const path = `/v1/performers/${encodeURIComponent(performerId)}/queue`;
    try {
      const [{ room }, { items }] = await Promise.all([session.get(path), session.get(`${path}/history?limit=1`)]);
      if (room.depth > 0 || items.length === 0) return dayOf(Date.now());
      const [{ finishedAt, abandonedAt, refundedAt }] = items;
      return dayOf(Date.parse(finishedAt ?? abandonedAt ?? refundedAt));
    } catch (error) {
      if (UNKNOWN.has(error.code)) return dayOf(Date.now());
      throw error;
    }
  }

  async function load() {
    performer = whose.value.trim();
    states.clear();
    night = null;
    say(t("replay.loading"));
    try {
      const wanted = address();
      const { steps, cut } = await loadNight(session, performer, day.value);
      if (wanted !== address()) return;
      if (steps.length === 0) {
        say(t("replay.nothing"));
        return;
      }
      night = { steps, ...addUp(steps) };
      show(byId("replay-cut"), cut);
      setText(byId("replay-cut"), cut ? t("replay.cut", { n: steps.length }) : "");
    } catch (error) {
      if (!UNKNOWN.has(error.code)) throw error;
      say(t(error.code === "PERFORMER_NOT_FOUND" ? "analytics.unknown" : "replay.unknown"));
      return;
    }
    slider.max = night.steps.length - 1;
    say("");
    drawCurve();
    go(night.steps.length - 1);
  }

  /** Shows `text` in place of the night; "" shows the night. */
  function say(text) {
    setText(byId("replay-message"), text);
    show(byId("replay-message"), text !== "");
    show(byId("replay-body"), text === "");
  }

  /** Moves to a step. Its queue is read when the slider has rested for SETTLE_MS, unless it is known. */
  function go(index) {
    if (!night) return;
    at = Math.max(0, Math.min(night.steps.length - 1, index));
    slider.value = at;
    drawStep();
    const state = states.get(night.steps[at].version);
    if (state) drawLine(state);
    else {
      setAttribute(byId("replay-line"), "aria-busy", "true");
      clearTimeout(timer);
      timer = setTimeout(ask, SETTLE_MS);
    }
  }

  /** Reads the queue at the slider's step. One request at a time; the next one is for the slider's step by then. */
  async function ask() {
    if (asking || !night) return;
    asking = true;
    const asked = night;
    const { version } = night.steps[at];
    let state;
    try {
      state = await session.get(`/v1/performers/${encodeURIComponent(performer)}/queue?version=${version}`);
    } catch (error) {
      state = { problem: errorText(error) };
    }
    asking = false;
    if (asked === night) {
      if (!state.problem) states.set(version, state);
      if (states.size > KEPT) states.delete(states.keys().next().value);
      if (night.steps[at].version === version) drawLine(state);
      else ask();
    } else if (night && !states.has(night.steps[at].version)) ask();
  }

  function drawStep() {
    const { steps, sums, estimates } = night;
    const step = steps[at];
    const moment = Date.parse(step.at);
    setAttribute(slider, "aria-valuetext", `${exactClock(moment)}, ${stepName(step)}`);
    byId("replay-back").disabled = at === 0;
    byId("replay-on").disabled = at === steps.length - 1;
    setText(byId("replay-time"), exactClock(moment));
    setText(byId("replay-count"), t("replay.step", { n: at + 1, total: steps.length, version: step.version }));
    const facts = [
      [t("replay.why"), why(step)],
      step.userId && [t("fact.viewer"), step.userId],
      step.event === "queue.item.created" && [t("replay.told"), waitWords(estimates.get(step.itemId))],
      step.position > 0 && [t("replay.position"), count(step.position)],
      step.template && [t("replay.chat"), step.template],
      step.tokens !== null && [t("replay.cost"), cost(step)],
    ].filter(Boolean);
    byId("replay-step").replaceChildren(
      el(
        "h3",
        { dir: "auto" },
        step.itemId
          ? el("a", { href: `#item/${encodeURIComponent(step.itemId)}` }, stepName(step))
          : stepName(step),
      ),
      el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", { dir: "auto" }, value)])),
    );
    const sum = sums[at];
    const totals = { asked: sum.asked, settled: sum.settled, returned: sum.returned };
    byId("replay-totals").replaceChildren(
      ...Object.entries(totals).map(([name, value]) =>
        el("div", {}, el("dt", { class: "muted" }, t(`replay.total.${name}`)), el("dd", {}, count(value))),
      ),
    );
    const first = Math.max(0, Math.min(at - AROUND, steps.length - 2 * AROUND - 1));
    byId("replay-steps").replaceChildren(...steps.slice(first, first + 2 * AROUND + 1).map((each, n) => near(each, first + n)));
    setAttribute(byId("replay-cursor"), "x1", cursorX());
    setAttribute(byId("replay-cursor"), "x2", cursorX());
  }

  const cost = (step) =>
    inLine(
      tokens(step.tokens),
      step.settledTokens !== null && t("replay.settled", { n: step.settledTokens }),
      step.refundedTokens !== null && t("replay.returned", { n: step.refundedTokens }),
      step.walletStatus && step.walletStatus !== "none" && t(`wallet.${step.walletStatus}`),
    );

  const near = (step, index) =>
    el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          class: "step",
          "data-event": step.event,
          "aria-current": index === at ? "step" : null,
          onclick: () => {
            go(index);
            byId("replay-steps").querySelector("[aria-current]").focus();
          },
        },
        el("time", { class: "muted", datetime: step.at }, exactClock(Date.parse(step.at))),
        el("span", { dir: "auto" }, stepName(step)),
      ),
    );

  const LINE_COLUMNS = [
    { title: t("replay.position"), number: true, cell: (item) => count(item.position) },
    {
      title: t("fact.item"),
      wide: true,
      cell: (item) => el("a", { href: `#item/${encodeURIComponent(item.itemId)}`, dir: "auto" }, item.title),
      key: (item) => `${item.itemId}${item.title}`,
    },
    { title: t("wallet.status"), cell: (item) => t(`status.${item.status}`) },
    { title: t("fact.viewer"), cell: (item) => item.userId },
    { title: t("analytics.feature"), cell: (item) => featureName(item.sourceFeature) },
    { title: t("fact.tokens"), number: true, cell: (item) => count(item.tokens) },
    { title: t("replay.toldShort"), number: true, cell: (item) => waitWords(night.estimates.get(item.itemId)) },
    {
      title: t("replay.waited"),
      number: true,
      cell: (item) =>
        duration((Date.parse(item.startedAt ?? night.steps[at].at) - Date.parse(item.createdAt)) / 1000),
    },
  ];

  function drawLine({ room, items, problem }) {
    const line = byId("replay-line");
    line.dataset.label = t("replay.line");
    setAttribute(line, "aria-busy", null);
    show(line, !problem);
    if (problem) {
      byId("replay-room").replaceChildren();
      setText(byId("replay-summary"), problem);
      return;
    }
    drawTable(line, LINE_COLUMNS, items, (item) => item.itemId, t("replay.empty"));
    byId("replay-room").replaceChildren(...roomState(room), room.announcement ? el("q", { dir: "auto" }, room.announcement) : "");
    const held = items.reduce((sum, item) => sum + item.tokens, 0);
    setText(byId("replay-summary"), inLine(t("replay.inLine", { n: items.length }), tokens(held)));
  }

  const cursorX = () => (night.steps.length < 2 ? 0 : (at / (night.steps.length - 1)) * CURVE.width);

  /** Draws the length of the queue by step. Only its changes are known: the shortest length counts as 0. */
  function drawCurve() {
    const lines = night.sums.map((sum) => sum.line);
    const least = Math.min(0, ...lines);
    const most = Math.max(1, Math.max(...lines) - least);
    const x = (index) => (lines.length < 2 ? 0 : (index / (lines.length - 1)) * CURVE.width);
    const y = (value) => CURVE.height - ((value - least) / most) * (CURVE.height - 4);
    const path = lines.map((value, index) => `L${x(index).toFixed(1)},${y(value).toFixed(1)}`).join("");
    byId("replay-curve").setAttribute("d", `M0,${CURVE.height}${path}L${CURVE.width},${CURVE.height}Z`);
    setText(byId("replay-first"), dayAndTime(Date.parse(night.steps[0].at)));
    setText(byId("replay-last"), dayAndTime(Date.parse(night.steps.at(-1).at)));
  }

  return { refresh };
}
