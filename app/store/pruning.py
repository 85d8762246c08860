"""Removes old items from the database, with their events, stored answers and wallet operations.

An item is removed once it has ended and its escrow is resolved, both before the cutoff; an item whose operation is open
or dead stays. A room keeps its version, its newest settings, and the highest version that was removed from its log:
above it the log is gapless and can be replayed. Versions and cursors are never used again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, tuple_, update

from app.domain.event import Logged
from app.domain.item import Item
from app.domain.operation import Operation, OperationStatus
from app.store import event_log, reading, records, wallet_operations, webhooks
from app.store.tables import ANSWERS, EVENTS, ITEMS, OPERATIONS, ROOMS

ITEMS_AT_ONCE = 25
ANSWERS_AT_ONCE = 500
LONGEST_HOLD = timedelta(days=30)
"""How much longer events are kept for webhook endpoints to which they have not been delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A removed item, with its events and its wallet operation."""

    item: Item
    events: Sequence[Logged]
    operation: Operation


_ANSWERS = (
    select(ANSWERS.c.scope, ANSWERS.c.key, ANSWERS.c.at)
    .where(tuple_(ANSWERS.c.scope, ANSWERS.c.key) > tuple_(bindparam("scope"), bindparam("key")))
    .order_by(ANSWERS.c.scope, ANSWERS.c.key)
    .limit(bindparam("at_most"))
)
_ITEMS = (
    select(ITEMS)
    .where(
        ITEMS.c.item_id > bindparam("after"),
        ITEMS.c.item_id < bindparam("first_id_of_cutoff"),
        ITEMS.c.ended_at < bindparam("cutoff"),
        select(OPERATIONS.c.item_id)
        .where(
            OPERATIONS.c.item_id == ITEMS.c.item_id,
            OPERATIONS.c.status == OperationStatus.DONE.value,
            OPERATIONS.c.updated_at < bindparam("cutoff"),
        )
        .exists(),
    )
    .order_by(ITEMS.c.item_id)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)

_NOTE_FLOOR = (
    update(ROOMS)
    .where(ROOMS.c.performer_id == bindparam("room"), func.coalesce(ROOMS.c.pruned_through, 0) < bindparam("floor"))
    .values(pruned_through=bindparam("floor"))
)
"""Notes the version up to which a room's log has been pruned."""
_UP_TO_FLOOR = (EVENTS.c.performer_id == bindparam("room")) & (EVENTS.c.version <= bindparam("floor"))
_OTHERS = EVENTS.alias()
_NEWEST_SETTINGS = (
    select(func.max(_OTHERS.c.version))
    .where(
        _OTHERS.c.performer_id == bindparam("room"),
        _OTHERS.c.version <= bindparam("floor"),
        _OTHERS.c.settings.is_not(None),
    )
    .scalar_subquery()
)
_DELETE_OF_ROOM = delete(EVENTS).where(_UP_TO_FLOOR, EVENTS.c.item_id.is_(None), EVENTS.c.version < _NEWEST_SETTINGS)
"""Removes a room's events without an item up to the floor, except the one with the newest settings."""


def held_back(connection: Connection, cutoff: datetime, longest: timedelta = LONGEST_HOLD) -> datetime:
    """The cutoff for items. It is earlier, by at most `longest`, if events from before it have not been delivered to
    webhook endpoints that fail or are parked. An endpoint that loses events nevertheless gets a note as its last
    problem."""
    owed = webhooks.owed_since(connection)
    earliest = cutoff - longest
    for endpoint, since in owed:
        if since < earliest:
            webhooks.note_removal(connection, endpoint)
    return max(earliest, min([cutoff, *(since for _, since in owed)]))


def prune_answers(
    connection: Connection, cutoff: datetime, after: tuple[str, str] = ("", ""), at_most: int = ANSWERS_AT_ONCE
) -> tuple[str, str] | None:
    """Examine the next `at_most` answers after the key `after`, and remove those from before the cutoff; returns the
    last key examined, or None at the end. Call it before `prune_items`: an answer points to an event."""
    rows = connection.execute(_ANSWERS, {"scope": after[0], "key": after[1], "at_most": at_most}).all()
    old = [(row.scope, row.key) for row in rows if row.at < cutoff]
    if old:
        connection.execute(delete(ANSWERS).where(tuple_(ANSWERS.c.scope, ANSWERS.c.key).in_(old)))
    return (rows[-1].scope, rows[-1].key) if len(rows) == at_most else None


def prune_items(
    connection: Connection,
    cutoff: datetime,
    after: str = "",
    at_most: int = ITEMS_AT_ONCE,
    export: Callable[[Sequence[Pruned]], None] | None = None,
) -> str | None:
    """Remove the next `at_most` items after the id `after` that may be removed; returns the last item's id, or None at
    the end. `export` gets the items while the transaction is open: if it fails, they stay."""
    bounds = {"first_id_of_cutoff": reading.first_id(cutoff), "cutoff": cutoff}
    rows = connection.execute(_ITEMS, {**bounds, "after": after, "at_most": at_most}).mappings().all()
    if not rows:
        return None
    item_ids = [row["item_id"] for row in rows]
    life = event_log.items_log(connection, item_ids)
    if export is not None:
        export([_pruned(connection, records.item_from(row), life[row["item_id"]]) for row in rows])
    event_log.keep_numbering(connection)
    events = [(row["performer_id"], row["version"]) for events in life.values() for row in events]
    connection.execute(delete(EVENTS).where(tuple_(EVENTS.c.performer_id, EVENTS.c.version).in_(events)))
    for table in (OPERATIONS, ITEMS):
        connection.execute(delete(table).where(table.c.item_id.in_(item_ids)))
    floors: dict[str, int] = {}
    for row in rows:
        newest = max((event["version"] for event in life[row["item_id"]]), default=0)
        floors[row["performer_id"]] = max(newest, floors.get(row["performer_id"], 0))
    pruned = [{"room": performer_id, "floor": floors[performer_id]} for performer_id in sorted(floors)]
    connection.execute(_NOTE_FLOOR, pruned)
    connection.execute(_DELETE_OF_ROOM, pruned)
    return item_ids[-1] if len(rows) == at_most else None


def _pruned(connection: Connection, item: Item, events: Sequence[Any]) -> Pruned:
    found = wallet_operations.operation_of(connection, item.item_id)
    assert found is not None  # noqa: S101 - `_ITEMS` selects only items with an operation
    return Pruned(item=item, events=[event_log.logged_from(row) for row in events], operation=found[0])
