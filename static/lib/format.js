// Formats times, durations and amounts in the page's language.
import { locale, t, words } from "./messages.js";
import { EXACT } from "./words.js";

export { stopwatch } from "./words.js";

const dayFormat = new Intl.DateTimeFormat(locale, { ...EXACT, day: "numeric", month: "short" });
const shareFormat = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1 });

export const { clock, exactClock, count, duration } = words;
export const dayAndTime = (at) => dayFormat.format(at);
export const tokens = (number) => t("tokens", { n: number });
export const share = (fraction) => shareFormat.format(fraction);

/** The non-empty parts in one line. */
export const inLine = (...parts) => parts.filter(Boolean).join(" · ");

/** The end of an id, long enough to recognise it. */
export const shortId = (id) => (id.length > 14 ? `…${id.slice(-8)}` : id);

/** sourceFeature as a label: "song_request" → "Song request" */
export function featureName(feature) {
  const words = feature.replace(/[_-]+/g, " ").trim();
  return words ? words[0].toUpperCase() + words.slice(1) : feature;
}

/** A user's text, isolated for use inside a sentence: a right-to-left text does not reorder the sentence. */
export const isolated = (text) => `\u2068${text}\u2069`;
