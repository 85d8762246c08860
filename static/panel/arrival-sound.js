// A sound for each request that comes in, for performers who want one.
import { browserStorage } from "../lib/storage.js";
import { Tones } from "../lib/tones.js";

const SLOT = "queue.arrivals";
const NOTES = [[523, 0]];
const APART_MS = 500;

export const isSoundWanted = () => browserStorage.getItem(SLOT) === "on";

let tones = isSoundWanted() ? new Tones() : null;
let quietUntil = 0;

/** Call from a click, which is answered with the sound. */
export function wantSound(on) {
  browserStorage.setItem(SLOT, on ? "on" : "off");
  if (!on) return;
  tones ??= new Tones();
  tones.wake();
  tones.play(NOTES);
}

/** Requests that come at once are one sound. */
export function soundArrival() {
  if (!isSoundWanted() || Date.now() < quietUntil) return;
  quietUntil = Date.now() + APART_MS;
  tones?.play(NOTES);
}
