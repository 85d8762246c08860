// Building and changing the page's elements. User text enters the document here, and only as text nodes.

/** el("p", {class: "note", onclick: f, hidden: true}, "text", child): properties that start with "on" listen. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** button("primary", act, "Go"): `kind` is a class besides "button". */
export const button = (kind, act, ...children) =>
  el("button", { class: `button ${kind}`, type: "button", onclick: act }, ...children);

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An icon of the page's own set: a 20-unit grid, stroked in the text's colour, invisible to assistive technology. */
export function icon(name) {
  const node = svg("svg", { viewBox: "0 0 20 20", class: `icon ${name}`, "aria-hidden": "true", focusable: "false" });
  node.append(svg("path", { d: ICONS[name] }));
  return node;
}

const ICONS = {
  play: "M6.5 4.2v11.6l9-5.8z",
  check: "M4.5 10.5l3.8 3.8 7.4-8.3",
  pause: "M7 4.5v11M13 4.5v11",
  close: "M5.5 5.5l9 9m0-9l-9 9",
  undo: "M7.5 4.5L4 8l3.5 3.5M4 8h7.5a4 4 0 010 8H8",
  stop: "M5.5 5.5h9v9h-9z",
  more: "M4.5 10h.01M10 10h.01M15.5 10h.01",
  bell: "M10 3.5A4.5 4.5 0 005.5 8c0 4-1.5 5-1.5 5.5h12c0-.5-1.5-1.5-1.5-5.5A4.5 4.5 0 0010 3.5zM8.3 16.3a1.9 1.9 0 003.4 0",
  split: "M10 3.5V8m0 0l-5 5v3.5M10 8l5 5v3.5",
  info: "M10 9v4.5M10 6.5h.01M10 17a7 7 0 110-14 7 7 0 010 14z",
};

/** The looks of what is loaded only when it is needed come with it. */
export function addStyle(css) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  document.adoptedStyleSheets.push(sheet);
}

export const byId = (id) => document.getElementById(id);

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

const GLIDE_MOST = 20;
const rows = new WeakMap();
const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Makes the container's children the given entries, in order, reusing one node per key. With `glides`, rows of
 * a short list that change places glide there, unless the reader asked for stillness.
 */
export function renderList(container, entries, keyOf, create, update, glides = false) {
  const known = rows.get(container) ?? new Map();
  const next = new Map(entries.map((entry) => [keyOf(entry), known.get(keyOf(entry)) ?? create(entry)]));
  const order = [...next.values()];
  const glide =
    glides &&
    known.size > 0 &&
    order.length <= GLIDE_MOST &&
    !stillness.matches &&
    document.visibilityState === "visible" &&
    [...known.values()].some((node, index) => node !== order[index]);
  const tops = glide ? new Map(order.map((node) => [node, node.isConnected ? node.offsetTop : null])) : null;
  for (const [key, node] of known) if (!next.has(key)) node.remove();
  let place = container.firstElementChild;
  for (const node of order) {
    if (node === place) place = place.nextElementSibling;
    else container.insertBefore(node, place);
  }
  entries.forEach((entry, index) => update(order[index], entry, index));
  rows.set(container, next);
  if (tops) glideFrom(tops, order);
}

function glideFrom(tops, order) {
  const places = order.map((node) => node.offsetTop);
  order.forEach((node, index) => {
    const top = tops.get(node);
    const timing = { duration: 260, easing: "cubic-bezier(.2,.7,.2,1)" };
    if (top === null) node.animate([{ opacity: 0, transform: "translateY(6px)" }, { opacity: 1 }], timing);
    else if (top !== places[index]) {
      node.animate([{ transform: `translateY(${top - places[index]}px)` }, { transform: "none" }], timing);
    }
  });
}

/** Calls `draw` at most once a frame, also in a hidden page, where frames do not come. */
export function oncePerFrame(draw) {
  let waiting = false;
  const run = () => {
    if (!waiting) return;
    waiting = false;
    draw();
  };
  document.addEventListener("visibilitychange", run);
  return () => {
    if (waiting) return;
    waiting = true;
    if (document.visibilityState === "visible") requestAnimationFrame(run);
    else setTimeout(run, 100);
  };
}

/** Calls `draw` about once a second while the page can be seen. */
export function everySecond(draw) {
  setInterval(() => {
    if (document.visibilityState === "visible") draw();
  }, 1000);
}
