// Small plots over time as SVG: lines or stacked bars, one axis; pointer and arrow keys show the values of a step.
import { el, setText } from "../lib/dom.js";
import { svg } from "../lib/icons.js";

const HEIGHT = 190;
const EDGE = { top: 12, right: 10, bottom: 26, left: 46 };

const ROUND_SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400];

/** A round step that divides the range up to `top` into about four; steps of seconds are round in minutes and hours. */
function stepFor(top, unit) {
  const rough = top / 4 || 1;
  const round = unit === "s" && ROUND_SECONDS.find((step) => step >= rough);
  if (round) return round;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

/**
 * `kind`: "line" or "bar". `series`: [{name, tone, values}], null for a missing value. `times`: the instants of the
 * values. `unit`: "s" for seconds, null for counts. `say(value)`, `sayTime(instant)`: their texts.
 */
export class Plot {
  #data = null;
  #at = null;

  constructor(title) {
    this.reading = el("p", { class: "plot-reading muted", "aria-live": "polite" });
    this.legend = el("ul", { class: "legend" });
    this.picture = el("div", { class: "plot-picture", tabindex: "0", role: "group", "aria-label": title });
    this.node = el(
      "figure",
      { class: "card plot" },
      el("figcaption", {}, el("h3", {}, title), this.reading),
      this.picture,
      this.legend,
    );
    this.picture.addEventListener("pointermove", (event) => this.#point(event));
    this.picture.addEventListener("pointerleave", () => this.#read(null));
    this.picture.addEventListener("blur", () => this.#read(null));
    this.picture.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(this.picture);
  }

  show(data) {
    this.#data = data;
    this.legend.replaceChildren(
      ...data.series.map(({ name, tone }) =>
        el("li", { class: `tone-${tone}` }, el("i", { "aria-hidden": "true" }), name),
      ),
    );
    this.#draw();
  }

  get #width() {
    return Math.max(220, this.picture.clientWidth);
  }

  get #step() {
    return (this.#width - EDGE.left - EDGE.right) / Math.max(1, this.#data.times.length);
  }

  #x(index) {
    return EDGE.left + this.#step * (index + 0.5);
  }

  #draw() {
    if (!this.#data || !this.picture.clientWidth) return;
    const { kind, unit, series, times, say, sayTime } = this.#data;
    const width = this.#width;
    const values = series.flatMap((one) => one.values).filter((value) => value !== null);
    const sums = times.map((_, index) => series.reduce((sum, one) => sum + (one.values[index] ?? 0), 0));
    const highest = Math.max(1, ...(kind === "bar" ? sums : values));
    const lowest = kind === "bar" ? 0 : Math.min(0, ...values);
    const step = Math.max(unit === "s" ? 0 : 1, stepFor(highest - lowest, unit));
    const [from, to] = [Math.floor(lowest / step) * step, Math.ceil(highest / step) * step];
    const y = (value) => EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * (1 - (value - from) / (to - from));
    const root = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" });
    for (let tick = from; tick <= to + step / 2; tick += step) {
      root.append(
        svg("line", {
          x1: EDGE.left,
          x2: width - EDGE.right,
          y1: y(tick),
          y2: y(tick),
          class: tick === 0 ? "axis" : "grid",
        }),
        this.#label(EDGE.left - 8, y(tick) + 4, say(tick), "end"),
      );
    }
    const every = Math.ceil(times.length / Math.max(2, Math.floor(width / 90)));
    times.forEach((time, index) => {
      if (index % every === 0) root.append(this.#label(this.#x(index), HEIGHT - 7, sayTime(time), "middle"));
    });
    if (kind === "bar") this.#bars(root, series, y);
    else this.#lines(root, series, y);
    this.cursor = svg("line", { y1: EDGE.top, y2: HEIGHT - EDGE.bottom, class: "cursor", visibility: "hidden" });
    root.append(this.cursor);
    this.picture.replaceChildren(root);
    this.#read(this.#at);
    if (values.length === 0) setText(this.reading, this.#data.nothing);
  }

  #label(x, y, text, anchor) {
    const node = svg("text", { x, y, "text-anchor": anchor });
    node.textContent = text;
    return node;
  }

  #bars(root, series, y) {
    const width = Math.max(2, Math.min(34, this.#step * 0.62));
    this.#data.times.forEach((_, index) => {
      let below = 0;
      for (const { values, tone } of series) {
        const value = values[index] ?? 0;
        if (value > 0) {
          root.append(
            svg("rect", {
              x: this.#x(index) - width / 2,
              y: y(below + value),
              width,
              height: Math.max(1, y(below) - y(below + value)),
              rx: 2,
              class: `tone-${tone}`,
            }),
          );
        }
        below += value;
      }
    });
  }

  #lines(root, series, y) {
    for (const { values, tone } of series) {
      let path = "";
      let pen = "M";
      values.forEach((value, index) => {
        if (value === null) {
          pen = "M";
          return;
        }
        path += `${pen}${this.#x(index).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        root.append(svg("circle", { cx: this.#x(index), cy: y(value), r: 2.6, class: `tone-${tone}` }));
      });
      root.append(svg("path", { d: path || "M0 0", class: `line tone-${tone}` }));
    }
  }

  #point(event) {
    const x = event.clientX - this.picture.getBoundingClientRect().left;
    const index = Math.floor((x - EDGE.left) / this.#step);
    this.#read(index >= 0 && index < (this.#data?.times.length ?? 0) ? index : null);
  }

  #key(event) {
    const last = (this.#data?.times.length ?? 0) - 1;
    const next = { ArrowRight: (this.#at ?? -1) + 1, ArrowLeft: (this.#at ?? last + 1) - 1, Home: 0, End: last }[
      event.key
    ];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    this.#read(Math.min(last, Math.max(0, next)));
  }

  #read(index) {
    this.#at = index;
    if (!this.cursor) return;
    this.cursor.setAttribute("visibility", index === null ? "hidden" : "visible");
    if (index === null) {
      setText(this.reading, "");
      return;
    }
    const { series, times, say, sayTime } = this.#data;
    this.cursor.setAttribute("x1", this.#x(index));
    this.cursor.setAttribute("x2", this.#x(index));
    const words = series.map(({ name, values }) => `${name} ${values[index] === null ? "–" : say(values[index])}`);
    setText(this.reading, `${sayTime(times[index])}: ${words.join(", ")}`);
  }
}
