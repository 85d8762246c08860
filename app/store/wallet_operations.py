"""Reads of the outbox: wallet operations by item, by status and by when they are due."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, TextClause, and_, bindparam, func, select, text, true

from app.domain.operation import Operation, OperationStatus
from app.store import records
from app.store.reading import Page
from app.store.tables import OPERATIONS

# Spelt as in the partial index: SQLite uses it only if the condition is in the statement's text, without parameters.
OPEN_OPERATIONS = text("status NOT IN ('done', 'dead')")
NOT_DONE = text("status <> 'done'")


_OPERATION = select(OPERATIONS).where(OPERATIONS.c.item_id == bindparam("item_id"))
_LOCKED_OPERATION = _OPERATION.with_for_update()


def operation_of(connection: Connection, item_id: str, *, lock: bool = False) -> tuple[Operation, bool] | None:
    """An item's operation, and whether it has ever been claimed. With `lock` no process can claim it until the
    transaction ends."""
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
    where = true() if status is None else _is_in(status)
    if item_id is not None:
        where &= OPERATIONS.c.item_id == item_id
    # An operation's id is a UUIDv7.
    statement = select(OPERATIONS).where(where).order_by(OPERATIONS.c.operation_id.desc())
    rows = connection.execute(statement.limit(limit).offset(skip)).mappings()
    if status == OperationStatus.DONE and item_id is None:
        # Both counts read an index, in place of the table.
        total = _count(connection, true()) - _count(connection, NOT_DONE)
    else:
        total = _count(connection, where)
    return Page(rows=[records.operation_from(row) for row in rows], total=total)


def _count(connection: Connection, where: ColumnElement[bool] | TextClause) -> int:
    return int(connection.execute(select(func.count()).select_from(OPERATIONS).where(where)).scalar_one())


def _is_in(status: str) -> ColumnElement[bool]:
    """The condition for a status. Only the operations that are not done, which are few, have an index by status."""
    condition = OPERATIONS.c.status == status
    return condition if status == OperationStatus.DONE else and_(NOT_DONE, condition)


_DEAD_OPERATIONS = (
    select(OPERATIONS)
    .where(
        NOT_DONE,
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
    """The number of operations in each status, counted up to `at_most`, so that the cost does not grow with history."""
    counts = {}
    for status in OperationStatus:
        some = select(OPERATIONS.c.operation_id).where(_is_in(status)).limit(at_most).subquery()
        if number := connection.execute(select(func.count()).select_from(some)).scalar_one():
            counts[str(status)] = number
    return counts


_OLDEST_OPERATION = (
    select(OPERATIONS.c.created_at)
    .where(NOT_DONE, OPERATIONS.c.status == bindparam("status"))
    .order_by(OPERATIONS.c.operation_id)
    .limit(1)
)


def oldest_open_operation(connection: Connection) -> datetime | None:
    """When the oldest operation that is neither done nor dead was created; one index look-up per status."""
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
    """Whether an operation is due and not claimed."""
    return connection.execute(_DUE_OPERATION, {"now": now}).first() is not None
