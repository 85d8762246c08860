// The watch page's largest card: the viewer's place, the outcome of their request, or the length of the queue. watch.js
// decides which of them is shown.
import { alertSwitch } from "../lib/attention.js";
import { toast } from "../lib/dialog.js";
import { button, byId, el, setAttribute, setText, show } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { renderList } from "../lib/lists.js";
import { inLine, isolated, tokens } from "../lib/format.js";
import { t, words } from "../lib/messages.js";
import { moneyLine, showMoney } from "../lib/money.js";
import { moneyState, outcomeOf } from "../lib/outcome.js";

let spoken = "";
let speaking = null;

/** Announces a text to screen readers: once, and only the last one of a moment. */
function say(text) {
  clearTimeout(speaking);
  if (text === spoken) return;
  speaking = setTimeout(() => {
    spoken = text;
    setText(byId("spoken"), text);
  }, 900);
}

/** The parts of the hero. It is rebuilt only when its kind changes, so that focus and animations are kept. */
function kindOfHero(hero, kind, build) {
  if (hero.dataset.kind === kind) return hero.parts;
  hero.dataset.kind = kind;
  hero.parts = build();
  hero.replaceChildren(...Object.values(hero.parts).filter((part) => part.parentNode === null));
  return hero.parts;
}

const figure = (hook) => el("span", { class: "figure", "data-testid": hook });

/**
 * `standing`: the item's place in words; `wait`: {words, clock}; `notices`: [{noticeId, text}]; `push`: see
 * `alertSwitch`.
 */
export function placeHero(hero, item, { began, standing, wait, notices, live, cancel, push }) {
  const parts = kindOfHero(hero, "place", () => {
    const number = figure("position");
    const ahead = el("p", { class: "hero-line", "data-testid": "ahead" });
    const eta = el("p", { class: "hero-wait" }, el("span", { "data-testid": "eta" }), el("span", { class: "muted" }));
    const fill = el("i");
    const track = el(
      "div",
      { class: "track", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" },
      fill,
    );
    const from = el("span");
    // Shown in place of the progress, so that nothing below it moves.
    const notice = el("div", { class: "hero-notices" });
    return {
      eyebrow: el("h2", { class: "eyebrow", id: "hero-title" }),
      main: el("div", { class: "hero-main" }, number, el("div", { class: "hero-words" }, ahead, eta)),
      number,
      ahead,
      eta,
      fill,
      track,
      from,
      progress: el(
        "div",
        { class: "hero-middle" },
        el(
          "div",
          { class: "progress" },
          track,
          el("p", { class: "progress-ends muted" }, from, el("span", {}, t("hero.stage"))),
        ),
        notice,
      ),
      notice,
      item: el("p", { class: "hero-item muted" }),
      actions: el(
        "div",
        { class: "actions" },
        alertButton(push),
        button("quiet", () => cancel(hero.item), t("cancel.button")),
      ),
    };
  });
  hero.item = item;
  const started = item.status === "started";
  setAttribute(hero, "data-stage", started);
  setText(parts.eyebrow, t("hero.place"));
  pulse(parts.number, String(item.position));
  setText(parts.ahead, standing);
  setText(parts.eta.firstChild, wait.words);
  setText(parts.eta.lastChild, wait.clock);
  const done = began === 1 ? 1 : (began - item.position) / (began - 1);
  parts.fill.style.setProperty("inline-size", `${Math.max(3, done * 100)}%`);
  setAttribute(parts.track, "aria-valuenow", Math.round(done * 100));
  setAttribute(parts.track, "aria-label", t("hero.progress"));
  setAttribute(parts.track, "aria-valuetext", t("hero.progressText", { from: began, to: item.position }));
  setText(parts.from, t("hero.began", { n: began }));
  setText(parts.item, inLine(isolated(item.title), tokens(item.tokens)));
  const cancelButton = parts.actions.lastChild;
  show(cancelButton, !started);
  cancelButton.disabled = !live;
  renderList(
    parts.notice,
    notices,
    (notice) => notice.noticeId,
    () => el("p", { class: "notice", "data-testid": "notice" }, icon("bell"), el("span")),
    (node, notice) => setText(node.lastChild, notice.text),
  );
  setAttribute(parts.progress, "data-notice", notices.length > 0);
  const words = notices.length ? notices[0].text : parts.ahead.textContent;
  say(t("spoken.place", { position: item.position, words }));
}

/** Sets a figure; a short movement shows that it has changed. */
function pulse(node, text) {
  if (node.textContent === text) return;
  const first = node.textContent === "";
  node.textContent = text;
  if (!first && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
    node.animate(
      [
        { transform: "translateY(-14%)", opacity: 0 },
        { transform: "none", opacity: 1 },
      ],
      { duration: 320, easing: "cubic-bezier(.2,.7,.2,1)" },
    );
  }
}

export function outcomeHero(hero, item, close) {
  const parts = kindOfHero(hero, "outcome", () => ({
    eyebrow: el("h2", { class: "eyebrow", id: "hero-title" }, t("outcome.eyebrow")),
    words: el(
      "div",
      { class: "hero-words" },
      el("p", { class: "hero-line", "data-testid": "outcome" }),
      el("p", { "data-testid": "refund" }),
      el("p", { class: "muted" }),
    ),
    item: el("div", { class: "hero-receipt" }, el("p"), moneyLine()),
    actions: el(
      "div",
      { class: "actions" },
      button("", () => hero.close(), t("outcome.close")),
    ),
  }));
  hero.close = close;
  const [headline, refund, text] = parts.words.children;
  const [title, money] = parts.item.children;
  setAttribute(hero, "data-stage", false);
  const outcome = outcomeOf(item, { t });
  setText(refund, refundText(item));
  show(refund, refund.textContent !== "");
  setText(headline, outcome.headline);
  setText(text, outcome.detail);
  show(text, text.textContent !== "");
  showMoney(money, item);
  setText(title, inLine(isolated(item.title), tokens(item.tokens)));
  say(`${headline.textContent}. ${refund.textContent || money.textContent}`);
}

/** The sentence about the tokens of a request that was not performed; empty for any other. */
function refundText(item) {
  if (!["abandoned", "refunded"].includes(item.status)) return "";
  const { tone } = moneyState(item, words);
  const key = { good: "back", busy: "coming", warn: "slow", bad: "stuck" }[tone];
  return key ? t(`refund.${key}`, { n: item.tokens }) : "";
}

/** `wait`: the wait of a new request in words, or empty. */
export function visitorHero(hero, { depth, situation, owner, wait }) {
  const parts = kindOfHero(hero, "visitor", () => ({
    eyebrow: el("h2", { class: "eyebrow", id: "hero-title" }),
    main: el(
      "div",
      { class: "hero-main" },
      figure("waiting"),
      el(
        "div",
        { class: "hero-words" },
        el("p", { class: "hero-line" }),
        el("p", { class: "muted" }),
        el("p", { class: "new-wait", "data-testid": "new-wait" }),
      ),
    ),
  }));
  setAttribute(hero, "data-stage", false);
  const [number, lines] = parts.main.children;
  const [line, detail, fresh] = lines.children;
  setText(fresh, wait);
  setText(parts.eyebrow, t(owner ? "visitor.ownEyebrow" : "visitor.eyebrow"));
  const none = { off: "visitor.off", unknown: "visitor.unknown" }[situation];
  show(number, !none);
  pulse(number, String(depth));
  setText(line, t(none ?? (depth ? "visitor.line" : "visitor.none"), { n: depth }));
  setText(detail, t(owner ? "visitor.ownDetail" : "visitor.detail"));
  say("");
}

/** Whether the browser shows notifications; else there is only the sound. */
function mayNotify() {
  return globalThis.Notification?.permission === "granted";
}

function alertButton(push) {
  const words = el("span");
  return alertSwitch(
    el("button", { class: "button", type: "button", id: "notify" }, words),
    (on) => setText(words, t(on ? (mayNotify() ? "notify.on" : "notify.sound") : "notify.off")),
    (outcome) => toast(t(`notify.${outcome}Told`)),
    push,
  );
}
