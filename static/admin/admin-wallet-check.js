// The comparison with the wallet: runs it part by part, and shows its progress and the escrows that differ.
import { toast } from "../lib/dialog.js";
import { byId, el, setText, show } from "../lib/dom.js";
import { count, dayAndTime, shortId } from "../lib/format.js";
import { errorText, t } from "../lib/messages.js";
import { drawTable } from "./table.js";

const PATH = "/v1/admin/wallet-check";
/** Rows that are shown; the rest is only counted. */
const SHOWN = 500;

const COLUMNS = [
  {
    title: t("fact.item"),
    cell: (row) => el("a", { href: `#item/${encodeURIComponent(row.itemId)}`, title: row.itemId }, shortId(row.itemId)),
    key: (row) => row.itemId,
  },
  { title: t("rooms.performer"), cell: (row) => row.performerId },
  {
    title: t("wallet.escrow"),
    cell: (row) => el("span", { title: row.escrowTransactionId }, shortId(row.escrowTransactionId)),
    key: (row) => row.escrowTransactionId,
  },
  { title: t("check.difference"), wide: true, cell: (row) => row.problem },
];

export function openWalletCheck(session) {
  const button = byId("check-run");
  const table = byId("check-table");
  table.dataset.label = t("check.title");

  async function run() {
    // Not disabled, because that would take the focus away.
    if (button.ariaBusy === "true") return;
    button.ariaBusy = "true";
    const found = [];
    try {
      let next = null;
      do {
        const part = await session.post(PATH, next === null ? {} : { next });
        found.push(...part.differences);
        next = part.next;
        if (next !== null) setText(byId("check-state"), t("check.running", part));
        show(table, found.length > 0);
        drawTable(table, COLUMNS, found.slice(0, SHOWN), (row) => row.itemId, "");
      } while (next !== null);
    } catch (error) {
      toast(errorText(error), "bad");
    }
    button.ariaBusy = null;
    await refresh().catch((error) => toast(errorText(error), "bad"));
  }

  async function refresh() {
    if (button.ariaBusy === "true") return;
    const last = await session.get(PATH);
    const never = last.comparedAt === null;
    const words = never
      ? t("check.never")
      : t(last.different ? "check.differs" : "check.agrees", {
          time: dayAndTime(Date.parse(last.comparedAt)),
          examined: count(last.examined),
          different: count(last.different),
        });
    setText(byId("check-state"), words);
  }

  button.addEventListener("click", run);
  return { refresh };
}
