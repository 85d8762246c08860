// Finding items by what a person has in hand: an item's id, a viewer, an escrow, the reference that a page shows, or an
// amount. The service lists items by viewer and by room and the wallet's operations by status; within these it looks.
import { itemPath } from "../lib/protocol.js";

const PAGE = 100;
const ROOMS = 20;
const OPERATIONS = 500;
const MOST = 50;
const ABSENT = new Set(["ITEM_NOT_FOUND", "NOT_FOUND", "VALIDATION_ERROR", "PERFORMER_NOT_FOUND"]);

/** What may be absent: null in its place. */
const orNull = (promise) =>
  promise.catch((error) => {
    if (ABSENT.has(error.code)) return null;
    throw error;
  });

/** Does an item answer to `words`? A page shortens a reference to "…" and its end. */
function answersTo(item, words) {
  const end = words.startsWith("…") ? words.slice(1) : null;
  const { itemId, escrowTransactionId, settlementTransactionId, refundTransactionId, sourceEventId, userId } = item;
  const names = [itemId, escrowTransactionId, settlementTransactionId, refundTransactionId, sourceEventId];
  if (names.some((name) => name && (name === words || (end && name.endsWith(end))))) return true;
  return userId === words || String(item.tokens) === words;
}

/** Everything of the fullest rooms that waits or ended last, and of the operations: [{item}] of what answers to it. */
async function lookAround(session, words) {
  const found = new Map();
  const note = (items) => {
    for (const item of items) if (answersTo(item, words)) found.set(item.itemId, item);
  };
  const { rooms } = await session.get(`/v1/admin/rooms?limit=${ROOMS}`);
  await Promise.all(
    rooms.map(async ({ performerId }) => {
      const path = `/v1/performers/${encodeURIComponent(performerId)}/queue`;
      const [queue, history] = await Promise.all([
        orNull(session.get(path)),
        orNull(session.get(`${path}/history?limit=${PAGE}`)),
      ]);
      note([...(queue?.items ?? []), ...(history?.items ?? [])]);
    }),
  );
  for (let skip = 0; skip < OPERATIONS; skip += PAGE) {
    const page = await session.get(`/v1/admin/wallet-operations?limit=${PAGE}&skip=${skip}`);
    for (const { itemId, escrowTransactionId } of page.operations) {
      if (found.has(itemId) || !answersTo({ itemId, escrowTransactionId }, words)) continue;
      const item = await orNull(session.get(itemPath(itemId)));
      if (item) found.set(itemId, item);
    }
    if (page.operations.length < PAGE) break;
  }
  return [...found.values()];
}

/** The items that `words` name, newest first, at most 50. */
export async function search(session, words) {
  const named = await orNull(session.get(itemPath(words)));
  if (named) return [named];
  const theirs = await orNull(session.get(`/v1/users/${encodeURIComponent(words)}/queue/items?limit=${MOST}`));
  const items = theirs?.items.length ? theirs.items : await lookAround(session, words);
  return items.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1)).slice(0, MOST);
}
