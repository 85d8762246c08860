// Messages to the reader: one modal question at a time, and short notes in the corner.
import { el } from "./dom.js";

let asking = false;

/** Asks a question, see `pose` in question.js. Resolves to null also if another dialog is open. */
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

/** Shows a short note in the corner; screen readers announce it politely. `tone`: "plain" or "bad". */
export function toast(text, tone = "plain") {
  const region = document.getElementById("toasts");
  const note = el("p", { class: `toast ${tone}` }, text);
  region.append(note);
  while (region.children.length > 3) drop(region.firstChild);
  note.timer = setTimeout(() => drop(note), tone === "bad" ? 9_000 : 5_000);
}

/** Removes a note and its timer, which would keep the node in memory. */
function drop(note) {
  clearTimeout(note.timer);
  note.remove();
}
