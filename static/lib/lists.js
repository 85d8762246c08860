// Draws lists: keeps one node per key, and lets rows glide to their new places.

const GLIDE_MOST = 20;
const TIMING = { duration: 260, easing: "cubic-bezier(.2,.7,.2,1)" };
const rows = new WeakMap();
const glides = new WeakMap();
const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Makes the container's children the given entries, in order, and reuses the node of a key. With `mayGlide`, rows of
 * a list of at most GLIDE_MOST glide to their new places, unless the reader prefers reduced motion.
 */
export function renderList(container, entries, keyOf, create, update, mayGlide = false) {
  const known = rows.get(container) ?? new Map();
  const next = new Map(entries.map((entry) => [keyOf(entry), known.get(keyOf(entry)) ?? create(entry)]));
  const order = [...next.values()];
  const isGlide =
    mayGlide &&
    known.size > 0 &&
    order.length <= GLIDE_MOST &&
    !stillness.matches &&
    document.visibilityState === "visible" &&
    [...known.values()].some((node, index) => node !== order[index]);
  const tops = isGlide ? new Map(order.map((node) => [node, node.isConnected ? topOf(node) : null])) : null;
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

/** The visible distance from the top of the list in px, also during a glide. */
const topOf = (node) => node.getBoundingClientRect().top - node.parentNode.getBoundingClientRect().top;

function glideFrom(tops, order) {
  for (const node of order) {
    glides.get(node)?.cancel();
    node.style.translate = "";
  }
  const distances = order.map((node) => [node, tops.get(node) === null ? null : tops.get(node) - topOf(node)]);
  for (const [node, distance] of distances) {
    if (distance === null) node.animate([{ opacity: 0, transform: "translateY(6px)" }, { opacity: 1 }], TIMING);
    // One frame at the old place, then the glide: browsers would count a move within one frame as a layout shift.
    else if (distance) node.style.translate = `0 ${distance}px`;
  }
  requestAnimationFrame(() => requestAnimationFrame(() => distances.forEach(([node]) => glide(node))));
}

function glide(node) {
  const { translate } = node.style;
  if (!translate) return;
  node.style.translate = "";
  // An animation would keep a removed row in memory.
  if (!node.isConnected) return;
  glides.set(node, node.animate([{ translate }, { translate: "none" }], TIMING));
}
