"""The heartbeat of the service, and the rows that a stop or a wrong clock leaves to be corrected.

One row of `meta` holds the time at which the service last ran; every process that sweeps writes it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, and_, bindparam, func, or_, select, true, type_coerce, update

from app.store.facts import fact, set_fact
from app.store.push_tables import PUSH_PROGRESS
from app.store.reading import ACTIVE_ITEMS
from app.store.tables import EVENTS, ITEMS, OPERATIONS, ROOMS, milliseconds, moment
from app.store.wallet_operations import OPEN_OPERATIONS
from app.store.webhooks import ENDPOINTS

_LEASES = (
    (OPERATIONS.c.lease_until, OPEN_OPERATIONS),
    (ENDPOINTS.c.lease_until, true()),
    (PUSH_PROGRESS.c.lease_until, true()),
)
"""The columns of leases, each with the condition for rows whose lease matters."""

HEARTBEAT = "heartbeat"
"""In META: the time of the last heartbeat, in milliseconds since 1970."""
_WRITTEN_BY_COMMANDS = ", ".join(table.name for table in (ROOMS, ITEMS, EVENTS, OPERATIONS))


def beat(connection: Connection, now: datetime, tolerance: timedelta) -> datetime | None:
    """Write the heartbeat, if the last one is at most `tolerance` away from now.

    Otherwise nothing is written, and the time of the last one is returned: since then the service has not run, or the
    clock has been set. The first heartbeat of a database is always written. On PostgreSQL it fails like a command while
    another session has locked a table that commands write.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {_WRITTEN_BY_COMMANDS} IN ROW EXCLUSIVE MODE")
    value = fact(connection, HEARTBEAT)
    if value is not None:
        last = moment(int(value))
        if abs(now - last) > tolerance:
            return last
        now = max(now, last)
    write(connection, now)
    return None


def write(connection: Connection, now: datetime) -> None:
    """Write the heartbeat, whatever the time of the last one."""
    set_fact(connection, HEARTBEAT, str(milliseconds(now)))


def database_time(connection: Connection) -> datetime:
    """The time of PostgreSQL's own clock. SQLite has none."""
    seconds = connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one()
    return moment(round(float(seconds) * 1000))


_ROOMS_WITH_CLOCKS = (
    select(ITEMS.c.performer_id)
    .join(ROOMS, ROOMS.c.performer_id == ITEMS.c.performer_id)
    .where(
        ACTIVE_ITEMS,
        or_(ITEMS.c.clock_since.is_not(None), ROOMS.c.offline_since.is_not(None)),
        ITEMS.c.performer_id > bindparam("after"),
    )
    .distinct()
    .order_by(ITEMS.c.performer_id)
    .limit(bindparam("at_most"))
)


def rooms_with_clocks(connection: Connection, after: str, limit: int) -> Sequence[str]:
    """The rooms with an id after `after` that have active items and a running clock or a performer who is offline, in
    order of their ids."""
    return connection.execute(_ROOMS_WITH_CLOCKS, {"after": after, "at_most": limit}).scalars().all()


_ROOMS_AHEAD = (
    select(ITEMS.c.performer_id)
    .join(ROOMS, ROOMS.c.performer_id == ITEMS.c.performer_id)
    .where(
        ITEMS.c.due_at > bindparam("latest"),
        or_(ITEMS.c.clock_since > bindparam("latest"), ROOMS.c.offline_since > bindparam("latest")),
    )
    .distinct()
    .limit(bindparam("at_most"))
)


def rooms_ahead(connection: Connection, latest: datetime, limit: int) -> Sequence[str]:
    """The rooms with a deadline that counts from a time after `latest`."""
    return connection.execute(_ROOMS_AHEAD, {"latest": latest, "at_most": limit}).scalars().all()


def _operations_ahead(latest: datetime) -> Any:
    return and_(OPEN_OPERATIONS, OPERATIONS.c.next_attempt_at > latest, OPERATIONS.c.updated_at > latest)


def are_operations_ahead(connection: Connection, latest: datetime) -> bool:
    """Whether open wallet operations were written at a time after `latest`."""
    statement = select(OPERATIONS.c.operation_id).where(_operations_ahead(latest)).limit(1)
    return connection.execute(statement).first() is not None


def correct_operations(connection: Connection, now: datetime, latest: datetime) -> int:
    """Give open wallet operations that were written at a time after `latest` the same delay from `now` on; returns
    their number. An attempt that is under way keeps its lease."""
    delay = type_coerce(OPERATIONS.c.next_attempt_at, BigInteger) - type_coerce(OPERATIONS.c.updated_at, BigInteger)
    statement = (
        update(OPERATIONS)
        .where(_operations_ahead(latest))
        .values(next_attempt_at=delay + milliseconds(now), updated_at=now)
    )
    return connection.execute(statement).rowcount


def are_leases_ahead(connection: Connection, latest: datetime) -> bool:
    """Whether a lease ends after `latest`."""
    return any(
        connection.execute(select(lease).where(rows, lease > latest).limit(1)).first() is not None
        for lease, rows in _LEASES
    )


def shorten_leases(connection: Connection, until: datetime, latest: datetime) -> None:
    """Let leases that end after `latest` end at `until`. The outcome of work under such a lease is not accepted: the
    work is repeated, with the same key."""
    for lease, rows in _LEASES:
        connection.execute(update(lease.table).where(rows, lease > latest).values(lease_until=until))
