// The page's messages. messages/ has them by key and language: en-core.js those of pages and the element, en.js those
// of several pages, en-watch.js and others those of one page. The service sends a page in its reader's language, or the
// one that ?lang= names, with the messages of that language inside.
import catalogue from "./catalogue.js";
import { wordsOf } from "./words.js";

export const language = document.documentElement.lang;

/** The locale for Intl: the reader's regional variant if it belongs to the page's language. */
export const locale = (navigator.language ?? "").toLowerCase().startsWith(language) ? navigator.language : language;

export const words = wordsOf(locale, catalogue);
export const { t } = words;

export function errorText(error) {
  const key = `error.${error.code}`;
  return t(Object.hasOwn(catalogue, key) ? key : "error.other", { detail: error.message });
}

/** Fills in the messages of static markup: data-t, data-t-label (the accessible name) and data-t-placeholder. */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}
