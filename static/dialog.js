// One modal question at a time: what is about to happen, to which item, and what has to be said for it.
import { button, el } from "./dom.js";
import { t } from "./messages.js";

let number = 0;

/**
 * Resolves with the answers, or null when the reader backs out.
 * `facts`: [term, text] pairs that name the item; `reasons`: reason codes to choose from; `amount`: {label, min, max,
 * value}; `typed`: {label, text}, which has to be typed exactly before the confirming button works.
 */
export function ask({
  title,
  text = "",
  facts = [],
  reasons = null,
  amount = null,
  typed = null,
  confirm,
  danger = false,
}) {
  const name = `dialog-${++number}`;
  const fields = [];
  const field = (label, control, hint) => {
    control.id = `${name}-${fields.length}`;
    fields.push(el("div", { class: "field" }, el("label", { for: control.id }, label), control, hint));
    return control;
  };
  const reason =
    reasons &&
    field(
      t("dialog.reason"),
      el(
        "select",
        {},
        reasons.map((code) => el("option", { value: code }, t(`reason.${code}`))),
      ),
    );
  const share =
    amount &&
    field(
      amount.label,
      el("input", {
        type: "number",
        inputmode: "numeric",
        min: amount.min,
        max: amount.max,
        value: amount.value,
        step: 1,
        required: true,
      }),
      amount.hint,
    );
  const proof = typed && field(typed.label, el("input", { inputmode: "numeric", autocomplete: "off", required: true }));
  const yes = el("button", { class: `button ${danger ? "danger" : "primary"}`, value: "yes", type: "submit" }, confirm);
  const dialog = el(
    "dialog",
    { class: "dialog", "aria-labelledby": name },
    el(
      "form",
      { method: "dialog" },
      el("h2", { id: name }, title),
      text && el("p", {}, text),
      facts.length > 0 &&
        el(
          "dl",
          { class: "facts" },
          facts.map(([term, detail]) => [el("dt", {}, term), el("dd", {}, detail)]),
        ),
      fields,
      el(
        "div",
        { class: "dialog-actions" },
        button("", () => dialog.close(), t("dialog.back")),
        yes,
      ),
    ),
  );
  if (proof) {
    const compare = () => {
      yes.disabled = proof.value.trim() !== typed.text;
    };
    proof.addEventListener("input", compare);
    compare();
  }
  if (share && amount.oninput) {
    share.addEventListener("input", () => amount.oninput(share.valueAsNumber));
    amount.oninput(share.valueAsNumber);
  }
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? { reason: reason?.value, amount: share?.valueAsNumber } : null);
    });
  });
}

export const isDialogOpen = () => document.querySelector("dialog[open]") !== null;

/** A short word about what just happened, in the corner, spoken politely. `tone`: "plain" or "bad". */
export function toast(text, tone = "plain") {
  const region = document.getElementById("toasts");
  const note = el("p", { class: `toast ${tone}` }, text);
  region.append(note);
  while (region.children.length > 3) region.firstChild.remove();
  setTimeout(() => note.remove(), tone === "bad" ? 9_000 : 5_000);
}
