// A chime and a desktop notification, for when the page is not in front. Loaded once the reader has asked for them.

const registration = async () => navigator.serviceWorker?.getRegistration();

export class Alerts {
  #audio = null;

  constructor() {
    // A browser lets a page sound only after somebody has touched it.
    addEventListener("pointerdown", () => this.#wakeAudio(), { once: true });
  }

  /** Call from a click. Resolves to "on", or "sound" where notifications are refused or cannot be shown. */
  async enable() {
    this.#wakeAudio();
    this.chime();
    if (!("Notification" in window)) return "sound";
    if ((await Notification.requestPermission()) !== "granted") return "sound";
    // Phones show notifications only for a page's worker.
    return !/Android/.test(navigator.userAgent) || (await registration()) ? "on" : "sound";
  }

  alert(title, body, tag) {
    this.chime();
    if (document.visibilityState === "visible" || !("Notification" in window)) return;
    if (Notification.permission !== "granted") return;
    const details = { body, tag, icon: "/static/favicon.svg" };
    try {
      const notification = new Notification(title, details);
      notification.onclick = () => {
        window.focus();
        notification.close();
      };
    } catch {
      registration().then((worker) => worker?.showNotification(title, details));
    }
  }

  chime() {
    if (this.#audio?.state !== "running") return;
    const start = this.#audio.currentTime;
    [
      [659, 0],
      [880, 0.14],
    ].forEach(([frequency, delay]) => {
      const tone = this.#audio.createOscillator();
      const volume = this.#audio.createGain();
      tone.frequency.value = frequency;
      volume.gain.setValueAtTime(0, start + delay);
      volume.gain.linearRampToValueAtTime(0.12, start + delay + 0.015);
      volume.gain.exponentialRampToValueAtTime(0.0008, start + delay + 0.5);
      tone.connect(volume).connect(this.#audio.destination);
      tone.start(start + delay);
      tone.stop(start + delay + 0.52);
    });
  }

  #wakeAudio() {
    this.#audio ??= new AudioContext();
    this.#audio.resume();
  }
}
