// Administration: rooms, the service's health, failing payments, analytics, replay and single items. It reads the shown
// view again every REFRESH_MS while the page is visible, and shows the age of its data.
import { openAnalytics } from "./admin-analytics.js";
import { openItem } from "./admin-item.js";
import { openReplay } from "./admin-replay.js";
import { openTrouble } from "./admin-trouble.js";
import { openWalletCheck } from "./admin-wallet-check.js";
import { ask, toast } from "../lib/dialog.js";
import { byId, el, setAttribute, setText, show } from "../lib/dom.js";
import { count, dayAndTime, duration, exactClock, shortId, stopwatch, tokens } from "../lib/format.js";
import { errorText, t, translate } from "../lib/messages.js";
import { Session } from "../lib/session.js";
import { stageSeconds } from "../lib/stage.js";
import { roomState, tag } from "./room-state.js";
import { downloadCsv, drawTable } from "./table.js";

const REFRESH_MS = 5_000;
const ROOMS_PAGE = 50;
const OPERATIONS_PAGE = 25;
const EXPORT_MOST = 5_000;
const LOOKED_INTO = 20;
const OVERDUE = 1.5;
const WAITS_LONG_SECONDS = 1_800;
const VIEWS = ["rooms", "wallet", "analytics", "replay", "item"];
const STATUSES = ["dead", "retrying", "pending", "done"];

translate(document);
const session = new Session();
const analytics = openAnalytics(session);
const replay = openReplay(session);
const item = openItem(session);
const walletCheck = openWalletCheck(session);
const trouble = openTrouble(session, serverNow);

let roomsSkip = 0;
let operationsSkip = 0;
let wanted = "dead";
let freshAt = null;
let failing = null;

// Views

const view = () => {
  const [name] = location.hash.slice(1).split("/");
  return VIEWS.includes(name) ? name : "rooms";
};

function turn() {
  const current = view();
  for (const name of VIEWS) show(byId(`view-${name}`), name === current);
  for (const tab of byId("tabs").children)
    setAttribute(tab, "aria-current", tab.hash === `#${current}` ? "page" : null);
  refresh(true);
}

byId("tabs").append(...VIEWS.map((name) => el("a", { href: `#${name}` }, t(`admin.${name}`))));

const refreshing = {
  rooms: async () => {
    await Promise.all([refreshHealth(), refreshRooms()]);
  },
  wallet: refreshWallet,
  analytics: (asked) => analytics.refresh(asked),
  replay: (asked) => replay.refresh(asked),
  item: (asked) => item.refresh(asked, decodeURIComponent(location.hash.split("/")[1] ?? "")),
};

let running = null;

async function refresh(asked = false) {
  if (!session.token || (document.visibilityState !== "visible" && !asked)) return;
  const token = {};
  running = token;
  try {
    await Promise.all([refreshing[view()](asked), trouble.refresh()]);
    freshAt = Date.now();
    failing = null;
  } catch (error) {
    failing = error;
  }
  if (running !== token) return;
  if (failing && ["UNAUTHORIZED", "FORBIDDEN"].includes(failing.code)) refuse(t("gate.adminWrong"));
  drawFreshness();
}

function drawFreshness() {
  const pill = document.querySelector("[data-testid=connection]");
  const time = freshAt === null ? "" : exactClock(freshAt);
  const lost = failing !== null && ["DISCONNECTED", "UNAVAILABLE", "INTERNAL"].includes(failing.code);
  setAttribute(pill, "data-status", lost ? "reconnecting" : freshAt === null ? "connecting" : "live");
  document.documentElement.toggleAttribute("data-stale", lost && freshAt !== null);
  setText(
    byId("freshness"),
    lost && time ? t("connection.reconnecting", { time }) : time ? t("admin.fresh") : t("connection.connecting"),
  );
  for (const button of document.querySelectorAll("[data-command]")) button.disabled = lost;
}

const itemLink = (itemId) => el("a", { href: `#item/${encodeURIComponent(itemId)}`, title: itemId }, shortId(itemId));

function pager(node, total, limit, skip, go) {
  const many = total > limit;
  show(node, many);
  if (!many) return;
  const button = (key, to, possible) =>
    el("button", { class: "button small", type: "button", disabled: !possible, onclick: () => go(to) }, t(key));
  node.replaceChildren(
    el("span", { class: "muted" }, t("admin.range", { from: skip + 1, to: Math.min(total, skip + limit), total })),
    button("admin.earlier", Math.max(0, skip - limit), skip > 0),
    button("admin.later", skip + limit, skip + limit < total),
  );
}

// The service

/** The states that are shown in green; all others, also unknown ones, are red. */
const GOOD = new Set(["ok", "closed"]);

/** One figure of the Prometheus text, or null: reading("queue_wallet_breaker", 'state="open"'). */
const reading = (text, name, label = "") => {
  const line = text
    .split("\n")
    .find((each) => each.startsWith(label ? `${name}{` : `${name} `) && each.includes(label));
  return line === undefined ? null : Number(line.slice(line.lastIndexOf(" ")));
};

async function refreshHealth() {
  // The metrics are those of the machine that answers; the audiences include all machines.
  const [report, metrics, everywhere] = await Promise.all([
    session.get("/readyz"),
    session.text("/metrics").catch(() => ""),
    session.get("/v1/admin/audiences?limit=1").catch(() => null),
  ]);
  const states = Object.entries(report.checks ?? {}).map(([name, state]) => [
    name,
    String(state?.status ?? state),
    true,
  ]);
  const breaker = metrics.match(/^queue_wallet_breaker\{state="([^"]+)"\} 1(\.0)?$/m)?.[1];
  if (breaker) states.push([t("health.breaker"), breaker, true]);
  const figures = [
    ["health.sockets", everywhere?.sockets ?? null],
    ["health.lagging", everywhere?.laggingSockets ?? null],
    ["health.dead", reading(metrics, "queue_wallet_operations", 'status="dead"')],
  ];
  for (const [key, value] of figures) if (value !== null) states.push([t(key), count(value), false]);
  byId("health").replaceChildren(
    ...states.map(([name, words, judged]) =>
      el(
        "li",
        { class: "card" },
        el("span", { class: "muted" }, name),
        judged ? tag(words, GOOD.has(words) ? "good" : "bad") : el("strong", {}, words),
      ),
    ),
  );
}

// Rooms

let rooms = [];

/** Of the rooms whose queue was read: how long their first item has waited in seconds, and the tokens of all items. */
const oldest = new Map();
const tokensIn = new Map();

/** The sockets of the shown rooms, by performer; null if they could not be read. A room without sockets is missing. */
let audiences = null;

const watching = (room, words) =>
  audiences === null ? "–" : words(audiences.get(room.performerId) ?? { sockets: 0, laggingSockets: 0 });

const ROOM_COLUMNS = [
  {
    title: t("rooms.performer"),
    sort: (room) => room.performerId,
    cell: (room) => [
      el("a", { href: `/watch/${encodeURIComponent(room.performerId)}` }, room.performerId),
      el(
        "button",
        {
          class: "button quiet small",
          type: "button",
          "aria-label": `${t("rooms.panel")} ${room.performerId}`,
          onclick: () => openPanel(room.performerId),
        },
        t("rooms.panel"),
      ),
      el(
        "a",
        {
          class: "button quiet small",
          href: `#replay/${encodeURIComponent(room.performerId)}`,
          "aria-label": `${t("admin.replay")} ${room.performerId}`,
        },
        t("admin.replay"),
      ),
    ],
    key: (room) => room.performerId,
  },
  {
    title: t("rooms.state"),
    sort: (room) => [!room.performerOnline, room.paused, !room.accepting, room.mode === "off"].map(Number).join(""),
    cell: roomState,
    key: (room) => [room.performerOnline, room.paused, room.accepting, room.mode].join(),
  },
  {
    title: t("rooms.depth"),
    number: true,
    sort: (room) => room.depth,
    cell: (room) => `${count(room.depth)} / ${count(room.maxDepth)}`,
  },
  {
    title: t("rooms.tokens"),
    number: true,
    sort: (room) => tokensIn.get(room.performerId) ?? 0,
    cell: (room) =>
      room.depth === 0 || tokensIn.has(room.performerId) ? count(tokensIn.get(room.performerId) ?? 0) : "–",
  },
  {
    title: t("rooms.oldest"),
    number: true,
    sort: (room) => oldest.get(room.performerId) ?? 0,
    cell: (room) => (oldest.has(room.performerId) ? duration(oldest.get(room.performerId)) : "–"),
  },
  {
    title: t("health.sockets"),
    number: true,
    sort: (room) => audiences?.get(room.performerId)?.sockets ?? 0,
    cell: (room) => watching(room, ({ sockets }) => count(sockets)),
  },
  {
    title: t("rooms.lagging"),
    number: true,
    sort: (room) => audiences?.get(room.performerId)?.laggingSockets ?? 0,
    cell: (room) =>
      watching(room, ({ laggingSockets, longestLagSeconds }) =>
        laggingSockets ? `${count(laggingSockets)} (${stopwatch(longestLagSeconds)})` : count(0),
      ),
  },
  {
    title: t("rooms.version"),
    number: true,
    sort: (room) => room.version,
    cell: (room) => count(room.version),
  },
];

/** Opens a room's panel in a window of its own, with the administrator's token in the fragment. */
function openPanel(performerId) {
  const query = new URLSearchParams({ performer: performerId });
  open(`/panel?${query}#${new URLSearchParams({ token: session.token })}`, "_blank", "noopener");
}

byId("rooms-table").dataset.label = t("rooms.title");
byId("stuck-table").dataset.label = t("stuck.title");
byId("wallet-table").dataset.label = t("wallet.title");

async function refreshRooms() {
  const page = await session.get(`/v1/admin/rooms?limit=${ROOMS_PAGE}&skip=${roomsSkip}`);
  rooms = page.rooms;
  await Promise.all([lookInside(), countSockets()]);
  drawTable(byId("rooms-table"), ROOM_COLUMNS, rooms, (room) => room.performerId, t("rooms.empty"));
  pager(byId("rooms-pager"), page.total, ROOMS_PAGE, roomsSkip, (skip) => {
    roomsSkip = skip;
    refresh(true);
  });
}

async function countSockets() {
  const query = new URLSearchParams({ limit: ROOMS_PAGE });
  for (const { performerId } of rooms) query.append("performerId", performerId);
  const page = await session.get(`/v1/admin/audiences?${query}`).catch(() => null);
  audiences = page && new Map(page.audiences.map((audience) => [audience.performerId, audience]));
}

const STUCK_COLUMNS = [
  {
    title: t("fact.item"),
    wide: true,
    cell: (entry) => [el("bdi", {}, entry.title), itemLink(entry.itemId)],
    key: (entry) => entry.itemId,
  },
  { title: t("rooms.performer"), cell: (entry) => entry.performerId },
  { title: t("stuck.why"), cell: (entry) => tag(t(`stuck.${entry.why}`), "warn"), key: (entry) => entry.why },
  { title: t("fact.tokens"), number: true, cell: (entry) => count(entry.tokens) },
  { title: t("stuck.since"), number: true, cell: (entry) => duration(entry.seconds) },
];

/** The service's time in ms, to the second: this device's clock may be wrong. */
async function serverNow() {
  const response = await fetch("/healthz", { cache: "no-store" });
  await response.text(); // an answer that is not read keeps its connection busy
  return Date.parse(response.headers.get("Date")) || Date.now();
}

/**
 * Reads the queues of the fullest rooms: their longest waits, and items that are overdue. Rooms on a break have none,
 * because all their clocks stand.
 */
async function lookInside() {
  const full = rooms
    .filter((room) => room.depth > 0)
    .sort((a, b) => b.depth - a.depth)
    .slice(0, LOOKED_INTO);
  const [now, ...queues] = await Promise.all([
    serverNow(),
    ...full.map((room) =>
      session
        .get(`/v1/performers/${encodeURIComponent(room.performerId)}/queue`)
        .catch(() => ({ room, items: [] })),
    ),
  ]);
  const age = (item) =>
    item.status === "started" ? stageSeconds(item, now) : (now - Date.parse(item.createdAt)) / 1000;
  oldest.clear();
  tokensIn.clear();
  for (const { room, items } of queues) {
    const first = items.find((item) => item.status === "created");
    if (first) oldest.set(room.performerId, age(first));
    tokensIn.set(room.performerId, items.reduce((sum, item) => sum + item.tokens, 0));
  }
  const stuck = queues
    .filter(({ room }) => !room.paused)
    .flatMap(({ items }) => items)
    .flatMap((item) => {
      const started = item.status === "started";
      const most = started ? (item.durationSeconds ?? 60) * OVERDUE + 60 : WAITS_LONG_SECONDS;
      return age(item) > most ? [{ ...item, seconds: age(item), why: started ? "overdue" : "waiting" }] : [];
    })
    .sort((a, b) => b.seconds - a.seconds);
  show(byId("stuck-section"), stuck.length > 0);
  drawTable(byId("stuck-table"), STUCK_COLUMNS, stuck.slice(0, 20), (item) => item.itemId, "");
}

/** The records of all pages of a list, about EXPORT_MOST at most. */
async function everything(path, name) {
  const all = [];
  for (;;) {
    const page = await session.get(`${path}${path.includes("?") ? "&" : "?"}limit=100&skip=${all.length}`);
    all.push(...page[name]);
    if (page[name].length === 0 || all.length >= Math.min(page.total, EXPORT_MOST)) return all;
  }
}

async function exportRows(file, path, name, fields) {
  try {
    const all = await everything(path, name);
    downloadCsv(
      file,
      fields,
      all.map((record) => fields.map((field) => record[field])),
    );
  } catch (error) {
    toast(errorText(error), "bad");
  }
}

byId("rooms-csv").addEventListener("click", () =>
  exportRows("rooms", "/v1/admin/rooms", "rooms", [
    "performerId",
    "mode",
    "accepting",
    "paused",
    "performerOnline",
    "depth",
    "maxDepth",
    "version",
  ]),
);

// Wallet operations

const TONES = { dead: "bad", retrying: "warn", pending: "quiet", done: "good" };

const WALLET_COLUMNS = [
  {
    title: t("wallet.status"),
    cell: (row) => tag(t(`wallet.${row.status}`), TONES[row.status] ?? "quiet"),
    key: (row) => row.status,
  },
  { title: t("wallet.kind"), cell: (row) => t(`wallet.kind.${row.kind}`) },
  { title: t("fact.item"), cell: (row) => itemLink(row.itemId), key: (row) => row.itemId },
  { title: t("rooms.performer"), cell: (row) => row.performerId },
  {
    title: t("wallet.escrow"),
    cell: (row) => el("span", { title: row.escrowTransactionId }, shortId(row.escrowTransactionId)),
    key: (row) => row.escrowTransactionId,
  },
  {
    title: t("fact.tokens"),
    number: true,
    cell: ({ kind, settleTokens, refundTokens }) =>
      kind === "partial" ? `${count(settleTokens)} + ${count(refundTokens)}` : count(settleTokens + refundTokens),
  },
  { title: t("wallet.attempts"), number: true, cell: (row) => count(row.attempts) },
  { title: t("wallet.problem"), wide: true, cell: (row) => row.lastProblem ?? "" },
  {
    title: t("wallet.next"),
    cell: (row) =>
      ["pending", "retrying"].includes(row.status) && row.nextAttemptAt
        ? dayAndTime(Date.parse(row.nextAttemptAt))
        : "",
  },
  { title: t("wallet.updated"), cell: (row) => dayAndTime(Date.parse(row.updatedAt)) },
  {
    title: t("wallet.action"),
    key: (row) => row.status,
    cell: (row) =>
      ["dead", "retrying"].includes(row.status)
        ? [
            command("wallet.retry", "retry", (button) => post(button, `${row.id}/retry`, {}, "wallet.retried")),
            command("wallet.resolve", "resolve", (button) => resolve(row, button)),
          ]
        : "",
  },
];

const command = (key, name, act) =>
  el(
    "button",
    { class: "button small", type: "button", "data-command": name, onclick: (event) => act(event.currentTarget) },
    t(key),
  );

async function refreshWallet() {
  const query = new URLSearchParams({
    limit: OPERATIONS_PAGE,
    skip: operationsSkip,
    ...(wanted !== "all" && { status: wanted }),
  });
  const [page] = await Promise.all([session.get(`/v1/admin/wallet-operations?${query}`), walletCheck.refresh()]);
  drawTable(
    byId("wallet-table"),
    WALLET_COLUMNS,
    page.operations,
    (row) => row.id,
    t(wanted === "dead" ? "wallet.noneDead" : "wallet.none"),
  );
  pager(byId("wallet-pager"), page.total, OPERATIONS_PAGE, operationsSkip, (skip) => {
    operationsSkip = skip;
    refresh(true);
  });
}

byId("wallet-retry-all").addEventListener("click", (event) =>
  post(event.currentTarget, "retry", { status: "dead" }, "wallet.retriedAll"),
);

const RESOLUTIONS = ["settle", "refund", "written_off"];

async function resolve(row, button) {
  const answer = await ask({
    title: t("wallet.resolve.title"),
    text: t("wallet.resolve.text"),
    facts: [
      [t("fact.item"), row.itemId],
      [t("wallet.problem"), row.lastProblem ?? ""],
    ],
    choice: {
      label: t("wallet.resolve.how"),
      options: RESOLUTIONS.map((name) => [name, t(`wallet.resolve.${name}`)]),
    },
    note: { label: t("wallet.resolve.why"), most: 500 },
    danger: true,
    confirm: t("wallet.resolve.confirm"),
  });
  if (!answer) return;
  await post(button, `${row.id}/resolve`, { resolution: answer.choice, reason: answer.note }, "wallet.resolved");
}

/** Posts to `wallet-operations/${what}`, shows the result, and reads everything again. */
async function post(button, what, body, said) {
  // Not disabled, because that would take the focus away.
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    const result = await session.post(`/v1/admin/wallet-operations/${what}`, body);
    toast(t(said, { n: result.retried ?? 1 }));
  } catch (error) {
    toast(errorText(error), "bad");
  }
  button.ariaBusy = null;
  refresh(true);
}

function want(status) {
  wanted = status;
  operationsSkip = 0;
  for (const each of byId("wallet-filters").children)
    setAttribute(each, "aria-pressed", String(each.dataset.status === status));
  refresh(true);
}

byId("wallet-delayed").addEventListener("click", () => want("retrying"));

byId("wallet-filters").append(
  ...[...STATUSES, "all"].map((status) =>
    el(
      "button",
      {
        class: "button small",
        type: "button",
        "aria-pressed": String(status === wanted),
        "data-status": status,
        onclick: () => want(status),
      },
      t(`wallet.filter.${status}`),
    ),
  ),
);

byId("wallet-csv").addEventListener("click", () =>
  exportRows(
    "wallet-operations",
    `/v1/admin/wallet-operations${wanted === "all" ? "" : `?status=${wanted}`}`,
    "operations",
    [
      "id",
      "itemId",
      "performerId",
      "escrowTransactionId",
      "kind",
      "status",
      "settleTokens",
      "refundTokens",
      "attempts",
      "nextAttemptAt",
      "lastProblem",
      "createdAt",
      "updatedAt",
    ],
  ),
);

// Start

function refuse(text) {
  show(byId("desk"), false);
  show(byId("gate"), true);
  show(document.querySelector("[data-testid=connection]"), false);
  setText(byId("gate-text"), text);
}

session.addEventListener("change", () => location.reload());
if (!session.token) refuse(t("gate.adminNone"));
else if (session.claims.role !== "admin") refuse(t("gate.adminWrong"));
else {
  addEventListener("hashchange", turn);
  addEventListener("online", () => refresh(true));
  document.addEventListener("visibilitychange", () => refresh());
  setInterval(refresh, REFRESH_MS);
  turn();
}
