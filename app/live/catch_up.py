"""The position check: finds watched rooms that missed events because the bus lost them."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from app.engine.queries import Queries
from app.live.hub import Hub
from app.store import reading

POSITION_CHECK_SECONDS = 2.0
"""How long a silent bus can keep a socket from the truth."""
CHECKED_AT_ONCE = 1000


async def check_positions(queries: Queries, hub: Hub) -> None:
    """Compare the watched rooms with the database: what the bus has lost is found here."""
    performer_ids = list(hub.watched)
    for start in range(0, len(performer_ids), CHECKED_AT_ONCE):
        some = performer_ids[start : start + CHECKED_AT_ONCE]
        for performer_id, version in (await queries.run(partial(_versions, some))).items():
            hub.behind(performer_id, version)


def _versions(performer_ids: Sequence[str], connection: Connection) -> dict[str, int]:
    return reading.versions(connection, performer_ids)
