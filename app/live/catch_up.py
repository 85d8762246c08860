"""The position check: finds watched rooms that missed events because the bus lost them."""

from app.engine.queries import Queries
from app.live.hub import Hub

POSITION_CHECK_SECONDS = 2.0
"""Seconds between two checks: the longest time for which a socket lacks an event that the bus has lost."""
CHECKED_AT_ONCE = 1000
"""Rooms compared by one query."""
ABSENT_CHECKED_AT_ONCE = 10_000
"""Likewise of rooms that do not exist here, for which the query finds no rows as a rule."""


async def check_positions(queries: Queries, hub: Hub) -> None:
    """Compare the versions of the watched rooms with the database; rooms that are behind catch up."""
    watched = hub.watched
    existing = [performer_id for performer_id, version in watched.items() if version]
    absent = [performer_id for performer_id, version in watched.items() if not version]
    for names, at_once in ((existing, CHECKED_AT_ONCE), (absent, ABSENT_CHECKED_AT_ONCE)):
        for start in range(0, len(names), at_once):
            for performer_id, version in (await queries.versions(names[start : start + at_once])).items():
                hub.behind(performer_id, version)
