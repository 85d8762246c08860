// The page for an address without a page.
import { translate } from "../lib/messages.js";

translate(document);
