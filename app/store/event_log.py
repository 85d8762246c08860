"""Reads of the event log: the events of a room, of an item, and of all rooms by cursor."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    RowMapping,
    bindparam,
    func,
    literal_column,
    select,
    text,
    tuple_,
    type_coerce,
)
from sqlalchemy import cast as sql_cast

from app.domain.event import Event, Logged
from app.store import compact, records
from app.store.facts import fact, set_fact
from app.store.tables import EVENTS, ITEMS, META

# Most events need none of the times of SET_ONCE, so they are not converted.
_OF_ITEM = [ITEMS.c[name].label(compact.PREFIX + name) for name in compact.FIXED] + [
    (type_coerce(ITEMS.c[name], BigInteger) if name.endswith("_at") else ITEMS.c[name]).label(compact.PREFIX + name)
    for name in compact.SET_ONCE
]
EVENT_ROWS = select(EVENTS, *_OF_ITEM).select_from(EVENTS.outerjoin(ITEMS, ITEMS.c.item_id == EVENTS.c.item_id))
"""Rows for `records.event_from`: an event with those fields of its item that it need not store."""
_EVENT = EVENT_ROWS.where(EVENTS.c.performer_id == bindparam("performer_id"), EVENTS.c.version == bindparam("version"))


def find_event(connection: Connection, performer_id: str, version: int) -> Event:
    """A room's event with this version. Raises sqlalchemy.exc.NoResultFound if there is none."""
    this = {"performer_id": performer_id, "version": version}
    return records.event_from(connection.execute(_EVENT, this).mappings().one())


def room_events(connection: Connection, performer_id: str, after: int, limit: int) -> list[Event]:
    """A room's events after a version, in order, at most `limit`."""
    statement = (
        EVENT_ROWS.where(EVENTS.c.performer_id == performer_id, EVENTS.c.version > after)
        .order_by(EVENTS.c.version)
        .limit(limit)
    )
    return [records.event_from(row) for row in connection.execute(statement).mappings()]


AT_OF_NEXT = (
    select(EVENTS.c.at)
    .where(EVENTS.c.performer_id == bindparam("performer_id"), EVENTS.c.version > bindparam("version"))
    .order_by(EVENTS.c.version)
    .limit(1)
)
SHORTEST_STRETCH = 250


def item_events(connection: Connection, item_id: str) -> list[Event]:
    """An item's events, oldest first."""
    return [records.event_from(row) for row in item_log(connection, item_id)]


def item_log(connection: Connection, item_id: str) -> list[RowMapping]:
    """The rows of an item's events, oldest first."""
    return items_log(connection, [item_id])[item_id]


_FIRST_VERSION = func.coalesce(ITEMS.c.first_version, 1)
"""NULL is from a release before this column; `compaction` fills it in."""
_ITEMS_BY_ID = ITEMS.c.item_id.in_(bindparam("item_ids", expanding=True))
_ITEMS_STRETCH = (
    select(EVENTS, *_OF_ITEM)
    .select_from(
        ITEMS.join(
            EVENTS,
            (EVENTS.c.performer_id == ITEMS.c.performer_id)
            & (EVENTS.c.version >= _FIRST_VERSION + bindparam("first"))
            & (EVENTS.c.version < _FIRST_VERSION + bindparam("behind"))
            & (EVENTS.c.item_id == ITEMS.c.item_id),
        )
    )
    .where(_ITEMS_BY_ID)
    .order_by(EVENTS.c.version)
)
_AT_BEHIND = (
    select(EVENTS.c.at)
    .where(EVENTS.c.performer_id == ITEMS.c.performer_id, EVENTS.c.version >= _FIRST_VERSION + bindparam("behind"))
    .order_by(EVENTS.c.version)
    .limit(1)
    .scalar_subquery()
)
# Events of a room are in order of time.
_UNFINISHED = select(ITEMS.c.item_id).where(_ITEMS_BY_ID, ITEMS.c.updated_at >= _AT_BEHIND)


def items_log(connection: Connection, item_ids: Sequence[str]) -> Mapping[str, list[RowMapping]]:
    """The rows of the events of some items, by item and oldest first.

    Events have no index by item, which would be as large as the table. They are searched in their rooms' logs, from
    each item's creation to its last update, in stretches that double in length.
    """
    found: dict[str, list[RowMapping]] = {item_id: [] for item_id in item_ids}
    first, length, left = 0, SHORTEST_STRETCH, item_ids
    while left:
        stretch = {"item_ids": left, "first": first, "behind": first + length}
        for row in connection.execute(_ITEMS_STRETCH, stretch).mappings():
            found[row["item_id"]].append(row)
        left = connection.execute(_UNFINISHED, {"item_ids": left, "behind": first + length}).scalars().all()
        first, length = first + length, 2 * length
    return found


_CURSOR_PART = re.compile(r"[0-9]{1,18}")  # any such number fits a BIGINT
LOG_LEAP = "log_leap"
"""In META, after a restore. On PostgreSQL: a number added to transaction ids, which start again on the server where the
backup is restored. On SQLite, also after retention: a cursor above which new events get theirs."""
_LEAP: Any = (
    select(func.coalesce(func.max(sql_cast(META.c.value, BigInteger)), literal_column("0")))
    .where(META.c.name == literal_column(f"'{LOG_LEAP}'"))
    .scalar_subquery()
)
NEXT_CURSOR: Any = text(
    "max(coalesce((SELECT max(cursor) FROM events), 0),"
    " coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'log_leap'), 0)) + 1"
)
"""The cursor of the next event on SQLite, whose own next number would be too low after a restore or retention."""


def keep_numbering(connection: Connection) -> None:
    """On SQLite: note the newest cursor, so that no event gets it again after the newest event has been removed."""
    if connection.dialect.name != "sqlite":
        return
    newest = connection.execute(select(func.max(EVENTS.c.cursor))).scalar_one() or 0
    leap = fact(connection, LOG_LEAP)
    if leap is None or int(leap) < newest:
        set_fact(connection, LOG_LEAP, str(newest))


THIS_TRANSACTION: Any = literal_column("pg_current_xact_id()::text::bigint") + _LEAP
_OLDEST_OPEN_TRANSACTION: Any = literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint") + _LEAP


def log_events(
    connection: Connection,
    *,
    after: str | None,
    limit: int,
    performer_id: str | None = None,
    source_feature: str | None = None,
) -> list[Logged]:
    """The event log after a cursor, in a fixed order: no event ever appears before one that was visible earlier.

    On PostgreSQL a sequence's order is not commit order, so the log is ordered by (transaction id, sequence) and shows
    only events older than every open transaction. Raises ValueError for an invalid cursor.
    """
    if performer_id is None:
        statement = _log_after(EVENT_ROWS.limit(limit), connection, after)
    else:
        statement = _room_log_after(EVENT_ROWS.limit(limit), connection, performer_id, after)
    if source_feature is not None:
        statement = statement.where(EVENTS.c.source_feature == source_feature)
    return [logged_from(row) for row in connection.execute(statement).mappings()]


def committed_after(statement: Any, connection: Connection, after: str | None) -> Any:
    """The events after a cursor, in the log's order. On PostgreSQL others may appear among them later."""
    place = _place(connection, after)
    if connection.dialect.name == "postgresql":
        return statement.where(tuple_(EVENTS.c.transaction_id, EVENTS.c.cursor) > place).order_by(
            EVENTS.c.transaction_id, EVENTS.c.cursor
        )
    return statement.where(EVENTS.c.cursor > place[0]).order_by(EVENTS.c.cursor)


def _log_after(statement: Any, connection: Connection, after: str | None) -> Any:
    """The events after a cursor, in the log's order; on PostgreSQL only those that `log_events` may show."""
    return _shown(committed_after(statement, connection, after), connection)


def _room_log_after(statement: Any, connection: Connection, performer_id: str, after: str | None) -> Any:
    """A room's events after a cursor, in the log's order; on PostgreSQL only those that `log_events` may show.

    Within a room the log's order is that of the versions, by which they are read: no other events are looked at. Among
    ten million events a page takes 0.8 ms of CPU in place of 20 (`bench --full --only growth`: as among a thousand).
    """
    known = _version_at(connection, performer_id, after)
    statement = statement.where(EVENTS.c.performer_id == performer_id, EVENTS.c.version > known)
    return _shown(statement.order_by(EVENTS.c.version), connection)


def _shown(statement: Any, connection: Connection) -> Any:
    if connection.dialect.name == "postgresql":
        return statement.where(EVENTS.c.transaction_id < _OLDEST_OPEN_TRANSACTION)
    return statement


_IS_BEFORE = {
    "sqlite": "cursor <= :sequence",
    "postgresql": "(transaction_id, cursor) <= (:transaction, :sequence)",
}
# A binary search, from the version's highest digit to its lowest: a digit is 1 if an event that has it is before the
# cursor.
_VERSION_AT = {
    dialect: text(
        "WITH RECURSIVE search(known, digit) AS ("  # noqa: S608 - constants only
        " SELECT CAST(0 AS BIGINT), CAST(1099511627776 AS BIGINT) UNION ALL"
        f" SELECT CASE WHEN (SELECT {is_before} FROM events WHERE performer_id = :performer_id"
        " AND version >= known + digit ORDER BY version LIMIT 1) THEN known + digit ELSE known END, digit / 2"
        " FROM search WHERE digit > 0) SELECT max(known) FROM search"
    )
    for dialect, is_before in _IS_BEFORE.items()
}


def _version_at(connection: Connection, performer_id: str, cursor: str | None) -> int:
    """The version of a room's last event up to a cursor; 0 if there is none."""
    if cursor is None:
        return 0
    place = dict(zip(("sequence", "transaction"), reversed(_place(connection, cursor)), strict=False))
    found = connection.execute(_VERSION_AT[connection.dialect.name], {"performer_id": performer_id, **place})
    return int(found.scalar_one())


def log_page(
    connection: Connection,
    *,
    after: str | None,
    limit: int,
    performer_id: str | None = None,
    source_feature: str | None = None,
) -> tuple[list[Logged], str | None]:
    """The events of `log_events`, and the cursor from which the same reader continues. It lies after every event that
    was examined, so that events that the filters exclude are examined once."""
    end = log_end(connection)
    page = log_events(connection, after=after, limit=limit, performer_id=performer_id, source_feature=source_feature)
    if len(page) == limit or (page and (end is None or is_behind(end, page[-1].cursor))):
        return page, page[-1].cursor
    return page, end if end is not None and is_behind(after, end) else after


def log_stretch(connection: Connection, after: str | None, length: int) -> tuple[str | None, bool]:
    """The cursor of the last of the next `length` events after a cursor (None: there are none), and whether the log
    ends there."""
    place = select(EVENTS.c.transaction_id, EVENTS.c.cursor)
    row = connection.execute(_log_after(place.offset(length - 1).limit(1), connection, after)).mappings().first()
    if row is not None:
        return cursor_of(row), False
    end = log_end(connection)
    return (end if end is not None and is_behind(after, end) else None), True


def in_stretch(statement: Any, connection: Connection, after: str | None, through: str) -> Any:
    """The events after a cursor, up to and including the event with the cursor `through`, in the log's order."""
    statement, end = _log_after(statement, connection, after), _place(connection, through)
    if connection.dialect.name == "postgresql":
        return statement.where(tuple_(EVENTS.c.transaction_id, EVENTS.c.cursor) <= end)
    return statement.where(EVENTS.c.cursor <= end[0])


def log_end(connection: Connection) -> str | None:
    """The cursor of the newest event that `log_events` shows; None for an empty log.

    No event before it can appear later, so a reader may continue after it.
    """
    statement = select(EVENTS.c.transaction_id, EVENTS.c.cursor).limit(1)
    if connection.dialect.name == "postgresql":
        statement = statement.where(EVENTS.c.transaction_id < _OLDEST_OPEN_TRANSACTION).order_by(
            EVENTS.c.transaction_id.desc(), EVENTS.c.cursor.desc()
        )
    else:
        statement = statement.order_by(EVENTS.c.cursor.desc())
    row = connection.execute(statement).mappings().first()
    return None if row is None else cursor_of(row)


def cursor_of(row: RowMapping) -> str:
    """The cursor of an event's row: `sequence` on SQLite, `transaction.sequence` on PostgreSQL."""
    transaction, cursor = row["transaction_id"], row["cursor"]
    return str(cursor) if transaction is None else f"{transaction}.{cursor}"


def is_behind(cursor: str | None, other: str) -> bool:
    """Whether a cursor lies before another one; None lies before every cursor."""
    return cursor is None or [int(part) for part in cursor.split(".")] < [int(part) for part in other.split(".")]


def logged_from(row: RowMapping) -> Logged:
    """The logged event of a row of EVENT_ROWS."""
    return Logged(cursor=cursor_of(row), event=records.event_from(row))


def _place(connection: Connection, cursor: str | None) -> tuple[int, ...]:
    """The numbers of a cursor, or those before every event: (sequence,) on SQLite, (transaction, sequence) on
    PostgreSQL. Raises ValueError for an invalid cursor."""
    count = 2 if connection.dialect.name == "postgresql" else 1
    if cursor is None:
        return (0,) * count
    parts = cursor.split(".")
    if len(parts) != count or not all(_CURSOR_PART.fullmatch(part) for part in parts):
        raise ValueError("not a cursor of this log")
    return tuple(map(int, parts))
