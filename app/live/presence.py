"""Presence: which performers have a panel connected to this process, told to their rooms and kept as leases.

A process says again every few seconds who is here; when it dies its leases lapse and any other process tells the rooms.
Lease and room are two transactions, and anything may fail between them: the same look every few seconds sets right what
then differs. What follows for the room is `decision`'s; this module only reports.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection

from app.domain.command import SetPresence
from app.domain.errors import QueueError
from app.engine.lane import Lanes
from app.engine.writer import Outcome
from app.store import reading, writing

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
RENEW_SECONDS = 5.0
PUT_RIGHT_AT_ONCE = 200


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
            try:
                online = await self._lanes.run(lambda connection: self._update(connection, performer_id, here))
                await self._lanes.send(performer_id, SetPresence(online=online))
            except QueueError as refusal:
                # The panel itself works; `keep` tries again.
                log.warning("presence of %s not told (%s)", performer_id, refusal.code)
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
        """Renew this process's leases, and put right the rooms that say otherwise than the leases of all processes.

        Called every RENEW_SECONDS. A room may differ because a process died, or failed between lease and room.
        """
        here, now = list(self._panels), self._clock()
        unaware, forsaken = await self._lanes.run(lambda connection: self._renew(connection, here, now))
        for performer_id in unaware:
            await self._tell(performer_id)
        for performer_id in forsaken:
            if performer_id not in self._panels:
                await self._lanes.send(performer_id, SetPresence(online=False))

    def _renew(self, connection: Connection, here: list[str], now: datetime) -> tuple[list[str], list[str]]:
        """The rooms that should say online and do not, and those that should not and do."""
        writing.renew_presence(connection, self._process_id, here, expires_at=now + LEASE)
        for process_id, performer_id in reading.lapsed_presence(connection, now, PUT_RIGHT_AT_ONCE):
            writing.end_presence(connection, process_id, performer_id)
        return reading.unaware_rooms(connection, here), reading.forsaken_rooms(connection, now, PUT_RIGHT_AT_ONCE)
