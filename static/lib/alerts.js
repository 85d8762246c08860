// A chime, and a desktop notification while the page is hidden. Loaded once the reader has switched them on.

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
    // With push, the same notification also comes from the worker; both have one tag, so one replaces the other.
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
