// How long an own item will wait, in words and by the clock.
import { clock, duration } from "./format.js";
import { t } from "./messages.js";

/**
 * The wait of an owned item, counted down since it was told: {low, high} in seconds from now, or null where nobody can
 * say. `runsFrom`, `runsTo`: when the stage's clock began to run and how far it has, on this device's clock.
 */
export function waitOf(entry, runsFrom, runsTo) {
  if (entry.estimatedWaitSeconds === null || entry.estimatedWaitSeconds === undefined) return null;
  const [low, high] = entry.estimatedWaitRange ?? [entry.estimatedWaitSeconds, entry.estimatedWaitSeconds];
  const passed = Math.max(0, (runsTo - Math.max(entry.receivedAt ?? runsTo, runsFrom)) / 1000);
  return { low: Math.max(0, low - passed), high: Math.max(0, high - passed) };
}

export function waitText(wait) {
  if (!wait) return t("wait.unknown");
  if (wait.high < 20) return t("wait.moment");
  if (wait.high < 60) return t("wait.minute");
  const low = Math.floor(wait.low / 60);
  const high = Math.ceil(wait.high / 60);
  if (high - low < 1 || wait.low === wait.high) return t("wait.about", { time: duration(Math.max(60, wait.high)) });
  if (high >= 90) return t("wait.range", { low: duration(wait.low), high: duration(wait.high) });
  return low < 1 ? t("wait.upto", { n: high }) : t("wait.minutes", { low, n: high });
}

/** When that is by the clock: "around 14:31", "14:29 – 14:33"; empty where the wait is unknown or too short to say. */
export function waitClock(wait, now) {
  if (!wait || wait.high < 60) return "";
  const from = clock(now + wait.low * 1000);
  const to = clock(now + wait.high * 1000);
  return from === to ? t("wait.around", { time: to }) : t("wait.between", { from, to });
}
