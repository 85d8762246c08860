// What became of an item's tokens, as its owner and its performer may be told. Green is said only of what the
// wallet has confirmed.
import { count, shortId } from "./format.js";
import { t } from "./messages.js";

/** {tone: "good" | "busy" | "warn" | "bad" | "quiet", text, reference} */
export function moneyState(item) {
  const wallet = item.walletStatus ?? "none";
  const reference = item.settlementTransactionId ?? item.refundTransactionId ?? null;
  const state = (tone, key, params = {}) => ({ tone, text: t(`money.${key}`, { ...params, n: item.tokens }), reference });
  if (wallet === "dead") return { ...state("bad", "failed"), reference: shortId(item.escrowTransactionId ?? item.itemId) };
  if (item.status === "created" || item.status === "started") return state("quiet", "held");
  if (item.status === "finished") {
    if (item.settled && item.refundedTokens) {
      const both = { settled: count(item.settledTokens), refunded: count(item.refundedTokens) };
      return { ...state("good", "split", both), reference };
    }
    if (item.settled) return state("good", "settled");
    return wallet === "retrying" ? state("warn", "settleRetrying") : state("busy", "settling");
  }
  if (item.status === "refunded" && (wallet === "done" || item.refundTransactionId)) return state("good", "refunded");
  return wallet === "retrying" ? state("warn", "refundRetrying") : state("busy", "refunding");
}

/** Will the money still change by itself? */
export const isMoneyMoving = (item) => ["busy", "warn"].includes(moneyState(item).tone);
