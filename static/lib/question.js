// A modal question before an action, with its form fields. Loaded with the first question.
import { button, el } from "./dom.js";
import { t } from "./messages.js";
import { openModal } from "./modal.js";

let number = 0;

/**
 * Resolves with the answers, or null if the reader cancels.
 * `facts`: [term, text] pairs that name the item; `reasons`: reason codes to choose from; `amount`: {label, min, max,
 * value}; `choice`: {label, options}, of [value, text] pairs; `note`: {label, most}, a required text; `typed`: {label,
 * text}, a text that must be typed exactly before the confirming button works.
 */
export function pose({
  title,
  text = "",
  facts = [],
  reasons = null,
  amount = null,
  choice = null,
  note = null,
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
  const chosen =
    choice &&
    field(
      choice.label,
      el(
        "select",
        {},
        choice.options.map(([value, words]) => el("option", { value }, words)),
      ),
    );
  const written = note && field(note.label, el("input", { maxlength: note.most, autocomplete: "off", required: true }));
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
  const dialog = openModal(
    name,
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
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? { reason: reason?.value, amount: share?.valueAsNumber, choice: chosen?.value, note: written?.value.trim() } : null);
    });
  });
}
