// The performer's panel: the main button, the item on stage, the queue, and the payments of ended items.
import { alertReader, alertSwitch, markTab } from "../lib/attention.js";
import { queueRow, updateQueueRow } from "../lib/cards.js";
import { stopNote } from "../lib/connection-element.js";
import { isDialogOpen, toast } from "../lib/dialog.js";
import { button, byId, el, everySecond, oncePerFrame, setText, show } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { renderList } from "../lib/lists.js";
import { duration, inLine, tokens } from "../lib/format.js";
import { errorText, t, translate } from "../lib/messages.js";
import { isSoundWanted, soundArrival, wantSound } from "./arrival-sound.js";
import { watchLink } from "./link-life.js";
import { isHoldWanted, wantHold } from "./hold.js";
import { nowCard } from "./now-card.js";
import { showDay } from "./panel-day.js";
import { QueueClient } from "../queue-client.js";
import { breakBanner, roomSettings } from "./room-settings.js";
import { Session } from "../lib/session.js";
import * as stage from "../lib/stage.js";
import { browserStorage } from "../lib/storage.js";
import { Today } from "./today.js";

const SHORTCUT_SLOT = "queue.shortcuts";
const NEWS = new Set(["queue.item.started", "queue.item.finished", "queue.item.abandoned", "queue.item.refunded"]);

translate(document);

const session = new Session();
const { role, sub, performerId } = session.claims;
const asked = new URLSearchParams(location.search).get("performer");
const performer = { performer: sub, moderator: performerId, admin: asked }[role] ?? null;
const client = new QueueClient({ performerId: performer ?? "", token: session.token });
const today = new Today(performer, session);

/** Items for which this window has sent a command: their next change is not announced here. */
const expected = new Set();
/** Commands under way: the same one is not sent twice. */
const sending = new Set();

const onStage = () => stage.onStage(client.state.items);
const waiting = () => client.state.items.filter((item) => item.status === "created");
/** The card's item: the one on stage, else the one that would be started next. */
const subject = () => client.state.items[0] ?? null;
const usable = () => client.connection.status === "live";

/** Loads the actions that are seldom needed. */
const rare = () => import("./rare-actions.js");

// Commands

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

const change = (settings) => command("settings", settings);
const onBreak = () => Boolean(client.state.room?.paused);

/** Starts an item. Ends a break first, because the item's clock would stand; the button says so. */
async function start(type = "start-next", item = subject()) {
  if (onBreak()) await change({ paused: false });
  await command(type, type === "start" ? { itemId: item.itemId } : {}, item);
}

const finish = () => command("complete", { itemId: subject().itemId }, subject());
const pause = () => command(subject().paused ? "resume" : "pause", { itemId: subject().itemId }, subject());

async function abandon(item = subject()) {
  const reason = await (await rare()).askAbandon(item);
  if (reason) command("abandon", { itemId: item.itemId, reason }, item);
}

async function refund(item = subject()) {
  const reason = await (await rare()).askRefund(item);
  if (reason) command("refund", { itemId: item.itemId, reason }, item);
}

async function split(item = subject()) {
  const refundTokens = await (await rare()).askSplit(item);
  if (refundTokens) command("complete", { itemId: item.itemId, refundTokens }, item);
}

async function emptyQueue() {
  await (await rare()).emptyQueue(client, (itemId) => expected.add(itemId));
}

// Events of the server

const drawSettings = roomSettings(byId("switches"), byId("settings"), change, emptyQueue);
const drawBreak = breakBanner(byId("break"), change);
const desk = {
  client,
  isReady: usable,
  isSending: () => sending.size > 0,
  redraw: () => draw(),
  acts: {
    start,
    finish,
    pause,
    split,
    abandon,
    refund,
    takeBreak: () => change({ paused: true }),
    resume: () => change({ paused: false }),
  },
};
const card = nowCard(byId("now"), desk);

const draw = oncePerFrame(() => {
  if (client.state.version === null) return;
  document.documentElement.removeAttribute("data-unknown");
  card.draw();
  drawQueue();
  drawSettings(client.state, usable());
  drawBreak(client.state, usable());
  showDay(today, usable(), (item, now) => menuButton(item, () => [refundChoice(now())]));
  card.measure();
  markTab(t(onBreak() ? "panel.tabBreak" : "panel.tab", { performer }), waiting().length || null);
});

client.addEventListener("change", ({ detail }) => {
  const { state, previous, events, frame } = detail;
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
  if (item.passThroughMode) return;
  const isFirst = previous.items.length === 0;
  const isHeard = isFirst && alertReader(t("panel.alert"), `${item.title} · ${tokens(item.tokens)}`, item.itemId);
  if (!isHeard) soundArrival();
}

async function reload() {
  try {
    today.forget();
    await today.load();
  } catch {
    // The numbers are then counted from the following events only.
  }
  draw();
}

// The queue

function drawQueue() {
  const { items, room } = client.state;
  setText(byId("depth"), room ? t("depth", { n: items.length, max: room.maxDepth }) : "");
  show(byId("load"), items.length > 0);
  setText(byId("load"), loadText(items));
  renderList(
    byId("queue"),
    items,
    (item) => item.itemId,
    buildRow,
    (row, item) => {
      const waited = (client.now() - Date.parse(item.createdAt)) / 1000;
      const since = item.status === "created" && waited >= 60 ? t("panel.waiting", { time: duration(waited) }) : "";
      updateQueueRow(row, item, { detail: inLine(item.userId, since) });
      row.item = item;
      row.lastChild.disabled = !usable();
      setText(row.note, item.description);
    },
    true,
  );
  show(byId("queue"), items.length > 0);
  show(byId("queue-empty"), items.length === 0);
  setText(byId("queue-empty"), t("panel.queueEmpty"));
}

/** The tokens in the queue, and its length by the declared durations; 60 s for an item without one. */
function loadText(items) {
  const seconds = items.reduce((sum, item) => {
    const used = item.status === "started" ? stage.stageSeconds(item, client.now()) : 0;
    return sum + Math.max(0, (item.durationSeconds ?? 60) - used);
  }, 0);
  const total = tokens(items.reduce((sum, item) => sum + item.tokens, 0));
  return t("panel.load", { total, time: duration(Math.max(60, seconds)) });
}

function buildRow(item) {
  const row = queueRow(
    item,
    menuButton(item, () => rowChoices(row.item)),
  );
  row.note = el("p", { class: "row-note" });
  row.children[1].append(row.note);
  return row;
}

function menuButton(item, choices) {
  const open = async () => (await import("./menu.js")).toggleMenu(node, choices());
  const node = button("quiet icon-button", open, icon("more"));
  node.setAttribute("aria-haspopup", "menu");
  node.setAttribute("aria-expanded", "false");
  node.setAttribute("aria-label", t("panel.actionsFor", { title: item.title }));
  return node;
}

const refundChoice = (item) => ({ label: t("menu.refund"), act: () => refund(item), danger: true });

function rowChoices(item) {
  const choices = [];
  const overtakes = waiting()[0]?.itemId !== item.itemId;
  if (item.status === "created" && !onStage() && !(overtakes && client.state.room?.strictFifo)) {
    choices.push({ label: t(onBreak() ? "menu.startAfterBreak" : "menu.start"), act: () => start("start", item) });
  }
  choices.push({ label: t("menu.abandon"), act: () => abandon(item), danger: true });
  choices.push(refundChoice(item));
  return choices;
}

// Keyboard and alerts

const SHORTCUTS = {
  s: ["action.start", () => subject() && !onStage() && start()],
  f: ["action.finish", () => onStage() && (isHoldWanted() ? toast(t("help.holdHint")) : finish())],
  p: ["shortcut.pause", () => onStage() && pause()],
  a: ["action.abandon", () => subject() && usable() && abandon()],
  r: ["action.refund", () => subject() && usable() && refund()],
};

const lettersOn = () => browserStorage.getItem(SHORTCUT_SLOT) !== "off";

addEventListener("keydown", (event) => {
  // A field of a dialog that has just closed keeps the focus for a moment.
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
  const turnLetters = (on) => browserStorage.setItem(SHORTCUT_SLOT, on ? "on" : "off");
  const turnHold = (on) => {
    wantHold(on);
    draw();
  };
  shortcutHelp([...keys, ["?", t("help.label")]], [
    { id: "letters", words: t("help.letters"), isOn: lettersOn, turn: turnLetters },
    { id: "arrivals", words: t("help.arrivals"), isOn: isSoundWanted, turn: wantSound },
    { id: "hold", words: t("help.hold"), isOn: isHoldWanted, turn: turnHold },
  ]);
}

byId("help").addEventListener("click", showHelp);
byId("glance").prepend(icon("expand"));
byId("glance").addEventListener("click", async () => (await import("./glance.js")).glance(desk));
byId("overlay-link").addEventListener("click", async () =>
  (await import("./overlay-link.js")).overlayLink(performer),
);

byId("alerts").setAttribute("aria-label", t("panel.alerts"));
alertSwitch(
  byId("alerts"),
  () => {},
  (outcome) => toast(t(outcome === "on" ? "panel.alertsOn" : "panel.alertsSound")),
);

// Start

function describeChanges(before, after) {
  const was = new Map(before.items.map((item) => [item.itemId, item]));
  const is = new Set(after.items.map((item) => item.itemId));
  const joined = after.items.filter((item) => !was.has(item.itemId)).length;
  const left = before.items.filter((item) => !is.has(item.itemId)).length;
  return inLine(joined && t("changes.joined", { n: joined }), left && t("changes.left", { n: left }));
}

setText(byId("performer"), performer ?? t("panel.title"));
session.addEventListener("change", () => {
  // A fresh link of the same person keeps the page as it is.
  const fresh = session.claims;
  if (performer && fresh.role === role && fresh.sub === sub && fresh.performerId === performerId) {
    client.setToken(session.token);
  } else location.reload();
});
if (performer) {
  document.querySelector("queue-connection").bind(client, describeChanges);
  watchLink(client, session, byId("link-life"));
  stopNote(client, byId("stopped"), { renewal: session.renewal });
  everySecond(card.drawClock);
  setInterval(draw, 20_000);
  client.connect();
} else {
  document.querySelectorAll("#desk, queue-connection, #alerts, #help, #glance").forEach((node) => show(node, false));
  (await import("./panel-gate.js")).openGate(byId("gate"), role);
}
