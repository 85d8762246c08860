// Keeps the watch page for the next visit: it is one document, the same for every performer, so it can be there before
// the network is asked, and the live socket is the only round trip left. A newer release is fetched meanwhile and shown
// from the visit after. Nothing of a queue is kept here. Also shows the push notifications that viewers ask for.
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

// Push notifications: shows what the service says, and leads back to the page.

// WebKit ends a subscription whose messages are not shown, whatever the reader is looking at.
const MAY_STAY_SILENT = !/AppleWebKit/.test(navigator.userAgent) || /Chrome\//.test(navigator.userAgent);
/** A page that is covered has shown the same a moment ago. */
const SAME_MS = 20_000;

self.addEventListener("push", (event) => event.waitUntil(tell(event.data.json())));

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(lead(event.notification.data.path));
});

async function tell({ title, body, tag, moment, performerId }) {
  const path = `/watch/${encodeURIComponent(performerId)}`;
  const looked = (await windowsAt(path)).some((window) => window.visibilityState === "visible");
  if (looked && MAY_STAY_SILENT) return;
  const [shown] = await self.registration.getNotifications({ tag });
  const isSame = shown?.data.moment === moment || (shown && Date.now() - shown.data.at < SAME_MS);
  const data = { path, moment, at: Date.now() };
  const icon = "/static/icons/icon-192.png";
  await self.registration.showNotification(title, { body, tag, icon, data, renotify: !isSame });
}

async function lead(path) {
  const [window] = await windowsAt(path);
  return window ? window.focus() : self.clients.openWindow(path);
}

async function windowsAt(path) {
  const windows = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  return windows.filter(({ url }) => new URL(url).pathname === path);
}
