// Prepares the next visit: links the manifest, with which a browser can install the page, and registers the worker that
// serves this page from its cache. Only secure contexts have workers; elsewhere the browser revalidates the page.
import { el } from "../lib/dom.js";

export async function prepareNextVisit() {
  // The page is the same document for every performer, but the manifest is not: its link is made here.
  document.head.append(el("link", { rel: "manifest", href: `${location.pathname}/manifest.webmanifest` }));
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("/static/watch/worker.js", { scope: "/watch/" });
    const cache = await caches.open("queue-watch");
    const key = `/watch/?lang=${new URLSearchParams(location.search).get("lang") ?? ""}`;
    if (!(await cache.match(key))) await cache.put(key, await fetch(location.pathname + location.search));
    document.documentElement.dataset.kept = "";
  } catch {
    // A browser may deny storage, as in a frame of another site: the page works without it.
  }
}
