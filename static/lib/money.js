// What became of an item's tokens, as its owner and its performer may be told. Green is said only of what the
// wallet has confirmed.
import { el, setAttribute, setText } from "./dom.js";
import { count, shortId } from "./format.js";
import { t } from "./messages.js";

/** {tone: "good" | "busy" | "warn" | "bad" | "quiet", text, reference} */
export function moneyState(item) {
  const wallet = item.walletStatus ?? "none";
  const reference = item.settlementTransactionId ?? item.refundTransactionId ?? null;
  const state = (tone, key, params = {}) => ({
    tone,
    text: t(`money.${key}`, { ...params, n: item.tokens }),
    reference,
  });
  if (wallet === "dead") return { ...state("bad", "failed"), reference: item.escrowTransactionId ?? item.itemId };
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

export const moneyLine = () =>
  el("p", { class: "money", "data-testid": "money" }, el("span"), el("span", { class: "reference" }));

/** Makes a money line true. `brief`: enough of the reference to recognise it by. */
export function showMoney(node, item, brief = false) {
  const { tone, text, reference } = moneyState(item);
  setAttribute(node, "data-tone", tone);
  setText(node.firstChild, text);
  setText(node.lastChild, reference ? t("money.reference", { reference: brief ? shortId(reference) : reference }) : "");
  setAttribute(node.lastChild, "title", brief && reference);
}
