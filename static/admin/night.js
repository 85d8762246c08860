// Loads one night of a room from its timeline: the steps, and running sums, so that any step can be shown at once.

const PAGE = 1_000;
const MOST = 10_000;
const NOON = 12;
const ACTIVE = new Set(["created", "started"]);

/** {from, to}: noon to noon in this device's time zone; a night belongs to the day it began on. `day`: "2026-01-31". */
export function nightOf(day) {
  const [year, month, date] = day.split("-").map(Number);
  return { from: new Date(year, month - 1, date, NOON), to: new Date(year, month - 1, date + 1, NOON) };
}

/** The day whose night contains `at`. */
export function dayOf(at) {
  const day = new Date(at);
  if (day.getHours() < NOON) day.setDate(day.getDate() - 1);
  const pad = (number) => String(number).padStart(2, "0");
  return `${day.getFullYear()}-${pad(day.getMonth() + 1)}-${pad(day.getDate())}`;
}

export function otherDay(day, days) {
  const moment = nightOf(day).from;
  moment.setDate(moment.getDate() + days);
  return dayOf(moment);
}

/** The steps of a night, oldest first, at most MOST; `cut` if there are more. */
export async function loadNight(session, performerId, day) {
  const { from, to } = nightOf(day);
  const path = `/v1/performers/${encodeURIComponent(performerId)}/queue/timeline`;
  const steps = [];
  let next = 0;
  while (next !== null && steps.length < MOST) {
    const query = new URLSearchParams({ from: from.toISOString(), to: to.toISOString(), limit: PAGE });
    if (next) query.set("afterVersion", next);
    const page = await session.get(`${path}?${query}`);
    steps.push(...page.steps);
    next = page.next;
  }
  return { steps, cut: next !== null };
}

/**
 * `sums`: for each step, the tokens asked for, settled and returned in this night so far, and by how many items the
 * queue has grown. `estimates`: by item, the wait in seconds that was sent to its owner on arrival.
 */
export function addUp(steps) {
  const sums = [];
  const estimates = new Map();
  const settled = new Map();
  const returned = new Map();
  const sum = { asked: 0, settled: 0, returned: 0, line: 0 };
  const raise = (known, name, itemId, value) => {
    if (value === null) return;
    sum[name] += value - (known.get(itemId) ?? 0);
    known.set(itemId, value);
  };
  for (const step of steps) {
    const { itemId } = step;
    if (step.event === "queue.item.created") {
      sum.asked += step.tokens;
      estimates.set(itemId, { seconds: step.toldWaitSeconds, range: step.toldWaitRange });
    }
    if (itemId !== null) {
      raise(settled, "settled", itemId, step.settledTokens);
      raise(returned, "returned", itemId, step.refundedTokens);
      sum.line += ACTIVE.has(step.to) - ACTIVE.has(step.from);
    }
    sums.push({ ...sum });
  }
  return { sums, estimates };
}
