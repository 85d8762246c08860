// The wait of a new request, and the accuracy of recent estimates; read every ASK_MS while the page is visible.
import { waitText } from "../lib/wait.js";
import { t, words } from "../lib/messages.js";

const ASK_MS = 60_000;

/** Returns {current}: the service's last answer, or null. `changed()` is called after each answer. */
export function openOutlook(session, performer, changed) {
  const outlook = { current: null };

  async function ask() {
    if (document.visibilityState !== "visible") return;
    const path = `/v1/performers/${encodeURIComponent(performer)}/queue/outlook`;
    outlook.current = await session.get(path).catch(() => null);
    changed();
  }

  ask();
  setInterval(ask, ASK_MS);
  document.addEventListener("visibilitychange", ask);
  return outlook;
}

/** "A new request waits about 6 min"; empty while that is unknown. */
export function waitOfNew(outlook) {
  if (!outlook) return "";
  const { estimatedWaitSeconds: seconds, estimatedWaitRange: range } = outlook;
  const [low, high] = range ?? [seconds, seconds];
  return t("visitor.wait", { wait: waitText({ low, high }, words) });
}

/** "Estimates tonight: 9 of 10 within 3 min"; empty while too little is known. */
export function accuracyText(outlook) {
  if (!outlook?.accuracy) return "";
  const { share, withinSeconds } = outlook.accuracy;
  const minutes = Math.max(1, Math.ceil(withinSeconds / 60));
  return t("line.accuracy", { share: Math.round(share * 10), time: words.duration(minutes * 60) });
}
