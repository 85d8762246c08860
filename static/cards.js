// What several pages show alike: the rows of the queue and the stage's clock.
import { el, setAttribute, setText, show } from "./dom.js";
import { duration, featureName, inLine, tokens } from "./format.js";
import { t } from "./messages.js";

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

/**
 * How long the started item has been performed, pauses left out. The item says when it began and whether it stands
 * still now; how long it stood still before is known for as long as this tab has watched.
 */
export class StageClock {
  #slot = `queue.clock:${location.pathname}`;
  #known = { itemId: null, paused: 0, since: null };

  constructor() {
    try {
      this.#known = JSON.parse(sessionStorage.getItem(this.#slot)) ?? this.#known;
    } catch {
      // What another version left there is not worth more than nothing.
    }
  }

  follow(state, now) {
    const item = state.items[0]?.status === "started" ? state.items[0] : null;
    const still = item !== null && (item.paused || Boolean(state.room?.paused));
    const known = this.#known;
    if (known.itemId !== (item?.itemId ?? null)) {
      const since = still && item.paused && item.updatedAt ? Date.parse(item.updatedAt) : now;
      this.#known = { itemId: item?.itemId ?? null, paused: 0, since: still ? since : null };
    } else if (still && known.since === null) {
      this.#known = { ...known, since: now };
    } else if (!still && known.since !== null) {
      this.#known = { ...known, paused: known.paused + now - known.since, since: null };
    }
    if (this.#known !== known) sessionStorage.setItem(this.#slot, JSON.stringify(this.#known));
  }

  /** The moment up to which the stage's time has run: now, or when it came to a stand. */
  moment(now) {
    return this.#known.since ?? now;
  }

  /** Seconds. */
  elapsed(item, now) {
    const { paused, since } = this.#known.itemId === item.itemId ? this.#known : { paused: 0, since: null };
    return Math.max(0, ((since ?? now) - Date.parse(item.startedAt) - paused) / 1000);
  }
}
