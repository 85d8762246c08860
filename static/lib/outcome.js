// The outcome of an item and the state of its tokens, in words for its owner and its performer. `words`: see words.js.
// Only payments that the wallet has confirmed have the tone "good".

/** {tone: "good" | "busy" | "warn" | "bad" | "quiet", text, reference} */
export function moneyState(item, { t, count }) {
  const wallet = item.walletStatus ?? "none";
  const reference = item.settlementTransactionId ?? item.refundTransactionId ?? null;
  const state = (tone, key, params = {}) => ({
    tone,
    text: t(`money.${key}`, { ...params, n: item.tokens }),
    reference,
  });
  if (wallet === "dead") return { ...state("bad", "failed"), reference: item.escrowTransactionId ?? item.itemId };
  if (wallet === "written_off") return { ...state("quiet", "writtenOff"), reference: item.itemId };
  if (item.status === "created" || item.status === "started") return state("quiet", "held");
  if (item.status === "finished") {
    if (item.settled && item.refundedTokens) {
      return state("good", "split", { settled: count(item.settledTokens), refunded: count(item.refundedTokens) });
    }
    if (item.settled) return state("good", "settled");
    return wallet === "retrying" ? state("warn", "settleRetrying") : state("busy", "settling");
  }
  if (item.status === "refunded" && (wallet === "done" || item.refundTransactionId)) return state("good", "refunded");
  return wallet === "retrying" ? state("warn", "refundRetrying") : state("busy", "refunding");
}

const NO_WORDS = { t: () => "", count: () => "" };

/** Whether the state of the tokens will still change by itself. */
export const isMoneyMoving = (item) => ["busy", "warn"].includes(moneyState(item, NO_WORDS).tone);

/** {headline, detail} of an ended item. */
export function outcomeOf(item, { t }) {
  const reason = item.refundReason ?? item.abandonReason;
  const cancelled = reason === "user_cancelled";
  const why = reason && !cancelled ? t("outcome.why", { reason: t(`reason.${reason}`) }) : "";
  if (item.status === "finished") return { headline: t("outcome.finished"), detail: t("outcome.thanks") };
  const ending = item.status === "abandoned" ? "abandoned" : cancelled ? "cancelled" : "refunded";
  return { headline: t(`outcome.${ending}`), detail: why };
}
