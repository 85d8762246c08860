// An optional sound for each new request.
import { browserStorage } from "../lib/storage.js";
import { Tones } from "../lib/tones.js";

const SLOT = "queue.arrivals";
const NOTES = [[523, 0]];
const APART_MS = 500;

export const isSoundWanted = () => browserStorage.getItem(SLOT) === "on";

let tones = isSoundWanted() ? new Tones() : null;
let quietUntil = 0;

/** Switches the sound on or off. Call from a click; when switched on, the sound is played once. */
export function wantSound(on) {
  browserStorage.setItem(SLOT, on ? "on" : "off");
  if (!on) return;
  tones ??= new Tones();
  tones.wake();
  tones.play(NOTES);
}

/** Plays the sound, at most once per APART_MS. */
export function soundArrival() {
  if (!isSoundWanted() || Date.now() < quietUntil) return;
  quietUntil = Date.now() + APART_MS;
  tones?.play(NOTES);
}
