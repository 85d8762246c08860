// A viewer and a performer with the npm package, in Node. Prints what they saw.

import { QueueClient, QueueError, isActive, type Connection, type Notice, type WholeItem } from "performance-queue";

const { URL: server, VIEWER, PERFORMER, PERFORMER_ID: performerId, ITEM } = process.env as Record<string, string>;

const performer = new QueueClient({ performerId: performerId!, server: server!, token: PERFORMER! });
const viewer = new QueueClient({ performerId: performerId!, server: server!, refreshToken: async () => VIEWER! });

const notices: Notice[] = [];
const statuses: Connection["status"][] = [];
viewer.addEventListener("notice", ({ detail }) => notices.push(detail));
viewer.addEventListener("connection", ({ detail: { status } }) => statuses.push(status));
viewer.setToken(VIEWER!);
viewer.connect();
performer.connect();

const { items, mine, room } = await viewer.ready;
const own = items.filter((item) => mine.some(({ itemId }) => itemId === item.itemId)).map(({ title }) => title);
const started: WholeItem | null = await performer.command("start", { itemId: ITEM! });
await performer.command("settings", { announcement: "Thank you all" });
await performer.command("start-next").catch((error: unknown) => {
  if (!(error instanceof QueueError) || error.code !== "ALREADY_PROCESSING") throw error;
});
const ended = await performer.command("complete", { itemId: ITEM!, refundTokens: null });
const refused = await viewer.cancel(ITEM!).catch((error: QueueError) => error.code);
const known = await viewer.item(ITEM!);
viewer.close();
performer.close();

console.log(
  JSON.stringify({
    own,
    depth: room?.depth,
    started: started?.status,
    ended: ended && isActive(ended),
    refused,
    userId: known.userId,
    first: statuses[0],
    pending: viewer.pending.length,
  }),
);
