"""Rooms that do not exist: sockets may wait in them, and waiting costs neither reads nor subscriptions.

A name without a room is remembered for a while, so that further sockets for it cost no query. Names that are not
remembered are looked up together, one query at a time. A room's first event ends the memory of its absence; `Hub` gets
it from this process's lanes, or over the bus, on the one channel that all processes share for new rooms.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from math import inf

from app.domain.room import Policy, Room

LOOKED_UP_AT_ONCE = 1000
REMEMBERED_NAMES = 10_000

Versions = Callable[[Collection[str]], Awaitable[Mapping[str, int]]]
"""Reads the versions of those rooms that exist. Raises QueueError."""


class AbsentRooms:
    """The names that are known to have no room. Used from the event loop only."""

    def __init__(
        self,
        versions: Versions,
        policy: Policy,
        *,
        seconds: float = inf,
        limit: int = REMEMBERED_NAMES,
        at_once: int = LOOKED_UP_AT_ONCE,
    ) -> None:
        """`seconds`: how long an absence is believed; for ever where every room is created in this process. `limit`:
        names remembered. `at_once`: names that one query looks up."""
        self._versions = versions
        self._policy = policy
        self._seconds = seconds
        self._limit = limit
        self._at_once = at_once
        self._believed_until: OrderedDict[str, float] = OrderedDict()
        """By name, the oldest first, in loop time."""
        self._waiting: list[tuple[str, asyncio.Future[bool]]] = []
        self._created: set[str] | None = None
        """Rooms created while a query is under way, which may not see them; None while none is."""
        self._lookup: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._believed_until)

    def created(self, performer_id: str) -> None:
        """Note that a room exists now."""
        self._believed_until.pop(performer_id, None)
        if self._created is not None:
            self._created.add(performer_id)

    async def room(self, performer_id: str) -> Room | None:
        """An empty room for a performer without one; None if the room exists. Raises QueueError."""
        if not self._is_remembered(performer_id) and await self._exists(performer_id):
            return None
        return Room(performer_id=performer_id, policy=self._policy)

    async def version(self, performer_id: str) -> int:
        """A room's version in the database now; 0 for a room that does not exist. Raises QueueError."""
        return (await self._versions([performer_id])).get(performer_id, 0)

    def _is_remembered(self, performer_id: str) -> bool:
        return self._believed_until.get(performer_id, -inf) > asyncio.get_running_loop().time()

    async def _exists(self, performer_id: str) -> bool:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((performer_id, answer))
        if self._lookup is None:
            self._lookup = loop.create_task(self._look_up())
        return await answer

    async def _look_up(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._at_once], self._waiting[self._at_once :]
                await self._answer(batch)
        finally:
            self._lookup = None

    async def _answer(self, batch: list[tuple[str, "asyncio.Future[bool]"]]) -> None:
        self._created = set()
        # The result may be as old as this moment.
        until = asyncio.get_running_loop().time() + self._seconds
        try:
            existing = {*await self._versions({name for name, _ in batch}), *self._created}
        except Exception as failure:
            # Each waiting caller gets the failure, whatever it is.
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(failure)
            return
        finally:
            self._created = None
        for name, answer in batch:
            if name not in existing:
                self._remember(name, until)
            if not answer.done():
                answer.set_result(name in existing)

    def _remember(self, performer_id: str, until: float) -> None:
        self._believed_until[performer_id] = until
        self._believed_until.move_to_end(performer_id)
        if len(self._believed_until) > self._limit:
            self._believed_until.popitem(last=False)
