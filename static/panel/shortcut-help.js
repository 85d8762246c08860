// The list of keyboard shortcuts, and switches for this browser. Loaded when it is opened.
import { addStyle, button, el, setAttribute } from "../lib/dom.js";
import { t } from "../lib/messages.js";
import { openModal } from "../lib/modal.js";

addStyle(`
  .keys { display: grid; gap: 2px; }
  .keys > div { display: flex; align-items: center; gap: 14px; padding-block: 5px; }
  kbd {
    display: inline-grid; place-items: center; min-inline-size: 30px; block-size: 30px; padding-inline: 8px;
    border: 1px solid var(--edge); border-block-end-width: 2px; border-radius: 8px;
    font: 600 .8125rem/1 var(--font); background: var(--raised);
  }
`);

function option(id, words, isOn, turn) {
  const toggle = el("button", {
    class: "switch",
    type: "button",
    role: "switch",
    "aria-checked": String(isOn()),
    "aria-labelledby": id,
  });
  toggle.addEventListener("click", () => {
    turn(!isOn());
    setAttribute(toggle, "aria-checked", String(isOn()));
  });
  return el("div", { class: "setting" }, el("p", { class: "setting-name", id }, words), toggle);
}

/** `keys`: [[key, its action]]; `options`: [{id, words, isOn, turn}], the switches. */
export function shortcutHelp(keys, options) {
  const dialog = openModal(
    "help-title",
    el(
      "div",
      {},
      el("h2", { id: "help-title" }, t("help.title")),
      el(
        "dl",
        { class: "keys" },
        keys.map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text))),
      ),
      el(
        "div",
        {},
        options.map(({ id, words, isOn, turn }) => option(id, words, isOn, turn)),
      ),
      el(
        "div",
        { class: "dialog-actions" },
        button("primary", () => dialog.close(), t("help.close")),
      ),
    ),
  );
}
