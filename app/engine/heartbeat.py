"""The heartbeat: notices that nobody served the rooms for a while, or that the clock was set, and restarts the clocks.

While the service is at work it writes the time into the database every BEAT. A last heartbeat that is further
away than that means that the service stood still (stopped, killed, suspended, without its database) or that the clock
jumped. Either way the running clocks of all rooms are treated as stopped at the last heartbeat and started again now,
before any deadline is looked at: nobody loses a place by it.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy import Connection

from app.domain.command import RestartClocks
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.engine.room_clock import RoomClock
from app.store import heartbeat as rows

log = logging.getLogger(__name__)

BEAT = timedelta(seconds=1)
"""Between two heartbeats."""
STANDSTILL_SECONDS = 5.0
"""A gap between heartbeats that is no longer taken for a busy moment."""
STANDSTILL = timedelta(seconds=STANDSTILL_SECONDS)
STANDSTILL_AT_START = timedelta(seconds=1.5)
"""The same when a process starts: if others are at work, one of them has written within BEAT."""
WRONG_CLOCK = timedelta(minutes=1)
"""A time in the database that lies further ahead was written by a clock that was wrong."""
LONGEST_LEASE = timedelta(minutes=1)
"""Of the leases on webhooks' endpoints and on push notifications, and of most wallets' operations."""
CORRECTION_SECONDS = 5.0
"""Between two looks for such times."""
ROOMS_AT_ONCE = 200
STALE_SECONDS = 4.0
"""A heartbeat older than this means that nothing can be written at present."""


class Heartbeat:
    def __init__(
        self,
        lanes: Lanes,
        queries: Queries,
        clock: RoomClock,
        *,
        database_time: Callable[[Connection], datetime] | None = None,
        longest_lease: timedelta = LONGEST_LEASE,
        elapsed: Callable[[], float] = monotonic,
    ) -> None:
        """`database_time`: the time of a database that several processes share; None if this process is the only one.
        `longest_lease`: that a process takes on anything. `elapsed`: seconds that no setting of the clock moves."""
        self._longest_lease = longest_lease
        self._lanes = lanes
        self._queries = queries
        self._clock = clock
        self._database_time = database_time
        self._elapsed = elapsed
        self._last: datetime | None = None
        self._written = float("-inf")
        self._corrected = float("-inf")

    @property
    def age_seconds(self) -> float:
        """Seconds since the last heartbeat was written; infinite before the first."""
        return self._elapsed() - self._written

    @property
    def skew_seconds(self) -> float:
        """How far the database's clock and this process's differ; 0 on SQLite, which has no other clock."""
        return abs(self._clock.skew.total_seconds())

    @property
    def can_write(self) -> bool:
        """Whether the database has taken a heartbeat lately."""
        return self.age_seconds < STALE_SECONDS

    async def start(self) -> None:
        """The first heartbeat of a process, before it serves anybody."""
        await self._beat(STANDSTILL_AT_START)

    async def keep(self, standstill: timedelta = STANDSTILL) -> datetime:
        """Write the heartbeat if it is time. Called before every look at deadlines. After a gap longer than
        `standstill` the clocks restart.

        Returns the time that it has compared with the last heartbeat: by this one deadlines are looked for, for the
        clock may be set while a heartbeat is written. Raises Unavailable while the database takes no heartbeat.
        """
        now = self._clock()
        since = BEAT if self._last is None else now - self._last
        if self.age_seconds >= BEAT.total_seconds() or not timedelta() <= since < BEAT:
            now = await self._beat(standstill)
        if self._elapsed() - self._corrected >= CORRECTION_SECONDS:
            await self._correct(now)
            self._corrected = self._elapsed()
        return now

    async def _beat(self, tolerance: timedelta) -> datetime:
        if self._database_time is not None:
            asked = self._clock.asked()
            self._clock.compare(asked, await self._queries.run(self._database_time))
        checked = now = self._clock()
        stopped_at = await self._lanes.run(lambda connection: rows.beat(connection, now, tolerance))
        if stopped_at is not None:
            log.warning("the clocks of all rooms restart: the last heartbeat was %.1f s away", _away(now, stopped_at))
            await self._restart_all(RestartClocks(stopped_at=stopped_at, set_after=self._earliest_setting(now)))
            # Only now: a process that dies on the way leaves the rest to the next one.
            now = self._clock()
            await self._lanes.run(lambda connection: rows.write(connection, now))
        self._last = now
        self._written = self._elapsed()
        return checked

    def _earliest_setting(self, now: datetime) -> datetime | None:
        """The clock cannot have been set before that, by the time as it is now: at the last heartbeat it was right.
        None for a process that has just started, in which nothing can have been started since."""
        return None if self._last is None else now - timedelta(seconds=self.age_seconds) - BEAT

    async def _restart_all(self, command: RestartClocks) -> None:
        after = ""
        while performer_ids := await self._rooms_with_clocks(after):
            await self._restart(performer_ids, command)
            after = performer_ids[-1]

    async def _rooms_with_clocks(self, after: str) -> list[str]:
        return list(
            await self._queries.run(lambda connection: rows.rooms_with_clocks(connection, after, ROOMS_AT_ONCE))
        )

    async def _restart(self, performer_ids: list[str], command: RestartClocks) -> None:
        await asyncio.gather(*(self._lanes.send(performer_id, command) for performer_id in performer_ids))

    async def _correct(self, now: datetime) -> None:
        """Sets times that lie far ahead to now, and ends leases there no later than any would that began now."""
        latest = now + self._longest_lease

        def correct(connection: Connection) -> int:
            return rows.correct_operations(connection, now, now + WRONG_CLOCK)

        def shorten(connection: Connection) -> None:
            rows.shorten_leases(connection, latest, latest + WRONG_CLOCK)

        ahead = await self._queries.run(
            lambda connection: rows.rooms_ahead(connection, now + WRONG_CLOCK, ROOMS_AT_ONCE)
        )
        await self._restart(list(ahead), RestartClocks(stopped_at=now))
        if await self._queries.run(lambda connection: rows.are_operations_ahead(connection, now + WRONG_CLOCK)):
            log.warning("%s wallet operations were due by a clock that was wrong", await self._lanes.run(correct))
        if await self._queries.run(lambda connection: rows.are_leases_ahead(connection, latest + WRONG_CLOCK)):
            log.warning("leases that a wrong clock has given are shortened")
            await self._lanes.run(shorten)


def _away(now: datetime, then: datetime) -> float:
    return abs((now - then).total_seconds())
