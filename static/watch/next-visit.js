// Prepares the next visit: what a browser needs to install the page, and the worker that has the page ready, with this
// page in its cache. Only a secure context has one; elsewhere the browser asks whether the page has changed.
import { el } from "../lib/dom.js";

export async function prepareNextVisit() {
  // The page is the same document for every performer, so the link to what names one is made here.
  document.head.append(el("link", { rel: "manifest", href: `${location.pathname}/manifest.webmanifest` }));
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("/static/watch/worker.js", { scope: "/watch/" });
    const cache = await caches.open("queue-watch");
    const key = `/watch/?lang=${new URLSearchParams(location.search).get("lang") ?? ""}`;
    if (!(await cache.match(key))) await cache.put(key, await fetch(location.pathname + location.search));
    document.documentElement.dataset.kept = "";
  } catch {
    // A browser may deny storage, as in a frame of another site: the page works without.
  }
}
