"""The position check: finds watched rooms that missed events because the bus lost them."""

from app.engine.queries import Queries
from app.live.hub import Hub

POSITION_CHECK_SECONDS = 2.0
"""How long a silent bus can keep a socket from the truth."""
CHECKED_AT_ONCE = 1000
ABSENT_CHECKED_AT_ONCE = 10_000
"""Rooms that nobody has, of which a check finds no row."""


async def check_positions(queries: Queries, hub: Hub) -> None:
    """Compare the watched rooms with the database: what the bus has lost is found here.

    All those that sockets wait in although nobody has them share one query.
    """
    watched = hub.watched
    existing = [performer_id for performer_id, version in watched.items() if version]
    absent = [performer_id for performer_id, version in watched.items() if not version]
    for names, at_once in ((existing, CHECKED_AT_ONCE), (absent, ABSENT_CHECKED_AT_ONCE)):
        for start in range(0, len(names), at_once):
            for performer_id, version in (await queries.versions(names[start : start + at_once])).items():
                hub.behind(performer_id, version)
