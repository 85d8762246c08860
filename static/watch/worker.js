// Keeps the watch page for the next visit: it is one document, the same for every performer, so it can be there before
// the network is asked, and the live socket is the only round trip left. A newer release is fetched meanwhile and shown
// from the visit after. Nothing of a queue is kept here.
const CACHE = "queue-watch";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { pathname, searchParams } = new URL(event.request.url);
  if (event.request.mode !== "navigate" || !/^\/watch\/[^/]+$/.test(pathname)) return;
  event.respondWith(answer(event, `/watch/?lang=${searchParams.get("lang") ?? ""}`));
});

async function answer(event, key) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(key);
  const fresh = fetch(event.request).then(async (response) => {
    if (response.ok) await cache.put(key, response.clone());
    return response;
  });
  if (!kept) return fresh;
  event.waitUntil(fresh.catch(() => {}));
  return kept;
}
