// The element in a page of a site, and what its types must refuse. Compiled, never run.

import { QueueClient } from "performance-queue";
import "performance-queue/position-element";
import type { PerformanceQueuePosition } from "performance-queue/position-element";

const place: PerformanceQueuePosition = document.createElement("performance-queue-position");
place.refreshToken = () => fetch("/queue-token").then((answer) => answer.text());
place.strings = { "hero.next": "It is your turn next" };
place.addEventListener("queue-position", ({ detail }) => document.title = `${detail.ahead} ahead`);
place.addEventListener("queue-problem", ({ detail }) => console.error(detail.hint));
place.addEventListener("click", (event) => console.log(event.clientX));
place.ready.then(({ items }) => console.log(items.length, place.client?.connection.status));

const client = new QueueClient({ performerId: "mira" });
client.command("refund", { itemId: "1", reason: "technical_error" });
// @ts-expect-error: a refund has a reason
client.command("refund", { itemId: "1" });
// @ts-expect-error: of those that there are
client.command("refund", { itemId: "1", reason: "bored" });
// @ts-expect-error: there is no such command
client.command("dance");
// @ts-expect-error: the token is changed by setToken
client.token = "";
// @ts-expect-error: an event has the detail of its name
place.addEventListener("queue-ended", ({ detail }) => detail.position);
