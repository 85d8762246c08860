// A performer's numbers of the day and the recently ended items: read from the room's history, then kept up to date by
// events.
import { isActive } from "../lib/protocol.js";

const PAGE = 100;
const MOST_PAGES = 5;
const KEPT_RECENT = 12;

const endOf = (item) => Date.parse(item.refundedAt ?? item.abandonedAt ?? item.finishedAt ?? item.updatedAt);

export class Today {
  /** By item: only the fields for the numbers, so that a long day takes little memory. */
  #figures = new Map();
  #recent = new Map();
  #numbers = null;
  #day = 0;
  #performer;
  #session;

  constructor(performer, session) {
    this.#performer = performer;
    this.#session = session;
  }

  /** Reads the history back to the last midnight, at most MOST_PAGES pages. */
  async load() {
    const path = `/v1/performers/${encodeURIComponent(this.#performer)}/queue/history`;
    const loaded = [];
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const { items } = await this.#session.get(`${path}?limit=${PAGE}&skip=${page * PAGE}`);
      loaded.push(...items);
      if (items.length < PAGE || endOf(items.at(-1)) < midnight()) break;
    }
    // An item that an event has brought meanwhile is newer.
    for (const item of loaded.reverse()) if (!this.#figures.has(item.itemId)) this.fold(item);
  }

  /** Adds an ended item of an event; active ones are ignored. */
  fold(item) {
    if (isActive(item)) return;
    const { itemId, status, passThroughMode, startedAt, createdAt, settled, settledTokens, refundedTokens } = item;
    this.#figures.set(itemId, {
      end: endOf(item),
      served: status === "finished",
      wait: status === "finished" && !passThroughMode ? (Date.parse(startedAt) - Date.parse(createdAt)) / 1000 : null,
      settled: settled ? (settledTokens ?? 0) : 0,
      refunded: refundedTokens ?? 0,
    });
    this.#recent.set(itemId, item);
    if (this.#recent.size > KEPT_RECENT) this.#recent = new Map(this.recent.map((kept) => [kept.itemId, kept]));
    this.#numbers = null;
  }

  has(itemId) {
    return this.#figures.has(itemId);
  }

  forget() {
    this.#figures.clear();
    this.#recent.clear();
    this.#numbers = null;
  }

  /** The recently ended items, the last one first. */
  get recent() {
    return [...this.#recent.values()].sort((a, b) => endOf(b) - endOf(a)).slice(0, KEPT_RECENT);
  }

  /** {served, settled, refunded, medianWait}: items, tokens, tokens, seconds (null before the first served item). */
  get numbers() {
    const day = midnight();
    if (day !== this.#day) this.#numbers = null;
    this.#day = day;
    return (this.#numbers ??= this.#count(day));
  }

  #count(start) {
    for (const [itemId, { end }] of this.#figures) if (end < start) this.#figures.delete(itemId);
    const today = [...this.#figures.values()];
    const waits = today
      .map(({ wait }) => wait)
      .filter((wait) => wait !== null)
      .sort((a, b) => a - b);
    const sum = (name) => today.reduce((total, figures) => total + Number(figures[name]), 0);
    const middle = (waits.length - 1) / 2;
    return {
      served: sum("served"),
      settled: sum("settled"),
      refunded: sum("refunded"),
      medianWait: waits.length === 0 ? null : (waits[Math.floor(middle)] + waits[Math.ceil(middle)]) / 2,
    };
  }
}

const midnight = () => new Date().setHours(0, 0, 0, 0);
