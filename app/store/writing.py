"""The writes of a transaction: the results of a batch of commands, in bulk and in a fixed order; claims and leases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from types import ModuleType
from typing import Any, cast

from msgspec.structs import replace
from sqlalchemy import (
    ClauseElement,
    Connection,
    Table,
    bindparam,
    delete,
    false,
    func,
    insert,
    literal_column,
    null,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from app.domain.event import Event
from app.domain.item import Item
from app.domain.operation import Operation
from app.domain.room import Policy, Room
from app.store import records
from app.store.engines import driver_many, upsert
from app.store.event_log import NEXT_CURSOR, THIS_TRANSACTION
from app.store.facts import fact, set_fact
from app.store.histories import HISTORIES, history_values
from app.store.push_tables import PUSH_PROGRESS
from app.store.reading import ACTIVE_ITEMS
from app.store.records import Answer
from app.store.tables import ANSWERS, EVENTS, ITEMS, OPERATIONS, PRESENCE, ROOMS, milliseconds
from app.store.wallet_operations import OPEN_OPERATIONS
from app.store.webhooks import ENDPOINTS

# The columns that can change after an item's intake; the others are not written again.
_CHANGING_ITEM_COLUMNS = (
    "updated_at",
    "clock_used_seconds",
    "clock_since",
    "notified",
    "due_at",
    "ended_at",
    *sorted(records.FRESH_ITEM.keys() - {"queue_mode", "pass_through_mode"}),
)


@dataclass(slots=True)
class Changes:
    """A batch's writes so far. Later values of the same room, item or operation replace earlier ones."""

    rooms: dict[str, Room] = field(default_factory=dict)
    renewed: set[str] = field(default_factory=set)
    """The rooms among them that are new or have new settings; for the others only version and time are written."""
    new_items: dict[str, Item] = field(default_factory=dict)
    first_versions: dict[str, int] = field(default_factory=dict)
    """The version of a new item's first event, by item id."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """The fingerprint of an intake whose answer is stored in the item's row, by item id."""
    items: dict[str, Item] = field(default_factory=dict)
    deadlines: dict[str, datetime | None] = field(default_factory=dict)
    """New deadlines for rows whose deadline is not the room's any more, by item id."""
    learnt: set[str] = field(default_factory=set)
    """The rooms whose history has changed."""
    events: list[Event] = field(default_factory=list)
    operations: dict[str, Operation] = field(default_factory=dict)
    """By item id."""
    answers: list[Answer] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rooms or self.items or self.new_items or self.deadlines or self.operations or self.answers)


class _Bulk:
    """A statement for many rows, compiled once for each dialect and run by the driver itself.

    SQLAlchemy's own execution looks at every value of every row. Without it, to decide and commit intakes takes 26 %
    less CPU (`bench --without bulk`).
    """

    def __init__(self, build: Callable[[ModuleType], ClauseElement]) -> None:
        """`build` makes the statement from the dialect's module, whose `insert` has ON CONFLICT."""
        self._build = build
        self._compiled: dict[str, tuple[str, Callable[[records.Values], Any] | None]] = {}

    def run(self, connection: Connection, rows: Sequence[records.Values]) -> None:
        if not rows:
            return
        dialect = connection.dialect
        if dialect.name not in self._compiled:
            statement = self._build(postgresql if dialect.name == "postgresql" else sqlite)
            compiled = cast(SQLCompiler, statement.compile(dialect=dialect))
            names = compiled.positiontup
            self._compiled[dialect.name] = (compiled.string, itemgetter(*names) if names else None)
        text, in_order = self._compiled[dialect.name]
        parameters: Any = rows if in_order is None else list(map(in_order, rows))
        driver_many(connection, text, parameters)


def _insert(table: Table, *, fixed: Mapping[str, Any] | None = None) -> Callable[[ModuleType], ClauseElement]:
    values = _bound(table, fixed or {})
    return lambda dialect: dialect.insert(table).values(values)


def _bound(table: Table, fixed: Mapping[str, Any]) -> dict[str, ClauseElement]:
    """A parameter for each column, except those in `fixed`, whose value is the same in every row: it is a literal in
    the statement, or left out if it is None. For items and events that saves 20 % of the CPU that decides and commits
    intakes (`bench --without constants`)."""
    values: dict[str, ClauseElement] = {name: bindparam(name) for name in _columns(table) if name not in fixed}
    return values | {name: _literal(value) for name, value in fixed.items() if value is not None}


def _literal(value: bool | str) -> ClauseElement:
    # Each dialect has its own literals for booleans.
    return literal_column(f"'{value}'") if isinstance(value, str) else true() if value else false()


def _replace(table: Table, key: str, *kept: str, **set_to: Any) -> Callable[[ModuleType], ClauseElement]:
    """Insert a row, or replace the row with the same key, except its columns `kept`. `set_to`: columns with a fixed
    value."""

    def build(dialect: ModuleType) -> ClauseElement:
        names = [name for name in _columns(table) if name not in set_to]
        statement = dialect.insert(table).values({name: bindparam(name) for name in names})
        replaced = {name: statement.excluded[name] for name in names if name not in (key, *kept)}
        return cast(ClauseElement, statement.on_conflict_do_update(index_elements=[key], set_=replaced | set_to))

    return build


_FILLED_IN = ("cursor", "transaction_id", "pruned_through")


def _columns(table: Table) -> list[str]:
    """The columns that a statement writes; the database fills in the others."""
    return [column.name for column in table.columns if column.name not in _FILLED_IN]


def _append(fixed: Mapping[str, Any], dialect: ModuleType) -> ClauseElement:
    statement = insert(EVENTS).values(_bound(EVENTS, fixed))
    if dialect is not postgresql:
        return statement.values(cursor=NEXT_CURSOR)
    # The log is read in the order of transaction ids, but a transaction that waited for a room may have got its id
    # before the one it waited for. An event therefore gets its predecessor's transaction id if that is higher.
    before = EVENTS.alias("before")
    predecessor = select(before.c.transaction_id).where(
        before.c.performer_id == bindparam("performer_id"),
        before.c.version == bindparam("version") - literal_column("1"),
    )
    return statement.values(transaction_id=func.greatest(THIS_TRANSACTION, predecessor.scalar_subquery()))


_WRITE_ROOMS = _Bulk(_replace(ROOMS, "performer_id"))
_WRITE_HISTORIES = _Bulk(_replace(HISTORIES, "performer_id"))
# Of a room whose settings are the same: saves 17 % of the CPU that decides and commits intakes
# (`bench --without progress`).
_MOVE_ROOMS = _Bulk(
    lambda dialect: (
        update(ROOMS)
        .where(ROOMS.c.performer_id == bindparam("key"))
        .values({name: bindparam(name) for name in ("version", "last_at")})
    )
)
_APPEND_EVENTS = _Bulk(partial(_append, {}))
_APPEND_ARRIVALS = _Bulk(partial(_append, records.ARRIVAL))
_ADD_ITEMS = _Bulk(_insert(ITEMS))
_ADD_FRESH_ITEMS = _Bulk(_insert(ITEMS, fixed={**records.FRESH_ITEM, "ended_at": None}))
_CHANGE_ITEMS = _Bulk(
    lambda dialect: (
        update(ITEMS)
        .where(ITEMS.c.item_id == bindparam("key"))
        .values({name: bindparam(name) for name in _CHANGING_ITEM_COLUMNS})
    )
)
_CHANGE_DEADLINES = _Bulk(
    lambda dialect: update(ITEMS).where(ITEMS.c.item_id == bindparam("key")).values({"due_at": bindparam("due_at")})
)
# A row is replaced by its own id only: a second operation for the same escrow is refused by the table.
_WRITE_OPERATIONS = _Bulk(_replace(OPERATIONS, "operation_id", "claimed", lease_until=null()))
_ADD_ANSWERS = _Bulk(_insert(ANSWERS))


def save(connection: Connection, changes: Changes, *, compact: bool = True) -> None:
    """Write a batch; `compact` as in `Store`.

    New rooms are inserted in the order of their ids, in which existing ones were locked when the batch began, so that
    two processes' batches cannot deadlock.

    Raises sqlalchemy.exc.IntegrityError if a constraint is violated because another process was faster.
    """
    rooms = [changes.rooms[performer_id] for performer_id in sorted(changes.rooms)]
    # Ended items come first: the partial unique index for one started item is checked row by row.
    items = sorted(changes.items.values(), key=lambda item: item.is_active)
    _WRITE_ROOMS.run(connection, [records.room_values(room) for room in rooms if room.performer_id in changes.renewed])
    _MOVE_ROOMS.run(
        connection, [records.room_progress(room) for room in rooms if room.performer_id not in changes.renewed]
    )
    _WRITE_HISTORIES.run(connection, [history_values(room) for room in rooms if room.performer_id in changes.learnt])
    # In groups, without sorting: the log keeps the order of the events.
    event_values = records.compact_event_values if compact else records.event_values
    for are_arrivals, events in groupby(changes.events, key=records.is_arrival):
        append = _APPEND_ARRIVALS if compact and are_arrivals else _APPEND_EVENTS
        append.run(connection, list(map(event_values, events)))
    # Before the items: an item that the batch changes later is written with its own deadline.
    _CHANGE_DEADLINES.run(
        connection, [{"key": item_id, "due_at": milliseconds(due)} for item_id, due in changes.deadlines.items()]
    )
    _CHANGE_ITEMS.run(
        connection, [records.item_values(item, _due_at(changes, item)) | {"key": item.item_id} for item in items]
    )
    fresh: list[records.Values] = []
    moved: list[records.Values] = []  # new items that have changed within the batch
    for item in changes.new_items.values():
        is_fresh = records.is_fresh(item)
        values = (records.fresh_item_values if is_fresh else records.item_values)(item, _due_at(changes, item))
        values["first_version"] = changes.first_versions.get(item.item_id)
        values["fingerprint"] = changes.fingerprints.get(item.item_id)
        (fresh if is_fresh else moved).append(values)
    _ADD_FRESH_ITEMS.run(connection, fresh)
    _ADD_ITEMS.run(connection, moved)
    _WRITE_OPERATIONS.run(
        connection, [records.operation_values(operation) for operation in changes.operations.values()]
    )
    _ADD_ANSWERS.run(connection, [records.answer_values(answer) for answer in changes.answers])


def _due_at(changes: Changes, item: Item) -> datetime | None:
    room = changes.rooms.get(item.performer_id)
    deadline = room.deadline(item) if room is not None and item.is_active else None
    return deadline and deadline[0]


_DUE_OPERATIONS = (
    select(OPERATIONS)
    .where(
        OPEN_OPERATIONS,
        OPERATIONS.c.next_attempt_at <= bindparam("now"),
        OPERATIONS.c.lease_until.is_(None) | (OPERATIONS.c.lease_until <= bindparam("now")),
    )
    .order_by(OPERATIONS.c.next_attempt_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(OPERATIONS)
    .where(OPERATIONS.c.operation_id.in_(bindparam("operation_ids", expanding=True)))
    .values(claimed=True, lease_until=bindparam("until"))
)


def claim_operations(connection: Connection, *, now: datetime, lease_until: datetime, limit: int) -> list[Operation]:
    """Claim up to `limit` due operations until `lease_until`. No other process can claim them meanwhile."""
    rows = connection.execute(_DUE_OPERATIONS, {"now": now, "at_most": limit}).mappings()
    operations = [records.operation_from(row) for row in rows]
    if operations:
        claimed = [operation.operation_id for operation in operations]
        connection.execute(_CLAIM, {"operation_ids": claimed, "until": lease_until})
    return [replace(operation, lease_until=lease_until) for operation in operations]


POLICY = "policy"
"""In META: the policy under which the deadlines of the rows were written."""


def review_deadlines(connection: Connection, policy: Policy, now: datetime) -> bool:
    """Make every active item due now if the policy is not the stored one; returns whether it has changed.

    A row's deadline follows from the policy under which it was written. The sweep corrects the deadline of an item that
    is due but not overdue.
    """
    if fact(connection, POLICY) == repr(policy):
        return False
    set_fact(connection, POLICY, repr(policy))
    connection.execute(update(ITEMS).where(ACTIVE_ITEMS).values(due_at=now))
    return True


def remember_answer(connection: Connection, answer: Answer) -> None:
    """Store the answer to a request that is not a command to a room. Raises sqlalchemy.exc.IntegrityError for a known
    key."""
    _ADD_ANSWERS.run(connection, [records.answer_values(answer)])


def release_claims(connection: Connection) -> None:
    """End every lease. The caller knows that no other process runs."""
    connection.execute(update(OPERATIONS).where(OPERATIONS.c.lease_until.is_not(None)).values(lease_until=None))
    connection.execute(update(ENDPOINTS).where(ENDPOINTS.c.lease_until.is_not(None)).values(lease_until=None))
    connection.execute(update(PUSH_PROGRESS).values(holder=""))


def renew_presence(
    connection: Connection, process_id: str, performer_ids: Sequence[str], *, expires_at: datetime
) -> None:
    """Renew the leases that say that this process has panels of these performers."""
    if not performer_ids:
        return
    statement = upsert(connection, PRESENCE)
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
