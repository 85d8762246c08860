// The element's messages in all languages; a site may replace them.
import deCore from "../messages/de-core.js";
import dePlace from "../messages/de-place.js";
import enCore from "../messages/en-core.js";
import enPlace from "../messages/en-place.js";
import { wordsOf } from "./words.js";

const CATALOGUES = { en: { ...enCore, ...enPlace }, de: { ...deCore, ...dePlace } };

/** `wanted`: a language tag; English if there are no messages in it. `strings`: the site's messages by key. */
export function elementWords(wanted, strings) {
  const [language] = wanted.toLowerCase().split("-");
  const known = Object.hasOwn(CATALOGUES, language);
  return wordsOf(known ? wanted : "en", { ...CATALOGUES[known ? language : "en"], ...strings });
}
