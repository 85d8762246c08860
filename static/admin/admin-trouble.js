// One sentence about failing payments, above every view: dead letters with a button that retries them, else operations
// that have been retried for DELAYED_MS, with a button that lists them.
import { byId, setText, show } from "../lib/dom.js";
import { dayAndTime, tokens } from "../lib/format.js";
import { t } from "../lib/messages.js";

const MOST = 100;
const DELAYED_MS = 60_000;

/** `serverNow()`: the service's time in ms. */
export function openTrouble(session, serverNow) {
  const operations = (status, limit, skip = 0) =>
    session.get(`/v1/admin/wallet-operations?${new URLSearchParams({ status, limit, skip })}`);

  async function refresh() {
    const dead = await operations("dead", MOST);
    const shown = dead.total > 0 ? dead : await delayed();
    show(byId("wallet-trouble"), shown !== null);
    show(byId("wallet-retry-all"), dead.total > 0);
    show(byId("wallet-delayed"), dead.total === 0);
    if (shown === null) return;
    const words = await sentence(shown, dead.total > 0 ? "dead" : "retrying");
    setText(byId("wallet-trouble-text"), t(dead.total > 0 ? "wallet.trouble" : "wallet.delayed", words));
  }

  /** The retrying operations if the oldest of them is older than DELAYED_MS, else null. */
  async function delayed() {
    const retrying = await operations("retrying", MOST);
    if (retrying.total === 0) return null;
    const age = (await serverNow()) - Date.parse((await oldestOf(retrying, "retrying")).createdAt);
    return age < DELAYED_MS ? null : retrying;
  }

  async function oldestOf({ operations: newest, total }, status) {
    if (total <= newest.length) return newest.at(-1);
    return (await operations(status, 1, total - 1)).operations[0] ?? newest.at(-1);
  }

  async function sentence(page, status) {
    const problems = new Map();
    for (const { lastProblem } of page.operations) problems.set(lastProblem, (problems.get(lastProblem) ?? 0) + 1);
    const [problem] = [...problems].sort((a, b) => b[1] - a[1])[0];
    const sum = tokens(page.operations.reduce((total, row) => total + row.settleTokens + row.refundTokens, 0));
    return {
      n: page.total,
      tokens: page.total > page.operations.length ? t("wallet.atLeast", { sum }) : sum,
      since: dayAndTime(Date.parse((await oldestOf(page, status)).createdAt)),
      problem: problem ?? "",
    };
  }

  return { refresh };
}
