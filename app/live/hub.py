"""The hub: the rooms of this process that somebody watches. It opens them, finds them and forgets them.

It writes nothing and holds no database session. What happens in a room is `watched_room`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.domain.event import Event
from app.domain.room import Room
from app.live.connections import Audience
from app.live.subscriber import Subscriber
from app.live.watched_room import Fanout, WatchedRoom
from app.wire.websocket import CloseCode


class Hub:
    """All watched rooms of this process. Used from the event loop only."""

    def __init__(
        self,
        fanout: Fanout,
        *,
        load: Callable[[str], Awaitable[Room]],
        watch: Callable[[str], Awaitable[None]] | None = None,
        unwatch: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`load` reads a room from the database; `watch` and `unwatch` ask the other processes for a room's events,
        where there are any."""
        self.epoch = fanout.epoch
        self.traffic = fanout.traffic
        self._fanout = fanout
        self._load = load
        self._ask_others = watch
        self._leave_others = unwatch
        self._leaving: set[asyncio.Task[None]] = set()
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
        """What watches each room here."""
        now = asyncio.get_running_loop().time()
        return [watched.audience(now) for watched in self._rooms.values() if len(watched)]

    def _subscribers(self) -> list[Subscriber]:
        return [subscriber for watched in self._rooms.values() for subscriber in watched.subscribers]

    # Events

    def publish(self, performer_id: str, events: Sequence[Event], room: Room | None = None) -> None:
        """Send a room's sockets what was committed. Events may come late, twice or with a gap before them. `room`: the
        room after them, where it is known."""
        if performer_id in self._early:
            self._early[performer_id].extend(events)
        watched = self._rooms.get(performer_id)
        if watched is not None:
            watched.publish(events, room)

    def behind(self, performer_id: str, version: int) -> None:
        """The database is at `version`: whatever should have told us so did not, and the room catches up."""
        watched = self._rooms.get(performer_id)
        if watched is not None:
            watched.hear_of(version)

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
            if self._ask_others is not None:
                # Asked before the room is read, so that nothing can fall between.
                await self._ask_others(performer_id)
            watched = WatchedRoom(await self._load(performer_id), self._fanout)
            watched.open_with(self._early[performer_id])
            self._rooms[performer_id] = watched
            return watched
        finally:
            del self._early[performer_id]
            del self._loading[performer_id]

    def _forget(self, performer_id: str) -> None:
        """Nobody watches this room any more."""
        del self._rooms[performer_id]
        if self._leave_others is not None:
            task = asyncio.create_task(self._leave_quietly(performer_id))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave_quietly(self, performer_id: str) -> None:
        if self._leave_others is not None and performer_id not in self._rooms and performer_id not in self._loading:
            await self._leave_others(performer_id)

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
