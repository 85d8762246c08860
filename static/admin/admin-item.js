// One item's whole story: what it is, where its money is, every step it took and who took it; and the forced refund.
import { ask, toast } from "../lib/dialog.js";
import { byId, el, setText } from "../lib/dom.js";
import { count, dayAndTime, exactClock, inLine, tokens } from "../lib/format.js";
import { errorText, t, words } from "../lib/messages.js";
import { moneyState } from "../lib/outcome.js";
import { itemPath } from "../lib/protocol.js";

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

export function openItem(session) {
  let itemId = "";

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
    const path = itemPath(itemId);
    try {
      const [item, { transitions }] = await Promise.all([session.get(path), session.get(`${path}/transitions`)]);
      const stamp = JSON.stringify([item, transitions.length]);
      if (asked || byId("item-body").stamp !== stamp) draw(item, transitions);
      byId("item-body").stamp = stamp;
    } catch (error) {
      if (!["ITEM_NOT_FOUND", "NOT_FOUND", "VALIDATION_ERROR"].includes(error.code)) throw error;
      byId("item-body").replaceChildren(el("p", { class: "card empty" }, t("itemView.unknown")));
    }
  }

  function draw(item, transitions) {
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
          el("h3", {}, item.title),
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
          el("p", { class: "item-note" }, item.description),
          el("dl", { class: "facts" }, facts),
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

  /** The trail of its status, and the wallet's word on its tokens. */
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
  }

  return { refresh };
}
