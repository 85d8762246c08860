"""Reads of presence leases, and of rooms whose `performer_online` does not agree with their leases."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, text

from app.store.tables import PRESENCE, ROOMS, any_of

# Spelt as in the partial index: SQLite uses it only if the condition is in the statement's text, without parameters.
ONLINE_ROOMS = text("performer_online")


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
    """Rooms whose performer is marked online although no process holds a live presence lease."""
    return list(connection.execute(_WRONGLY_ONLINE, {"now": now, "at_most": limit}).scalars())


_WRONGLY_OFFLINE = select(ROOMS.c.performer_id).where(
    ROOMS.c.performer_id.in_(any_of("performer_ids")), ROOMS.c.performer_online.is_(False)
)


def wrongly_offline_rooms(connection: Connection, performer_ids: Collection[str]) -> list[str]:
    """Those of these rooms whose performer is marked offline."""
    return list(connection.execute(_WRONGLY_OFFLINE, {"performer_ids": list(performer_ids)}).scalars())


_LAPSED_PRESENCE = (
    select(PRESENCE.c.process_id, PRESENCE.c.performer_id)
    .where(PRESENCE.c.expires_at <= bindparam("now"))
    .limit(bindparam("at_most"))
)


def lapsed_presence(connection: Connection, now: datetime, limit: int) -> list[tuple[str, str]]:
    """(process id, performer id) of presence leases that have run out."""
    rows = connection.execute(_LAPSED_PRESENCE, {"now": now, "at_most": limit})
    return [(row.process_id, row.performer_id) for row in rows]
