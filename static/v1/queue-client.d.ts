// The types of queue-client.js. The frames of the socket are in protocol.d.ts, generated from the AsyncAPI document.

import type { Command, DateTime, EventShape, Notice, Position, Problem, PublicItem, RoomShape, ServerFrame, Status, WholeItem } from "./protocol.js";

export type * from "./protocol.js";

/** An item with the fields that the client's token may see. */
export type Item = PublicItem | WholeItem;

/** The place of an own active item. */
export interface OwnPlace {
  itemId: string;
  status: Status;
  position: number;
  ahead: number;
  totalInQueue: number;
  estimatedWaitSeconds: number | null;
  estimatedWaitRange: number[] | null;
  /** The item on stage when the wait was sent, and its seconds in service at that time. */
  stage: { itemId: string; seconds: number } | null;
}

export interface QueueState {
  readonly epoch: string | null;
  /** null before the first snapshot. */
  readonly version: number | null;
  readonly serverTime: DateTime | null;
  readonly room: RoomShape | null;
  /** The active items in the order in which they are served. */
  readonly items: readonly Item[];
  readonly mine: readonly OwnPlace[];
  readonly behind: boolean;
}

export interface Connection {
  status: "idle" | "connecting" | "live" | "reconnecting" | "stopped";
  /** When the state was last known to be right, in milliseconds since 1970 on this device's clock. */
  asOf: number | null;
  /** When the loss of the connection was noticed, on the same clock. */
  lostAt: number | null;
  /** The close code of the connection. */
  code: number | null;
}

export interface QueueClientEventMap {
  change: CustomEvent<{ state: QueueState; previous: QueueState; events: EventShape[]; frame: ServerFrame }>;
  connection: CustomEvent<Connection>;
  recovered: CustomEvent<{ before: QueueState; after: QueueState }>;
  position: CustomEvent<Position>;
  notice: CustomEvent<Notice>;
  pending: CustomEvent<{ commands: Command[] }>;
  problem: CustomEvent<QueueError>;
}

/** The fields of a command of this type, without type and id. */
export type CommandFields<Type extends Command["type"]> = Omit<Extract<Command, { type: Type }>, "type" | "id">;

type Given<Fields> = {} extends Fields ? [fields?: Fields] : [fields: Fields];

/** Returns a fresh token, or null. Called before the token expires, and when the service says that it has expired. */
export type RefreshToken = () => Promise<string | null> | string | null;

export interface QueueClientOptions {
  performerId: string;
  /** Default: an anonymous viewer. */
  token?: string | null;
  /** The service's origin. Default: that of the page; outside a page it has to be given. */
  server?: string;
  refreshToken?: RefreshToken | null;
}

export declare class QueueClient extends EventTarget {
  constructor(options: QueueClientOptions);
  readonly performerId: string;
  readonly server: string;
  /** Changed by `setToken`. */
  readonly token: string | null;
  refreshToken: RefreshToken | null;
  readonly state: QueueState;
  readonly identity: { role: string | null; sub: string | null };
  /** Resolves with the first state. */
  readonly ready: Promise<QueueState>;
  /** The reason why no connection is possible until a setting changes. */
  readonly problem: QueueError | null;
  readonly connection: Readonly<Connection>;
  /** The commands that have no answer yet, oldest first. */
  readonly pending: Command[];
  connect(): void;
  /** Closes the socket, and stops the timers and the listeners on the page's events. */
  close(): void;
  /** A new token for the running connection; null: an anonymous viewer. */
  setToken(token: string | null): void;
  /** Connects again at once, after a stop or instead of waiting. */
  retry(): void;
  /** Checks that the connection still works. */
  check(): void;
  /** Requests a snapshot. */
  resync(): void;
  /** The server's clock, in milliseconds since 1970. */
  now(): number;
  /**
   * Sends a command, at once or as soon as there is a connection. Rejects with a QueueError: the service's refusal,
   * TIMEOUT if no answer came, DISCONNECTED if it could not be sent.
   */
  command<Type extends Command["type"]>(type: Type, ...fields: Given<CommandFields<Type>>): Promise<WholeItem | null>;
  /** An item that the token may read, over HTTP. Rejects with a QueueError. */
  item(itemId: string): Promise<WholeItem>;
  /** Cancels the viewer's own waiting item. Rejects with a QueueError. */
  cancel(itemId: string): Promise<WholeItem>;
  /** Applies a position of an own item that was read over HTTP. */
  adopt(position: Omit<Position, "type" | "version">): void;
  addEventListener<Name extends keyof QueueClientEventMap>(
    type: Name,
    listener: (event: QueueClientEventMap[Name]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<Name extends keyof QueueClientEventMap>(
    type: Name,
    listener: (event: QueueClientEventMap[Name]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** A refusal of the service, or a command that could not be delivered. */
export declare class QueueError extends Error {
  constructor(code: string, problem?: Partial<Problem>);
  /** A code of the service, DISCONNECTED or TIMEOUT. */
  readonly code: string;
  readonly problem: Partial<Problem>;
  /** How the developer of the page can solve it, in English, or null. */
  hint: string | null;
}

export declare const emptyState: QueueState;

/** Created or started. */
export declare function isActive(item: { status: Status }): boolean;

/** The served order: the started item, then arrival. Numbers the positions. */
export declare function orderItems<Served extends Item>(items: readonly Served[]): Served[];

/** The next state after a frame. Pure. `behind` in the result: a snapshot is needed. */
export declare function reduce(state: QueueState, frame: ServerFrame): QueueState;
