// Actions that a performer seldom needs: abandon, refund, split, empty the queue. And the text for a stale command.
import { ask, toast } from "../lib/dialog.js";
import { el, setText } from "../lib/dom.js";
import { count, exactClock, tokens } from "../lib/format.js";
import { errorText, t } from "../lib/messages.js";
import { itemPath } from "../lib/protocol.js";

const ABANDON_REASONS = ["performer_declined", "technical_error", "timeout", "user_cancelled"];
const REFUND_REASONS = ["performer_declined", "technical_error", "user_cancelled", "timeout", "admin_refund"];

const facts = (item) => [
  [t("fact.item"), item.title],
  [t("fact.viewer"), item.userId],
  [t("fact.tokens"), tokens(item.tokens)],
];

const askWhy = async (item, act, reasons) =>
  (
    await ask({
      title: t(`${act}.title`),
      text: t(`${act}.text`),
      facts: facts(item),
      reasons,
      danger: true,
      confirm: t(`${act}.confirm`, { n: item.tokens }),
    })
  )?.reason;

/** `askAbandon` and `askRefund` resolve with the reason, or with undefined if the reader cancels. */
export const askAbandon = (item) => askWhy(item, "abandon", ABANDON_REASONS);
export const askRefund = (item) => askWhy(item, "refund", REFUND_REASONS);

/** Resolves with the tokens that go back to the viewer, or null if the reader cancels. */
export async function askSplit(item) {
  const hint = el("p", { role: "status" });
  const answer = await ask({
    title: t("split.title"),
    text: t("split.text"),
    facts: facts(item),
    confirm: t("split.confirm"),
    amount: {
      label: t("split.amount"),
      min: 1,
      max: item.tokens - 1,
      value: Math.max(1, Math.round(item.tokens / 2)),
      hint,
      oninput: (back) =>
        setText(
          hint,
          back > 0 && back < item.tokens
            ? t("split.result", { back: count(back), keep: count(item.tokens - back) })
            : t("split.range", { max: item.tokens - 1 }),
        ),
    },
  });
  return answer && answer.amount;
}

/** Refunds all active items, one after the other, after the reader has typed their number. */
export async function emptyQueue(client, announce) {
  const { items } = client.state;
  const total = items.reduce((sum, item) => sum + item.tokens, 0);
  const answer = await ask({
    title: t("emptyQueue.title"),
    text: t("emptyQueue.text", { n: items.length, total: tokens(total) }),
    danger: true,
    reasons: REFUND_REASONS,
    typed: { label: t("emptyQueue.typed", { n: items.length }), text: String(items.length) },
    confirm: t("emptyQueue.confirm", { n: total }),
  });
  if (!answer) return;
  let done = 0;
  for (const { itemId } of items) {
    announce(itemId);
    try {
      await client.command("refund", { itemId, reason: answer.reason });
      done += 1;
    } catch (error) {
      if (error.code === "DISCONNECTED") break; // the rest would fail as well; what was done stays done
    }
  }
  toast(t("emptyQueue.done", { n: done, all: items.length }), done === items.length ? "plain" : "bad");
}

/** The text for a command that came too late: who changed the item before it. */
export async function whoWasFaster(session, { role, sub }, item, error) {
  try {
    const { transitions } = await session.get(`${itemPath(item.itemId)}/transitions`);
    const { actorRole, actorId, to, at } = transitions.findLast((row) => row.from !== row.to);
    const who = actorRole === role && actorId === sub ? t("who.you") : t(`who.${actorRole}`, { id: actorId });
    return t("stale", { title: item.title, status: t(`status.${to}`), who, time: exactClock(Date.parse(at)) });
  } catch {
    return errorText(error); // the audit trail could not be read
  }
}
