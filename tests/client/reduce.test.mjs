// What a frame makes of the client's picture. Run by Node in a folder that `folder.py` lays out.
import assert from "node:assert/strict";
import { test } from "node:test";

import { emptyState, orderItems, reduce } from "./static/queue-client.js";

const EPOCH = "epoch-1";
const time = (seconds) => new Date(Date.UTC(2026, 0, 31, 12, 0, seconds)).toISOString();

const waiting = (number, more = {}) => ({
  itemId: `item-${number}`,
  status: "created",
  position: number,
  createdAt: time(number),
  clock: { usedSeconds: 0, runningSince: null },
  ...more,
});
const started = (number, more = {}) =>
  waiting(number, { status: "started", clock: { usedSeconds: 10, runningSince: time(30) }, ...more });
const ended = (number) => waiting(number, { status: "finished", position: 0 });

const snapshot = (items, more = {}) => ({
  type: "snapshot",
  epoch: EPOCH,
  version: 7,
  serverTime: time(40),
  room: { performerId: "star", depth: items.length, version: 7 },
  items,
  ...more,
});
const update = (from, version, items, more = {}) => ({
  type: "update",
  from,
  version,
  serverTime: time(50),
  events: items.map((item) => ({ event: "queue.item.changed", item })),
  ...more,
});
const position = (number, more = {}) => ({
  type: "position",
  itemId: `item-${number}`,
  status: "created",
  position: number,
  serverTime: time(50),
  receivedAt: Date.parse(time(50)),
  ...more,
});
const after = (...frames) => frames.reduce(reduce, emptyState);
const names = (items) => items.map((item) => item.itemId);

test("a client begins without a picture", () => {
  assert.deepEqual(emptyState, {
    epoch: null,
    version: null,
    serverTime: null,
    room: null,
    items: [],
    mine: [],
    behind: false,
  });
  assert.throws(() => emptyState.items.push(waiting(1)), TypeError);
});

test("a snapshot replaces the picture", () => {
  const frame = snapshot([waiting(2), waiting(1)], { mine: [position(2)] });
  const state = reduce({ ...after(snapshot([waiting(9)])), behind: true, epoch: "another" }, frame);
  assert.equal(state.epoch, EPOCH);
  assert.equal(state.version, 7);
  assert.equal(state.serverTime, time(40));
  assert.deepEqual(state.room, frame.room);
  assert.deepEqual(names(state.items), ["item-1", "item-2"]);
  assert.deepEqual(names(state.mine), ["item-2"]);
  assert.equal(state.behind, false);
});

test("a snapshot without own items has none, and ended ones take no place", () => {
  const state = after(snapshot([waiting(1), ended(2), started(3)]));
  assert.deepEqual(state.mine, []);
  assert.deepEqual(names(state.items), ["item-3", "item-1"]);
});

test("the started item is first, then arrival counts, then the id; positions count from 1", () => {
  const items = [
    waiting(4, { itemId: "item-c", createdAt: time(1) }),
    waiting(3, { itemId: "item-b", createdAt: time(2) }),
    waiting(2, { itemId: "item-a", createdAt: time(2) }),
    started(1, { itemId: "item-d", createdAt: time(3) }),
  ];
  for (const order of [items, [...items].reverse(), [items[2], items[0], items[3], items[1]]]) {
    const ordered = orderItems(order);
    assert.deepEqual(names(ordered), ["item-d", "item-c", "item-a", "item-b"]);
    assert.deepEqual(ordered.map((item) => item.position), [1, 2, 3, 4]);
  }
});

test("ordering leaves the given list and unchanged items as they are", () => {
  const [first, second] = [waiting(1), waiting(2, { position: 5 })];
  const given = [second, first];
  const ordered = orderItems(given);
  assert.deepEqual(given, [second, first]);
  assert.equal(ordered[0], first);
  assert.notEqual(ordered[1], second);
  assert.equal(second.position, 5);
});

test("one item twice keeps one place after the other", () => {
  assert.deepEqual(names(orderItems([waiting(1), waiting(1)])), ["item-1", "item-1"]);
});

test("an update adds, changes and removes items", () => {
  const state = after(snapshot([waiting(1), waiting(2)]), update(7, 8, [started(1), waiting(3)]));
  assert.deepEqual(names(state.items), ["item-1", "item-2", "item-3"]);
  assert.equal(state.items[0].status, "started");
  const later = reduce(state, update(8, 10, [ended(1)]));
  assert.deepEqual(names(later.items), ["item-2", "item-3"]);
  assert.deepEqual([later.version, later.serverTime, later.epoch], [10, time(50), EPOCH]);
});

test("an update without a room changes its depth and version only", () => {
  const first = after(snapshot([waiting(1)], { room: { performerId: "star", paused: true, depth: 1, version: 7 } }));
  const state = reduce(first, update(7, 8, [waiting(2)]));
  assert.deepEqual(state.room, { performerId: "star", paused: true, depth: 2, version: 8 });
});

test("an update's room replaces the one before", () => {
  const room = { performerId: "star", paused: false, depth: 9, version: 3 };
  const state = after(snapshot([waiting(1)]), update(7, 8, [], { room }));
  assert.deepEqual(state.room, { performerId: "star", paused: false, depth: 1, version: 8 });
});

test("an event about the room alone, without an item, changes no item", () => {
  const state = after(snapshot([waiting(1)]), update(7, 8, [null]));
  assert.deepEqual(names(state.items), ["item-1"]);
  assert.equal(state.version, 8);
});

test("an update that is known already changes nothing", () => {
  const state = after(snapshot([waiting(1)]));
  assert.equal(reduce(state, update(6, 7, [waiting(2)])), state);
  assert.equal(reduce(state, update(5, 6, [waiting(2)])), state);
});

test("an update that overlaps the snapshot counts from where the picture is", () => {
  const state = after(snapshot([waiting(1)]), update(5, 9, [waiting(2)]));
  assert.deepEqual([names(state.items), state.version, state.behind], [["item-1", "item-2"], 9, false]);
});

test("after a gap only a snapshot can help", () => {
  const state = after(snapshot([waiting(1)]));
  const behind = reduce(state, update(8, 9, [waiting(2)]));
  assert.deepEqual(behind, { ...state, behind: true });
  assert.equal(reduce(behind, snapshot([waiting(1), waiting(2)])).behind, false);
});

test("an update before any snapshot leaves the client behind", () => {
  assert.deepEqual(after(update(0, 1, [waiting(1)])), { ...emptyState, behind: true });
  assert.deepEqual(after(update(-1, 0, [waiting(1)])), { ...emptyState, behind: true });
});

test("own items that have left the queue leave the list of own items", () => {
  const first = after(snapshot([waiting(1), waiting(2)], { mine: [position(1), position(2)] }));
  const state = reduce(first, update(7, 8, [ended(1)]));
  assert.deepEqual(names(state.mine), ["item-2"]);
});

test("a position replaces the one that the item had", () => {
  const first = after(snapshot([waiting(1), waiting(2)], { mine: [position(1), position(2)] }));
  const state = reduce(first, position(1, { position: 3, estimatedWaitSeconds: 90 }));
  assert.deepEqual(names(state.mine), ["item-2", "item-1"]);
  assert.equal(state.mine[1].estimatedWaitSeconds, 90);
  assert.equal(state.items, first.items);
});

test("the position of an item that has ended removes it", () => {
  const first = after(snapshot([waiting(1), waiting(2)], { mine: [position(1), position(2)] }));
  const state = reduce(first, position(1, { status: "refunded", position: 0 }));
  assert.deepEqual(names(state.mine), ["item-2"]);
});

test("a position remembers the time on stage when it was sent, and nothing of the frame", () => {
  const state = after(snapshot([started(1), waiting(2)]), position(2, { receivedAt: Date.parse(time(50)) }));
  const { type, receivedAt, stage, ...entry } = state.mine[0];
  assert.deepEqual([type, receivedAt], [undefined, undefined]);
  assert.deepEqual(stage, { itemId: "item-1", seconds: 30 });
  assert.equal(entry.position, 2);
});

test("an own item of a snapshot counts from the time that the server wrote into it", () => {
  const { type, receivedAt, ...mine } = position(2);
  assert.deepEqual(after(snapshot([started(1), waiting(2)], { mine: [mine] })).mine[0].stage.seconds, 20);
  const received = { mine: [mine], receivedAt: Date.parse(time(45)) };
  assert.deepEqual(after(snapshot([started(1), waiting(2)], received)).mine[0].stage.seconds, 25);
});

test("with nobody on stage a position remembers no time", () => {
  assert.equal(after(snapshot([waiting(1)], { mine: [position(1)] })).mine[0].stage, null);
});

test("frames of other kinds leave the picture as it is", () => {
  const state = after(snapshot([waiting(1)]));
  assert.equal(reduce(state, { type: "notice", version: 99 }), state);
});
