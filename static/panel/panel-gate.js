// Shown in place of the panel to readers without a performer's link; an administrator can choose a performer here.
import { el, show } from "../lib/dom.js";
import { t } from "../lib/messages.js";

export function openGate(gate, role) {
  const say = (title, text) => gate.replaceChildren(el("h2", {}, t(title)), el("p", {}, t(text)));
  show(gate, true);
  if (role !== "admin") {
    say("gate.title", role ? "gate.wrong" : "gate.none");
    return;
  }
  const input = el("input", { type: "text", id: "whose", required: true, maxlength: 64 });
  const open = (event) => {
    event.preventDefault();
    location.search = new URLSearchParams({ performer: input.value.trim() });
  };
  say("gate.whoseTitle", "gate.whose");
  gate.append(
    el(
      "form",
      { class: "gate-form", onsubmit: open },
      el("label", { class: "visually-hidden", for: "whose" }, t("gate.whose")),
      input,
      el("button", { class: "button primary", type: "submit" }, t("gate.open")),
    ),
  );
}
