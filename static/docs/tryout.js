// Examples on the reference page: short programs to copy, the element, and the overlay with its options.
import { el } from "../lib/dom.js";
import { language, t } from "../lib/messages.js";
import { elementReference } from "./element-reference.js";

const OVERLAY_OPTIONS = ["max", "theme", "scale", "hide"];
const PERFORMER = "mira";

export const ELEMENT = `<script type="module" src="${location.origin}/static/v1/position-element.js"></script>
<performance-queue-position performer="${PERFORMER}"></performance-queue-position>`;

/** [title, id, program] of each example. `intake`: the body of the description's own example. */
export const examples = (intake) => [
  [t("docs.exampleQueue"), "example-queue", `curl -sS '${location.origin}/v1/performers/${PERFORMER}/queue'`],
  [
    t("docs.exampleIntake"),
    "example-intake",
    `curl -sS '${location.origin}/v1/queue/items' \\
  -H "Authorization: Bearer $FEATURE_TOKEN" -H 'Content-Type: application/json' \\
  -d '${JSON.stringify(intake, null, 2).replaceAll("'", "'\\''")}'`,
  ],
  [
    t("docs.exampleClient"),
    "example-client",
    `import { QueueClient } from "${location.origin}/static/v1/queue-client.js";

const client = new QueueClient({ performerId: "${PERFORMER}", server: "${location.origin}" });
client.addEventListener("change", ({ detail }) => console.log(detail.state.items));
client.connect();`,
  ],
];

/** [nodes of the element, nodes of the overlay, the element's reference]; the reader may change the performer. */
export function tryouts() {
  const place = el("performance-queue-position", { performer: PERFORMER, server: location.origin, lang: language });
  const frame = el("iframe", { src: overlayOf(PERFORMER), title: t("docs.overlayPreview"), loading: "lazy", class: "overlay" });
  const whose = el("input", { value: PERFORMER, id: "whose", autocomplete: "off", spellcheck: "false" });
  whose.addEventListener("change", () => {
    if (!whose.value.trim()) return;
    place.setAttribute("performer", whose.value.trim());
    frame.src = overlayOf(whose.value.trim());
  });
  const choice = el("p", { class: "whose" }, el("label", { for: "whose" }, t("docs.performer")), whose);
  return [[choice, place], [frame], elementReference(place)];
}

const overlayOf = (performer) => `/overlay/${encodeURIComponent(performer)}`;

export const overlayOptions = () => OVERLAY_OPTIONS.map((name) => [name, t(`docs.overlay.${name}`)]);
