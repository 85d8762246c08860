"""The timers of the service: deadlines that have passed become ordinary commands to the rooms.

Deadlines are times in the database, which a sweep finds. Nothing is kept in memory, so a restart neither loses nor
repeats any. Several processes may find the same deadline: the decision checks it again.
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
    """Send Expire for at most `at_once` overdue items; returns their number. `now`: the time that the heartbeat has
    just checked."""
    overdue = await queries.run(lambda connection: reading.overdue_items(connection, now, at_once))
    sent = (lanes.send(performer_id, Expire(item_id=item_id, at=now)) for performer_id, item_id in overdue)
    for result in await asyncio.gather(*sent, return_exceptions=True):
        if isinstance(result, QueueError):
            log.warning("an overdue item could not be ended: %s", result.code)
        elif isinstance(result, BaseException):
            raise result
    return len(overdue)


async def every(seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run `work` for ever, with a pause of `seconds` after each run. A failure is logged, and the next run follows."""
    while True:
        try:
            await work()
        except QueueError as refusal:
            # The database is away or the process is stopping; the place where it was noticed has logged it.
            log.warning("%s waits (%s)", name, refusal.code)
        except Exception:
            # The loop must outlive any failure (the database away, a bug); the log has the trace.
            log.exception("%s failed; trying again", name)
        await asyncio.sleep(seconds)
