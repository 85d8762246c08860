// The element's interface for host sites, with controls to try it: attributes and properties change a live element, its
// last events are shown, and parts and custom properties change a sample that shows every part at once.
import { el, setText } from "../lib/dom.js";
import { language, t } from "../lib/messages.js";
import "../position-element.js";

const TAG = "performance-queue-position";
const ATTRIBUTES = ["performer", "server", "item", "lang", "hide"];
const PROPERTIES = ["token", "refreshToken", "strings", "client", "ready"];
const EVENTS = ["queue-position", "queue-notice", "queue-ended", "queue-outcome", "queue-connection", "queue-problem"];
const PARTS = ["card", "position", "ahead", "wait", "title", "money", "state", "actions", "cancel", "confirm", "back", "close"];
const EXAMPLES = {
  "--queue-accent": "crimson",
  "--queue-text": "#20242c",
  "--queue-muted": "slategray",
  "--queue-surface": "#fff7e8",
  "--queue-line": "goldenrod",
  "--queue-radius": "2px",
  "--queue-font": "Georgia, serif",
};

const input = (name, attributes, change) =>
  el("input", { "aria-label": name, autocomplete: "off", spellcheck: "false", ...attributes, oninput: ({ target }) => change(target.value.trim()) });

/** The tables of the reference: [title, rows of [name, meaning, control], node before the rows or undefined]. */
export function elementReference(place) {
  const sample = sampleOfEveryPart();
  return [
    ["attributes", ATTRIBUTES.map((name) => [name, attributeTrial(place, name)])],
    ["properties", PROPERTIES.map((name) => [name, propertyTrial(place, name)])],
    ["events", EVENTS.map((name) => [name, lastDetail(place, name)])],
    ["parts", partTrials(), sample],
    ["customProperties", Object.entries(EXAMPLES).map(([name, example]) => [name, customTrial([place, sample], name, example)])],
  ].map(([group, rows, before]) => [t(`docs.element.${group}`), rows.map(([name, trial]) => [name, t(`docs.element.${group}.${name}`), trial]), before]);
}

function attributeTrial(place, name) {
  const change = (value) => (value ? place.setAttribute(name, value) : place.removeAttribute(name));
  if (name === "lang") {
    const options = ["en", "de"].map((each) => el("option", { value: each, selected: each === language }, each));
    return el("select", { "aria-label": name, onchange: ({ target }) => change(target.value) }, options);
  }
  if (name === "item") return input(name, {}, change);
  if (name === "hide") return input(name, { placeholder: "title, cancel" }, change);
  return el("code", {}, name === "server" ? location.origin : "");
}

function propertyTrial(place, name) {
  if (name === "token") return input(name, { type: "password", autocomplete: "new-password" }, (value) => (place.token = value));
  if (name === "strings") {
    const change = (value) => (place.strings = value ? { "element.line": value } : {});
    return input(name, { placeholder: '"element.line"' }, change);
  }
  const shown = el("code");
  if (name === "ready") place.ready.then(({ version }) => setText(shown, `version ${version}`));
  if (name === "client") place.addEventListener("queue-connection", ({ detail }) => setText(shown, detail.status));
  return shown;
}

function lastDetail(place, name) {
  const shown = el("code", { class: "detail" });
  place.addEventListener(name, ({ detail }) => setText(shown, JSON.stringify(detail)));
  return shown;
}

/** An element without a performer, with a sample text in each part. */
function sampleOfEveryPart() {
  const sample = el(TAG, { id: "element-parts", lang: language });
  const words = {
    position: "2",
    ahead: t("hero.ahead", { n: 1 }),
    wait: t("hero.wait", { wait: t("wait.about", { time: t("minutes", { n: 4 }) }) }),
    title: t("docs.element.sampleTitle"),
    money: t("money.held", { n: 120 }),
    state: t("connection.connecting"),
    cancel: t("cancel.button"),
    confirm: t("cancel.confirm", { n: 120 }),
    back: t("cancel.keep"),
    close: t("outcome.close"),
  };
  for (const node of sample.shadowRoot.querySelectorAll("[part]")) {
    node.hidden = false;
    node.disabled = true;
    if (words[node.part]) setText(node, words[node.part]);
  }
  return sample;
}

function partTrials() {
  const outline = new CSSStyleSheet();
  document.adoptedStyleSheets.push(outline);
  let chosen = null;
  return PARTS.map((name) => {
    const toggle = () => {
      chosen = chosen === name ? null : name;
      outline.replaceSync(chosen ? `${TAG}::part(${chosen}) { outline: 3px dashed var(--warn); outline-offset: 2px }` : "");
      for (const each of document.querySelectorAll(".outline")) each.ariaPressed = String(each.value === chosen);
    };
    return [name, el("button", { type: "button", class: "outline", value: name, "aria-pressed": "false", onclick: toggle }, t("docs.element.outline"))];
  });
}

const customTrial = (elements, name, example) =>
  input(name, { placeholder: example }, (value) => {
    for (const each of elements) each.style.setProperty(name, value);
  });
