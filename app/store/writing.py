"""What one transaction writes: everything a batch of commands has led to, in bulk, in a fixed order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.event import Event
from app.item import Item
from app.operation import Operation
from app.room import Room
from app.store import records
from app.store.reading import ANSWERS, EVENTS, ITEMS, OPEN_OPERATIONS, OPERATIONS, PRESENCE, ROOMS, Answer

# What can change about an item after its intake; the rest is fixed and not written again.
_CHANGING_ITEM_COLUMNS = (
    "status",
    "paused",
    "updated_at",
    "started_at",
    "finished_at",
    "abandoned_at",
    "refunded_at",
    "abandon_reason",
    "refund_reason",
    "wallet_status",
    "settled",
    "settled_at",
    "settlement_transaction_id",
    "settled_tokens",
    "refunded_tokens",
    "refund_transaction_id",
    "clock_used_seconds",
    "clock_since",
    "notified",
    "ended_at",
    "due_at",
)

_THIS_TRANSACTION: Any = literal_column("pg_current_xact_id()::text::bigint")


@dataclass(slots=True)
class Changes:
    """A batch's writes so far. Later values of the same room, item or operation replace earlier ones."""

    rooms: dict[str, Room] = field(default_factory=dict)
    new_items: dict[str, Item] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    operations: dict[str, Operation] = field(default_factory=dict)
    """By item id."""
    answers: list[Answer] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rooms or self.items or self.new_items or self.operations or self.answers)


def save(connection: Connection, changes: Changes) -> None:
    """Write a batch. Rooms go in one order everywhere, so that two processes' batches cannot deadlock.

    Raises sqlalchemy.exc.IntegrityError when an invariant would break: another process was first.
    """
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    rooms = [records.room_values(changes.rooms[performer_id]) for performer_id in sorted(changes.rooms)]
    if rooms:
        statement = upsert(ROOMS)
        replaced = {name: statement.excluded[name] for name in rooms[0] if name != "performer_id"}
        connection.execute(statement.on_conflict_do_update(index_elements=["performer_id"], set_=replaced), rooms)
    if changes.events:
        _append_events(connection, changes.events)
    if changes.items:
        _update_items(connection, changes)
    if changes.new_items:
        connection.execute(insert(ITEMS), [_item_values(changes, item) for item in changes.new_items.values()])
    if changes.operations:
        operations = [records.operation_values(operation) for operation in changes.operations.values()]
        # A row is replaced by its own id only: a second operation for the same escrow is refused by the table.
        statement = upsert(OPERATIONS)
        replaced = {name: statement.excluded[name] for name in operations[0] if name not in ("operation_id", "claimed")}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["operation_id"], set_=replaced | {"lease_until": None}),
            operations,
        )
    if changes.answers:
        connection.execute(insert(ANSWERS), [answer.values() for answer in changes.answers])


def _append_events(connection: Connection, events: Sequence[Event]) -> None:
    rows = [records.event_values(event) for event in events]
    if connection.dialect.name != "postgresql":
        connection.execute(insert(EVENTS), rows)
        return
    # The log is read in the order of transaction ids, but a transaction that waited for a room may have got its id
    # before the one it waited for. An event is therefore filed under its predecessor's transaction if that is later.
    before = EVENTS.alias("before")
    predecessor = select(before.c.transaction_id).where(
        before.c.performer_id == bindparam("of_room"), before.c.version == bindparam("predecessor")
    )
    statement = insert(EVENTS).values(transaction_id=func.greatest(_THIS_TRANSACTION, predecessor.scalar_subquery()))
    connection.execute(
        statement,
        [{**row, "of_room": row["performer_id"], "predecessor": row["version"] - 1} for row in rows],
    )


def _update_items(connection: Connection, changes: Changes) -> None:
    rows = []
    # Items leave "started" before another enters it: the partial unique index is checked row by row.
    for item in sorted(changes.items.values(), key=lambda item: item.is_active):
        values = _item_values(changes, item)
        rows.append({"key": item.item_id} | {name: values[name] for name in _CHANGING_ITEM_COLUMNS})
    connection.execute(
        update(ITEMS)
        .where(ITEMS.c.item_id == bindparam("key"))
        .values({name: bindparam(name) for name in _CHANGING_ITEM_COLUMNS}),
        rows,
    )


def _item_values(changes: Changes, item: Item) -> records.Values:
    room = changes.rooms.get(item.performer_id)
    deadline = room.deadline(item) if room is not None and item.is_active else None
    return records.item_values(item, deadline and deadline[0])


def claim_operations(connection: Connection, *, now: datetime, lease_until: datetime, limit: int) -> list[Operation]:
    """Take up to `limit` due operations for this process until `lease_until`; each goes to one process only."""
    statement = (
        select(OPERATIONS)
        .where(
            OPEN_OPERATIONS,
            OPERATIONS.c.next_attempt_at <= now,
            OPERATIONS.c.lease_until.is_(None) | (OPERATIONS.c.lease_until <= now),
        )
        .order_by(OPERATIONS.c.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    operations = [records.operation_from(row) for row in connection.execute(statement).mappings()]
    if operations:
        connection.execute(
            update(OPERATIONS)
            .where(OPERATIONS.c.operation_id.in_([operation.operation_id for operation in operations]))
            .values(claimed=True, lease_until=lease_until)
        )
    return operations


def release_claims(connection: Connection) -> None:
    """End every lease: the process that held them is known to be gone."""
    connection.execute(update(OPERATIONS).where(OPERATIONS.c.lease_until.is_not(None)).values(lease_until=None))


def renew_presence(
    connection: Connection, process_id: str, performer_ids: Sequence[str], *, expires_at: datetime
) -> None:
    """Say that this process still has panels of these performers."""
    if not performer_ids:
        return
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = upsert(PRESENCE)
    rows: list[dict[str, Any]] = [
        {"process_id": process_id, "performer_id": performer_id, "expires_at": expires_at}
        for performer_id in sorted(performer_ids)
    ]
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["process_id", "performer_id"], set_={"expires_at": statement.excluded.expires_at}
        ),
        rows,
    )


def end_presence(connection: Connection, process_id: str, performer_id: str) -> None:
    connection.execute(
        delete(PRESENCE).where(PRESENCE.c.process_id == process_id, PRESENCE.c.performer_id == performer_id)
    )
