// The wait of an own item, in words and as a time of day. `words`: see words.js.
import { onStage, stageSeconds } from "./stage.js";

/**
 * The wait of an own item: {low, high} in seconds from `now`, or null if it is unknown. The estimate that was sent
 * counts down while the clock of the item on stage runs. `items`: the queue; `now`: ms on the server's clock.
 */
export function waitOf(entry, items, now) {
  if (entry.estimatedWaitSeconds === null || entry.estimatedWaitSeconds === undefined) return null;
  const [low, high] = entry.estimatedWaitRange ?? [entry.estimatedWaitSeconds, entry.estimatedWaitSeconds];
  const current = onStage(items);
  const then = entry.stage?.itemId === current?.itemId ? (entry.stage?.seconds ?? 0) : 0;
  const passed = current ? Math.max(0, stageSeconds(current, now) - then) : 0;
  return { low: Math.max(0, low - passed), high: Math.max(0, high - passed) };
}

export function waitText(wait, { t, duration }) {
  if (!wait) return t("wait.unknown");
  if (wait.high < 20) return t("wait.moment");
  if (wait.high < 60) return t("wait.minute");
  const low = Math.floor(wait.low / 60);
  const high = Math.ceil(wait.high / 60);
  if (high - low < 1 || wait.low === wait.high) return t("wait.about", { time: duration(Math.max(60, wait.high)) });
  if (high >= 90) return t("wait.range", { low: duration(wait.low), high: duration(wait.high) });
  return low < 1 ? t("wait.upto", { n: high }) : t("wait.minutes", { low, n: high });
}

/** The time of day after the wait: "around 14:31", "14:29 – 14:33"; empty if it is unknown or under a minute. */
export function waitClock(wait, now, { t, clock }) {
  if (!wait || wait.high < 60) return "";
  const from = clock(now + wait.low * 1000);
  const to = clock(now + wait.high * 1000);
  return from === to ? t("wait.around", { time: to }) : t("wait.between", { from, to });
}
