// The watch page: a viewer's own place first, then the stage and the queue. Renders the state of queue-client.js.
import { alertReader, markTab } from "../lib/attention.js";
import { queueRow, updateQueueRow } from "../lib/cards.js";
import { stopNote } from "../lib/connection-element.js";
import { ask, toast } from "../lib/dialog.js";
import { byId, el, everySecond, oncePerFrame, setAttribute, setText, show } from "../lib/dom.js";
import { renderList } from "../lib/lists.js";
import { featureName, inLine, stopwatch, tokens } from "../lib/format.js";
import { errorText, t, translate, words } from "../lib/messages.js";
import { placeHero, outcomeHero, visitorHero } from "./hero.js";
import { isMoneyMoving } from "../lib/outcome.js";
import { showHistory, showRequests } from "./own-rows.js";
import { isActive, itemPath } from "../lib/protocol.js";
import { QueueClient } from "../queue-client.js";
import { roomNotes, situationOf } from "./room-notes.js";
import { drawClock, drawStage } from "./stage-card.js";
import { Session } from "../lib/session.js";
import { isNext, isStill, onStage, stageSeconds, standing } from "../lib/stage.js";
import { prepareNextVisit } from "./next-visit.js";
import { pushSwitch } from "./push-switch.js";
import { accuracyText, openOutlook, waitOfNew } from "./outlook.js";
import { browserStorage, tabStorage } from "../lib/storage.js";
import { waitClock, waitOf, waitText } from "../lib/wait.js";

const HISTORY_PAGE = 10;
const REFINE_MS = 30_000;
const MONEY_POLL_MS = 3_000;
const BEGAN_SLOT = "queue.began";
const SEEN_SLOT = "queue.notices";
/** The milestones: their position in a room's `notifyPositions`, and whether an item has reached them. */
const MILESTONES = {
  "queue.item.third_position_notice": { named: 3, holds: (item) => item.position === 3 },
  "queue.item.next_up_notice": { named: 1, holds: isNext },
};

const performer = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const session = new Session();
const push = pushSwitch(session);
const client = new QueueClient({ performerId: performer, token: session.token });

translate(document);
setText(byId("performer"), performer);
markTab(performer, null);

/** The viewer's own items by id, with all fields, as last received: active and ended ones. */
const own = new Map();
const history = { items: [], total: 0, loaded: false };
let notices = [];
let outcome = null;
let outlook = null;

const isOwner = () => client.identity.role === "viewer" && client.identity.sub !== null;

/** Own active items in queue order, with all fields and their waits. */
function mine() {
  const waits = new Map(client.state.mine.map((entry) => [entry.itemId, entry]));
  return client.state.items
    .filter((item) => waits.has(item.itemId))
    .map((item) => ({ ...own.get(item.itemId), ...waits.get(item.itemId), ...item }));
}

// Events of the server

const draw = oncePerFrame(() => {
  if (client.state.version === null) return;
  const items = mine();
  drawRoom(items);
  drawHero(items);
  drawStage(client.state, performer, client.now());
  drawQueue(items);
  drawRequests(items);
  markTab(performer, items[0]?.position ?? null);
});

client.addEventListener("change", ({ detail }) => {
  const { state, previous } = detail;
  for (const item of mine()) rememberBeginning(item);
  const here = new Set(state.items.map((item) => item.itemId));
  for (const entry of previous.mine) if (!here.has(entry.itemId)) learn(entry.itemId);
  for (const entry of state.mine) if (!own.has(entry.itemId)) own.set(entry.itemId, entry);
  draw();
});

client.addEventListener("position", ({ detail }) => {
  if (!isActive(detail)) learn(detail.itemId);
});

client.addEventListener("connection", () => {
  if (client.connection.status === "live" && isOwner() && !history.loaded) loadHistory();
  draw();
});

client.addEventListener("recovered", ({ detail: { before, after } }) => {
  // Of the missed milestones only those are noted that an item has not left again.
  const watched = after.room?.notifyPositions ?? [3, 1];
  for (const item of mine()) {
    const was = before.items.find(({ itemId }) => itemId === item.itemId);
    for (const [template, { named, holds }] of Object.entries(MILESTONES)) {
      const reached = item.status === "created" && holds(item, after.items) && !(was && holds(was, before.items));
      if (!reached || !watched.includes(named)) continue;
      addNotice({ template, itemId: item.itemId, params: { position: item.position, title: item.title } });
    }
  }
});

client.addEventListener("notice", ({ detail }) => addNotice(detail));

function addNotice({ template, itemId, params = {}, noticeId = `${itemId}:${template}` }) {
  const seen = JSON.parse(tabStorage.getItem(SEEN_SLOT) ?? "[]");
  const known = notices.some((notice) => notice.itemId === itemId && notice.template === template);
  if (known || seen.includes(noticeId)) return;
  tabStorage.setItem(SEEN_SLOT, JSON.stringify([...seen, noticeId].slice(-100)));
  const notice = { template, itemId, position: params.position, noticeId, params };
  notices = [...notices.filter((other) => other.itemId !== itemId), notice];
  const item = mine().find((own) => own.itemId === itemId);
  alertReader((item && whenNext(item)) || noticeText(notice), item?.title ?? "", itemId);
  draw();
}

function noticeText({ template, params, position, itemId }) {
  const text = t(template, { performer, ...params, n: position, position });
  const [first] = mine();
  return first && first.itemId !== itemId ? `${params.title ?? ""}: ${text}` : text;
}

/** For a lock screen: "You’re next after “Jolene”, about 2:40"; empty while no time can be named. */
function whenNext(item) {
  const current = onStage(client.state.items);
  const wait = waitFor(item);
  if (!current || stands() || !isNext(item, client.state.items) || !wait) return "";
  return t("notice.outlook", { title: current.title, time: stopwatch((wait.low + wait.high) / 2) });
}

/** Whether a notice is still true: its item waits at the position that it names. */
function holds({ template, itemId, position }) {
  const item = client.state.items.find((own) => own.itemId === itemId);
  if (item?.status !== "created") return false;
  return MILESTONES[template] ? MILESTONES[template].holds(item, client.state.items) : item.position === position;
}

const fetching = new Map();

/** Reads an own item again. An ended one becomes the shown outcome, and is read again until its payment is final. */
async function learn(itemId) {
  if (!isOwner() || fetching.has(itemId)) {
    if (fetching.has(itemId)) fetching.set(itemId, true);
    return;
  }
  fetching.set(itemId, false);
  // Read before the request: the history may add the ended item meanwhile.
  const before = own.get(itemId);
  try {
    const item = await session.get(itemPath(itemId));
    own.set(itemId, item);
    if (!isActive(item)) {
      if (!before || isActive(before) || outcome?.itemId === itemId) outcome = item;
      const place = history.items.findIndex((known) => known.itemId === itemId);
      if (place >= 0) history.items[place] = item;
      else history.items.unshift(item);
      if (isMoneyMoving(item)) setTimeout(() => learn(itemId), MONEY_POLL_MS);
    }
    draw();
  } catch (error) {
    if (error.code === "DISCONNECTED" || error.problem.status >= 500) setTimeout(() => learn(itemId), MONEY_POLL_MS);
  } finally {
    const again = fetching.get(itemId);
    fetching.delete(itemId);
    if (again) learn(itemId);
  }
}

async function loadHistory() {
  history.loaded = true;
  try {
    const user = encodeURIComponent(client.identity.sub);
    const path = `/v1/users/${user}/queue/items?limit=${HISTORY_PAGE}&skip=${history.items.length}`;
    const page = await session.get(path);
    const known = new Set(history.items.map((item) => item.itemId));
    const here = new Set(client.state.items.map((item) => item.itemId));
    history.items.push(...page.items.filter((item) => !known.has(item.itemId)));
    history.total = page.total;
    for (const item of page.items) {
      // The event of an ended item that is still in the queue has not arrived: `learn` will make it the outcome.
      if (isActive(item) || !here.has(item.itemId)) own.set(item.itemId, item);
      const moving = item.performerId === performer && !isActive(item) && isMoneyMoving(item);
      if (moving) setTimeout(() => learn(item.itemId), MONEY_POLL_MS);
    }
  } catch {
    history.loaded = false; // loaded again on the next connection
  }
  draw();
}

// The room

function drawRoom(items) {
  const { room, items: queue } = client.state;
  const online = Boolean(room?.performerOnline);
  show(byId("presence"), situationOf(room, queue) !== "unknown");
  setAttribute(byId("presence"), "data-online", online);
  setText(byId("presence"), t(online ? "presence.online" : "presence.offline"));
  setText(byId("depth"), room.version > 0 && room.mode !== "off" ? t("depth", { n: queue.length, max: room.maxDepth }) : "");
  setText(byId("announcement"), room?.announcement ?? "");
  show(byId("announcement"), Boolean(room?.announcement));
  const notes = roomNotes(room, queue, { performer, waiting: items.length > 0 });
  renderList(
    byId("room-notes"),
    notes,
    (note) => note.key,
    (note) => el("li", { class: `note ${note.tone}`, "data-testid": "room-note", "data-note": note.key }),
    (node, note) => setText(node, note.text),
  );
}

// The hero

function drawHero(items) {
  const hero = byId("hero");
  const { room, items: queue } = client.state;
  const live = client.connection.status === "live";
  hero.removeAttribute("aria-busy");
  document.querySelector("main").toggleAttribute("data-spectator", !items.length && !outcome);
  document.documentElement.toggleAttribute("data-ready", true);
  notices = notices.filter(holds);
  if (items.length) {
    const [item] = items;
    outcome = null;
    const started = item.status === "started";
    const wait = started
      ? { words: isStill(item) ? "" : t("hero.enjoy"), clock: "" }
      : {
          words: t("hero.wait", { wait: waitWords(item) }),
          clock: stands() ? "" : waitClock(waitFor(item), Date.now(), words),
        };
    const written = notices.map((notice) => ({ ...notice, text: noticeText(notice) }));
    placeHero(hero, item, {
      began: Math.max(beginning(item.itemId), item.position),
      standing: standing(item, queue, words),
      wait,
      notices: written,
      live,
      cancel,
      push,
    });
  } else if (outcome) {
    outcomeHero(hero, outcome, () => {
      outcome = null;
      draw();
    });
  } else {
    const situation = situationOf(room, queue);
    const taken = situation === "open" && room.accepting && queue.length < room.maxDepth;
    visitorHero(hero, {
      depth: queue.length,
      situation,
      owner: isOwner(),
      wait: taken && queue.length ? waitOfNew(outlook?.current) : "",
    });
  }
}

/** Whether no wait can be estimated: all clocks stand, or the performer is away. */
const stands = () => ["dark", "break"].includes(situationOf(client.state.room, client.state.items));

function waitWords(item) {
  if (!stands()) return waitText(waitFor(item), words);
  return t(client.state.room.performerOnline ? "wait.standing" : "wait.dark", { performer });
}

const waitFor = (item) => waitOf(item, client.state.items, client.now());

/** Reads the waits of own items again: an item on stage that overruns makes no event. */
async function refine() {
  if (document.visibilityState !== "visible" || client.connection.status !== "live") return;
  for (const { itemId } of mine().filter((item) => item.status === "created")) {
    const position = await session.get(`${itemPath(itemId)}/position`).catch(() => null);
    if (position && position.position > 0) client.adopt(position);
  }
}

function beginning(itemId) {
  return JSON.parse(browserStorage.getItem(BEGAN_SLOT) ?? "{}")[itemId] ?? 0;
}

function rememberBeginning(item) {
  if (beginning(item.itemId) >= item.position) return;
  const known = Object.entries(JSON.parse(browserStorage.getItem(BEGAN_SLOT) ?? "{}")).slice(-49);
  browserStorage.setItem(BEGAN_SLOT, JSON.stringify({ ...Object.fromEntries(known), [item.itemId]: item.position }));
}

async function cancel(item) {
  const answer = await ask({
    title: t("cancel.title"),
    text: t("cancel.text"),
    danger: true,
    confirm: t("cancel.confirm", { n: item.tokens }),
    facts: [
      [t("fact.item"), item.title],
      [t("fact.tokens"), tokens(item.tokens)],
    ],
  });
  if (!answer) return;
  try {
    await session.post(`${itemPath(item.itemId)}/refund`, { reason: "user_cancelled" });
  } catch (error) {
    toast(errorText(error), "bad");
  }
  await learn(item.itemId);
  keepFocus();
}

/** Moves the focus from the button that has disappeared with its request to the card with the outcome. */
function keepFocus() {
  setTimeout(() => {
    if (document.activeElement === document.body || !document.activeElement?.isConnected) byId("hero").focus();
  }, 100);
}

// The queue

function drawQueue(items) {
  const ids = new Set(items.map((item) => item.itemId));
  renderList(
    byId("queue"),
    client.state.items,
    (item) => item.itemId,
    (item) => queueRow(item),
    (row, item) => updateQueueRow(row, item, { mine: ids.has(item.itemId) }),
    true,
  );
  const empty = client.state.items.length === 0;
  show(byId("queue"), !empty);
  show(byId("queue-empty"), empty);
  const { room } = client.state;
  const isFirst = room.accepting && situationOf(room, []) === "open";
  const nobody = room.mode === "off" ? "queue.off" : isFirst ? "queue.empty" : "queue.nobody";
  setText(byId("queue-empty"), t(nobody));
  setText(byId("accuracy"), accuracyText(outlook?.current));
  show(byId("accuracy"), byId("accuracy").textContent !== "");
}

// Own requests and history

function drawRequests(items) {
  const live = client.connection.status === "live";
  const wait = (item) => (item.status === "started" ? standing(item, client.state.items, words) : waitWords(item));
  showRequests(items, { live, wait, cancel });
  showHistory(isOwner() ? history.items.filter((item) => !isActive(item)) : [], performer);
  show(byId("history-more"), history.items.length < history.total);
}

byId("history-more").addEventListener("click", loadHistory);

// Changes during a loss of connection

function describeChanges(before, after) {
  const words = [];
  const was = new Map(before.items.map((item) => [item.itemId, item]));
  const is = new Map(after.items.map((item) => [item.itemId, item]));
  for (const { itemId } of before.mine) {
    const [from, to] = [was.get(itemId)?.position, is.get(itemId)?.position];
    if (from && to && from !== to) words.push(t("changes.moved", { from, to }));
    if (from && !to) words.push(t("changes.ownEnded"));
  }
  if (!words.length) {
    const joined = after.items.filter((item) => !was.has(item.itemId)).length;
    const left = before.items.filter((item) => !is.has(item.itemId)).length;
    if (joined) words.push(t("changes.joined", { n: joined }));
    if (left) words.push(t("changes.left", { n: left }));
  }
  return words.join(", ");
}

document.querySelector("queue-connection").bind(client, describeChanges);
stopNote(client, byId("stopped"), {
  spectate: () => session.use(null),
});
session.addEventListener("change", () => {
  own.clear();
  Object.assign(history, { items: [], total: 0, loaded: false });
  outcome = null;
  client.setToken(session.token);
  push.keep();
});
everySecond(() => client.state.version !== null && drawClock(client.state.items, client.now()));
setInterval(draw, 15_000);
setInterval(refine, REFINE_MS);
client.connect();
client.ready.then(async () => {
  outlook = openOutlook(session, performer, draw);
  await prepareNextVisit();
  push.keep();
});
