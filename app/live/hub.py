"""The hub: this process's rooms that somebody watches, and when each is sent on.

It folds committed events into its own projection of each room. After a quiet window an event leaves at once. What
follows it within the coalescing window travels with the next frame, and with the same to those whom the first has not
yet reached. A room that has missed events reads them from the database. A socket that does not catch up is cut off. The
hub writes nothing and holds no database session.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from app.domain.errors import QueueError
from app.domain.event import Event
from app.domain.room import Room
from app.live.connections import Audience
from app.live.subscriber import Subscriber
from app.live.watched_room import Traffic, WatchedRoom
from app.wire.websocket import CloseCode

LAG_LIMIT_SECONDS = 30.0
"""How long a socket may lag before it is cut off."""

log = logging.getLogger(__name__)


class Hub:
    """All watched rooms of this process. Used from the event loop only."""

    def __init__(
        self,
        *,
        epoch: str,
        load: Callable[[str], Awaitable[Room]],
        missed: Callable[[str, int], Awaitable[Sequence[Event]]],
        clock: Callable[[], datetime],
        coalesce_seconds: float,
        watch: Callable[[str], Awaitable[None]] | None = None,
        unwatch: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`load` reads a room from the database, `missed` a room's events after a version; `watch` and `unwatch` ask
        the other processes for a room's events, where there are any."""
        self.epoch = epoch
        self._load = load
        self._missed = missed
        self._clock = clock
        self._window = coalesce_seconds
        self._ask_others = watch
        self._leave_others = unwatch
        self._leaving: set[asyncio.Task[None]] = set()
        self.traffic = Traffic()
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
        everyone = (subscriber for watched in self._rooms.values() for subscriber in watched.subscribers)
        return sum(subscriber.lagging_since is not None for subscriber in everyone)

    def audiences(self) -> list[Audience]:
        """What watches each room here."""
        now = asyncio.get_running_loop().time()
        return [watched.audience(now) for watched in self._rooms.values() if len(watched)]

    # Events in

    def publish(self, performer_id: str, events: Sequence[Event]) -> None:
        """Tell a room's sockets what was committed. Events may come late, twice or with a gap before them."""
        if performer_id in self._early:
            self._early[performer_id].extend(events)
        watched = self._rooms.get(performer_id)
        if watched is None:
            return
        watched.fold(events)
        self._hear_of(watched, max((event.version for event in events), default=0))

    @property
    def watched(self) -> dict[str, int]:
        """The watched rooms and the version each is at here."""
        return {performer_id: watched.room.version for performer_id, watched in self._rooms.items()}

    def behind(self, performer_id: str, version: int) -> None:
        """The database is at `version`: whatever should have told us so did not, and the room catches up."""
        watched = self._rooms.get(performer_id)
        if watched is not None:
            self._hear_of(watched, version)

    def _hear_of(self, watched: WatchedRoom, version: int) -> None:
        watched.heard_of = max(watched.heard_of, version)
        if watched.pump is not None or not (watched.pending or watched.is_behind):
            return
        loop = asyncio.get_running_loop()
        if watched.is_behind or not watched.is_small or watched.quiet_from > loop.time():
            watched.pump = loop.create_task(self._pump(watched))
        else:
            # Few sockets and nothing to wait for: a task would cost more than the writing.
            watched.pump = loop.call_soon(self._send_to_few, watched)

    # Frames out

    async def _pump(self, watched: WatchedRoom) -> None:
        """Send a room's events until there are none, one frame after the other."""
        loop = asyncio.get_running_loop()
        try:
            while watched.is_behind or watched.has_untold:
                if watched.is_behind:
                    await self._catch_up(watched)
                if not watched.has_untold:
                    return
                if (pause := watched.quiet_from - loop.time()) > 0:
                    await asyncio.sleep(pause)
                watched.quiet_from = loop.time() + self._window
                for _ in watched.send_pending():
                    await asyncio.sleep(0)
        finally:
            watched.pump = None

    def _send_to_few(self, watched: WatchedRoom) -> None:
        watched.pump = None
        if watched.pending:
            watched.quiet_from = asyncio.get_running_loop().time() + self._window
            # In one go, even if a few more have joined in this moment.
            deque(watched.send_pending(), maxlen=0)
        self._hear_of(watched, watched.heard_of)

    async def _catch_up(self, watched: WatchedRoom) -> None:
        try:
            missed = await self._missed(watched.room.performer_id, watched.room.version)
        except QueueError as refusal:
            # The next event, or the next comparison with the database, begins again.
            log.warning("a watched room could not catch up (%s)", refusal.code)
            return
        watched.fold(missed)

    def line_changed(self, performer_id: str, subscriber: Subscriber) -> None:
        """A socket's line takes frames from now on, or no more, or in another way. If it had missed any and has caught
        up, it is brought up to date."""
        watched = self._rooms.get(performer_id)
        if watched is not None and subscriber in watched:
            watched.review(subscriber)

    def tidy(self) -> int:
        """Drop sockets that have lagged too long and rooms nobody is in; returns how many sockets. Called regularly."""
        limit = asyncio.get_running_loop().time() - LAG_LIMIT_SECONDS
        cut = [
            subscriber
            for watched in self._rooms.values()
            for subscriber in watched.subscribers
            if subscriber.line.is_open and subscriber.lagging_since is not None and subscriber.lagging_since < limit
        ]
        for subscriber in cut:
            subscriber.line.cut_off(CloseCode.TOO_SLOW, "too slow")
        self.traffic.cut_off += len(cut)
        # A room opened for a socket that went away before it joined.
        for performer_id in [name for name, watched in self._rooms.items() if not len(watched)]:
            self._forget(performer_id)
        for watched in self._rooms.values():
            watched.tidy()
        return len(cut)

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

    # Sockets in and out

    async def join(self, performer_id: str, subscriber: Subscriber, *, since: int | None = None) -> None:
        """Add a socket and bring it up to date: with what it missed since a version, if all of that is at hand and it
        asks for it, otherwise with a snapshot. Before this returns it has got nothing else."""
        while True:
            watched = await self._watch(performer_id)
            missed = await self._since(watched, since) if since is not None else None
            if self._rooms.get(performer_id) is watched:
                break
        # No await from here on: frames and membership must not interleave with a broadcast.
        watched.add(subscriber)
        if missed is None or since is None or not watched.resume(subscriber, since, missed):
            watched.show(subscriber)

    def leave(self, performer_id: str, subscriber: Subscriber) -> None:
        watched = self._rooms.get(performer_id)
        if watched is None or subscriber not in watched:
            return
        watched.remove(subscriber)
        if not len(watched):
            self._forget(performer_id)

    def show(self, performer_id: str, subscriber: Subscriber) -> None:
        """Send the current snapshot (a client asked to resync)."""
        watched = self._rooms.get(performer_id)
        if watched is not None and subscriber in watched:
            watched.show(subscriber)

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
            room = await self._load(performer_id)
            watched = WatchedRoom(room, epoch=self.epoch, clock=self._clock, traffic=self.traffic)
            early = self._early[performer_id]
            watched.fold(early)
            watched.take_pending()
            self._rooms[performer_id] = watched
            self._hear_of(watched, max((event.version for event in early), default=0))
            return watched
        finally:
            del self._early[performer_id]
            del self._loading[performer_id]

    async def _since(self, watched: WatchedRoom, since: int) -> list[Event] | None:
        """A room's events after a version, less those at hand; None if they are too many or not all there."""
        if not watched.is_within_reach(since):
            return None
        if watched.has_since(since):
            return []
        return list(await self._missed(watched.room.performer_id, since))

    # The end

    async def drain(self, *, seconds: float, batches: int = 20) -> None:
        """Ask every client to come back later, in batches spread over `seconds`."""
        everyone = [subscriber for watched in self._rooms.values() for subscriber in watched.subscribers]
        size = max(1, -(-len(everyone) // batches))
        for start in range(0, len(everyone), size):
            for subscriber in everyone[start : start + size]:
                subscriber.close(CloseCode.RESTARTING, "restarting")
            if start + size < len(everyone):
                await asyncio.sleep(seconds / batches)
