// The performer's panel: one button that matters, what is on stage, who waits, and the money of what has ended.
import { alertReader, alertSwitch, markTab } from "./attention.js";
import { StageClock, queueRow, updateQueueRow } from "./cards.js";
import { stopNote } from "./connection-element.js";
import { ask, isDialogOpen, toast } from "./dialog.js";
import { button, byId, el, everySecond, icon, oncePerFrame, renderList, setAttribute, setText, show } from "./dom.js";
import { count, duration, featureName, inLine, shortId, stopwatch, tokens } from "./format.js";
import { errorText, t, translate } from "./messages.js";
import { isMoneyMoving, moneyState } from "./money.js";
import { QueueClient } from "./queue-client.js";
import { Session } from "./session.js";
import { Today } from "./today.js";

const GUARD_MS = 400;
const RED_AFTER = 0.1;
const RED_AFTER_SECONDS = 10;
const SHORTCUT_SLOT = "queue.shortcuts";
const ABANDON_REASONS = ["performer_declined", "technical_error", "timeout", "user_cancelled"];
const REFUND_REASONS = ["performer_declined", "technical_error", "user_cancelled", "timeout", "admin_refund"];
const NEWS = new Set(["queue.item.started", "queue.item.finished", "queue.item.abandoned", "queue.item.refunded"]);
const SETTINGS_SWITCHES = ["accepting", "paused", "mode", "strictFifo"];

translate(document);

const session = new Session();
const { role, sub, performerId } = session.claims;
const performer = role === "performer" ? sub : role === "moderator" ? performerId
  : role === "admin" ? new URLSearchParams(location.search).get("performer") : null;
const client = new QueueClient({ performerId: performer ?? "", token: session.token });
const stage = new StageClock();
const today = new Today(performer, session);

/** Items this window has sent a command for: their next change is no news here. */
const expected = new Set();
/** Commands under way: the same one is not sent twice. */
const sending = new Set();
let guardedUntil = 0;

const onStage = () => (client.state.items[0]?.status === "started" ? client.state.items[0] : null);
const waiting = () => client.state.items.filter((item) => item.status === "created");
/** What the card is about: the item on stage, else the one that would be started next. */
const subject = () => client.state.items[0] ?? null;
const usable = () => client.connection.status === "live";

/** What is seldom needed is loaded when it is. */
const rare = () => import("./rare-actions.js");

// -- commands ----------------------------------------------------------------------------------------------------

async function command(type, fields = {}, item = null) {
  const key = `${type} ${fields.itemId ?? ""}`;
  if (!usable() || sending.has(key)) return;
  sending.add(key);
  if (item) expected.add(item.itemId);
  draw();
  try {
    const result = await client.command(type, fields);
    if (result && result.itemId !== item?.itemId) expected.add(result.itemId);
  } catch (error) {
    if (item) expected.delete(item.itemId);
    const late = item && error.code === "INVALID_STATE_TRANSITION";
    toast(late ? await (await rare()).whoWasFaster(session, client.identity, item, error) : errorText(error), "bad");
  } finally {
    sending.delete(key);
    draw();
  }
}

const facts = (item) => [
  [t("fact.item"), item.title], [t("fact.viewer"), item.userId], [t("fact.tokens"), tokens(item.tokens)],
];

const start = () => command("start-next", {}, subject());
const finish = () => command("complete", { itemId: subject().itemId }, subject());
const pause = () => command(subject().paused ? "resume" : "pause", { itemId: subject().itemId }, subject());

async function abandon(item = subject()) {
  const answer = await ask({
    title: t("abandon.title"), text: t("abandon.text"), facts: facts(item), reasons: ABANDON_REASONS, danger: true,
    confirm: t("abandon.confirm", { n: item.tokens }),
  });
  if (answer) command("abandon", { itemId: item.itemId, reason: answer.reason }, item);
}

async function refund(item = subject()) {
  const answer = await ask({
    title: t("refund.title"), text: t("refund.text"), facts: facts(item), reasons: REFUND_REASONS, danger: true,
    confirm: t("refund.confirm", { n: item.tokens }),
  });
  if (answer) command("refund", { itemId: item.itemId, reason: answer.reason }, item);
}

async function split(item = subject()) {
  const refundTokens = await (await rare()).askSplit(item, facts(item));
  if (refundTokens) command("complete", { itemId: item.itemId, refundTokens }, item);
}

async function emptyQueue() {
  await (await rare()).emptyQueue(client, REFUND_REASONS, (itemId) => expected.add(itemId));
}

// -- what the server tells -----------------------------------------------------------------------------------------

const draw = oncePerFrame(() => {
  if (client.state.version === null) return;
  stage.follow(client.state, client.now());
  drawNow();
  drawQueue();
  drawSettings();
  drawToday();
  measureNote(byId("now").parts);
  markTab(t("panel.tab", { performer }), waiting().length || null);
});

client.addEventListener("change", ({ detail: { state, previous, events, frame } }) => {
  for (const { event, template, item } of events) {
    if (!item) continue;
    const confirmsAbandoned = today.has(item.itemId) && event === "queue.item.refunded";
    today.fold(item);
    if (event === "queue.item.created") greet(item, previous);
    if (!NEWS.has(event) || confirmsAbandoned || item.passThroughMode) continue;
    if (!expected.delete(item.itemId)) toast(t(template ?? event, { title: item.title }));
  }
  if (frame.type === "snapshot" && state.version > 0) reload();
  draw();
});

client.addEventListener("connection", draw);

function greet(item, previous) {
  setText(byId("spoken"), t("panel.arrived", { title: item.title }));
  if (previous.items.length === 0 && !item.passThroughMode) {
    alertReader(t("panel.alert"), `${item.title} · ${tokens(item.tokens)}`, item.itemId);
  }
}

async function reload() {
  try {
    today.forget();
    await today.load();
  } catch {
    // The numbers fill up from the events that follow.
  }
  draw();
}

// -- the card ----------------------------------------------------------------------------------------------------

function drawNow() {
  const now = byId("now");
  const item = subject();
  const kind = item === null ? "empty" : item.status === "started" ? "stage" : "next";
  if (now.dataset.kind !== kind) {
    const hadFocus = now.contains(document.activeElement);
    if (now.dataset.kind) guardedUntil = Date.now() + GUARD_MS;
    setTimeout(draw, GUARD_MS + 20);
    now.dataset.kind = kind;
    buildNow(now, kind);
    if (hadFocus) now.refocus = true;
  }
  const { parts } = now;
  setAttribute(now, "data-paused", Boolean(item?.paused));
  setText(parts.title, item ? item.title : t("now.empty"));
  setText(parts.viewer, item ? item.userId : "");
  setText(parts.detail, item
    ? inLine(featureName(item.sourceFeature), tokens(item.tokens), kind === "next" && item.durationSeconds && duration(item.durationSeconds))
    : t(emptyReason()));
  const note = item?.description ?? "";
  if (parts.note.textContent !== note || parts.note.hidden !== (note === "")) {
    setText(parts.note, note);
    show(parts.note, note !== "");
    parts.unmeasured = true;
  }
  const ready = usable();
  parts.primary.disabled = !ready || item === null || Date.now() < guardedUntil;
  setAttribute(parts.primary, "aria-busy", sending.size > 0);
  for (const button of parts.actions.children) button.disabled = !ready;
  if (kind === "stage") {
    setText(parts.pause.lastChild, t(item.paused ? "action.resume" : "action.pause"));
    const sign = item.paused ? "play" : "pause";
    if (parts.pause.dataset.sign !== sign) {
      parts.pause.dataset.sign = sign;
      parts.pause.firstChild.replaceWith(icon(sign));
    }
    show(parts.split, item.tokens > 1);
    drawClock();
  }
  if (now.refocus && !parts.primary.disabled) {
    now.refocus = false;
    if (document.activeElement === document.body) parts.primary.focus();
  }
}

/** What scrolls has to be reachable by keyboard. Measured last in a frame, when it costs no layout of its own. */
function measureNote(parts) {
  if (!parts.unmeasured) return;
  parts.unmeasured = false;
  setAttribute(parts.note, "tabindex", parts.note.scrollHeight > parts.note.clientHeight ? "0" : null);
}

function emptyReason() {
  const { room } = client.state;
  if (room?.mode === "off") return "now.modeOff";
  return room && !room.accepting ? "now.closed" : "now.quiet";
}

function buildNow(now, kind) {
  const action = (key, name, act, kind = "") => button(kind, () => act(), icon(name), el("span", {}, t(key)));
  const parts = {
    eyebrow: el("h2", { class: "eyebrow", id: "now-title" }, t(`now.${kind}Title`)),
    viewer: el("p", { class: "now-viewer" }),
    title: el("p", { class: "now-title" }),
    detail: el("p", { class: "muted now-detail" }),
    note: el("blockquote", { class: "now-note" }),
    clock: el("div", { class: "now-time", hidden: kind !== "stage" },
      el("p", { class: "now-clock" }, el("span", { class: "timer" }), el("span", { class: "muted" })), el("div", { class: "meter" }, el("i"))),
    primary: kind === "stage" ? action("action.finish", "check", finish, "primary dominant") : action("action.start", "play", start, "primary dominant"),
    actions: el("div", { class: "actions" }),
  };
  if (kind === "stage") {
    parts.pause = action("action.pause", "pause", pause);
    parts.split = action("action.split", "split", split);
    parts.actions.append(parts.pause, parts.split);
  }
  if (kind !== "empty") parts.actions.append(action("action.abandon", "stop", abandon), action("action.refund", "undo", refund));
  now.parts = parts;
  now.replaceChildren(
    el("div", { class: "now-head" }, parts.eyebrow, parts.viewer),
    parts.title, parts.detail, parts.note, parts.clock, parts.primary, parts.actions);
}

function drawClock() {
  const now = byId("now");
  const item = onStage();
  if (now.dataset.kind !== "stage" || !item) return;
  const elapsed = stage.elapsed(item, client.now());
  const declared = item.durationSeconds;
  const used = declared ? elapsed / declared : 0;
  const still = item.paused || client.state.room?.paused;
  const clock = now.parts.clock;
  const excess = declared ? elapsed - declared : -1;
  setAttribute(clock, "data-over", excess < 0 ? null : excess < Math.max(RED_AFTER_SECONDS, declared * RED_AFTER) ? "amber" : "red");
  const [timer, note] = clock.firstChild.children;
  setText(timer, stopwatch(elapsed));
  const over = excess >= 1 ? t("now.over", { time: stopwatch(excess) }) : "";
  setText(note, inLine(declared ? t("stage.of", { time: stopwatch(declared) }) : t("now.noLimit"), over, still && t("stage.paused")));
  show(clock.lastChild, declared !== null);
  clock.lastChild.firstChild.style.setProperty("inline-size", `${Math.min(100, used * 100)}%`);
}

// -- the queue ---------------------------------------------------------------------------------------------------

function drawQueue() {
  const { items, room } = client.state;
  setText(byId("depth"), room ? t("depth", { n: items.length, max: room.maxDepth }) : "");
  renderList(byId("queue"), items, (item) => item.itemId, buildRow, (row, item) => {
    const waited = (client.now() - Date.parse(item.createdAt)) / 1000;
    const since = item.status === "created" && waited >= 60 ? t("panel.waiting", { time: duration(waited) }) : "";
    updateQueueRow(row, item, { detail: inLine(item.userId, since) });
    row.item = item;
    row.lastChild.disabled = !usable();
    setText(row.note, item.description);
  }, true);
  show(byId("queue"), items.length > 0);
  show(byId("queue-empty"), items.length === 0);
  setText(byId("queue-empty"), t("panel.queueEmpty"));
}

function buildRow(item) {
  const row = queueRow(item, menuButton(item, () => rowChoices(row.item)));
  row.note = el("p", { class: "row-note" });
  row.children[1].append(row.note);
  return row;
}

function menuButton(item, choices) {
  const node = button("quiet icon-button", async () => (await import("./menu.js")).toggleMenu(node, choices()), icon("more"));
  for (const [name, value] of [["aria-haspopup", "menu"], ["aria-expanded", "false"], ["aria-label", t("panel.actionsFor", { title: item.title })]]) {
    node.setAttribute(name, value);
  }
  return node;
}

function rowChoices(item) {
  const choices = [];
  const overtakes = waiting()[0]?.itemId !== item.itemId;
  if (item.status === "created" && !onStage() && !(overtakes && client.state.room?.strictFifo)) {
    choices.push({ label: t("menu.start"), act: () => command("start", { itemId: item.itemId }, item) });
  }
  choices.push({ label: t("menu.abandon"), act: () => abandon(item), danger: true });
  choices.push({ label: t("menu.refund"), act: () => refund(item), danger: true });
  return choices;
}

// -- the room's settings -----------------------------------------------------------------------------------------

const settings = byId("settings");

function buildSettings() {
  settings.parts = Object.fromEntries(SETTINGS_SWITCHES.map((name) => {
    const hint = el("p", { class: "muted setting-hint", id: `hint-${name}` });
    const control = el("button", {
      class: "switch", type: "button", role: "switch", "aria-checked": "false", "aria-describedby": hint.id,
      "aria-labelledby": `label-${name}`, onclick: () => flip(name),
    });
    const node = el("div", { class: "setting" }, el("div", {}, el("p", { class: "setting-name", id: `label-${name}` }, t(`settings.${name}`)), hint), control);
    return [name, { node, hint, control }];
  }));
  const places = el("input", { type: "number", id: "places", min: 1, step: 1, inputmode: "numeric" });
  places.addEventListener("change", () => {
    if (places.reportValidity() && places.value) command("settings", { maxDepth: places.valueAsNumber });
  });
  const words = el("textarea", { id: "announcement", maxlength: 280, rows: 2, "data-t-placeholder": "settings.announcementHint" });
  const announce = (text) => command("settings", { announcement: text || null });
  const publish = button("small", () => announce(words.value.trim()), t("settings.publish"));
  const clear = button("quiet small", () => announce(null), t("settings.clear"));
  const empty = button("quiet small empty-queue", emptyQueue, t("emptyQueue.button"));
  Object.assign(settings.parts, { places, words, publish, clear, empty, full: el("p", { class: "note", "data-testid": "room-note" }) });
  settings.append(
    settings.parts.full,
    ...SETTINGS_SWITCHES.map((name) => settings.parts[name].node),
    el("div", { class: "setting" }, el("label", { class: "setting-name", for: "places" }, t("settings.places")), places),
    el("div", { class: "field" }, el("label", { for: "announcement" }, t("settings.announcement")), words, el("div", { class: "actions" }, publish, clear)),
    el("div", { class: "setting-foot" }, empty));
  translate(settings);
}

const isOn = (room, name) => (name === "mode" ? room.mode === "on" : Boolean(room[name]));

function flip(name) {
  const { room } = client.state;
  const next = !isOn(room, name);
  command("settings", { [name]: name === "mode" ? (next ? "on" : "off") : next });
}

function drawSettings() {
  const { room, items } = client.state;
  if (!room) return;
  const { parts } = settings;
  const ready = usable();
  for (const name of SETTINGS_SWITCHES) {
    const on = isOn(room, name);
    setAttribute(parts[name].control, "aria-checked", String(on));
    parts[name].control.disabled = !ready;
    setText(parts[name].hint, t(`settings.${name}.${on ? "on" : "off"}`, { n: items.length }));
  }
  for (const control of [parts.places, parts.words, parts.publish, parts.clear]) control.disabled = !ready;
  parts.empty.disabled = !ready || items.length === 0;
  if (document.activeElement !== parts.places) parts.places.value = room.maxDepth;
  const said = room.announcement ?? "";
  if (document.activeElement !== parts.words && parts.words.dataset.said !== said) {
    parts.words.value = said;
    parts.words.dataset.said = said;
  }
  show(parts.clear, said !== "");
  show(parts.full, items.length >= room.maxDepth);
  setText(parts.full, t("room.full", { depth: items.length, max: room.maxDepth }));
}

// -- today and the recent ones -----------------------------------------------------------------------------------

const TODAY = { served: count, settled: count, refunded: count, medianWait: (wait) => (wait === null ? "–" : duration(wait)) };

function drawToday() {
  const list = byId("today");
  if (!list.firstChild) {
    list.append(...Object.keys(TODAY).map((name) => el("div", {}, el("dt", { class: "muted" }, t(`today.${name}`)), el("dd", { "data-testid": `today-${name}` }))));
  }
  const { numbers, recent } = today;
  Object.entries(TODAY).forEach(([name, say], index) => setText(list.children[index].lastChild, say(numbers[name])));
  show(byId("recent"), recent.length > 0);
  show(byId("recent-empty"), recent.length === 0);
  renderList(byId("recent"), recent, (item) => item.itemId, buildRecent, (row, item) => {
    row.item = item;
    const [main, cost, menu] = row.children;
    const [title, detail, money] = main.children;
    const reason = item.refundReason ?? item.abandonReason;
    const { tone, text, reference } = moneyState(item);
    setText(title, item.title);
    setText(detail, inLine(t(`status.${item.status}`), reason && t(`reason.${reason}`), item.userId));
    setAttribute(money, "data-tone", tone);
    setText(money.firstChild, text);
    setText(money.lastChild, reference ? t("money.reference", { reference: shortId(reference) }) : "");
    setAttribute(money.lastChild, "title", reference);
    setText(cost, tokens(item.tokens));
    show(menu, item.status === "finished" && !item.settled && isMoneyMoving(item));
    menu.disabled = !usable();
  });
}

function buildRecent(item) {
  const row = el("li", { class: "row", "data-testid": "recent-item", "data-item-id": item.itemId },
    el("div", { class: "row-main" }, el("p", { class: "row-title" }), el("p", { class: "row-detail muted" }),
      el("p", { class: "money", "data-testid": "money" }, el("span"), el("span", { class: "reference" }))),
    el("span", { class: "row-tokens" }),
    menuButton(item, () => [{ label: t("menu.refund"), act: () => refund(row.item), danger: true }]));
  return row;
}

// -- keyboard and alerts -------------------------------------------------------------------------------------------

const SHORTCUTS = {
  s: ["action.start", () => subject() && !onStage() && start()],
  f: ["action.finish", () => onStage() && finish()],
  p: ["shortcut.pause", () => onStage() && pause()],
  a: ["action.abandon", () => subject() && usable() && abandon()],
  r: ["action.refund", () => subject() && usable() && refund()],
};

const lettersOn = () => localStorage.getItem(SHORTCUT_SLOT) !== "off";

addEventListener("keydown", (event) => {
  // A field of a dialog that has just closed holds the focus for a moment longer.
  const inField = event.target.closest?.("input, textarea, select, [contenteditable], [role=menu]")?.checkVisibility();
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || inField || isDialogOpen()) return;
  if (event.key === "?") {
    event.preventDefault();
    showHelp();
  } else if (lettersOn() && Object.hasOwn(SHORTCUTS, event.key.toLowerCase())) {
    event.preventDefault();
    SHORTCUTS[event.key.toLowerCase()][1]();
  }
});

async function showHelp() {
  const { shortcutHelp } = await import("./shortcut-help.js");
  const keys = Object.entries(SHORTCUTS).map(([key, [label]]) => [key.toUpperCase(), t(label)]);
  shortcutHelp([...keys, ["?", t("help.label")]], lettersOn, (on) => localStorage.setItem(SHORTCUT_SLOT, on ? "on" : "off"));
}

byId("help").addEventListener("click", showHelp);

byId("alerts").setAttribute("aria-label", t("panel.alerts"));
alertSwitch(byId("alerts"), () => {}, (outcome) => toast(t(outcome === "on" ? "panel.alertsOn" : "panel.alertsSound")));

// -- who may come in -----------------------------------------------------------------------------------------------

function describeChanges(before, after) {
  const was = new Map(before.items.map((item) => [item.itemId, item]));
  const is = new Set(after.items.map((item) => item.itemId));
  const joined = after.items.filter((item) => !was.has(item.itemId)).length;
  const left = before.items.filter((item) => !is.has(item.itemId)).length;
  return inLine(joined && t("changes.joined", { n: joined }), left && t("changes.left", { n: left }));
}

setText(byId("performer"), performer ?? t("panel.title"));
buildSettings();
session.addEventListener("change", () => location.reload());
if (performer) {
  document.querySelector("queue-connection").bind(client, describeChanges);
  stopNote(client, byId("stopped"));
  everySecond(drawClock);
  setInterval(draw, 20_000);
  client.connect();
} else {
  for (const node of [byId("desk"), document.querySelector("queue-connection"), byId("alerts"), byId("help")]) show(node, false);
  (await import("./panel-gate.js")).openGate(byId("gate"), role);
}
