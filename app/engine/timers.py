"""The timers of the service: deadlines that have passed become ordinary commands to the rooms.

Deadlines are times in the database, found by a sweep; nothing here remembers one, so a restart neither loses nor
repeats any. Which process finds a deadline first does not matter: the room checks for itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from app.domain.command import Expire
from app.domain.errors import QueueError
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import reading

SWEEP_SECONDS = 0.5
OVERDUE_AT_ONCE = 200

log = logging.getLogger(__name__)


async def sweep(queries: Queries, lanes: Lanes, now: datetime, *, at_once: int = OVERDUE_AT_ONCE) -> int:
    """Send overdue items to their rooms, `at_once` at most; returns how many there were. `now`: of the heartbeat, which
    has just seen that the clock is right."""
    overdue = await queries.run(lambda connection: reading.overdue_items(connection, now, at_once))
    sent = (lanes.send(performer_id, Expire(item_id=item_id, at=now)) for performer_id, item_id in overdue)
    for result in await asyncio.gather(*sent, return_exceptions=True):
        if isinstance(result, QueueError):
            log.warning("an overdue item was not dealt with: %s", result.code)
        elif isinstance(result, BaseException):
            raise result
    return len(overdue)


async def every(seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do something again and again. A failure is logged and tried again: a database that is away comes back."""
    while True:
        try:
            await work()
        except QueueError as refusal:
            # The database is away, or all is coming to an end: known, and told where it was met.
            log.warning("%s waits (%s)", name, refusal.code)
        except Exception:
            # The loop must outlive any failure (the database away, a bug); the log has the trace.
            log.exception("%s failed; trying again", name)
        await asyncio.sleep(seconds)
