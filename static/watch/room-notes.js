// The state a room is in, as its visitors should know it.
import { count } from "../lib/format.js";
import { t } from "../lib/messages.js";

/** The things about a room that its visitors should know, most important first: [{key, tone, text}]. */
export function roomNotes(room, depth, { performer, waiting }) {
  if (!room) return [];
  const notes = [];
  const add = (key, tone, params = {}) => notes.push({ key, tone, text: t(`room.${key}`, { performer, ...params }) });
  // The clocks of a performer who never opened a panel run on: such a room is driven from elsewhere.
  if (!room.performerOnline && room.version > 0) add(waiting && room.paused ? "offlineSafe" : "offline", "warn");
  else if (room.paused) add("paused", "warn");
  if (room.mode === "off") add("modeOff", "plain");
  if (!room.accepting) add(waiting || depth > 0 ? "closedServing" : "closed", "plain");
  else if (room.mode !== "off" && depth >= room.maxDepth)
    add("full", "plain", { depth: count(depth), max: count(room.maxDepth) });
  return notes;
}
