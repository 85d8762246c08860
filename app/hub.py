"""The hub: this process's rooms that somebody watches, and the sockets that watch them.

It folds committed events into its own projection of each room and builds every frame once: one for all viewers, one for
the performer's side, and small private ones for owners. What follows an event within the coalescing window travels with
the next frame; after a quiet window an event leaves at once. A socket that lags is skipped; when it has caught up it
gets the current snapshot, and if it does not catch up it is cut off. The hub writes nothing and holds no database
session.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from app.command import Role
from app.errors import QueueError
from app.event import Event
from app.item import Item
from app.room import Room, apply
from app.socket_protocol import text_frame
from app.wire import frames

RECENT_EVENTS = 256
"""Events a watched room keeps for sockets that resume."""
WRITES_AT_ONCE = 400
"""Sockets written to before the event loop gets a turn: about 3 ms."""
LAG_LIMIT_SECONDS = 30.0
"""How long a socket may lag before it is cut off."""

TOO_SLOW = 4000
RESTARTING = 1012

log = logging.getLogger(__name__)


class Line(Protocol):
    """A way to one client: a connection that frames are written to directly, or ordinary ASGI sends."""

    @property
    def is_open(self) -> bool: ...

    @property
    def is_lagging(self) -> bool: ...

    @property
    def write_frame(self) -> Callable[[bytes], None]:
        """Writes a complete frame at once, to a line that is open and does not lag."""

    def cut_off(self, code: int, reason: str) -> None: ...


@dataclass(eq=False, slots=True, kw_only=True)
class Subscriber:
    """A socket in a room: who looks through it and how far it is behind."""

    line: Line
    close: Callable[[int, str], None]
    role: Role = Role.VIEWER
    sub: str | None = None
    whole: bool = False
    """Sees whole items: the performer's side and administrators."""
    lagging_since: float | None = None
    owner_id: str | None = field(init=False)
    """The user whose own items this socket is told about."""

    def __post_init__(self) -> None:
        self.owner_id = self.sub if self.role is Role.VIEWER else None


@dataclass(slots=True)
class Traffic:
    """What a hub has done so far, counted for whoever looks."""

    frames: int = 0
    """Written to sockets."""
    events: int = 0
    """Told to watched rooms, once a room."""
    lagged: int = 0
    """How often a socket fell behind."""
    cut_off: int = 0
    """Sockets that did not catch up."""


@dataclass(eq=False, slots=True)
class _WatchedRoom:
    """`shown` is the room every up-to-date socket has; `room` is ahead of it by the `pending` events."""

    room: Room
    shown: Room
    audiences: dict[bool, dict[Subscriber, None]] = field(default_factory=lambda: {True: {}, False: {}})
    """Who watches: those that see whole items, and everybody else."""
    owners: dict[str, set[Subscriber]] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)
    recent: deque[Event] = field(default_factory=lambda: deque(maxlen=RECENT_EVENTS))
    quiet_from: float = 0.0
    """Loop time before which an event waits for others."""
    heard_of: int = 0
    """The highest version spoken of: where it is ahead of `room`, what lies between is read from the database."""
    pump: "asyncio.Task[None] | None" = None

    @property
    def subscribers(self) -> list[Subscriber]:
        return [*self.audiences[True], *self.audiences[False]]

    @property
    def size(self) -> int:
        return len(self.audiences[True]) + len(self.audiences[False])

    @property
    def is_behind(self) -> bool:
        return self.heard_of > self.room.version


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
        self._rooms: dict[str, _WatchedRoom] = {}
        self._loading: dict[str, asyncio.Task[_WatchedRoom]] = {}
        self._early: dict[str, list[Event]] = {}
        """Events of rooms that are being loaded."""

    @property
    def sockets(self) -> int:
        return sum(watched.size for watched in self._rooms.values())

    @property
    def rooms(self) -> int:
        return len(self._rooms)

    @property
    def lagging(self) -> int:
        everyone = (subscriber for watched in self._rooms.values() for subscriber in watched.subscribers)
        return sum(subscriber.lagging_since is not None for subscriber in everyone)

    def sockets_in(self, performer_id: str) -> int:
        watched = self._rooms.get(performer_id)
        return watched.size if watched else 0

    # Events in

    def publish(self, performer_id: str, events: Sequence[Event]) -> None:
        """Tell a room's sockets what was committed. Events may come late, twice or with a gap before them."""
        if performer_id in self._early:
            self._early[performer_id].extend(events)
        watched = self._rooms.get(performer_id)
        if watched is None:
            return
        self._fold(watched, events)
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

    def _hear_of(self, watched: _WatchedRoom, version: int) -> None:
        watched.heard_of = max(watched.heard_of, version)
        if watched.pump is None and (watched.pending or watched.is_behind):
            watched.pump = asyncio.create_task(self._pump(watched))

    def _fold(self, watched: _WatchedRoom, events: Iterable[Event]) -> None:
        """Take in what follows on; the rest is old or comes too early."""
        for event in events:
            if event.version == watched.room.version + 1:
                watched.room = apply(watched.room, event)
                watched.pending.append(event)

    # Frames out

    async def _pump(self, watched: _WatchedRoom) -> None:
        """Send a room's events until there are none, one frame after the other."""
        loop = asyncio.get_running_loop()
        try:
            while watched.is_behind or watched.pending:
                if watched.is_behind:
                    await self._catch_up(watched)
                if not watched.pending:
                    return
                if (pause := watched.quiet_from - loop.time()) > 0:
                    await asyncio.sleep(pause)
                events, watched.pending = watched.pending, []
                before, after = watched.shown, watched.room
                watched.shown = after
                watched.recent.extend(events)
                watched.quiet_from = loop.time() + self._window
                await self._broadcast(watched, events, before, after)
        finally:
            watched.pump = None

    async def _catch_up(self, watched: _WatchedRoom) -> None:
        try:
            missed = await self._missed(watched.room.performer_id, watched.room.version)
        except QueueError as refusal:
            # The next event, or the next comparison with the database, begins again.
            log.warning("a watched room could not catch up (%s)", refusal.code)
            return
        self._fold(watched, missed)

    async def _broadcast(self, watched: _WatchedRoom, events: Sequence[Event], before: Room, after: Room) -> None:
        now = self._clock()
        private = self._private_frames(watched, events, before, after, now)
        self.traffic.events += len(events)
        # Whoever joins while we write gets a snapshot of `after` and needs nothing from here.
        audiences = [(whole, list(audience)) for whole, audience in watched.audiences.items() if audience]
        written = 0
        for whole, audience in audiences:
            present = watched.audiences[whole]
            frame = text_frame(frames.update(events, after, self.epoch, now, since=before.version, whole=whole))
            for start in range(0, len(audience), WRITES_AT_ONCE):
                if written >= WRITES_AT_ONCE:
                    written = 0
                    await asyncio.sleep(0)
                some = [each for each in audience[start : start + WRITES_AT_ONCE] if each in present]
                self._write_to_all(some, frame, private)
                written += len(some)

    def _write_to_all(
        self, subscribers: Sequence[Subscriber], frame: bytes, private: Mapping[str, Sequence[bytes]]
    ) -> None:
        """Write one frame to all who can take it, and to owners their own after it.

        This is what a process does most: a few attributes are looked at for each socket, and nothing is called but the
        write itself.
        """
        ready = [
            subscriber
            for subscriber in subscribers
            if (line := subscriber.line).is_open and not line.is_lagging and subscriber.lagging_since is None
        ]
        if len(ready) < len(subscribers):
            for subscriber in subscribers:
                self._may_write(subscriber)
        for subscriber in ready:
            subscriber.line.write_frame(frame)
        self.traffic.frames += len(ready)
        if private:
            for subscriber in ready:
                for own in private.get(subscriber.owner_id or "", ()):
                    subscriber.line.write_frame(own)
                    self.traffic.frames += 1

    def _private_frames(
        self, watched: _WatchedRoom, events: Sequence[Event], before: Room, after: Room, now: datetime
    ) -> dict[str, list[bytes]]:
        """By user: where their items are now, and the milestones these have reached."""
        if not watched.owners:
            return {}
        waits = after.waits(now)
        touched = {event.item.item_id: event.item for event in events if event.item is not None}
        old_position = {item.item_id: at for at, item in enumerate(before.items, start=1)}
        told: dict[str, list[bytes]] = {}
        for at, item in enumerate(after.items, start=1):
            if item.user_id not in watched.owners:
                continue
            if item.item_id in touched or old_position.get(item.item_id) != at:
                told.setdefault(item.user_id, []).append(text_frame(frames.position(after, item, waits)))
            earlier = before.find(item.item_id)
            for milestone in item.notified:
                if earlier is None or milestone not in earlier.notified:
                    frame = text_frame(frames.notice(after, item, milestone, waits))
                    told.setdefault(item.user_id, []).append(frame)
        for item in touched.values():
            if item.user_id in watched.owners and after.find(item.item_id) is None:
                told.setdefault(item.user_id, []).append(text_frame(frames.position(after, item, waits)))
        return told

    def _may_write(self, subscriber: Subscriber) -> bool:
        """Whether a socket can take a frame now; one that has fallen behind is marked."""
        line = subscriber.line
        if not line.is_open:
            return False
        if subscriber.lagging_since is not None:
            return False
        if line.is_lagging:
            # From here on it misses frames; what it gets next is a snapshot.
            subscriber.lagging_since = asyncio.get_running_loop().time()
            self.traffic.lagged += 1
            return False
        return True

    def drained(self, performer_id: str, subscriber: Subscriber) -> None:
        """A socket's buffer has run low: if it had lagged, bring it up to date."""
        watched = self._rooms.get(performer_id)
        if subscriber.lagging_since is None or watched is None or subscriber not in watched.audiences[subscriber.whole]:
            return
        subscriber.lagging_since = None
        self._show(watched, subscriber)

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
            subscriber.line.cut_off(TOO_SLOW, "too slow")
        self.traffic.cut_off += len(cut)
        # A room opened for a socket that went away before it joined.
        for performer_id in [name for name, watched in self._rooms.items() if not watched.size]:
            self._forget(performer_id)
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
        watched.audiences[subscriber.whole][subscriber] = None
        if subscriber.owner_id is not None:
            watched.owners.setdefault(subscriber.owner_id, set()).add(subscriber)
        if missed is None or since is None or not self._resume(watched, subscriber, since, missed):
            self._show(watched, subscriber)

    def leave(self, performer_id: str, subscriber: Subscriber) -> None:
        watched = self._rooms.get(performer_id)
        if watched is None or subscriber not in watched.audiences[subscriber.whole]:
            return
        del watched.audiences[subscriber.whole][subscriber]
        if subscriber.owner_id is not None and (sockets := watched.owners.get(subscriber.owner_id)):
            sockets.discard(subscriber)
            if not sockets:
                del watched.owners[subscriber.owner_id]
        if not watched.size:
            self._forget(performer_id)

    def show(self, performer_id: str, subscriber: Subscriber) -> None:
        """Send the current snapshot (a client asked to resync)."""
        watched = self._rooms.get(performer_id)
        if watched is not None and subscriber in watched.audiences[subscriber.whole]:
            self._show(watched, subscriber)

    async def _watch(self, performer_id: str) -> _WatchedRoom:
        if (watched := self._rooms.get(performer_id)) is not None:
            return watched
        if performer_id not in self._loading:
            self._early[performer_id] = []
            self._loading[performer_id] = asyncio.create_task(self._open(performer_id))
        # Many may wait for one load; one that is cancelled must not take it from the others.
        return await asyncio.shield(self._loading[performer_id])

    async def _open(self, performer_id: str) -> _WatchedRoom:
        try:
            if self._ask_others is not None:
                # Asked before the room is read, so that nothing can fall between.
                await self._ask_others(performer_id)
            room = await self._load(performer_id)
            watched = _WatchedRoom(room=room, shown=room)
            early = self._early[performer_id]
            self._fold(watched, early)
            watched.shown = watched.room
            watched.recent.extend(watched.pending)
            watched.pending.clear()
            self._rooms[performer_id] = watched
            self._hear_of(watched, max((event.version for event in early), default=0))
            return watched
        finally:
            del self._early[performer_id]
            del self._loading[performer_id]

    async def _since(self, watched: _WatchedRoom, since: int) -> list[Event] | None:
        """A room's events after a version, or None if they are too many or not all there."""
        shown = watched.shown.version
        if not 0 <= since <= shown:
            return None
        if since == shown or (watched.recent and watched.recent[0].version <= since + 1):
            return []
        if shown - since > RECENT_EVENTS:
            return None
        return list(await self._missed(watched.room.performer_id, since))

    def _resume(self, watched: _WatchedRoom, subscriber: Subscriber, since: int, missed: Sequence[Event]) -> bool:
        known = {event.version: event for event in (*missed, *watched.recent)}
        wanted = range(since + 1, watched.shown.version + 1)
        if not all(version in known for version in wanted) or not self._may_write(subscriber):
            return False
        now = self._clock()
        events = [known[version] for version in wanted]
        frame = frames.update(
            events, watched.shown, self.epoch, now, since=since, whole=subscriber.whole, recovered=True
        )
        subscriber.line.write_frame(text_frame(frame))
        self.traffic.frames += 1
        self._tell_positions(watched.shown, subscriber, now)
        return True

    def _tell_positions(self, room: Room, subscriber: Subscriber, now: datetime) -> None:
        mine: list[Item] = [item for item in room.items if item.user_id == subscriber.owner_id]
        waits = room.waits(now) if mine else []
        for item in mine:
            subscriber.line.write_frame(text_frame(frames.position(room, item, waits)))
            self.traffic.frames += 1

    def _show(self, watched: _WatchedRoom, subscriber: Subscriber) -> None:
        if not self._may_write(subscriber):
            # It has gone, or it lags and gets its snapshot once it has caught up.
            return
        items = frames.items_fragment(watched.shown, whole=subscriber.whole)
        frame = frames.snapshot(watched.shown, self.epoch, self._clock(), items, user_id=subscriber.owner_id)
        subscriber.line.write_frame(text_frame(frame))
        self.traffic.frames += 1

    # The end

    async def drain(self, *, seconds: float, batches: int = 20) -> None:
        """Ask every client to come back later, in batches spread over `seconds`."""
        everyone = [subscriber for watched in self._rooms.values() for subscriber in watched.subscribers]
        size = max(1, -(-len(everyone) // batches))
        for start in range(0, len(everyone), size):
            for subscriber in everyone[start : start + size]:
                subscriber.close(RESTARTING, "restarting")
            if start + size < len(everyone):
                await asyncio.sleep(seconds / batches)
