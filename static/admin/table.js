// Tables of records: drawn again in place, and the same records as a CSV file.
import { el, setText } from "../lib/dom.js";
import { renderList } from "../lib/lists.js";

/**
 * Shows `records` in `container`. `columns`: {title, cell(record): string or node, number, wide}; a node is replaced only
 * when the text that `cell` stands for (`key(record)`) has changed, so that a button under the pointer stays.
 */
export function drawTable(container, columns, records, keyOf, empty) {
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
          columns.map(({ title, number }) => el("th", { scope: "col", class: number ? "number" : null }, title)),
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
  renderList(
    container.body,
    records,
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
}

const quoted = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  // A leading sign of a formula would be run by a spreadsheet.
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
