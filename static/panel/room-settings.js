// The performer's settings of the room: switches, limits, announcement.
import { button, el, setAttribute, setText, show } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { t } from "../lib/messages.js";

const AT_HAND = ["accepting", "paused"];
const SELDOM = ["mode", "strictFifo"];
const SWITCHES = [...AT_HAND, ...SELDOM];

const isOn = (room, name) => (name === "mode" ? room.mode === "on" : Boolean(room[name]));

/** Optional limits; `unit`: seconds (or items) in one unit of the field. */
const LIMITS = [
  { name: "maxPerUser", most: 1000, unit: 1 },
  { name: "maxWaitSeconds", most: 1440, unit: 60 },
];

function limitField({ name, most, unit }, change) {
  const hint = el("p", { class: "muted setting-hint", id: `hint-${name}` });
  const input = el("input", {
    type: "number",
    id: name,
    min: 1,
    max: most,
    step: 1,
    inputmode: "numeric",
    placeholder: t("settings.any"),
    "aria-describedby": hint.id,
  });
  input.addEventListener("change", () => {
    if (input.reportValidity()) change({ [name]: input.value ? Math.round(input.valueAsNumber * unit) : null });
  });
  const label = el("label", { class: "setting-name", for: name }, t(`settings.${name}`));
  return {
    node: el("div", { class: "setting" }, el("div", {}, label, hint), input),
    draw(room, ready) {
      const value = room[name] ?? null;
      input.disabled = !ready;
      if (document.activeElement !== input) input.value = value === null ? "" : String(Math.max(1, Math.round(value / unit)));
      setText(hint, t(`settings.${name}.${value === null ? "off" : "on"}`, { n: value === null ? 0 : Math.round(value / unit) }));
    },
  };
}

/** Fills `banner`, which shows that there is a break. Returns the function that draws a state. */
export function breakBanner(banner, change) {
  const resume = button("", () => change({ paused: false }), icon("play"), el("span", {}, t("break.resume")));
  banner.append(el("p", {}, el("strong", {}, t("break.title")), " ", t("break.text")), resume);
  return ({ room }, ready) => {
    show(banner, Boolean(room?.paused));
    resume.disabled = !ready;
  };
}

/**
 * Fills `near` with the frequent switches, `card` with the other settings. `change(settings)` sends them, `emptyQueue`
 * refunds everything. Returns the function that draws a state; its `ready`: commands can be sent.
 */
export function roomSettings(near, card, change, emptyQueue) {
  let room = null;
  const flip = (name) => {
    const next = !isOn(room, name);
    change({ [name]: name === "mode" ? (next ? "on" : "off") : next });
  };
  const switches = Object.fromEntries(
    SWITCHES.map((name) => {
      const hint = el("p", { class: "muted setting-hint", id: `hint-${name}` });
      const control = el("button", {
        class: "switch",
        type: "button",
        role: "switch",
        "aria-checked": "false",
        "aria-describedby": hint.id,
        "aria-labelledby": `label-${name}`,
        onclick: () => flip(name),
      });
      const label = el("p", { class: "setting-name", id: `label-${name}` }, t(`settings.${name}`));
      const node = el("div", { class: "setting" }, el("div", {}, label, hint), control);
      return [name, { node, hint, control }];
    }),
  );
  const places = el("input", { type: "number", id: "places", min: 1, step: 1, inputmode: "numeric" });
  places.addEventListener("change", () => {
    if (places.reportValidity() && places.value) change({ maxDepth: places.valueAsNumber });
  });
  const limits = LIMITS.map((limit) => limitField(limit, change));
  const words = el("textarea", {
    id: "announcement",
    maxlength: 280,
    rows: 2,
    placeholder: t("settings.announcementHint"),
  });
  const announce = (text) => change({ announcement: text || null });
  const publish = button("small", () => announce(words.value.trim()), t("settings.publish"));
  const clear = button("quiet small", () => announce(null), t("settings.clear"));
  const empty = button("quiet small empty-queue", emptyQueue, t("emptyQueue.button"));
  const full = el("p", { class: "note", "data-testid": "room-note" });
  near.append(...AT_HAND.map((name) => switches[name].node));
  card.append(
    full,
    ...SELDOM.map((name) => switches[name].node),
    el(
      "div",
      { class: "setting" },
      el("label", { class: "setting-name", for: "places" }, t("settings.places")),
      places,
    ),
    ...limits.map(({ node }) => node),
    el(
      "div",
      { class: "field" },
      el("label", { for: "announcement" }, t("settings.announcement")),
      words,
      el("div", { class: "actions" }, publish, clear),
    ),
    el("div", { class: "setting-foot" }, empty),
  );
  return (state, ready) => {
    room = state.room;
    const depth = state.items.length;
    if (!room) return;
    for (const name of SWITCHES) {
      const on = isOn(room, name);
      setAttribute(switches[name].control, "aria-checked", String(on));
      switches[name].control.disabled = !ready;
      setText(switches[name].hint, t(`settings.${name}.${on ? "on" : "off"}`, { n: depth }));
    }
    for (const limit of limits) limit.draw(room, ready);
    for (const control of [places, words, publish, clear]) control.disabled = !ready;
    empty.disabled = !ready || depth === 0;
    if (document.activeElement !== places) places.value = room.maxDepth;
    const said = room.announcement ?? "";
    if (document.activeElement !== words && words.dataset.said !== said) {
      words.value = said;
      words.dataset.said = said;
    }
    show(clear, said !== "");
    show(full, depth >= room.maxDepth);
    setText(full, t("room.full", { depth, max: room.maxDepth }));
  };
}
