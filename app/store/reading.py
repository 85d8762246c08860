"""The questions asked of the database, as plain functions over a connection; each returns domain values."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Generic, TypeVar

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
)
from sqlalchemy import cast as sql_cast

from app.domain.estimate import History, learn
from app.domain.event import Event, Logged
from app.domain.item import Item
from app.domain.operation import Operation, OperationStatus
from app.domain.room import Policy, Room
from app.store import compact, records
from app.store.engines import rows_with
from app.store.histories import histories
from app.store.records import Answer
from app.store.tables import AnswerRow, EventRow, ItemRow, MetaRow, OperationRow, PresenceRow, RoomRow, table_of

T = TypeVar("T")

LEARNT_FROM = 120
"""How many of the last ended items of a room its wait estimate is rebuilt from."""


META = table_of(MetaRow)
ROOMS = table_of(RoomRow)
ITEMS = table_of(ItemRow)
EVENTS = table_of(EventRow)
OPERATIONS = table_of(OperationRow)
ANSWERS = table_of(AnswerRow)
PRESENCE = table_of(PresenceRow)

# Spelt as in the partial indexes: SQLite takes one only for a condition it can see, not for bound values.
ACTIVE_ITEMS = text("status IN ('created', 'started')")
ONLINE_ROOMS = text("performer_online")
OPEN_OPERATIONS = text("status NOT IN ('done', 'dead')")


def _any_of(name: str) -> Any:
    """The parameter of an IN; its values are a list."""
    return bindparam(name, expanding=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    rows: list[T]
    total: int


def epoch(connection: Connection) -> str:
    return str(connection.execute(select(META.c.value).where(META.c.name == "epoch")).scalar_one())


EVENT_FORM = "event_form"
"""In META: COMPACT once no process of a release runs that cannot read compact events."""
COMPACT = "compact"


def is_compact(connection: Connection) -> bool:
    return connection.execute(select(META.c.value).where(META.c.name == EVENT_FORM)).scalar_one_or_none() == COMPACT


# Frequent queries are compiled once: that takes longer than running them.
_VERSIONS = select(ROOMS.c.performer_id, ROOMS.c.version).where(ROOMS.c.performer_id.in_(_any_of("performer_ids")))
_LOCKED_VERSIONS = _VERSIONS.order_by(ROOMS.c.performer_id).with_for_update(skip_locked=True)


def versions(connection: Connection, performer_ids: Collection[str]) -> dict[str, int]:
    """The committed version of each room that exists."""
    rows = connection.execute(_VERSIONS, {"performer_ids": list(performer_ids)})
    return {row.performer_id: row.version for row in rows}


def locked_versions(connection: Connection, performer_ids: Collection[str]) -> tuple[dict[str, int], set[str]]:
    """The version of each room that exists and is locked here from now on; and the rooms that somebody else holds,
    for whom nobody waits."""
    rows = connection.execute(_LOCKED_VERSIONS, {"performer_ids": list(performer_ids)})
    locked = {row.performer_id: row.version for row in rows}
    missing = [performer_id for performer_id in performer_ids if performer_id not in locked]
    return locked, set(versions(connection, missing)) if missing else set()


ROOM_ROWS = select(ROOMS).where(ROOMS.c.performer_id.in_(_any_of("performer_ids")))
_ACTIVE = select(ITEMS).where(ITEMS.c.performer_id.in_(_any_of("performer_ids")), ACTIVE_ITEMS)
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
    """The rooms with these ids; one that does not exist yet comes as the empty room, version 0."""
    rooms = {performer_id: Room(performer_id=performer_id, policy=policy) for performer_id in performer_ids}
    # Versions before items: a room that comes to be in between then has too low a version, which the event log's unique
    # (performer, version) notices. A room with its version but without its items would pass unnoticed.
    rows = connection.execute(ROOM_ROWS, {"performer_ids": list(performer_ids)}).mappings().all()
    active: dict[str, list[Item]] = {row["performer_id"]: [] for row in rows}
    for row in connection.execute(_ACTIVE, {"performer_ids": list(active)}).mappings():
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


def learn_again(connection: Connection, performer_id: str, policy: Policy) -> History:
    """From the room's last items: for a room whose history has no row yet, or one that this release cannot read."""
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
        return None  # PostgreSQL refuses the question: no text of its holds a NUL
    row = connection.execute(_ITEM, {"item_id": item_id}).mappings().first()
    return None if row is None else records.item_from(row)


# Every batch of intakes asks these two, and SQLAlchemy takes longer to lay out an IN than the database to answer it.
_ANSWERS = f"SELECT {', '.join(records.ANSWER_COLUMNS)} FROM answers WHERE (scope, key) IN "  # noqa: S608
_INTAKES = f"SELECT {', '.join(records.INTAKE_COLUMNS)} FROM items WHERE (source_feature, idempotency_key) IN "  # noqa: S608
_HELD_ESCROWS = "SELECT escrow_transaction_id, item_id FROM items WHERE escrow_transaction_id IN "


def find_answers(connection: Connection, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
    """By (scope, key). The answer to an intake is found by its item's own key, and need not have a row of its own."""
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
    """Of these escrows, the ones an item holds already, with the item's id."""
    if not escrow_ids:
        return {}
    rows = rows_with(connection, _HELD_ESCROWS, list(escrow_ids))
    return dict(rows)


_FIXED_PART = [ITEMS.c[name].label(compact.PREFIX + name) for name in compact.FIXED]
EVENT_ROWS = select(EVENTS, *_FIXED_PART).select_from(EVENTS.outerjoin(ITEMS, ITEMS.c.item_id == EVENTS.c.item_id))
"""Rows for `records.event_from`: an event with the fixed part of its item."""
_EVENT = EVENT_ROWS.where(EVENTS.c.performer_id == bindparam("performer_id"), EVENTS.c.version == bindparam("version"))


def find_event(connection: Connection, performer_id: str, version: int) -> Event:
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
"""NULL is from before there was this column; `compaction` fills it in."""
_ITEMS_BY_ID = ITEMS.c.item_id.in_(bindparam("item_ids", expanding=True))
_ITEMS_STRETCH = (
    select(EVENTS, *_FIXED_PART)
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
# A room's time never runs backwards.
_UNFINISHED = select(ITEMS.c.item_id).where(_ITEMS_BY_ID, ITEMS.c.updated_at >= _AT_BEHIND)


def items_log(connection: Connection, item_ids: Sequence[str]) -> Mapping[str, list[RowMapping]]:
    """The rows of the events of some items, by item and oldest first.

    They have no index of their own, which would take as much room as they do: they are found in their rooms' logs, from
    each item's creation to the time of its last update, in stretches that double.
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
"""In META of a restored database. On PostgreSQL: added to transaction ids, which begin anew on the server that a backup
is restored to. On SQLite: the cursor that events go on behind, if it is higher than that of the newest."""
_LEAP: Any = (
    select(func.coalesce(func.max(sql_cast(META.c.value, BigInteger)), literal_column("0")))
    .where(META.c.name == literal_column(f"'{LOG_LEAP}'"))
    .scalar_subquery()
)
NEXT_CURSOR: Any = text(
    "max(coalesce((SELECT max(cursor) FROM events), 0),"
    " coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'log_leap'), 0)) + 1"
)
"""SQLite's own next number is one more than the highest that is left, which a restore or retention may have lowered."""


def keep_numbering(connection: Connection) -> None:
    """On SQLite: have the log go on behind its newest event also when that is gone."""
    if connection.dialect.name != "sqlite":
        return
    newest = connection.execute(select(func.max(EVENTS.c.cursor))).scalar_one() or 0
    leap = connection.execute(select(META.c.value).where(META.c.name == LOG_LEAP)).scalar_one_or_none()
    if leap is None:
        connection.execute(META.insert().values(name=LOG_LEAP, value=str(newest)))
    elif int(leap) < newest:
        connection.execute(META.update().where(META.c.name == LOG_LEAP).values(value=str(newest)))


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
    """The event log after a cursor, in an order that never changes and in which nothing appears late.

    On PostgreSQL a sequence's order is not commit order, so the log is ordered by (transaction id, sequence) and shows
    only what is older than every transaction still open. Raises ValueError for a cursor that no log can have given.
    """
    statement = _log_after(EVENT_ROWS.limit(limit), connection, after)
    if performer_id is not None:
        statement = statement.where(EVENTS.c.performer_id == performer_id)
    if source_feature is not None:
        statement = statement.where(EVENTS.c.source_feature == source_feature)
    return [logged_from(row) for row in connection.execute(statement).mappings()]


def _log_after(statement: Any, connection: Connection, after: str | None) -> Any:
    """The events behind a cursor, in the log's order; on PostgreSQL those that are visible."""
    if connection.dialect.name == "postgresql":
        transaction, sequence = _cursor_parts(after or "0.0", 2)
        return statement.where(
            tuple_(EVENTS.c.transaction_id, EVENTS.c.cursor) > (transaction, sequence),
            EVENTS.c.transaction_id < _OLDEST_OPEN_TRANSACTION,
        ).order_by(EVENTS.c.transaction_id, EVENTS.c.cursor)
    (sequence,) = _cursor_parts(after or "0", 1)
    return statement.where(EVENTS.c.cursor > sequence).order_by(EVENTS.c.cursor)


def log_page(
    connection: Connection,
    *,
    after: str | None,
    limit: int,
    performer_id: str | None = None,
    source_feature: str | None = None,
) -> tuple[list[Logged], str | None]:
    """As `log_events`, with the cursor from which the same reader goes on: behind all that has been looked at, so that
    the events of others are not looked at again and again."""
    end = log_end(connection)
    page = log_events(connection, after=after, limit=limit, performer_id=performer_id, source_feature=source_feature)
    if len(page) == limit or (page and (end is None or is_behind(end, page[-1].cursor))):
        return page, page[-1].cursor
    return page, end if end is not None and is_behind(after, end) else after


def log_stretch(connection: Connection, after: str | None, length: int) -> tuple[str | None, bool]:
    """The cursor of the last of the next `length` events behind another one, and whether the log ends there. None if
    there is none yet."""
    place = select(EVENTS.c.transaction_id, EVENTS.c.cursor)
    row = connection.execute(_log_after(place.offset(length - 1).limit(1), connection, after)).mappings().first()
    if row is not None:
        return cursor_of(row), False
    end = log_end(connection)
    return (end if end is not None and is_behind(after, end) else None), True


def in_stretch(statement: Any, connection: Connection, after: str | None, through: str) -> Any:
    """The events behind a cursor, up to and including that of another event, in the log's order."""
    statement = _log_after(statement, connection, after)
    if connection.dialect.name == "postgresql":
        transaction, sequence = _cursor_parts(through, 2)
        return statement.where(tuple_(EVENTS.c.transaction_id, EVENTS.c.cursor) <= (transaction, sequence))
    return statement.where(EVENTS.c.cursor <= _cursor_parts(through, 1)[0])


def log_end(connection: Connection) -> str | None:
    """The cursor of the newest event that `log_events` shows; None for an empty log.

    Every event up to it is visible already, so a reader that found nothing for itself before it may go on behind it.
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
    """On SQLite, which has one writer, an event has no transaction's id."""
    transaction, cursor = row["transaction_id"], row["cursor"]
    return str(cursor) if transaction is None else f"{transaction}.{cursor}"


def is_behind(cursor: str | None, other: str) -> bool:
    """Whether a cursor of this log lies before another one."""
    return cursor is None or [int(part) for part in cursor.split(".")] < [int(part) for part in other.split(".")]


def logged_from(row: RowMapping) -> Logged:
    """From a row of EVENT_ROWS."""
    return Logged(cursor=cursor_of(row), event=records.event_from(row))


def _cursor_parts(cursor: str, count: int) -> list[int]:
    parts = cursor.split(".")
    if len(parts) != count or not all(_CURSOR_PART.fullmatch(part) for part in parts):
        raise ValueError("not a cursor of this log")
    return [int(part) for part in parts]


def ended_items(connection: Connection, performer_id: str, *, limit: int, skip: int) -> Page[Item]:
    """A room's ended items, newest end first."""
    ended = (ITEMS.c.performer_id == performer_id) & ITEMS.c.ended_at.is_not(None)
    return _items_page(connection, ended, (ITEMS.c.ended_at.desc(), ITEMS.c.item_id.desc()), limit, skip)


def items_of_user(connection: Connection, user_id: str, *, limit: int, skip: int) -> Page[Item]:
    """A user's items over all rooms, newest first."""
    return _items_page(connection, ITEMS.c.user_id == user_id, (ITEMS.c.item_id.desc(),), limit, skip)


def _items_page(connection: Connection, where: Any, order: Sequence[Any], limit: int, skip: int) -> Page[Item]:
    statement = select(ITEMS).where(where).order_by(*order).limit(limit).offset(skip)
    rows = [records.item_from(row) for row in connection.execute(statement).mappings()]
    total = connection.execute(select(func.count()).select_from(ITEMS).where(where)).scalar_one()
    return Page(rows=rows, total=total)


def first_id(moment: datetime) -> str:
    """Less than the id of any item made from that moment on, and not less than any made before."""
    digits = f"{max(0, round(moment.timestamp() * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def rooms_page(connection: Connection, policy: Policy, *, limit: int, skip: int) -> Page[Room]:
    """Rooms with the most recent activity first."""
    statement = select(ROOMS.c.performer_id).order_by(ROOMS.c.last_at.desc(), ROOMS.c.performer_id)
    ids = list(connection.execute(statement.limit(limit).offset(skip)).scalars())
    rooms = load_rooms(connection, policy, ids)
    total = connection.execute(select(func.count()).select_from(ROOMS)).scalar_one()
    return Page(rows=[rooms[performer_id] for performer_id in ids], total=total)


_OPERATION = select(OPERATIONS).where(OPERATIONS.c.item_id == bindparam("item_id"))
_LOCKED_OPERATION = _OPERATION.with_for_update()


def operation_of(connection: Connection, item_id: str, *, lock: bool = False) -> tuple[Operation, bool] | None:
    """An item's operation, and whether it has ever been claimed. With `lock` it cannot be claimed meanwhile."""
    row = connection.execute(_LOCKED_OPERATION if lock else _OPERATION, {"item_id": item_id}).mappings().first()
    return None if row is None else (records.operation_from(row), row["claimed"])


def find_operation(connection: Connection, operation_id: str) -> Operation | None:
    if "\0" in operation_id:
        return None  # as in find_item
    statement = select(OPERATIONS).where(OPERATIONS.c.operation_id == operation_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else records.operation_from(row)


def operations_page(
    connection: Connection, *, status: str | None, limit: int, skip: int, item_id: str | None = None
) -> Page[Operation]:
    """Operations in a status, of an item, or all; newest first."""
    where = OPERATIONS.c.status == status if status is not None else OPERATIONS.c.status.is_not(None)
    if item_id is not None:
        where &= OPERATIONS.c.item_id == item_id
    statement = select(OPERATIONS).where(where).order_by(OPERATIONS.c.created_at.desc(), OPERATIONS.c.operation_id)
    rows = connection.execute(statement.limit(limit).offset(skip)).mappings()
    total = connection.execute(select(func.count()).select_from(OPERATIONS).where(where)).scalar_one()
    return Page(rows=[records.operation_from(row) for row in rows], total=total)


_DEAD_OPERATIONS = (
    select(OPERATIONS)
    .where(
        OPERATIONS.c.status == OperationStatus.DEAD.value,
        OPERATIONS.c.operation_id > bindparam("after"),
    )
    .order_by(OPERATIONS.c.operation_id)
    .limit(bindparam("at_most"))
)
_EXHAUSTED_OPERATIONS = _DEAD_OPERATIONS.where(OPERATIONS.c.rejected.is_(False))


def dead_operations(connection: Connection, *, after: str, at_most: int, rejected_too: bool) -> list[Operation]:
    """Dead operations with an id beyond `after`, by id; `rejected_too`: also those that the wallet refused for good."""
    statement = _DEAD_OPERATIONS if rejected_too else _EXHAUSTED_OPERATIONS
    rows = connection.execute(statement, {"after": after, "at_most": at_most}).mappings()
    return [records.operation_from(row) for row in rows]


def operation_counts(connection: Connection, at_most: int = 10_000) -> Mapping[str, int]:
    """How many operations are in each status, counted up to `at_most`: the cost does not grow with history."""
    counts = {}
    for status in OperationStatus:
        some = select(OPERATIONS.c.operation_id).where(OPERATIONS.c.status == status).limit(at_most).subquery()
        if number := connection.execute(select(func.count()).select_from(some)).scalar_one():
            counts[str(status)] = number
    return counts


_ACTIVE_COUNTS = text(
    "SELECT count(*), coalesce(sum(CASE WHEN status = 'started' THEN 1 ELSE 0 END), 0) FROM"
    " (SELECT status FROM items WHERE status IN ('created', 'started') LIMIT :at_most) AS active"
)


def active_item_counts(connection: Connection, at_most: int = 100_000) -> Mapping[str, int]:
    """How many items wait and how many are on stage, of the first `at_most`."""
    active, started = connection.execute(_ACTIVE_COUNTS, {"at_most": at_most}).one()
    return {"created": int(active - started), "started": int(started)}


_OLDEST_OPERATION = (
    select(OPERATIONS.c.created_at)
    .where(OPERATIONS.c.status == bindparam("status"))
    .order_by(OPERATIONS.c.created_at)
    .limit(1)
)


def oldest_open_operation(connection: Connection) -> datetime | None:
    """When the oldest operation was ordered that is neither done nor dead; one look into the index a status."""
    found = (
        connection.execute(_OLDEST_OPERATION, {"status": str(status)}).scalar_one_or_none()
        for status in (OperationStatus.PENDING, OperationStatus.RETRYING)
    )
    return min((created_at for created_at in found if created_at is not None), default=None)


_DUE_OPERATION = (
    select(OPERATIONS.c.operation_id)
    .where(
        OPEN_OPERATIONS,
        OPERATIONS.c.next_attempt_at <= bindparam("now"),
        OPERATIONS.c.lease_until.is_(None) | (OPERATIONS.c.lease_until <= bindparam("now")),
    )
    .limit(1)
)


def is_operation_due(connection: Connection, now: datetime) -> bool:
    """Whether an operation waits to be claimed."""
    return connection.execute(_DUE_OPERATION, {"now": now}).first() is not None


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


def present_elsewhere(connection: Connection, performer_id: str, process_id: str, now: datetime) -> bool:
    """Whether another process holds a live presence lease for this performer."""
    statement = select(PRESENCE.c.process_id).where(
        PRESENCE.c.performer_id == performer_id,
        PRESENCE.c.process_id != process_id,
        PRESENCE.c.expires_at > now,
    )
    return connection.execute(statement.limit(1)).first() is not None


_LIVE_LEASE = select(PRESENCE.c.process_id).where(
    PRESENCE.c.performer_id == ROOMS.c.performer_id, PRESENCE.c.expires_at > bindparam("now")
)
_WRONGLY_ONLINE = (
    select(ROOMS.c.performer_id)
    .where(ONLINE_ROOMS, ~_LIVE_LEASE.exists())
    .order_by(ROOMS.c.performer_id)
    .limit(bindparam("at_most"))
)


def wrongly_online_rooms(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Rooms that say their performer is online while no process holds a live presence lease."""
    return list(connection.execute(_WRONGLY_ONLINE, {"now": now, "at_most": limit}).scalars())


_WRONGLY_OFFLINE = select(ROOMS.c.performer_id).where(
    ROOMS.c.performer_id.in_(_any_of("performer_ids")), ROOMS.c.performer_online.is_(False)
)


def wrongly_offline_rooms(connection: Connection, performer_ids: Collection[str]) -> list[str]:
    """Of these rooms, the ones that say their performer is offline."""
    return list(connection.execute(_WRONGLY_OFFLINE, {"performer_ids": list(performer_ids)}).scalars())


_LAPSED_PRESENCE = (
    select(PRESENCE.c.process_id, PRESENCE.c.performer_id)
    .where(PRESENCE.c.expires_at <= bindparam("now"))
    .limit(bindparam("at_most"))
)


def lapsed_presence(connection: Connection, now: datetime, limit: int) -> list[tuple[str, str]]:
    """(process id, performer id) of leases that ran out."""
    rows = connection.execute(_LAPSED_PRESENCE, {"now": now, "at_most": limit})
    return [(row.process_id, row.performer_id) for row in rows]
