// The rows of the queue, which several pages show.
import { el, setAttribute, setText, show } from "./dom.js";
import { duration, featureName, inLine, tokens } from "./format.js";
import { t } from "./messages.js";
import { isStill } from "./stage.js";

/** The declared length in words, if there is one. */
export const length = (item) => item.durationSeconds && duration(item.durationSeconds);

/** Makes a row of the queue; updateQueueRow fills it. `extra`: a node to append, such as a menu. */
export function queueRow(item, extra = null) {
  const parts = {
    place: el("span", { class: "row-place" }),
    title: el("bdi"),
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
  const label = item.status === "started" ? t(isStill(item) ? "tag.paused" : "tag.stage") : mine ? t("tag.mine") : "";
  setText(tag, label);
  show(tag, label !== "");
}
