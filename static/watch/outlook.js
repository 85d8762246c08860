// What a new request would wait, and how good such estimates were lately: asked for now and then while somebody looks.
import { waitText } from "../lib/wait.js";
import { t, words } from "../lib/messages.js";

const ASK_MS = 60_000;

/** {current}: the service's last answer, or null. `changed()` is called when there is a new one. */
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

/** "A new request waits about 6 min"; empty while nobody can say. */
export function waitOfNew(outlook) {
  if (!outlook) return "";
  const { estimatedWaitSeconds: seconds, estimatedWaitRange: range } = outlook;
  const [low, high] = range ?? [seconds, seconds];
  return t("visitor.wait", { wait: waitText({ low, high }, words) });
}

/** "Estimates tonight: 9 of 10 within 3 min"; empty where too little is known. */
export function accuracyText(outlook) {
  if (!outlook?.accuracy) return "";
  const { share, withinSeconds } = outlook.accuracy;
  const minutes = Math.max(1, Math.ceil(withinSeconds / 60));
  return t("line.accuracy", { share: Math.round(share * 10), time: words.duration(minutes * 60) });
}
