// Tables of records, redrawn in place, and CSV files.
import { el, setText } from "../lib/dom.js";
import { renderList } from "../lib/lists.js";

/**
 * Shows `records` in `container`. `columns`: {title, cell(record): string or node, key(record), number, wide,
 * sort(record)}. A node is replaced only when `key(record)` has changed, so that a button under the pointer stays. A
 * click on the head of a column with `sort` orders the table by it, numbers in descending order first. The focus stays
 * in its cell while the cell has a button, else it moves to the table.
 */
export function drawTable(container, columns, records, keyOf, empty) {
  container.redraw = () => drawTable(container, columns, records, keyOf, empty);
  if (!container.body) {
    container.body = el("tbody");
    container.words = el("p", { class: "table-empty muted" });
    container.table = el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          columns.map((column) =>
            el(
              "th",
              { scope: "col", class: column.number ? "number" : null },
              column.sort ? sortButton(container, column) : column.title,
            ),
          ),
        ),
      ),
      container.body,
    );
    container.append(
      el(
        "div",
        { class: "table-scroll", tabindex: "0", role: "region", "aria-label": container.dataset.label },
        container.table,
      ),
      container.words,
    );
  }
  container.table.hidden = records.length === 0;
  container.words.hidden = records.length > 0;
  setText(container.words, empty);
  const focused = container.body.contains(document.activeElement) ? document.activeElement.closest("td") : null;
  renderList(
    container.body,
    sorted(records, container.order),
    keyOf,
    () =>
      el(
        "tr",
        {},
        columns.map(({ number, wide, title }) =>
          el("td", { class: number ? "number" : wide ? "wide" : null, "data-title": title }),
        ),
      ),
    (row, record) =>
      columns.forEach(({ cell, key }, index) => {
        const td = row.children[index];
        const stamp = key ? key(record) : null;
        if (stamp !== null && td.stamp === stamp) return;
        td.stamp = stamp;
        const content = cell(record);
        if (typeof content === "string") setText(td, content);
        else td.replaceChildren(...[content].flat().filter(Boolean));
      }),
  );
  if (focused && document.activeElement === document.body) {
    const within = focused.isConnected && focused.querySelector("button, a");
    (within || container.querySelector(".table-scroll")).focus();
  }
}

function sorted(records, order) {
  if (!order) return records;
  const { sort, isDown } = order;
  const compare = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
  return [...records].sort((a, b) => compare(sort(a), sort(b)) * (isDown ? -1 : 1));
}

function sortButton(container, column) {
  const choose = (event) => {
    const head = event.currentTarget.closest("th");
    const again = container.order?.sort === column.sort;
    container.order = { sort: column.sort, isDown: again ? !container.order.isDown : Boolean(column.number) };
    for (const each of head.parentNode.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", container.order.isDown ? "descending" : "ascending");
    container.redraw();
  };
  return el("button", { type: "button", class: "sort", onclick: choose }, column.title);
}

const quoted = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  // A spreadsheet would execute a text that begins with the sign of a formula.
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

export function downloadCsv(name, header, rows) {
  const text = [header, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n");
  const url = URL.createObjectURL(new Blob([`\ufeff${text}\r\n`], { type: "text/csv" }));
  const link = el("a", { href: url, download: `${name}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1_000);
}
