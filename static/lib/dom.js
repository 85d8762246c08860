// Builds and changes elements. User text enters the document only here, and only as text nodes.

/** el("p", {class: "note", onclick: f, hidden: true}, "text", child): attributes that start with "on" are listeners. */
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

/** Adds the style of a module that is loaded on demand. */
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

/** A function that calls `draw` at most once a frame; in a hidden page, which has no frames, every 100 ms. */
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
