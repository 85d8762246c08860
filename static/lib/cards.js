// What several pages show alike: the rows of the queue and the stage's clock.
import { el, setAttribute, setText, show } from "./dom.js";
import { duration, featureName, inLine, stopwatch, tokens } from "./format.js";
import { t } from "./messages.js";
import { tabStorage } from "./storage.js";

/** The declared length in words, if there is one. */
export const length = (item) => item.durationSeconds && duration(item.durationSeconds);

/** One row of the queue. `extra` is appended once (a menu, say); updateQueueRow keeps the rest true. */
export function queueRow(item, extra = null) {
  const parts = {
    place: el("span", { class: "row-place" }),
    title: el("span"),
    tag: el("span", { class: "tag", hidden: true }),
    detail: el("p", { class: "row-detail muted" }),
    cost: el("span", { class: "row-tokens" }),
  };
  const row = el(
    "li",
    { class: "row", "data-testid": "queue-item", "data-item-id": item.itemId },
    parts.place,
    el("div", { class: "row-main" }, el("p", { class: "row-title" }, parts.title, parts.tag), parts.detail),
    parts.cost,
    extra,
  );
  row.parts = parts;
  return row;
}

export function updateQueueRow(row, item, { mine = false, detail = "" } = {}) {
  const { place, title, tag, detail: line, cost } = row.parts;
  setText(place, String(item.position));
  setText(title, item.title);
  setText(line, inLine(featureName(item.sourceFeature), length(item), detail));
  setText(cost, tokens(item.tokens));
  setAttribute(row, "data-status", item.status);
  setAttribute(row, "data-mine", mine);
  const label = item.status === "started" ? t(item.paused ? "tag.paused" : "tag.stage") : mine ? t("tag.mine") : "";
  setText(tag, label);
  show(tag, label !== "");
}

const STOPS = new Set(["queue.item.paused", "queue.performer.offline"]);
const RUNS = new Set(["queue.item.resumed", "queue.performer.online"]);

/**
 * How long the started item has been performed, pauses left out. The item says when it began and whether it stands
 * still now; how long it stood still before is known for as long as this tab has watched.
 */
export class StageClock {
  #slot = `queue.clock:${location.pathname}`;
  #known = { itemId: null, paused: 0, since: null, unsure: false };

  constructor() {
    try {
      this.#known = JSON.parse(tabStorage.getItem(this.#slot)) ?? this.#known;
    } catch {
      // What another version left there is not worth more than nothing.
    }
  }

  /** Call with every change and the time: after an absence only it tells since when the stage stands still. */
  follow({ state, events, away }, now) {
    const before = this.#known;
    const item = state.items[0]?.status === "started" ? state.items[0] : null;
    const still = item !== null && (item.paused || Boolean(state.room?.paused));
    if (before.itemId !== (item?.itemId ?? null)) this.#known = meet(item, still, events);
    if (item) {
      const began = Date.parse(item.startedAt);
      for (const { event, itemId, at } of events) {
        const moment = Date.parse(at);
        if (moment < began || (itemId && itemId !== item.itemId)) continue;
        if (STOPS.has(event)) this.#stop(moment);
        else if (RUNS.has(event)) this.#run(moment);
      }
      if (still) this.#stop(away ?? now);
      else this.#run(now);
    }
    if (this.#known !== before) tabStorage.setItem(this.#slot, JSON.stringify(this.#known));
  }

  #stop(moment) {
    if (this.#known.since === null) this.#known = { ...this.#known, since: moment };
  }

  #run(moment) {
    const { paused, since } = this.#known;
    if (since !== null) this.#known = { ...this.#known, paused: paused + Math.max(0, moment - since), since: null };
  }

  /** The moment up to which the stage's time has run: now, or when it came to a stand. */
  moment(now) {
    return this.#known.since ?? now;
  }

  /** Whether it may have stood still before this tab watched: `elapsed` is then the most it can be. */
  get unsure() {
    return this.#known.unsure;
  }

  /** Seconds. */
  elapsed(item, now) {
    const { paused, since } = this.#known.itemId === item.itemId ? this.#known : { paused: 0, since: null };
    return Math.max(0, ((since ?? now) - Date.parse(item.startedAt) - paused) / 1000);
  }

  /** The same as a stop watch shows it. */
  reading(item, now) {
    return `${this.unsure ? "≤ " : ""}${stopwatch(this.elapsed(item, now))}`;
  }
}

/** What is known of an item when it is first seen on stage. */
function meet(item, still, events) {
  if (item === null) return { itemId: null, paused: 0, since: null, unsure: false };
  const witnessed = events.some(({ event, itemId }) => event === "queue.item.started" && itemId === item.itemId);
  const touched = item.updatedAt !== undefined && item.updatedAt !== item.startedAt;
  return {
    itemId: item.itemId,
    paused: 0,
    since: item.paused && touched ? Date.parse(item.updatedAt) : null,
    unsure: !witnessed && (still || touched),
  };
}
