// A dialog that makes the overlay's link from its options, with a preview over a sample picture.
import { copyText } from "../lib/copy.js";
import { addStyle, button, el, setText } from "../lib/dom.js";
import { t } from "../lib/messages.js";
import { openModal } from "../lib/modal.js";

const THEMES = ["dark", "light", "clear"];
const PARTS = ["now", "next", "tokens", "feature", "count", "time", "message", "life"];
const PICTURE = { width: 1280, height: 720 };

addStyle(`
  .dialog:has(.overlay-link) { inline-size: min(46rem, 100vw - 32px); }
  .overlay-preview {
    position: relative; aspect-ratio: 16 / 9; inline-size: min(100%, 60dvh); margin-inline: auto; overflow: hidden; border-radius: 10px;
    background: radial-gradient(90% 70% at 70% 40%, #e9a15b, transparent 60%),
      radial-gradient(70% 90% at 20% 80%, #35608f, transparent 70%), linear-gradient(140deg, #6b3f6e, #1d2436);
  }
  .overlay-preview iframe {
    position: absolute; inset: 0 auto auto 0; border: 0; transform-origin: 0 0; pointer-events: none;
    /* The overlay's own scheme: with another one a browser paints a background behind the frame. */
    color-scheme: light;
  }
  .overlay-options { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 10px; }
  .overlay-hide { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0; border: 0; margin: 0; }
  .overlay-hide legend { font-size: .875rem; font-weight: 550; padding: 0; margin-block-end: 4px; }
  .overlay-hide label { display: inline-flex; align-items: center; gap: 6px; min-block-size: 28px; font-size: .9375rem; }
  .overlay-hide input { inline-size: 18px; min-block-size: 18px; block-size: 18px; accent-color: var(--accent); }
`);

export function overlayLink(performer) {
  const number = (id, from, to, value, step) =>
    el("input", { type: "number", id, min: from, max: to, step, value, inputmode: "numeric" });
  const most = number("overlay-max", 1, 10, 4, 1);
  const scale = number("overlay-scale", 50, 300, 100, 10);
  const theme = el(
    "select",
    { id: "overlay-theme" },
    THEMES.map((name) => el("option", { value: name }, t(`overlayLink.theme.${name}`))),
  );
  const hide = PARTS.map((name) => {
    const box = el("input", { type: "checkbox", value: name });
    return { box, node: el("label", {}, box, t(`overlayLink.hide.${name}`)) };
  });
  const address = el("input", { type: "text", id: "overlay-address", readonly: true });
  const frame = el("iframe", { title: t("overlayLink.preview"), tabindex: "-1", ...PICTURE });
  const preview = el("div", { class: "overlay-preview" }, frame);
  const field = (id, control) => el("div", { class: "field" }, el("label", { for: control.id }, t(`overlayLink.${id}`)), control);

  function draw() {
    const chosen = {};
    if (most.checkValidity() && most.value !== "4") chosen.max = most.value;
    if (theme.value !== "dark") chosen.theme = theme.value;
    if (scale.checkValidity() && scale.value !== "100") chosen.scale = scale.value;
    const gone = hide.filter(({ box }) => box.checked).map(({ box }) => box.value);
    const query = new URLSearchParams(chosen).toString() + (gone.length ? `${Object.keys(chosen).length ? "&" : ""}hide=${gone.join()}` : "");
    const path = `/overlay/${encodeURIComponent(performer)}${query && `?${query}`}`;
    if (address.value !== location.origin + path) {
      address.value = location.origin + path;
      frame.src = path;
    }
  }

  const said = el("p", { class: "muted", role: "status" });
  async function copy() {
    const copied = await copyText(address.value, address);
    if (!copied) address.select();
    setText(said, t(copied ? "overlayLink.copied" : "overlayLink.select"));
  }

  const form = el(
    "div",
    { class: "overlay-link", oninput: draw },
    el("h2", { id: "overlay-link-title" }, t("overlayLink.title")),
    el("p", {}, t("overlayLink.text")),
    preview,
    el("div", { class: "overlay-options" }, field("max", most), field("theme", theme), field("scale", scale)),
    el(
      "fieldset",
      { class: "overlay-hide" },
      el("legend", {}, t("overlayLink.hide")),
      hide.map(({ node }) => node),
    ),
    field("address", address),
    said,
    el(
      "div",
      { class: "dialog-actions" },
      button("", () => dialog.close(), t("help.close")),
      button("primary", copy, t("overlayLink.copy")),
    ),
  );
  const dialog = openModal("overlay-link-title", form);
  const fit = new ResizeObserver(() =>
    frame.style.setProperty("transform", `scale(${preview.clientWidth / PICTURE.width})`),
  );
  fit.observe(preview);
  dialog.addEventListener("close", () => fit.disconnect());
  draw();
}
