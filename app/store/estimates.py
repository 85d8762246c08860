"""The errors of the waits estimated on arrival, for the last items of a room."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from app.store.tables import ITEMS

_LAST_ESTIMATED = (
    select(ITEMS.c.created_at, ITEMS.c.started_at, ITEMS.c.quoted_wait_seconds)
    .where(
        ITEMS.c.performer_id == bindparam("performer_id"),
        ITEMS.c.ended_at.is_not(None),
        ITEMS.c.ended_at >= bindparam("since"),
        ITEMS.c.pass_through_mode.is_(False),
    )
    .order_by(ITEMS.c.ended_at.desc(), ITEMS.c.item_id.desc())
    .limit(bindparam("at_most"))
)


def estimate_errors(connection: Connection, performer_id: str, *, since: datetime, at_most: int) -> list[float]:
    """Seconds by which waits were longer than estimated (negative: shorter), of those of the last `at_most` items ended
    since `since` that were started and had an estimate."""
    rows = connection.execute(_LAST_ESTIMATED, {"performer_id": performer_id, "since": since, "at_most": at_most})
    return [
        (started_at - created_at).total_seconds() - estimated
        for created_at, started_at, estimated in rows
        if started_at is not None and estimated is not None
    ]
