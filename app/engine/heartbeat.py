"""The heartbeat: detects that the service did not run for a while, or that its clock was set, and restarts the clocks.

The service writes the time into the database every BEAT. If the last heartbeat is further away, the service did not run
(stopped, killed, suspended, without its database) or its clock was set. Then the running clocks of all rooms are
treated as stopped at the last heartbeat and started again now, before any deadline is checked, so that no item becomes
overdue by it.
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
"""The longest gap between two heartbeats of a process that is only busy."""
STANDSTILL = timedelta(seconds=STANDSTILL_SECONDS)
STANDSTILL_AT_START = timedelta(seconds=1.5)
"""The longest gap when a process starts: if another process runs, it has written within BEAT."""
WRONG_CLOCK = timedelta(minutes=1)
"""A time in the database that is further ahead was written by a clock that was wrong."""
LONGEST_LEASE = timedelta(minutes=1)
"""The longest lease on webhook endpoints and push notifications, and usually on wallet operations."""
CORRECTION_SECONDS = 5.0
"""Between two searches for times that are too far ahead."""
ROOMS_AT_ONCE = 200
STALE_SECONDS = 4.0
"""A heartbeat older than this means that the database cannot be written at present."""


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
        """`database_time`: reads the clock of a database that several processes share; None if this process is the only
        one. `longest_lease`: the longest lease that a process takes on anything. `elapsed`: seconds by a clock that
        cannot be set."""
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
        """Seconds by which the database's clock and this process's differ; 0 on SQLite, which has no clock."""
        return abs(self._clock.skew.total_seconds())

    @property
    def can_write(self) -> bool:
        """Whether the database has taken a heartbeat lately."""
        return self.age_seconds < STALE_SECONDS

    async def start(self) -> None:
        """Write the first heartbeat of a process, before it answers requests."""
        await self._beat(STANDSTILL_AT_START)

    async def keep(self, standstill: timedelta = STANDSTILL) -> datetime:
        """Write the heartbeat if it is due, and restart the clocks after a gap longer than `standstill`. To be called
        before every sweep for deadlines.

        Returns the time that was compared with the last heartbeat. The sweep must use this time, as the clock may be
        set while a heartbeat is written. Raises Unavailable while no heartbeat can be written.
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
            # Written last: if this process dies before, the next one restarts the remaining clocks.
            now = self._clock()
            await self._lanes.run(lambda connection: rows.write(connection, now))
        self._last = now
        self._written = self._elapsed()
        return checked

    def _earliest_setting(self, now: datetime) -> datetime | None:
        """The earliest time, by the clock as it is now, at which it can have been set: just before the last heartbeat.
        None for a process that has just started and so cannot have started an item since."""
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
        """Sets times that are too far ahead to now, and shortens leases to the longest that could begin now."""
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
            log.warning("the due times of %s wallet operations came from a wrong clock", await self._lanes.run(correct))
        if await self._queries.run(lambda connection: rows.are_leases_ahead(connection, latest + WRONG_CLOCK)):
            log.warning("leases whose end came from a wrong clock are shortened")
            await self._lanes.run(shorten)


def _away(now: datetime, then: datetime) -> float:
    return abs((now - then).total_seconds())
