// Lists whose rows are kept by key and glide to their new places.

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
