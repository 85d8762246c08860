// The item on stage and its time, which is the same on every screen: from the item's own clock and the server's time.

/** Seconds in service without pauses at `now`, in milliseconds by the server's clock. 0 before it is started. */
export function stageSeconds({ clock: { usedSeconds, runningSince } }, now) {
  return usedSeconds + (runningSince === null ? 0 : Math.max(0, now - Date.parse(runningSince)) / 1000);
}

export const isStill = (item) => item.clock.runningSince === null;

/** The item on stage, or null. `items` are in order. */
export const onStage = (items) => (items[0]?.status === "started" ? items[0] : null);

/** Whether this item is served next: position 1, or 2 behind an item on stage. */
export const isNext = (item, items) => item.status === "created" && item.position === (onStage(items) ? 2 : 1);

/** The place of an own item in words. */
export function standing(item, items, { t }) {
  if (item.status === "started") return t(isStill(item) ? "hero.onBreak" : "hero.onStage");
  if (isNext(item, items)) return t(item.position === 1 ? "hero.next" : "hero.nextAfter");
  return t("hero.ahead", { n: item.position - 1 });
}
