// An item's whole life with openapi-fetch over the types that openapi-typescript makes of openapi.json.

import createClient from "openapi-fetch";
import type { paths } from "./schema";

const { URL: baseUrl, FEATURE, VIEWER, PERFORMER, PERFORMER_ID: performerId, KEY } = process.env as Record<string, string>;

const as = (token: string) => createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
const [feature, viewer, performer] = [as(FEATURE!), as(VIEWER!), as(PERFORMER!)];

function equal<T>(found: T, wanted: T): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}

async function life(): Promise<void> {
  const { data: queued } = await feature.POST("/v1/queue/items", {
    // Only what is required: an optional field may be left out.
    body: {
      sourceFeature: "wheel",
      sourceEventId: "spin-1",
      performerId: performerId!,
      userId: "ada",
      escrowTransactionId: `escrow-${KEY}`,
      tokens: 10,
      title: "A song",
      description: "The one about the sea",
    },
    params: { header: { "Idempotency-Key": KEY! } },
  });
  equal(queued?.status, "created");
  const params = { path: { itemId: queued!.itemId } };
  const { data: place } = await viewer.GET("/v1/queue/items/{itemId}/position", { params });
  equal([place?.position, place?.ahead], [1, 0]);
  equal((await performer.POST("/v1/queue/items/{itemId}/start", { params })).data?.status, "started");
  equal((await performer.POST("/v1/queue/items/{itemId}/pause", { params })).data?.paused, true);
  equal((await performer.POST("/v1/queue/items/{itemId}/resume", { params })).data?.paused, false);
  const { data: room } = await viewer.GET("/v1/performers/{performerId}/queue", { params: { path: { performerId: performerId! } } });
  equal([room?.room.depth, room?.items.length], [1, 1]);
  const { data: done } = await performer.POST("/v1/queue/items/{itemId}/complete", { params, body: { refundTokens: 4 } });
  equal([done?.status, done?.position], ["finished", 0]);
  equal((await viewer.GET("/v1/queue/items/{itemId}", { params })).data?.itemId, queued!.itemId);
  const { data: trail } = await viewer.GET("/v1/queue/items/{itemId}/transitions", { params });
  equal(trail?.transitions.map((step) => step.to), ["created", "started", "finished"]);
  const refused = await viewer.POST("/v1/queue/items/{itemId}/refund", { params, body: { reason: "user_cancelled" } });
  equal(refused.error?.code, "FORBIDDEN");
}

life().then(() => console.log("done"));
