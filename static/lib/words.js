// Messages, times, durations and amounts in one language. A page has one set (messages.js), each element its own.

export const EXACT = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

const pad = (number) => String(number).padStart(2, "0");

/** A duration as 4:05 or 1:04:05. */
export function stopwatch(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** `locale`: the regional variant for numbers and times; `catalogue`: messages by key, see messages/. */
export function wordsOf(locale, catalogue) {
  const plural = new Intl.PluralRules(locale);
  const numbers = new Intl.NumberFormat(locale);
  const time = (options) => new Intl.DateTimeFormat(locale, options);
  const clockFormat = time({ hour: "numeric", minute: "2-digit" });
  const exactFormat = time({ ...EXACT, second: "2-digit" });

  /** The message by its key; {name} is filled in from `params`, {n} also chooses the plural
   * (or `none`, where the message has it), {tokens} is n in tokens. */
  function t(key, params = {}) {
    let message = catalogue[key];
    if (message === undefined) return key;
    if (typeof message === "object") {
      message = (params.n === 0 && message.none) || (message[plural.select(params.n)] ?? message.other);
    }
    return message.replace(/\{(\w+)\}/g, (_, name) => {
      if (name === "tokens" && params.tokens === undefined) return t("tokens", params);
      const value = params[name];
      return typeof value === "number" ? numbers.format(value) : String(value ?? "");
    });
  }

  return {
    t,
    count: (number) => numbers.format(number),
    clock: (at) => clockFormat.format(at),
    /** HH:MM:SS */
    exactClock: (at) => exactFormat.format(at),
    /** A duration in words: "45 s", "6 min", "1 h 20 min". */
    duration(seconds) {
      if (seconds < 60) return t("seconds", { n: Math.max(0, Math.round(seconds)) });
      const minutes = Math.round(seconds / 60);
      if (minutes < 90) return t("minutes", { n: minutes });
      return t("hours", { h: Math.floor(minutes / 60), m: pad(minutes % 60) });
    },
  };
}
