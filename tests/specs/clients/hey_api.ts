// An item's whole life with the client that @hey-api/openapi-ts makes of openapi.json.

import { createClient, createConfig } from "./hey/client";
import { complete, intake, item, pause, position, queue, refund, resume, start, transitions } from "./hey/sdk.gen";

const { URL: baseUrl, FEATURE, VIEWER, PERFORMER, PERFORMER_ID: performerId, KEY } = process.env as Record<string, string>;

const as = (token: string) => createClient(createConfig({ baseUrl, auth: token, throwOnError: true }));
const [feature, viewer, performer] = [as(FEATURE!), as(VIEWER!), as(PERFORMER!)];

function equal<T>(found: T, wanted: T): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}

async function life(): Promise<void> {
  const body = {
    sourceFeature: "wheel",
    sourceEventId: "spin-1",
    performerId: performerId!,
    userId: "ada",
    escrowTransactionId: `escrow-${KEY}`,
    tokens: 10,
    title: "A song",
    description: "The one about the sea",
  };
  const { data: queued } = await intake({ client: feature, body, headers: { "Idempotency-Key": KEY! }, throwOnError: true });
  const path = { itemId: queued.itemId };
  equal(queued.status, "created");
  const { data: place } = await position({ client: viewer, path, throwOnError: true });
  equal([place.position, place.ahead], [1, 0]);
  equal((await start({ client: performer, path, throwOnError: true })).data.status, "started");
  equal((await pause({ client: performer, path, throwOnError: true })).data.paused, true);
  equal((await resume({ client: performer, path, throwOnError: true })).data.paused, false);
  const { data: room } = await queue({ client: viewer, path: { performerId: performerId! }, throwOnError: true });
  equal([room.room.depth, room.items.length], [1, 1]);
  const { data: done } = await complete({ client: performer, path, body: { refundTokens: 4 }, throwOnError: true });
  equal([done.status, done.position], ["finished", 0]);
  equal((await item({ client: viewer, path, throwOnError: true })).data.itemId, queued.itemId);
  const { data: trail } = await transitions({ client: viewer, path, throwOnError: true });
  equal(trail.transitions.map((step) => step.to), ["created", "started", "finished"]);
  const refused = await refund({ client: viewer, path, body: { reason: "user_cancelled" }, throwOnError: false });
  equal(refused.error?.code, "FORBIDDEN");
}

life().then(() => console.log("done"));
