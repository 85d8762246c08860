// The front page: a form that leads to a performer's queue, and the purpose of the other pages.
import { byId, el, setText } from "../lib/dom.js";
import { svg } from "../lib/icons.js";
import { t, translate } from "../lib/messages.js";

translate(document);

const box = (x, y, width, height, kind) =>
  svg("rect", { x, y, width, height, rx: Math.min(3, height / 2), class: kind });
const word = (x, y, text, kind) => {
  const node = svg("text", { x, y, class: kind });
  node.textContent = text;
  return node;
};

/** Each page in a few strokes, in the page's own colours. */
const SKETCHES = {
  watch: () => [
    word(14, 62, "3", "figure"),
    box(58, 30, 52, 7, "ink"),
    box(58, 44, 36, 5, "soft"),
    box(16, 78, 128, 5, "rule"),
    box(16, 78, 74, 5, "accent"),
  ],
  panel: () => [
    box(16, 18, 70, 8, "ink"),
    box(16, 32, 44, 5, "soft"),
    box(16, 46, 128, 22, "accent"),
    box(16, 75, 40, 12, "rule"),
    box(60, 75, 40, 12, "rule"),
    box(104, 75, 40, 12, "rule"),
  ],
  overlay: () => [
    box(16, 16, 92, 30, "dark"),
    box(24, 23, 30, 4, "accent"),
    box(24, 33, 60, 6, "light"),
    box(16, 52, 92, 36, "dark"),
    box(24, 60, 66, 5, "light"),
    box(24, 69, 52, 5, "light"),
    box(24, 78, 60, 5, "light"),
  ],
  admin: () => [
    ...[26, 40, 32, 52, 46, 60, 38].map((height, index) =>
      box(18 + index * 18, 86 - height, 11, height, index === 5 ? "accent" : "rule"),
    ),
    box(16, 88, 130, 1.5, "soft"),
  ],
};

byId("pages").append(
  ...Object.entries(SKETCHES).map(([name, sketch]) =>
    el(
      "li",
      { class: "card page" },
      svg("svg", { viewBox: "0 0 160 104", "aria-hidden": "true", class: "sketch" }, ...sketch()),
      el("h3", {}, t(`index.${name}`)),
      el("p", { class: "muted" }, t(`index.${name}Text`)),
      el(
        "code",
        {},
        { watch: "/watch/{performer}", panel: "/panel", overlay: "/overlay/{performer}", admin: "/admin" }[name],
      ),
    ),
  ),
);

setText(
  byId("snippet"),
  `<script type="module" src="${location.origin}/static/v1/position-element.js"></script>
<performance-queue-position performer="mira"></performance-queue-position>
<script type="module">
  const place = document.querySelector("performance-queue-position");
  place.refreshToken = () => fetch("/queue-token").then((answer) => answer.text());
  place.token = await place.refreshToken();
  place.addEventListener("queue-position", (event) => console.log(event.detail));
</script>`,
);

byId("watch").addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign(`/watch/${encodeURIComponent(byId("performer").value.trim())}`);
});
