// What "Notify me" switches beside sound and notifications; the code for it is loaded once it has been asked for.
import { wanted } from "../lib/attention.js";

const load = () => import("./push.js");

export const pushSwitch = (session) => ({
  /** See `subscribe` in push.js. */
  on: async (allowed) => (await load()).subscribe(session, allowed),
  off: async () => (await load()).unsubscribe(session),
  /** For whoever is looking now. */
  keep: async () => {
    if (wanted() && session.claims.role === "viewer") (await load()).renew(session);
  },
});
