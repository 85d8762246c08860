// Every word the pages say, by key, lives in messages/: what several pages share in en.js, a page's own words in
// en-watch.js and so on, and the same files for each other language. The browser's language decides, ?lang= overrides.

const wanted = new URLSearchParams(location.search).get("lang") || navigator.language || "en";
export const language = wanted.toLowerCase().split("-")[0] === "de" ? "de" : "en";

/** For Intl: the reader's own regional variant where it is of the language shown. */
export const locale = (navigator.language ?? "").toLowerCase().startsWith(language) ? navigator.language : language;

// A host site's page, which is none of ours, holds the element, which speaks like the watch page.
const page = document.querySelector("meta[name=queue-page]")?.content ?? "watch";
const parts = await Promise.all([import(`../messages/${language}.js`), import(`../messages/${language}-${page}.js`)]);
const catalogue = Object.assign({}, ...parts.map((part) => part.default));
const plural = new Intl.PluralRules(locale);
const numbers = new Intl.NumberFormat(locale);

/** The message by its key; {name} is filled in from `params`, {n} also chooses the plural
 * (or `none`, where the message has it), {tokens} is n in tokens. */
export function t(key, params = {}) {
  let message = catalogue[key];
  if (message === undefined) return key;
  if (typeof message === "object") {
    message = (params.n === 0 && message.none) || (message[plural.select(params.n)] ?? message.other);
  }
  return message.replace(/\{(\w+)\}/g, (_, name) => {
    if (name === "tokens" && params.tokens === undefined) return t("tokens", params);
    const value = params[name];
    return typeof value === "number" ? numbers.format(value) : String(value ?? "");
  });
}

export function errorText(error) {
  const known = catalogue[`error.${error.code}`] !== undefined;
  return t(known ? `error.${error.code}` : "error.other", { detail: error.message });
}

/** Fills in the words of static markup: data-t for text, data-t-label for the accessible name, data-t-placeholder. */
export function translate(root) {
  if (root === document) document.documentElement.lang = language;
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}
