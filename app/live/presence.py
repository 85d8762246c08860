"""Presence: keeps a lease for each performer with a panel on this process, and reports presence to the rooms.

A process renews its leases every RENEW_SECONDS; when it dies they lapse, and any other process reports it to the rooms.
Lease and room are written in two transactions, and a failure may lie between them: each renewal compares the two and
reports the differences again. `domain.decision` decides the consequences for a room.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from app.domain.command import SetPresence
from app.domain.errors import QueueError
from app.engine.jobs import Outcome
from app.engine.lane import Lanes
from app.store import leases, writing

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
RENEW_SECONDS = 5.0
EXPIRED_PANEL_SECONDS = 30.0
"""How long a panel whose token has expired still counts as connected."""
CORRECTIONS_AT_ONCE = 200
"""Lapsed leases, and wrongly online rooms, that one renewal corrects."""


class Presence:
    """The panels that are connected to this process, by performer, and their leases."""

    def __init__(
        self,
        lanes: Lanes,
        process_id: str,
        clock: Callable[[], datetime],
        *,
        expired_panel_seconds: float = EXPIRED_PANEL_SECONDS,
    ) -> None:
        self._expired_panel_seconds = expired_panel_seconds
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
            await self._reconcile(performer_id)

    def expired(self, performer_id: str) -> None:
        """A panel's token has expired. The panel counts as connected for EXPIRED_PANEL_SECONDS more, in which it may
        come back with a new token."""
        self._spawn(self._leave_unless_renewed(performer_id))

    async def _leave_unless_renewed(self, performer_id: str) -> None:
        await asyncio.sleep(self._expired_panel_seconds)
        await self.left(performer_id)

    async def left(self, performer_id: str) -> None:
        """A panel has gone."""
        self._panels[performer_id] -= 1
        if self._panels[performer_id] == 0:
            del self._panels[performer_id]
            await self._reconcile(performer_id)

    def observe(self, outcome: Outcome) -> None:
        """Report presence to a room that has just been created while its performer's panel was already connected."""
        room = outcome.room
        if self._panels.get(room.performer_id) and not room.settings.performer_online:
            self._spawn(self._reconcile(room.performer_id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconcile(self, performer_id: str) -> None:
        """Set the lease, and then the room, by whether a panel is connected now."""
        async with self._locks[performer_id]:
            here = self._panels.get(performer_id, 0) > 0
            try:
                online = await self._lanes.run(lambda connection: self._update(connection, performer_id, here))
                await self._lanes.send(performer_id, SetPresence(online=online))
            except QueueError as refusal:
                # The panel itself works; `keep` tries again.
                log.warning("presence of %s was not reported (%s)", performer_id, refusal.code)
        if performer_id not in self._panels:
            self._locks.pop(performer_id, None)

    def _update(self, connection: Connection, performer_id: str, here: bool) -> bool:
        """Write or end the lease; returns whether the performer is present anywhere."""
        now = self._clock()
        if here:
            writing.renew_presence(connection, self._process_id, [performer_id], expires_at=now + LEASE)
            return True
        writing.end_presence(connection, self._process_id, performer_id)
        return leases.present_elsewhere(connection, performer_id, self._process_id, now)

    async def keep(self) -> None:
        """Renew this process's leases, and correct the rooms that differ from the leases of all processes.

        Called every RENEW_SECONDS. A room may differ because a process died, or failed between lease and room.
        """
        here, now = list(self._panels), self._clock()
        wrongly_offline, wrongly_online = await self._lanes.run(lambda connection: self._renew(connection, here, now))
        for performer_id in wrongly_offline:
            await self._reconcile(performer_id)
        for performer_id in wrongly_online:
            if performer_id not in self._panels:
                await self._lanes.send(performer_id, SetPresence(online=False))

    def _renew(self, connection: Connection, here: list[str], now: datetime) -> tuple[list[str], list[str]]:
        """Renew the leases; returns the wrongly offline rooms and the wrongly online ones."""
        writing.renew_presence(connection, self._process_id, here, expires_at=now + LEASE)
        for process_id, performer_id in leases.lapsed_presence(connection, now, CORRECTIONS_AT_ONCE):
            writing.end_presence(connection, process_id, performer_id)
        return leases.wrongly_offline_rooms(connection, here), leases.wrongly_online_rooms(
            connection, now, CORRECTIONS_AT_ONCE
        )
