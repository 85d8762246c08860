// The service worker of the watch page. It caches the page, which is one document for all performers, and answers from
// the cache, so that only the live socket takes a round trip. A newer release is fetched in the background and shown at
// the next visit. No data of a queue is cached. The worker also shows push notifications.
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

// Push notifications

// WebKit ends a subscription if a message is not shown, even while the page is visible.
const MAY_STAY_SILENT = !/AppleWebKit/.test(navigator.userAgent) || /Chrome\//.test(navigator.userAgent);
/** Within this time a hidden page may have shown the same notification itself. */
const SAME_MS = 20_000;

self.addEventListener("push", (event) => event.waitUntil(notify(event.data.json())));

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(openPage(event.notification.data.path));
});

async function notify({ title, body, tag, moment, performerId }) {
  const path = `/watch/${encodeURIComponent(performerId)}`;
  const isVisible = (await windowsAt(path)).some((window) => window.visibilityState === "visible");
  if (isVisible && MAY_STAY_SILENT) return;
  const [shown] = await self.registration.getNotifications({ tag });
  const isSame = shown?.data.moment === moment || (shown && Date.now() - shown.data.at < SAME_MS);
  const data = { path, moment, at: Date.now() };
  const icon = "/static/icons/icon-192.png";
  await self.registration.showNotification(title, { body, tag, icon, data, renotify: !isSame });
}

async function openPage(path) {
  const [window] = await windowsAt(path);
  return window ? window.focus() : self.clients.openWindow(path);
}

async function windowsAt(path) {
  const windows = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  return windows.filter(({ url }) => new URL(url).pathname === path);
}
