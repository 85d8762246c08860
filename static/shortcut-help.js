// The list of keyboard shortcuts, loaded when it is asked for, and the switch that turns single letters off.
import { button, el, setAttribute } from "./dom.js";
import { t } from "./messages.js";

/** `keys`: [[key, what it does]]; `isOn()` and `turn(on)`: whether single letters work. */
export function shortcutHelp(keys, isOn, turn) {
  const toggle = el("button", {
    class: "switch",
    type: "button",
    role: "switch",
    "aria-checked": String(isOn()),
    "aria-labelledby": "letters",
  });
  toggle.addEventListener("click", () => {
    turn(!isOn());
    setAttribute(toggle, "aria-checked", String(isOn()));
  });
  const dialog = el(
    "dialog",
    { class: "dialog", "aria-labelledby": "help-title" },
    el(
      "div",
      {},
      el("h2", { id: "help-title" }, t("help.title")),
      el(
        "dl",
        { class: "keys" },
        keys.map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text))),
      ),
      el("div", { class: "setting" }, el("p", { class: "setting-name", id: "letters" }, t("help.letters")), toggle),
      el(
        "div",
        { class: "dialog-actions" },
        button("primary", () => dialog.close(), t("help.close")),
      ),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
