// The types of position-element.js, which defines <performance-queue-position>.

import type { Connection, QueueClient, QueueState, RefreshToken, Status, WholeItem } from "./queue-client.js";

export interface PositionElementEventMap {
  "queue-position": CustomEvent<{
    itemId: string;
    status: Status;
    position: number;
    ahead: number;
    estimatedWaitSeconds: number | null;
    estimatedWaitRange: number[] | null;
  }>;
  /** The viewer's turn is near; `text` says so in the element's language. */
  "queue-notice": CustomEvent<{ itemId: string; template: string; params: Record<string, unknown>; text: string }>;
  /** The item has left the queue. */
  "queue-ended": CustomEvent<{ itemId: string }>;
  /** The ended item; `text`: the state of its tokens in words. */
  "queue-outcome": CustomEvent<{ item: WholeItem; text: string }>;
  "queue-connection": CustomEvent<Connection>;
  "queue-problem": CustomEvent<{ code: string; message: string; hint: string | null }>;
}

/** Attributes: performer, server, item, lang, hide. */
export declare class PerformanceQueuePosition extends HTMLElement {
  /** The client of the element; null while the element is in no document or has no performer. */
  readonly client: QueueClient | null;
  /** Resolves with the first state. */
  readonly ready: Promise<QueueState>;
  token: string | null;
  refreshToken: RefreshToken | null;
  /** Messages in place of the element's own, by key. */
  strings: Record<string, string | { one?: string; other: string }>;
  addEventListener<Name extends keyof (PositionElementEventMap & HTMLElementEventMap)>(
    type: Name,
    listener: (event: (PositionElementEventMap & HTMLElementEventMap)[Name]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<Name extends keyof (PositionElementEventMap & HTMLElementEventMap)>(
    type: Name,
    listener: (event: (PositionElementEventMap & HTMLElementEventMap)[Name]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "performance-queue-position": PerformanceQueuePosition;
  }
}
