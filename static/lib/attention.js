// Being noticed in another tab: the tab's title and icon always, sound and notifications once they were asked for.
import { setAttribute } from "./dom.js";
import { icon } from "./icons.js";
import { browserStorage } from "./storage.js";

const SLOT = "queue.alerts";
let alerts = null;

export const wanted = () => browserStorage.getItem(SLOT) === "on";
const load = async () => (alerts ??= new (await import("./alerts.js")).Alerts());
if (wanted()) load();

/** Says whether the reader wants to be told. */
export function alertReader(title, body, tag) {
  if (wanted()) alerts?.alert(title, body, tag);
  return wanted();
}

/**
 * Makes a button the switch for sound and notifications. `told(outcome)`: they are on; "on" or "sound" only, or what
 * `push.on` makes of that. `push`: {on(outcome), off()}, what else is switched.
 */
export function alertSwitch(button, label, told, push = null) {
  const draw = () => {
    setAttribute(button, "aria-pressed", String(wanted()));
    label(wanted());
  };
  button.prepend(icon("bell"));
  button.addEventListener("click", async () => {
    if (wanted()) {
      browserStorage.removeItem(SLOT);
      push?.off();
      draw();
      return;
    }
    browserStorage.setItem(SLOT, "on");
    const outcome = await (await load()).enable();
    draw();
    told(push ? await push.on(outcome) : outcome);
  });
  draw();
  return button;
}

let badge = null;

/** The tab: "(#3) title", and the number on its icon. null: no number. */
export function markTab(title, number) {
  const text = number === null ? title : `(#${number}) ${title}`;
  if (document.title !== text) document.title = text;
  if (badge === number) return;
  badge = number;
  const link = document.querySelector("link[rel=icon]");
  link.href =
    number === null
      ? "/static/favicon.svg"
      : `data:image/svg+xml,${encodeURIComponent(
          `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#2747e8"/>` +
            `<text x="16" y="23" font-family="system-ui,sans-serif" font-size="${number > 9 ? 17 : 21}" font-weight="700" ` +
            `text-anchor="middle" fill="#fff">${Number(number)}</text></svg>`,
        )}`;
}
