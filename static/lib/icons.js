// Makes SVG elements, and the icons of the pages.

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An icon on a 20-unit grid, stroked in the text's colour and hidden from assistive technology. */
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
  copy: "M7.5 7.5v-4h9v9h-4M3.5 7.5h9v9h-9z",
  expand: "M4 8V4h4M12 4h4v4M16 12v4h-4M8 16H4v-4",
  info: "M10 9v4.5M10 6.5h.01M10 17a7 7 0 110-14 7 7 0 010 14z",
};
