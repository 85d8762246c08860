// Analytics over time: waits, throughput, refunds and the errors of estimates. The service counts for any span; a plot
// makes one request for each of its steps.
import { byId, el, setAttribute, setText } from "../lib/dom.js";
import { count, duration, featureName, share } from "../lib/format.js";
import { locale, t } from "../lib/messages.js";
import { Plot } from "./plot.js";
import { downloadCsv, drawTable } from "./table.js";

const HOUR = 3_600_000;
const SPANS = {
  hour: { length: HOUR, steps: 12 },
  day: { length: 24 * HOUR, steps: 12 },
  week: { length: 168 * HOUR, steps: 7 },
  month: { length: 720 * HOUR, steps: 15 },
};
const REFRESH_MS = 60_000;
const AT_ONCE = 4;

const hourFormat = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dateFormat = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });

/** The service's answer for one span, with null for every missing figure. */
function read(raw) {
  const pair = (value) => ({ p50: value?.p50 ?? null, p90: value?.p90 ?? null });
  const error = raw.estimateError ?? {};
  return {
    counts: { created: 0, started: 0, finished: 0, abandoned: 0, refunded: 0, settled: 0, ...raw.counts },
    wait: pair(raw.waitSeconds),
    service: pair(raw.serviceSeconds),
    tokens: { settled: raw.tokens?.settled ?? 0, refunded: raw.tokens?.refunded ?? 0 },
    abandonRate: raw.abandonRate ?? null,
    refundRate: raw.refundRate ?? null,
    error: { mean: error.meanAbsoluteSeconds ?? null, bias: error.biasSeconds ?? null },
    byAhead: raw.estimateByAhead ?? [],
    features: raw.features ?? [],
  };
}

/** A range of items ahead: "0", "2–3" or "11+". */
function sayPlaces({ aheadFrom, aheadTo }) {
  if (aheadTo === null) return `${count(aheadFrom)}+`;
  return aheadFrom === aheadTo ? count(aheadFrom) : `${count(aheadFrom)}–${count(aheadTo)}`;
}

export function openAnalytics(session) {
  let span = "day";
  let performer = "";
  let loadedAt = 0;
  let latest = null;
  const body = byId("analytics-body");
  const totals = el("dl", { class: "card totals" });
  const plots = Object.fromEntries(
    ["waits", "throughput", "refunds", "error"].map((name) => [name, new Plot(t(`analytics.${name}`))]),
  );
  const features = el("div", { class: "card table-card", "data-label": t("analytics.features") });
  const promises = el("div", { class: "card table-card", "data-label": t("analytics.promises"), "data-testid": "promises" });
  const problem = el("p", { class: "card empty", hidden: true }, t("analytics.absent"));
  body.append(
    problem,
    totals,
    el(
      "div",
      { class: "plots" },
      Object.values(plots).map((plot) => plot.node),
    ),
    el("h2", { class: "table-title" }, t("analytics.features")),
    features,
    el("h2", { class: "table-title" }, t("analytics.promises")),
    promises,
    el("p", { class: "muted" }, t("analytics.promisesHint")),
  );

  const choices = Object.keys(SPANS).map((name) =>
    el(
      "button",
      {
        class: "button small",
        type: "button",
        "aria-pressed": String(name === span),
        "data-span": name,
        onclick: () => {
          span = name;
          for (const other of choices) setAttribute(other, "aria-pressed", String(other.dataset.span === name));
          load();
        },
      },
      t(`analytics.${name}`),
    ),
  );
  const whose = el("input", {
    type: "search",
    id: "whose",
    placeholder: t("analytics.everybody"),
    autocomplete: "off",
    spellcheck: "false",
  });
  whose.addEventListener("change", () => {
    performer = whose.value.trim();
    load();
  });
  byId("analytics-filters").append(
    el("div", { class: "filters", role: "group", "aria-label": t("analytics.span") }, choices),
    el("label", { class: "visually-hidden", for: "whose" }, t("gate.whose")),
    whose,
  );

  const ask = (from, to) => {
    const base = performer ? `/v1/performers/${encodeURIComponent(performer)}/queue/analytics` : "/v1/admin/analytics";
    return session
      .get(`${base}?${new URLSearchParams({ from: new Date(from).toISOString(), to: new Date(to).toISOString() })}`)
      .then(read);
  };

  async function load() {
    loadedAt = Date.now();
    const { length, steps } = SPANS[span];
    const step = length / steps;
    const end = Math.ceil(Date.now() / 60_000) * 60_000;
    const times = Array.from({ length: steps }, (_, index) => end - length + index * step);
    body.setAttribute("aria-busy", "true");
    try {
      const whole = await ask(end - length, end);
      const parts = [];
      for (let at = 0; at < steps; at += AT_ONCE) {
        parts.push(...(await Promise.all(times.slice(at, at + AT_ONCE).map((from) => ask(from, from + step)))));
      }
      latest = { whole, parts, times, step };
      problem.hidden = true;
      draw();
    } catch (error) {
      if (!["NOT_FOUND", "PERFORMER_NOT_FOUND", "METHOD_NOT_ALLOWED"].includes(error.code)) throw error;
      setText(problem, t(error.code === "PERFORMER_NOT_FOUND" ? "analytics.unknown" : "analytics.absent"));
      problem.hidden = false;
    } finally {
      body.removeAttribute("aria-busy");
    }
  }

  function draw() {
    const { whole, parts, times, step } = latest;
    const figures = {
      finished: count(whole.counts.finished),
      wait: whole.wait.p50 === null ? "–" : duration(whole.wait.p50),
      settled: count(whole.tokens.settled),
      refunded: count(whole.tokens.refunded),
      abandonRate: whole.abandonRate === null ? "–" : share(whole.abandonRate),
      refundRate: whole.refundRate === null ? "–" : share(whole.refundRate),
    };
    totals.replaceChildren(
      ...Object.entries(figures).map(([name, text]) =>
        el("div", {}, el("dt", { class: "muted" }, t(`analytics.total.${name}`)), el("dd", {}, text)),
      ),
    );
    const sayTime = (time) => (step < 24 * HOUR ? hourFormat : dateFormat).format(time);
    const sayLength = (value) => (value < 0 ? `−${duration(-value)}` : duration(value));
    const series = (key, tone, pick) => ({ name: t(`analytics.${key}`), tone, values: parts.map(pick) });
    const common = { unit: "s", times, sayTime, nothing: t("analytics.nothing") };
    plots.waits.show({
      ...common,
      kind: "line",
      say: sayLength,
      series: [series("p50", "accent", (part) => part.wait.p50), series("p90", "soft", (part) => part.wait.p90)],
    });
    plots.throughput.show({
      ...common,
      kind: "bar",
      unit: null,
      say: count,
      series: [series("performed", "accent", (part) => part.counts.finished)],
    });
    plots.refunds.show({
      ...common,
      kind: "bar",
      unit: null,
      say: count,
      series: [
        series("refunded", "warn", (part) => part.counts.refunded),
        series("abandoned", "soft", (part) => part.counts.abandoned),
      ],
    });
    plots.error.show({
      ...common,
      kind: "line",
      say: sayLength,
      series: [series("mean", "accent", (part) => part.error.mean), series("bias", "soft", (part) => part.error.bias)],
    });
    const time = (value) => (value === null || value === undefined ? "–" : duration(value));
    const rate = (value) => (value === null || value === undefined ? "–" : share(value));
    drawTable(
      features,
      [
        { title: t("analytics.feature"), cell: (row) => featureName(row.sourceFeature) },
        { title: t("analytics.count"), number: true, cell: (row) => count(row.count) },
        { title: t("analytics.waitP50"), number: true, cell: (row) => time(row.waitSeconds?.p50) },
        { title: t("analytics.waitP90"), number: true, cell: (row) => time(row.waitSeconds?.p90) },
        { title: t("analytics.serviceP50"), number: true, cell: (row) => time(row.serviceSeconds?.p50) },
        { title: t("analytics.serviceP90"), number: true, cell: (row) => time(row.serviceSeconds?.p90) },
      ],
      whole.features,
      (row) => row.sourceFeature,
      t("analytics.nothing"),
    );
    drawTable(
      promises,
      [
        { title: t("analytics.ahead"), cell: sayPlaces },
        { title: t("analytics.told"), number: true, cell: (row) => count(row.count) },
        { title: t("analytics.meanError"), number: true, cell: (row) => time(row.meanAbsoluteSeconds) },
        {
          title: t("analytics.biasLong"),
          number: true,
          cell: (row) => (row.biasSeconds === null ? "–" : sayLength(row.biasSeconds)),
        },
        { title: t("analytics.rangeRate"), number: true, cell: (row) => rate(row.rangeRate) },
        { title: t("analytics.insideRate"), number: true, cell: (row) => rate(row.insideRate) },
      ],
      whole.byAhead.filter((row) => row.count > 0),
      (row) => row.aheadFrom,
      t("analytics.nothing"),
    );
  }

  byId("analytics-csv").addEventListener("click", () => {
    if (!latest) return;
    const { parts, times, step } = latest;
    downloadCsv(
      `analytics-${span}`,
      [
        "from",
        "to",
        "created",
        "finished",
        "abandoned",
        "refunded",
        "waitP50Seconds",
        "waitP90Seconds",
        "serviceP50Seconds",
        "serviceP90Seconds",
        "tokensSettled",
        "tokensRefunded",
        "estimateErrorSeconds",
        "estimateBiasSeconds",
      ],
      parts.map((part, index) => [
        new Date(times[index]).toISOString(),
        new Date(times[index] + step).toISOString(),
        part.counts.created,
        part.counts.finished,
        part.counts.abandoned,
        part.counts.refunded,
        part.wait.p50,
        part.wait.p90,
        part.service.p50,
        part.service.p90,
        part.tokens.settled,
        part.tokens.refunded,
        part.error.mean,
        part.error.bias,
      ]),
    );
  });

  return {
    refresh: async (asked) => {
      if ((asked && !latest) || Date.now() - loadedAt > REFRESH_MS) await load();
    },
  };
}
