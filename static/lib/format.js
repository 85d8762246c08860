// Times, durations and amounts as people read them, in the page's language.
import { locale, t } from "./messages.js";

const clockFormat = new Intl.DateTimeFormat(locale, { hour: "numeric", minute: "2-digit" });
const exact = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const exactFormat = new Intl.DateTimeFormat(locale, { ...exact, second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat(locale, { ...exact, day: "numeric", month: "short" });
const countFormat = new Intl.NumberFormat(locale);
const shareFormat = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1 });

export const clock = (at) => clockFormat.format(at);
/** HH:MM:SS */
export const exactClock = (at) => exactFormat.format(at);
export const dayAndTime = (at) => dayFormat.format(at);
export const count = (number) => countFormat.format(number);
export const share = (fraction) => shareFormat.format(fraction);
export const tokens = (number) => t("tokens", { n: number });

const pad = (number) => String(number).padStart(2, "0");

/** A stop watch's face: 4:05, 1:04:05 */
export function stopwatch(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** A length of time in words: "45 s", "6 min", "1 h 20 min" */
export function duration(seconds) {
  if (seconds < 60) return t("seconds", { n: Math.max(0, Math.round(seconds)) });
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return t("minutes", { n: minutes });
  return t("hours", { h: Math.floor(minutes / 60), m: pad(minutes % 60) });
}

/** The parts that there are, in one line. */
export const inLine = (...parts) => parts.filter(Boolean).join(" · ");

/** Ids are opaque and long: enough of one to recognise it by. */
export const shortId = (id) => (id.length > 14 ? `…${id.slice(-8)}` : id);

/** sourceFeature as a label: "song_request" → "Song request" */
export function featureName(feature) {
  const words = feature.replace(/[_-]+/g, " ").trim();
  return words ? words[0].toUpperCase() + words.slice(1) : feature;
}
