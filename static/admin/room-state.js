// The settings of a room as tags.
import { el } from "../lib/dom.js";
import { t } from "../lib/messages.js";

export const tag = (text, tone) => el("span", { class: `tag ${tone}` }, text);

export const roomState = (room) =>
  [
    tag(t(room.performerOnline ? "presence.online" : "presence.offline"), room.performerOnline ? "good" : "quiet"),
    room.paused && tag(t("rooms.paused"), "warn"),
    !room.accepting && tag(t("rooms.closed"), "warn"),
    room.mode === "off" && tag(t("rooms.off"), "quiet"),
  ].filter(Boolean);
