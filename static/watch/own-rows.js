// Lists of the viewer's own items: those that wait here, and ended ones with the state of their tokens.
import { button, byId, el, setAttribute, setText, show } from "../lib/dom.js";
import { renderList } from "../lib/lists.js";
import { dayAndTime, inLine, tokens } from "../lib/format.js";
import { t } from "../lib/messages.js";
import { moneyLine, showMoney } from "../lib/money.js";

const rowMain = () => {
  const [title, detail] = [el("p", { class: "row-title", dir: "auto" }), el("p", { class: "row-detail muted" })];
  return el("div", { class: "row-main" }, title, detail, moneyLine());
};

/** Lists the own requests if there are several; a single one is shown by the hero alone. `wait(item)`: in words. */
export function showRequests(items, { live, wait, cancel }) {
  show(byId("requests"), items.length > 1);
  renderList(
    byId("request-list"),
    items,
    (item) => item.itemId,
    (item) =>
      el(
        "li",
        { class: "row", "data-testid": "own-item", "data-item-id": item.itemId },
        el("span", { class: "row-place" }),
        rowMain(),
        button("quiet small", () => {}),
      ),
    (row, item) => {
      const [place, main, undo] = row.children;
      setText(place, String(item.position));
      setText(main.children[0], item.title);
      setText(main.children[1], wait(item));
      showMoney(main.children[2], item);
      show(undo, item.status === "created");
      setText(undo, t("cancel.short"));
      setAttribute(undo, "aria-label", t("cancel.named", { title: item.title }));
      undo.disabled = !live;
      undo.onclick = () => cancel(item);
    },
  );
}

/** Lists ended items of all rooms; rows of other rooms name the performer. */
export function showHistory(items, performer) {
  show(byId("history"), items.length > 0);
  renderList(
    byId("history-list"),
    items,
    (item) => item.itemId,
    (item) =>
      el(
        "li",
        { class: "row", "data-testid": "history-item", "data-item-id": item.itemId },
        rowMain(),
        el("span", { class: "row-tokens" }),
      ),
    (row, item) => {
      const [main, cost] = row.children;
      const reason = item.refundReason ?? item.abandonReason;
      setText(main.children[0], item.title);
      setText(
        main.children[1],
        inLine(
          t(`status.${item.status}`),
          reason && t(`reason.${reason}`),
          item.performerId !== performer && item.performerId,
          dayAndTime(Date.parse(item.finishedAt ?? item.abandonedAt ?? item.refundedAt ?? item.updatedAt)),
        ),
      );
      showMoney(main.children[2], item);
      setText(cost, tokens(item.tokens));
    },
  );
}
