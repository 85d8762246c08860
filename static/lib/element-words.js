// The element's words: both languages travel with it, and a site may put its own in their place.
import deCore from "../messages/de-core.js";
import dePlace from "../messages/de-place.js";
import enCore from "../messages/en-core.js";
import enPlace from "../messages/en-place.js";
import { wordsOf } from "./words.js";

const CATALOGUES = { en: { ...enCore, ...enPlace }, de: { ...deCore, ...dePlace } };

/** `wanted`: a language tag; English where it is of none that there is. `strings`: messages in place of ours, by key. */
export function elementWords(wanted, strings) {
  const [language] = wanted.toLowerCase().split("-");
  const known = Object.hasOwn(CATALOGUES, language);
  return wordsOf(known ? wanted : "en", { ...CATALOGUES[known ? language : "en"], ...strings });
}
