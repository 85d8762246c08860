// Shows the day's numbers and the items that ended last, with the state of their tokens.
import { byId, el, setText, show } from "../lib/dom.js";
import { renderList } from "../lib/lists.js";
import { count, duration, inLine, tokens } from "../lib/format.js";
import { t } from "../lib/messages.js";
import { moneyLine, showMoney } from "../lib/money.js";
import { isMoneyMoving } from "../lib/outcome.js";

const sayWait = (wait) => (wait === null ? "–" : duration(wait));
const TODAY = { served: count, settled: count, refunded: count, medianWait: sayWait };

/**
 * Shows a Today. `ready`: commands can be sent; `menuFor(item, now)` makes the menu button of a row, where `now()`
 * returns the item's latest state.
 */
export function showDay({ numbers, recent }, ready, menuFor) {
  const list = byId("today");
  if (!list.firstChild) {
    list.append(
      ...Object.keys(TODAY).map((name) =>
        el("div", {}, el("dt", { class: "muted" }, t(`today.${name}`)), el("dd", { "data-testid": `today-${name}` })),
      ),
    );
  }
  Object.entries(TODAY).forEach(([name, say], index) => setText(list.children[index].lastChild, say(numbers[name])));
  show(byId("recent"), recent.length > 0);
  show(byId("recent-empty"), recent.length === 0);
  renderList(
    byId("recent"),
    recent,
    (item) => item.itemId,
    (item) => buildRecent(item, menuFor),
    (row, item) => {
      row.item = item;
      const [main, cost, menu] = row.children;
      const [title, detail, money] = main.children;
      const reason = item.refundReason ?? item.abandonReason;
      setText(title, item.title);
      setText(detail, inLine(t(`status.${item.status}`), reason && t(`reason.${reason}`), item.userId));
      showMoney(money, item, true);
      setText(cost, tokens(item.tokens));
      show(menu, item.status === "finished" && !item.settled && isMoneyMoving(item));
      menu.disabled = !ready;
    },
  );
}

function buildRecent(item, menuFor) {
  const row = el(
    "li",
    { class: "row", "data-testid": "recent-item", "data-item-id": item.itemId },
    el(
      "div",
      { class: "row-main" },
      el("p", { class: "row-title" }),
      el("p", { class: "row-detail muted" }),
      moneyLine(),
    ),
    el("span", { class: "row-tokens" }),
    menuFor(item, () => row.item),
  );
  return row;
}
