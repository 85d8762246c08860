"""Presence: which performers have a panel connected to this process, told to their rooms and kept as leases.

A process says again every few seconds who is here; when it dies its leases lapse and any other process tells the rooms.
What follows for the room is `decision`'s; this module only reports.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection

from app.command import SetPresence
from app.lane import Lanes, Outcome
from app.store import reading, writing

LEASE = timedelta(seconds=15)
RENEW_SECONDS = 5.0
LAPSED_AT_ONCE = 200


class Presence:
    def __init__(self, lanes: Lanes, process_id: str, clock: Callable[[], datetime]) -> None:
        self._lanes = lanes
        self._process_id = process_id
        self._clock = clock
        self._panels: Counter[str] = Counter()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()

    async def arrived(self, performer_id: str) -> None:
        """A panel has connected."""
        self._panels[performer_id] += 1
        if self._panels[performer_id] == 1:
            await self._tell(performer_id)

    async def left(self, performer_id: str) -> None:
        """A panel has gone."""
        self._panels[performer_id] -= 1
        if self._panels[performer_id] == 0:
            del self._panels[performer_id]
            await self._tell(performer_id)

    def observe(self, outcome: Outcome) -> None:
        """A room that has only just come to be does not know yet that its performer was here before it."""
        room = outcome.room
        if self._panels.get(room.performer_id) and not room.settings.performer_online:
            task = asyncio.create_task(self._tell(room.performer_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self, performer_id: str) -> None:
        """Bring lease and room in line with whether a panel is here, whatever has changed meanwhile."""
        async with self._locks[performer_id]:
            here = self._panels.get(performer_id, 0) > 0
            online = await self._lanes.run(lambda connection: self._update(connection, performer_id, here))
            await self._lanes.send(performer_id, SetPresence(online=online))
        if performer_id not in self._panels:
            self._locks.pop(performer_id, None)

    def _update(self, connection: Connection, performer_id: str, here: bool) -> bool:
        """Write or end the lease; returns whether the performer is present anywhere."""
        now = self._clock()
        if here:
            writing.renew_presence(connection, self._process_id, [performer_id], expires_at=now + LEASE)
            return True
        writing.end_presence(connection, self._process_id, performer_id)
        return reading.present_elsewhere(connection, performer_id, self._process_id, now)

    async def keep(self) -> None:
        """Renew this process's leases and report performers whose process has died. Called every RENEW_SECONDS."""
        here = list(self._panels)
        now = self._clock()
        if here:
            await self._lanes.run(
                lambda connection: writing.renew_presence(connection, self._process_id, here, expires_at=now + LEASE)
            )
        for process_id, performer_id in await self._lanes.run(
            lambda connection: reading.lapsed_presence(connection, now, LAPSED_AT_ONCE)
        ):
            await self._lapse(process_id, performer_id, now)

    async def _lapse(self, process_id: str, performer_id: str, now: datetime) -> None:
        def end(connection: Connection) -> bool:
            writing.end_presence(connection, process_id, performer_id)
            return reading.present_elsewhere(connection, performer_id, process_id, now)

        if not await self._lanes.run(end):
            await self._lanes.send(performer_id, SetPresence(online=False))
