"""Reads a room's events of a span of time."""

from datetime import datetime

from sqlalchemy import Connection

from app.domain.event import Event
from app.store import event_log, reading
from app.store.event_log import AT_OF_NEXT


def events_of_span(
    connection: Connection, performer_id: str, start: datetime, end: datetime, *, after: int | None, limit: int
) -> tuple[list[Event], bool]:
    """The first `limit` events from `start` up to but not including `end`, and whether there are more.

    `after`: only versions above this one. A room that does not exist has no events.
    """
    if after is None:
        after = _last_before(connection, performer_id, start)
    found = event_log.room_events(connection, performer_id, after, limit + 1)
    inside = [event for event in found if start <= event.at < end]
    return inside[:limit], len(inside) > limit


def _last_before(connection: Connection, performer_id: str, moment: datetime) -> int:
    """The version of the last event before a moment; 0 if there is none.

    Found by bisection over versions, which have an index, unlike times: a room's events are in order of time.
    """
    low, high = 0, reading.versions(connection, [performer_id]).get(performer_id, 0)
    while low < high:
        middle = (low + high) // 2
        at = connection.execute(AT_OF_NEXT, {"performer_id": performer_id, "version": middle}).scalar_one_or_none()
        if at is not None and at < moment:
            low = middle + 1
        else:
            high = middle
    return low
