// The page's words. Every message lives by its key in messages/, by language: en-core.js what pages and the element
// share, en.js what several pages say, en-watch.js and so on a page's own. The service serves a page in its reader's
// language, or the one that ?lang= names, with the catalogue of that language inside.
import catalogue from "./catalogue.js";
import { wordsOf } from "./words.js";

export const language = document.documentElement.lang;

/** For Intl: the reader's own regional variant where it is of the language shown. */
export const locale = (navigator.language ?? "").toLowerCase().startsWith(language) ? navigator.language : language;

export const words = wordsOf(locale, catalogue);
export const { t } = words;

export function errorText(error) {
  const key = `error.${error.code}`;
  return t(Object.hasOwn(catalogue, key) ? key : "error.other", { detail: error.message });
}

/** Fills in the words of static markup: data-t for text, data-t-label for the accessible name, data-t-placeholder. */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}
