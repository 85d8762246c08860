// The page at an address that has none.
import { translate } from "../lib/messages.js";

translate(document);
