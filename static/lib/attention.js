// Alerts a reader who looks at another tab: by the tab's title and icon always, by sound and notifications on request.
import { setAttribute } from "./dom.js";
import { icon } from "./icons.js";
import { browserStorage } from "./storage.js";

const SLOT = "queue.alerts";
let alerts = null;

export const wanted = () => browserStorage.getItem(SLOT) === "on";
const load = async () => (alerts ??= new (await import("./alerts.js")).Alerts());
if (wanted()) load();

/** Alerts the reader if that is switched on; returns whether it is. */
export function alertReader(title, body, tag) {
  if (wanted()) alerts?.alert(title, body, tag);
  return wanted();
}

/**
 * Makes a button the switch for sound and notifications. `switchedOn(outcome)` is called with "on", with "sound" if
 * only sound is possible, or with the result of `push.on`. `push`: {on(outcome), off()}, is switched as well.
 */
export function alertSwitch(button, label, switchedOn, push = null) {
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
    switchedOn(push ? await push.on(outcome) : outcome);
  });
  draw();
  return button;
}

let badge = null;

/** Sets the tab's title to "(#3) title", and its icon to the number. `number` null: neither has a number. */
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
