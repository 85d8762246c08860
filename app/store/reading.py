"""Reads of rooms, items and stored answers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    Boolean,
    Connection,
    Table,
    bindparam,
    func,
    select,
    text,
)

from app.domain.estimate import History, learn
from app.domain.item import Item
from app.domain.room import Policy, Room
from app.store import records
from app.store.engines import rows_with
from app.store.facts import fact
from app.store.histories import histories
from app.store.records import Answer
from app.store.tables import ITEMS, ROOMS, Instant, any_of, moment_or_none

T = TypeVar("T")

LEARNT_FROM = 120
"""The number of a room's last ended items from which its wait estimate is rebuilt."""


# Spelt as in the partial index: SQLite uses it only if the condition is in the statement's text, without parameters.
ACTIVE_ITEMS = text("status IN ('created', 'started')")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    rows: list[T]
    total: int
    """The number of rows on all pages."""


EPOCH = "epoch"
"""In META: a random text that changes only when history is lost."""


def epoch(connection: Connection) -> str:
    found = fact(connection, EPOCH)
    assert found is not None  # noqa: S101 - `migrate` has set it
    return found


EVENT_FORM = "event_form"
"""In META: COMPACT once every running release can read compact events."""
COMPACT = "compact"


def is_compact(connection: Connection) -> bool:
    """Whether events may be written in the compact layout."""
    return fact(connection, EVENT_FORM) == COMPACT


# Frequent statements are built once: saves 27 % of the CPU that reads an item which has ended
# (`bench --without statements`).
_VERSIONS = select(ROOMS.c.performer_id, ROOMS.c.version).where(ROOMS.c.performer_id.in_(any_of("performer_ids")))
_LOCKED_VERSIONS = _VERSIONS.order_by(ROOMS.c.performer_id).with_for_update(skip_locked=True)


def versions(connection: Connection, performer_ids: Collection[str]) -> dict[str, int]:
    """The committed version of each room that exists."""
    rows = connection.execute(_VERSIONS, {"performer_ids": list(performer_ids)})
    return {row.performer_id: row.version for row in rows}


def locked_versions(connection: Connection, performer_ids: Collection[str]) -> tuple[dict[str, int], set[str]]:
    """The versions of the existing rooms, which are locked from now on; and the rooms that another transaction has
    locked, without waiting for it."""
    rows = connection.execute(_LOCKED_VERSIONS, {"performer_ids": list(performer_ids)})
    locked = {row.performer_id: row.version for row in rows}
    missing = [performer_id for performer_id in performer_ids if performer_id not in locked]
    return locked, set(versions(connection, missing)) if missing else set()


ROOM_ROWS = select(ROOMS).where(ROOMS.c.performer_id.in_(any_of("performer_ids")))
_LAST_ENDED = (
    select(*(ITEMS.c[name] for name in records.LEARNT_COLUMNS))
    .where(
        ITEMS.c.performer_id == bindparam("performer_id"),
        ITEMS.c.ended_at.is_not(None),
        ITEMS.c.pass_through_mode.is_(False),
    )
    .order_by(ITEMS.c.ended_at.desc(), ITEMS.c.item_id.desc())
    .limit(bindparam("at_most"))
)


def load_rooms(connection: Connection, policy: Policy, performer_ids: Collection[str]) -> dict[str, Room]:
    """The rooms with these ids; a room that does not exist yet is empty and has version 0."""
    rooms = {performer_id: Room(performer_id=performer_id, policy=policy) for performer_id in performer_ids}
    # Versions are read before items. If a room is created in between, its version is then too low, and a write fails on
    # the event log's unique (performer, version). In the other order it could lack items without any error.
    rows = rows_of(connection, ROOMS, performer_ids)
    active: dict[str, list[Item]] = {row["performer_id"]: [] for row in rows}
    for row in rows_of(connection, ITEMS, active, where=f"{ACTIVE_ITEMS} AND"):
        active[row["performer_id"]].append(records.item_from(row))
    learnt = histories(connection, list(active))
    for row in rows:
        performer_id = row["performer_id"]
        if (history := learnt.get(performer_id)) is None:
            history = learn_again(connection, performer_id, policy)
        rooms[performer_id] = Room(
            performer_id=performer_id,
            policy=policy,
            version=row["version"],
            last_at=row["last_at"],
            settings=records.settings_from(row),
            items=tuple(sorted(active[performer_id], key=lambda item: item.order)),
            history=history,
        )
    return rooms


def rows_of(
    connection: Connection, table: Table, performer_ids: Collection[str], *, where: str = ""
) -> list[dict[str, Any]]:
    """A table's rows of these performers, by column name. `where`: a further condition, followed by AND.

    A room is loaded in half the CPU that SQLAlchemy's own IN and rows take (`bench --without room-rows`).
    """
    if not performer_ids:
        return []
    names, columns, conversions = _layout(table)
    query = f"SELECT {columns} FROM {table.name} WHERE {where} performer_id IN "  # noqa: S608 - constants only
    rows = [dict(zip(names, row, strict=True)) for row in rows_with(connection, query, list(performer_ids))]
    for row in rows:
        for name, convert in conversions:
            row[name] = convert(row[name])
    return rows


# Saves 17 % of the CPU that loads a room (`bench --without layouts`).
@cache
def _layout(table: Table) -> tuple[list[str], str, list[tuple[str, Callable[[Any], Any]]]]:
    """The names of a table's columns, their list in SQL, and the conversions to the values that SQLAlchemy returns."""
    conversions: list[tuple[str, Callable[[Any], Any]]] = []
    for column in table.columns:
        if isinstance(column.type, Instant):
            conversions.append((column.name, moment_or_none))
        elif isinstance(column.type, Boolean):
            conversions.append((column.name, bool))  # an integer on SQLite
    names = [column.name for column in table.columns]
    return names, ", ".join(names), conversions


def learn_again(connection: Connection, performer_id: str, policy: Policy) -> History:
    """The history learnt from a room's last items, for a room without a history row that this release can read."""
    ended = connection.execute(_LAST_ENDED, {"performer_id": performer_id, "at_most": LEARNT_FROM})
    return learn(reversed([records.LearntItem(*row) for row in ended]), policy.default_duration_seconds)


_ITEM = select(ITEMS).where(ITEMS.c.item_id == bindparam("item_id"))


_ITEMS_TO_COMPARE = (
    select(ITEMS)
    .where(
        ITEMS.c.item_id > bindparam("after"),
        ITEMS.c.wallet_status.not_in(["done", "written_off"]) | (ITEMS.c.updated_at >= bindparam("since")),
    )
    .order_by(ITEMS.c.item_id)
    .limit(bindparam("at_most"))
)


def items_to_compare(connection: Connection, *, after: str, since: datetime, at_most: int) -> list[Item]:
    """Items with an id beyond `after` whose escrow is open, or that have changed since `since`; by id."""
    rows = connection.execute(_ITEMS_TO_COMPARE, {"after": after, "since": since, "at_most": at_most}).mappings()
    return [records.item_from(row) for row in rows]


def find_item(connection: Connection, item_id: str) -> Item | None:
    if "\0" in item_id:
        return None  # PostgreSQL refuses a NUL in a text
    row = connection.execute(_ITEM, {"item_id": item_id}).mappings().first()
    return None if row is None else records.item_from(row)


# Every batch of intakes runs these by the driver itself (see `driver_rows`).
_ANSWERS = f"SELECT {', '.join(records.ANSWER_COLUMNS)} FROM answers WHERE (scope, key) IN "  # noqa: S608
_INTAKES = f"SELECT {', '.join(records.INTAKE_COLUMNS)} FROM items WHERE (source_feature, idempotency_key) IN "  # noqa: S608
_HELD_ESCROWS = "SELECT escrow_transaction_id, item_id FROM items WHERE escrow_transaction_id IN "


def find_answers(connection: Connection, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
    """The stored answers of these (scope, key) pairs. The answer to an intake may be in its item's row only."""
    intakes = {key for key in keys if key[0].startswith(records.INTAKE_SCOPE)}
    found: dict[tuple[str, str], Answer] = {}
    others = set(keys) - intakes
    if intakes:
        wanted = [part for scope, key in intakes for part in (scope.removeprefix(records.INTAKE_SCOPE), key)]
        for row in rows_with(connection, _INTAKES, wanted, width=2):
            answer = records.intake_answer_from(row)
            if answer.fingerprint is None:
                others.add((answer.scope, answer.key))
            else:
                found[(answer.scope, answer.key)] = answer
    if others:
        rows = rows_with(connection, _ANSWERS, list(chain.from_iterable(others)), width=2)
        found |= {(answer.scope, answer.key): answer for answer in map(records.answer_from, rows)}
    return found


def held_escrows(connection: Connection, escrow_ids: Collection[str]) -> dict[str, str]:
    """The escrows among these that an item already has, with the item's id."""
    if not escrow_ids:
        return {}
    rows = rows_with(connection, _HELD_ESCROWS, list(escrow_ids))
    return dict(rows)


def ended_items(connection: Connection, performer_id: str, *, limit: int, skip: int) -> Page[Item]:
    """A room's ended items, newest end first."""
    ended = (ITEMS.c.performer_id == performer_id) & ITEMS.c.ended_at.is_not(None)
    return _items_page(connection, ended, (ITEMS.c.ended_at.desc(), ITEMS.c.item_id.desc()), limit, skip)


def items_of_user(connection: Connection, user_id: str, *, limit: int, skip: int) -> Page[Item]:
    """A user's items over all rooms, newest first."""
    newest_first = (ITEMS.c.created_at.desc(), ITEMS.c.item_id.desc())
    return _items_page(connection, ITEMS.c.user_id == user_id, newest_first, limit, skip)


def _items_page(connection: Connection, where: Any, order: Sequence[Any], limit: int, skip: int) -> Page[Item]:
    statement = select(ITEMS).where(where).order_by(*order).limit(limit).offset(skip)
    rows = [records.item_from(row) for row in connection.execute(statement).mappings()]
    total = connection.execute(select(func.count()).select_from(ITEMS).where(where)).scalar_one()
    return Page(rows=rows, total=total)


def first_id(moment: datetime) -> str:
    """The lower bound of the ids (UUIDv7) of items created from that moment on."""
    digits = f"{max(0, round(moment.timestamp() * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def rooms_page(connection: Connection, policy: Policy, *, limit: int, skip: int) -> Page[Room]:
    """Rooms with the most recent activity first."""
    statement = select(ROOMS.c.performer_id).order_by(ROOMS.c.last_at.desc(), ROOMS.c.performer_id)
    ids = list(connection.execute(statement.limit(limit).offset(skip)).scalars())
    rooms = load_rooms(connection, policy, ids)
    total = connection.execute(select(func.count()).select_from(ROOMS)).scalar_one()
    return Page(rows=[rooms[performer_id] for performer_id in ids], total=total)


_ACTIVE_COUNTS = text(
    "SELECT count(*), coalesce(sum(CASE WHEN status = 'started' THEN 1 ELSE 0 END), 0) FROM"
    " (SELECT status FROM items WHERE status IN ('created', 'started') LIMIT :at_most) AS active"
)


def active_item_counts(connection: Connection, at_most: int = 100_000) -> Mapping[str, int]:
    """The number of created and of started items; at most `at_most` active items are counted."""
    active, started = connection.execute(_ACTIVE_COUNTS, {"at_most": at_most}).one()
    return {"created": int(active - started), "started": int(started)}


_OVERDUE_ITEMS = (
    select(ITEMS.c.performer_id, ITEMS.c.item_id)
    .where(ITEMS.c.due_at <= bindparam("now"))
    .order_by(ITEMS.c.due_at, ITEMS.c.item_id)
    .limit(bindparam("at_most"))
)


def overdue_items(connection: Connection, now: datetime, limit: int) -> list[tuple[str, str]]:
    """(performer id, item id) of items whose deadline has passed, longest overdue first."""
    rows = connection.execute(_OVERDUE_ITEMS, {"now": now, "at_most": limit})
    return [(row.performer_id, row.item_id) for row in rows]
