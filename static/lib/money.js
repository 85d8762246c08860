// The line about an item's tokens, with the reference of the payment.
import { copyText } from "./copy.js";
import { toast } from "./dialog.js";
import { el, setAttribute, setText, show } from "./dom.js";
import { shortId } from "./format.js";
import { icon } from "./icons.js";
import { t, words } from "./messages.js";
import { moneyState } from "./outcome.js";

export const moneyLine = () =>
  el(
    "p",
    { class: "money", "data-testid": "money" },
    el("span"),
    el("span", { class: "reference" }, el("span"), copyButton()),
  );

function copyButton() {
  const copy = el(
    "button",
    { class: "copy", type: "button", "aria-label": t("money.copy"), title: t("money.copy"), hidden: true },
    icon("copy"),
  );
  copy.addEventListener("click", async () => {
    if (await copyText(copy.reference, copy)) toast(t("money.copied"));
    else toast(t("money.notCopied"), "bad");
  });
  return copy;
}

/** Fills a money line. `brief`: shows the end of the reference only; the button copies all of it. */
export function showMoney(node, item, brief = false) {
  const { tone, text, reference } = moneyState(item, words);
  const [state, { children: [shown, copy] }] = node.children;
  setAttribute(node, "data-tone", tone);
  setText(state, text);
  setText(shown, reference ? t("money.reference", { reference: brief ? shortId(reference) : reference }) : "");
  setAttribute(shown, "title", brief && reference);
  copy.reference = reference;
  show(copy, Boolean(reference));
}
