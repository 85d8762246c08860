// A chime and a desktop notification, for when the page is not in front. Loaded once the reader has asked for them.

import { browserStorage } from "./storage.js";
import { Tones } from "./tones.js";

export const PUSH_SLOT = "queue.push";
const CHIME = [
  [659, 0],
  [880, 0.14],
];

const registration = async () => navigator.serviceWorker?.getRegistration();

export class Alerts {
  #tones = new Tones();

  /** Call from a click. Resolves to "on", or "sound" where notifications are refused or cannot be shown. */
  async enable() {
    this.#tones.wake();
    this.#tones.play(CHIME);
    if (!("Notification" in window)) return "sound";
    if ((await Notification.requestPermission()) !== "granted") return "sound";
    // Phones show notifications only for a page's worker.
    return !/Android/.test(navigator.userAgent) || (await registration()) ? "on" : "sound";
  }

  alert(title, body, tag) {
    this.#tones.play(CHIME);
    if (document.visibilityState === "visible" || !("Notification" in window)) return;
    if (Notification.permission !== "granted") return;
    const details = { body, tag, icon: "/static/icons/icon-192.png" };
    this.#show(title, details);
  }

  async #show(title, details) {
    const byWorker = { ...details, data: { path: location.pathname, at: Date.now() }, renotify: true };
    // Where the same is pushed, the worker shows it: its notifications of one tag take each other's place.
    const worker = browserStorage.getItem(PUSH_SLOT) ? await registration() : null;
    if (worker) {
      worker.showNotification(title, byWorker);
      return;
    }
    try {
      const notification = new Notification(title, details);
      notification.onclick = () => {
        window.focus();
        notification.close();
      };
    } catch {
      (await registration())?.showNotification(title, byWorker);
    }
  }
}
