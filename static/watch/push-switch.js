// The push notifications of "Notify me"; their code is loaded when they are switched on.
import { wanted } from "../lib/attention.js";

const load = () => import("./push.js");

export const pushSwitch = (session) => ({
  /** See `subscribe` in push.js. */
  on: async (allowed) => (await load()).subscribe(session, allowed),
  off: async () => (await load()).unsubscribe(session),
  /** Renews the subscription for the present viewer. */
  keep: async () => {
    if (wanted() && session.claims.role === "viewer") (await load()).renew(session);
  },
});
