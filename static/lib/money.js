// The line about an item's tokens, with the reference by which a payment is found.
import { el, setAttribute, setText } from "./dom.js";
import { shortId } from "./format.js";
import { t, words } from "./messages.js";
import { moneyState } from "./outcome.js";

export const moneyLine = () =>
  el("p", { class: "money", "data-testid": "money" }, el("span"), el("span", { class: "reference" }));

/** Makes a money line true. `brief`: enough of the reference to recognise it by. */
export function showMoney(node, item, brief = false) {
  const { tone, text, reference } = moneyState(item, words);
  setAttribute(node, "data-tone", tone);
  setText(node.firstChild, text);
  setText(node.lastChild, reference ? t("money.reference", { reference: brief ? shortId(reference) : reference }) : "");
  setAttribute(node.lastChild, "title", brief && reference);
}
