"""The hub: the registry of this process's watched rooms, those with a socket. It opens, finds and forgets them.

It writes nothing and holds no database session. `watched_room` sends events to the sockets of a room.
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
        """`absent` knows the rooms that do not exist; `load` reads an existing one from the database. `watch` begins a
        subscription to an existing room's events in other processes, `unwatch` ends it; None: there are no others. The
        first event of a room comes without a subscription."""
        self.epoch = fanout.epoch
        self.traffic = fanout.traffic
        self._fanout = fanout
        self._absent = absent
        self._load = load
        self._subscribe = watch
        self._unsubscribe = unwatch
        self._subscribed: set[str] = set()
        """Rooms whose events in other processes are subscribed."""
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

    def publish(self, performer_id: str, events: Sequence[Event]) -> None:
        """Send committed events to a room's sockets. Events may come late, twice or with a gap before them."""
        self._absent.created(performer_id)
        if performer_id in self._early:
            self._early[performer_id].extend(events)
        watched = self._rooms.get(performer_id)
        if watched is not None:
            watched.publish(events)
            self._subscribe_created(watched)

    def behind(self, performer_id: str, version: int) -> None:
        """Have a room catch up if it is behind `version`, at which the database is: events have not arrived here."""
        watched = self._rooms.get(performer_id)
        if watched is not None:
            watched.hear_of(version)
            self._subscribe_created(watched)

    # Sockets

    async def join(self, performer_id: str, subscriber: Subscriber, *, since: int | None = None) -> WatchedRoom:
        """Add a socket to a room and bring it up to date: with the events after version `since` if all of them are at
        hand, otherwise with a snapshot. It gets no other frame before this returns."""
        while True:
            watched = await self._watch(performer_id)
            missed = await watched.missed_since(since) if since is not None else None
            if self._rooms.get(performer_id) is watched:
                break
        # No await from here on: frames and membership must not interleave with a broadcast.
        watched.join(subscriber, since=since, missed=missed)
        return watched

    def leave(self, watched: WatchedRoom, subscriber: Subscriber) -> None:
        """Take a socket out of its room; a room without sockets is forgotten."""
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
        # Many sockets may wait for one load; one that is cancelled must not cancel it for the others.
        return await asyncio.shield(self._loading[performer_id])

    async def _open(self, performer_id: str) -> WatchedRoom:
        try:
            room = await self._absent.room(performer_id)
            if room is None:
                if self._subscribe is not None:
                    # Before the room is read: events that are committed afterwards come by the subscription.
                    self._subscribed.add(performer_id)
                    await self._subscribe(performer_id)
                room = await self._load(performer_id)
            watched = WatchedRoom(room, self._fanout)
            watched.open_with(self._early[performer_id])
            self._rooms[performer_id] = watched
            self._subscribe_created(watched)
            return watched
        except BaseException:
            self._unsubscribe_soon(performer_id)
            raise
        finally:
            del self._early[performer_id]
            del self._loading[performer_id]

    def _subscribe_created(self, watched: WatchedRoom) -> None:
        """Subscribe to the events of a room that did not exist when sockets joined it, once it does."""
        performer_id = watched.room.performer_id
        if self._subscribe is not None and watched.latest_version and performer_id not in self._subscribed:
            self._subscribed.add(performer_id)
            self._spawn(self._subscribe_late(performer_id, self._subscribe))

    async def _subscribe_late(self, performer_id: str, subscribe: Callable[[str], Awaitable[None]]) -> None:
        await subscribe(performer_id)
        try:
            # Events published between the first one and the subscription have not arrived here.
            self.behind(performer_id, await self._absent.version(performer_id))
        except QueueError as refusal:
            # The next event, or the next position check, has the room catch up.
            log.warning("a new room could not be compared with the database (%s)", refusal.code)

    def _forget(self, performer_id: str) -> None:
        """Remove a room without sockets."""
        del self._rooms[performer_id]
        self._unsubscribe_soon(performer_id)

    def _unsubscribe_soon(self, performer_id: str) -> None:
        if self._unsubscribe is not None and performer_id in self._subscribed:
            self._subscribed.discard(performer_id)
            self._spawn(self._unsubscribe_unless_needed(performer_id, self._unsubscribe))

    async def _unsubscribe_unless_needed(
        self, performer_id: str, unsubscribe: Callable[[str], Awaitable[None]]
    ) -> None:
        # It may have been subscribed again meanwhile.
        if performer_id not in self._subscribed:
            await unsubscribe(performer_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tidy(self, lag_seconds: float) -> int:
        """Forget rooms without sockets, and cut off sockets that have lagged for `lag_seconds`; returns the number cut
        off. Called regularly."""
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
