// One item: its fields, its payment, its audit trail, and the forced refund. And the search for items.
import { ask, toast } from "../lib/dialog.js";
import { byId, el, setText } from "../lib/dom.js";
import { count, dayAndTime, exactClock, inLine, tokens } from "../lib/format.js";
import { errorText, t, words } from "../lib/messages.js";
import { moneyState } from "../lib/outcome.js";
import { itemPath } from "../lib/protocol.js";
import { drawTable } from "./table.js";

const REASONS = [
  "admin_refund",
  "technical_error",
  "timeout",
  "performer_disconnected",
  "performer_declined",
  "user_cancelled",
];
const SHOWN = [
  "performerId",
  "userId",
  "sourceFeature",
  "sourceEventId",
  "escrowTransactionId",
  "durationSeconds",
  "queueMode",
  "walletStatus",
  "settlementTransactionId",
  "settledTokens",
  "refundTransactionId",
  "refundedTokens",
];

const FOUND_MOST = 50;
const OPERATION_TONES = { dead: "bad", retrying: "warn", pending: "quiet", done: "good" };

const FOUND_COLUMNS = [
  {
    title: t("fact.item"),
    wide: true,
    key: (item) => item.itemId,
    cell: (item) => el("a", { href: `#item/${encodeURIComponent(item.itemId)}`, dir: "auto" }, item.title),
  },
  { title: t("fact.viewer"), cell: (item) => item.userId },
  { title: t("field.performerId"), cell: (item) => item.performerId },
  { title: t("wallet.status"), cell: (item) => t(`status.${item.status}`) },
  { title: t("fact.tokens"), number: true, cell: (item) => count(item.tokens) },
  { title: t("itemView.created"), cell: (item) => dayAndTime(Date.parse(item.createdAt)) },
];

export function openItem(session) {
  let itemId = "";
  let looked = "";

  byId("item-search").addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#item/${encodeURIComponent(byId("item-id").value.trim())}`;
  });

  async function refresh(asked, wanted) {
    if (wanted) byId("item-id").value = wanted;
    if (asked) itemId = wanted;
    if (!itemId) {
      byId("item-body").replaceChildren(el("p", { class: "card empty" }, t("itemView.hint")));
      return;
    }
    // A search is not repeated by itself: its list would move under the pointer.
    if (!asked && looked === itemId) return;
    const path = itemPath(itemId);
    try {
      const [item, { transitions }, { operations }] = await Promise.all([
        session.get(path),
        session.get(`${path}/transitions`),
        session.get(`/v1/admin/wallet-operations?${new URLSearchParams({ itemId })}`),
      ]);
      looked = "";
      const stamp = JSON.stringify([item, transitions.length, operations]);
      if (asked || byId("item-body").stamp !== stamp) draw(item, transitions, operations);
      byId("item-body").stamp = stamp;
    } catch (error) {
      if (!["ITEM_NOT_FOUND", "NOT_FOUND", "VALIDATION_ERROR"].includes(error.code)) throw error;
      looked = itemId;
      await find(itemId);
    }
  }

  async function find(words) {
    byId("item-body").stamp = null;
    byId("item-body").replaceChildren(el("p", { class: "card empty", role: "status" }, t("itemView.searching")));
    const query = new URLSearchParams({ q: words, limit: FOUND_MOST });
    const found = await session.get(`/v1/admin/items?${query}`);
    if (words !== itemId) return;
    if (found.items.length === 1 && found.items[0].itemId !== words) {
      location.replace(`#item/${encodeURIComponent(found.items[0].itemId)}`);
      return;
    }
    const table = el("div", { class: "card table-card", "data-testid": "found", "data-label": t("itemView.found") });
    if (found.items.length) drawTable(table, FOUND_COLUMNS, found.items, (item) => item.itemId, "");
    const since = found.lookedBackTo && dayAndTime(Date.parse(found.lookedBackTo));
    const note = [
      found.more && t("itemView.more", { n: found.items.length }),
      since && t("itemView.lookedBack", { since }),
    ].filter(Boolean);
    byId("item-body").replaceChildren(
      found.items.length ? table : el("p", { class: "card empty", role: "status" }, t("itemView.unknown")),
      ...note.map((text) => el("p", { class: "muted found-note" }, text)),
    );
  }

  /** A wallet operation of the item, with its attempts and its last problem. */
  function payment({ kind, status, attempts, settleTokens, refundTokens, lastProblem, nextAttemptAt }) {
    const facts = [
      [t("wallet.kind"), t(`wallet.kind.${kind}`)],
      [t("wallet.toPerformer"), count(settleTokens)],
      [t("wallet.toViewer"), count(refundTokens)],
      [t("wallet.attempts"), count(attempts)],
      [t("wallet.problem"), lastProblem],
      [t("wallet.next"), nextAttemptAt && dayAndTime(Date.parse(nextAttemptAt))],
    ].filter(([, value]) => value);
    return el(
      "section",
      { class: "payment", "data-testid": "payment", "aria-label": t("itemView.payment") },
      el(
        "h4",
        {},
        t("itemView.payment"),
        " ",
        el("span", { class: `tag ${OPERATION_TONES[status] ?? "quiet"}` }, t(`wallet.${status}`)),
      ),
      el(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
      ),
    );
  }

  function draw(item, transitions, operations) {
    const { tone, text, reference } = moneyState(item, words);
    const facts = SHOWN.filter((name) => item[name] !== null && item[name] !== undefined && item[name] !== "").map(
      (name) => [
        el("dt", {}, t(`field.${name}`)),
        el("dd", {}, typeof item[name] === "number" ? count(item[name]) : String(item[name])),
      ],
    );
    const refundable = item.status !== "refunded" && !item.settled;
    byId("item-body").replaceChildren(
      el(
        "div",
        { class: "columns" },
        el(
          "div",
          { class: "card item-card" },
          el("p", { class: "muted" }, item.itemId),
          el("h3", { dir: "auto", tabindex: "-1" }, item.title),
          el(
            "p",
            { class: "item-line" },
            el("span", { class: "tag" }, t(`status.${item.status}`)),
            el("span", {}, tokens(item.tokens)),
            el(
              "span",
              { class: "money", "data-tone": tone },
              el("span", {}, text),
              el("span", { class: "reference" }, reference ? t("money.reference", { reference }) : ""),
            ),
          ),
          el("p", { class: "item-note", dir: "auto" }, item.description),
          el("dl", { class: "facts" }, facts),
          operations.map(payment),
          Object.keys(item.metadata ?? {}).length > 0 &&
            el(
              "pre",
              { tabindex: "0", "aria-label": t("field.metadata") },
              el("code", {}, JSON.stringify(item.metadata, null, 2)),
            ),
          refundable &&
            el(
              "div",
              { class: "actions" },
              el(
                "button",
                { class: "button", type: "button", "data-command": "refund", onclick: () => force(item) },
                t("itemView.refund"),
              ),
            ),
        ),
        el("ol", { class: "card timeline", "data-testid": "timeline" }, steps(item, transitions).map(step)),
      ),
    );
  }

  /** The transitions of the item, and its settlement as a step of its own. */
  function steps(item, transitions) {
    const settled = { to: "settled", at: item.settledAt, actorRole: "system", reason: item.settlementTransactionId };
    return item.settled ? [...transitions, settled].sort((a, b) => (a.at < b.at ? -1 : 1)) : transitions;
  }

  function step({ to, at, actorRole, actorId, reason, roomVersion }) {
    const time = el("time", { datetime: at, title: at });
    setText(time, `${dayAndTime(Date.parse(at)).replace(/,?\s*\d{1,2}:\d{2}.*$/, "")} · ${exactClock(Date.parse(at))}`);
    const known = reason && t(`reason.${reason}`);
    return el(
      "li",
      { "data-to": to },
      el(
        "p",
        {},
        el("strong", {}, t(`status.${to}`)),
        reason && el("span", { class: "muted" }, ` ${known === `reason.${reason}` ? reason : known}`),
      ),
      el(
        "p",
        { class: "muted" },
        time,
        ` · ${inLine(t(`who.${actorRole}`, { id: actorId }), roomVersion && t("itemView.version", { n: roomVersion }))}`,
      ),
    );
  }

  async function force(item) {
    const answer = await ask({
      title: t("itemView.refundTitle"),
      text: t("itemView.refundText"),
      reasons: REASONS,
      danger: true,
      facts: [
        [t("fact.item"), item.title],
        [t("fact.viewer"), item.userId],
        [t("fact.tokens"), tokens(item.tokens)],
      ],
      confirm: t("refund.confirm", { n: item.tokens }),
    });
    if (!answer) return;
    try {
      await session.post(`${itemPath(item.itemId)}/refund`, { reason: answer.reason });
      toast(t("itemView.refunded"));
    } catch (error) {
      toast(errorText(error), "bad");
    }
    await refresh(true, item.itemId);
    // The pressed button is gone.
    byId("item-body").querySelector("h3")?.focus();
  }

  return { refresh };
}
