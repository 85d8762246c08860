// Speaking with the reader: one modal question at a time, and short words in the corner.
import { el } from "./dom.js";

let asking = false;

/** Poses a question, see question.js; null also while another one is open. */
export async function ask(question) {
  if (isDialogOpen()) return null;
  asking = true;
  try {
    return await (await import("./question.js")).pose(question);
  } finally {
    asking = false;
  }
}

export const isDialogOpen = () => asking || document.querySelector("dialog[open]") !== null;

/** A short word about what just happened, in the corner, spoken politely. `tone`: "plain" or "bad". */
export function toast(text, tone = "plain") {
  const region = document.getElementById("toasts");
  const note = el("p", { class: `toast ${tone}` }, text);
  region.append(note);
  while (region.children.length > 3) drop(region.firstChild);
  note.timer = setTimeout(() => drop(note), tone === "bad" ? 9_000 : 5_000);
}

/** With its timer, which would keep it in memory: in a busy room there are many in a few seconds. */
function drop(note) {
  clearTimeout(note.timer);
  note.remove();
}
