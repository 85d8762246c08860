// The state of a room in words for its visitors.
import { count } from "../lib/format.js";
import { t } from "../lib/messages.js";
import { onStage } from "../lib/stage.js";

/**
 * "unknown": the room does not exist · "dark": the performer is away and nothing is on stage · "break": all clocks
 * stand · "off": no queue, requests are performed at once · "open".
 */
export function situationOf(room, items) {
  if (room.version === 0) return "unknown";
  if (!room.performerOnline && (room.paused || !onStage(items))) return "dark";
  if (room.paused) return "break";
  return room.mode === "off" && !items.length ? "off" : "open";
}

/** The notes about a room for its visitors, most important first: [{key, tone, text}]. */
export function roomNotes(room, items, { performer, waiting }) {
  if (!room) return [];
  const depth = items.length;
  const notes = [];
  const add = (key, tone, params = {}) => notes.push({ key, tone, text: t(`room.${key}`, { performer, ...params }) });
  if (room.version === 0) add("unknown", "warn");
  // Without a panel the clocks may still run: such a room is controlled through the API.
  else if (!room.performerOnline) add(waiting && room.paused ? "offlineSafe" : "offline", "warn");
  else if (room.paused) add("paused", "warn");
  if (room.mode === "off") add(depth ? "modeOffServing" : "modeOff", "plain");
  if (!room.accepting) add(waiting || depth > 0 ? "closedServing" : "closed", "plain");
  else if (room.mode !== "off" && depth >= room.maxDepth)
    add("full", "plain", { depth: count(depth), max: count(room.maxDepth) });
  return notes;
}
