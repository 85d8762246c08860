"""The hub: the rooms of this process that somebody watches. It opens them, finds them and forgets them.

It writes nothing and holds no database session. What happens in a room is `watched_room`'s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from app.domain.errors import QueueError
from app.domain.event import Event
from app.domain.room import Room
from app.live.absent_rooms import AbsentRooms
from app.live.connections import Audience
from app.live.subscriber import Subscriber
from app.live.watched_room import Fanout, WatchedRoom
from app.wire.websocket import CloseCode

log = logging.getLogger(__name__)


class Hub:
    """All watched rooms of this process. Used from the event loop only."""

    def __init__(
        self,
        fanout: Fanout,
        *,
        absent: AbsentRooms,
        load: Callable[[str], Awaitable[Room]],
        watch: Callable[[str], Awaitable[None]] | None = None,
        unwatch: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`absent` knows which rooms do not exist; `load` reads one that does from the database. `watch` and `unwatch`
        ask the other processes for an existing room's events, where there are any; of a room that comes to be they
        tell unasked."""
        self.epoch = fanout.epoch
        self.traffic = fanout.traffic
        self._fanout = fanout
        self._absent = absent
        self._load = load
        self._ask_others = watch
        self._leave_others = unwatch
        self._asked: set[str] = set()
        """Rooms whose events the other processes have been asked for."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._rooms: dict[str, WatchedRoom] = {}
        self._loading: dict[str, asyncio.Task[WatchedRoom]] = {}
        self._early: dict[str, list[Event]] = {}
        """Events of rooms that are being loaded."""

    @property
    def sockets(self) -> int:
        return sum(len(watched) for watched in self._rooms.values())

    @property
    def rooms(self) -> int:
        return len(self._rooms)

    @property
    def lagging(self) -> int:
        return sum(subscriber.lagging_since is not None for subscriber in self._subscribers())

    @property
    def watched(self) -> dict[str, int]:
        """The watched rooms and the version each is at here."""
        return {performer_id: watched.room.version for performer_id, watched in self._rooms.items()}

    def audiences(self) -> list[Audience]:
        """The sockets of each room of this process."""
        now = asyncio.get_running_loop().time()
        return [watched.audience(now) for watched in self._rooms.values() if len(watched)]

    def _subscribers(self) -> list[Subscriber]:
        return [subscriber for watched in self._rooms.values() for subscriber in watched.subscribers]

    # Events

    def publish(self, performer_id: str, events: Sequence[Event], room: Room | None = None) -> None:
        """Send a room's sockets what was committed. Events may come late, twice or with a gap before them. `room`: the
        room after them, where it is known."""
        self._absent.created(performer_id)
        if performer_id in self._early:
            self._early[performer_id].extend(events)
        watched = self._rooms.get(performer_id)
        if watched is not None:
            watched.publish(events, room)
            self._ask_for_created(watched)

    def behind(self, performer_id: str, version: int) -> None:
        """The database is at `version`: whatever should have told us so did not, and the room catches up."""
        watched = self._rooms.get(performer_id)
        if watched is not None:
            watched.hear_of(version)
            self._ask_for_created(watched)

    # Sockets

    async def join(self, performer_id: str, subscriber: Subscriber, *, since: int | None = None) -> WatchedRoom:
        """Add a socket to a room and bring it up to date: with what it missed since a version, if all of that is at
        hand, otherwise with a snapshot. Before this returns it has got nothing else."""
        while True:
            watched = await self._watch(performer_id)
            missed = await watched.missed_since(since) if since is not None else None
            if self._rooms.get(performer_id) is watched:
                break
        # No await from here on: frames and membership must not interleave with a broadcast.
        watched.join(subscriber, since=since, missed=missed)
        return watched

    def leave(self, watched: WatchedRoom, subscriber: Subscriber) -> None:
        """Take a socket out of its room; one that nobody watches any more is forgotten."""
        watched.leave(subscriber)
        performer_id = watched.room.performer_id
        if not len(watched) and self._rooms.get(performer_id) is watched:
            self._forget(performer_id)

    async def _watch(self, performer_id: str) -> WatchedRoom:
        if (watched := self._rooms.get(performer_id)) is not None:
            return watched
        if performer_id not in self._loading:
            self._early[performer_id] = []
            self._loading[performer_id] = asyncio.create_task(self._open(performer_id))
        # Many may wait for one load; one that is cancelled must not take it from the others.
        return await asyncio.shield(self._loading[performer_id])

    async def _open(self, performer_id: str) -> WatchedRoom:
        try:
            room = await self._absent.room(performer_id)
            if room is None:
                if self._ask_others is not None:
                    # Asked before the room is read, so that nothing can fall between.
                    self._asked.add(performer_id)
                    await self._ask_others(performer_id)
                room = await self._load(performer_id)
            watched = WatchedRoom(room, self._fanout)
            watched.open_with(self._early[performer_id])
            self._rooms[performer_id] = watched
            self._ask_for_created(watched)
            return watched
        except BaseException:
            self._leave_quietly(performer_id)
            raise
        finally:
            del self._early[performer_id]
            del self._loading[performer_id]

    def _ask_for_created(self, watched: WatchedRoom) -> None:
        """A room that sockets have waited in may have come to be: from now on its events are asked for."""
        performer_id = watched.room.performer_id
        if self._ask_others is not None and watched.latest_version and performer_id not in self._asked:
            self._asked.add(performer_id)
            self._spawn(self._ask_late(performer_id, self._ask_others))

    async def _ask_late(self, performer_id: str, ask_others: Callable[[str], Awaitable[None]]) -> None:
        await ask_others(performer_id)
        try:
            # Events published since its first one had no receiver here.
            self.behind(performer_id, await self._absent.version(performer_id))
        except QueueError as refusal:
            # The next event, or the next comparison with the database, tells.
            log.warning("a new room could not be compared with the database (%s)", refusal.code)

    def _forget(self, performer_id: str) -> None:
        """Nobody watches this room any more."""
        del self._rooms[performer_id]
        self._leave_quietly(performer_id)

    def _leave_quietly(self, performer_id: str) -> None:
        if self._leave_others is not None and performer_id in self._asked:
            self._asked.discard(performer_id)
            self._spawn(self._leave(performer_id, self._leave_others))

    async def _leave(self, performer_id: str, leave_others: Callable[[str], Awaitable[None]]) -> None:
        # Asked for anew meanwhile, it stays.
        if performer_id not in self._asked:
            await leave_others(performer_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tidy(self, lag_seconds: float) -> int:
        """Drop rooms that nobody is in and sockets that have lagged for so long; returns how many sockets. Called
        regularly."""
        # A room opened for a socket that went away before it joined.
        for performer_id in [name for name, watched in self._rooms.items() if not len(watched)]:
            self._forget(performer_id)
        return sum(watched.tidy(lag_seconds) for watched in self._rooms.values())

    async def drain(self, *, seconds: float, batches: int = 20) -> None:
        """Ask every client to come back later, in batches spread over `seconds`."""
        everyone = self._subscribers()
        size = max(1, -(-len(everyone) // batches))
        for start in range(0, len(everyone), size):
            for subscriber in everyone[start : start + size]:
                subscriber.close(CloseCode.RESTARTING, "restarting")
            if start + size < len(everyone):
                await asyncio.sleep(seconds / batches)
