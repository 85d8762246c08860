// Push notifications, which reach the viewer also while this page is closed. alerts.js asks for the permission.
import { PUSH_SLOT } from "../lib/alerts.js";
import { language } from "../lib/messages.js";
import { newId } from "../lib/protocol.js";
import { browserStorage } from "../lib/storage.js";

const RENEW_MS = 86_400_000;
/** A browser that does not reach its push service tries on without an error; then this is the time limit. */
const LATE_MS = 8_000;

const pathOf = (name) => `/v1/push/subscriptions/${encodeURIComponent(name)}`;
const kept = () => JSON.parse(browserStorage.getItem(PUSH_SLOT) ?? "null");

const inTime = (promise) =>
  Promise.race([promise, new Promise((_, reject) => setTimeout(reject, LATE_MS, new Error("too late")))]);

function isFor(subscription, publicKey) {
  const key = subscription.options.applicationServerKey;
  if (key === null) return false;
  const text = btoa(String.fromCharCode(...new Uint8Array(key)));
  return text.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "") === publicKey;
}

/** This browser's subscription with the service's key: the existing one or a new one. */
async function subscription(publicKey) {
  const { pushManager } = await navigator.serviceWorker.ready;
  const known = await pushManager.getSubscription();
  if (known && isFor(known, publicKey)) return known;
  await known?.unsubscribe();
  return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: publicKey });
}

/**
 * Stores this browser's subscription for the present viewer. Resolves to "pushed", to "keepOpen" if that is not
 * possible, or to "on" if the service sends no notifications.
 */
async function store(session) {
  const { publicKey } = await session.get("/v1/push");
  if (publicKey === null) return "on";
  try {
    const { endpoint, keys } = (await inTime(subscription(publicKey))).toJSON();
    const name = kept()?.name ?? newId();
    await session.send("PUT", pathOf(name), { endpoint, keys, language });
    browserStorage.setItem(PUSH_SLOT, JSON.stringify({ name, user: session.claims.sub, at: Date.now() }));
    return "pushed";
  } catch {
    return "keepOpen";
  }
}

/**
 * Call from a click. `allowed`: "on" or "sound", as in alerts.js. Resolves to the outcome for the reader: `allowed`, a
 * result of `store`, or "install".
 */
export async function subscribe(session, allowed) {
  try {
    if (allowed === "on") return await store(session);
    // Only Safari on a phone or tablet says whether its page was opened from the home screen.
    const wouldHelp = navigator.standalone === false && (await session.get("/v1/push")).publicKey !== null;
    return wouldHelp ? "install" : "sound";
  } catch {
    return allowed;
  }
}

/** Stores the subscription again once a day, as a push service may have replaced it, and at once for another viewer. */
export async function renew(session) {
  const { user, at } = kept() ?? {};
  if (globalThis.Notification?.permission !== "granted") return;
  if (user !== session.claims.sub || Date.now() - at > RENEW_MS) await store(session).catch(() => {});
}

export async function unsubscribe(session) {
  const name = kept()?.name;
  browserStorage.removeItem(PUSH_SLOT);
  if (name) await session.send("DELETE", pathOf(name)).catch(() => {});
  const worker = await navigator.serviceWorker?.getRegistration();
  await (await worker?.pushManager?.getSubscription())?.unsubscribe();
}
