"""One room that somebody watches: its sockets, what they have been shown, and the frames that bring them on.

Every frame is built once: one for all viewers, one for the performer's side, and small private ones for owners. A
socket that lags is skipped; when it has caught up it gets the current snapshot.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import orjson

from app.audience import Audience
from app.command import Role
from app.event import Event
from app.item import Item
from app.room import Room, apply
from app.socket_protocol import text_frame
from app.wire import frames

RECENT_EVENTS = 256
"""Events a watched room keeps for sockets that resume."""
WRITES_AT_ONCE = 50
"""Sockets written to before the event loop, and the lanes' threads, get a turn: a third of a millisecond. An intake
needs four or five turns; with twice as many sockets in each, the slowest wait half as long again, for 2 % less CPU."""


Send = Callable[[bytes], int]


class Line(Protocol):
    """A way to one client: a connection that frames are written to directly, or ordinary ASGI sends.

    Whoever holds it tells the hub when `is_open`, `is_lagging` or `send_at_once` changes: `Hub.line_changed`.
    """

    @property
    def is_open(self) -> bool: ...

    @property
    def is_lagging(self) -> bool: ...

    @property
    def send_at_once(self) -> "Send":
        """Sends what it can of a complete frame, on a line that is open and does not lag, and returns how many bytes.
        What is left goes to `write` before anything else. May raise OSError, having sent nothing."""

    def write(self, data: bytes) -> None:
        """Sends a frame, or what was left of one, at once or in its turn."""

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
    send: Send | None = field(init=False, default=None)
    """What sends it a frame at once, while it is in a room and can take one."""
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


class WatchedRoom:
    """`shown` is the room every up-to-date socket has; `room` is ahead of it by the `pending` events."""

    def __init__(self, room: Room, *, epoch: str, clock: Callable[[], datetime], traffic: Traffic) -> None:
        self._epoch = epoch
        self._clock = clock
        self._traffic = traffic
        self.room = room
        self.shown = room
        self.pending: list[Event] = []
        self._recent: deque[Event] = deque(maxlen=RECENT_EVENTS)
        self._audiences: dict[bool, dict[Subscriber, None]] = {True: {}, False: {}}
        """Who watches: those that see whole items, and everybody else."""
        self._ready: dict[bool, dict[Send, Subscriber]] = {True: {}, False: {}}
        """Of them, those that can take a frame, by what sends it. Kept as lines change: a broadcast, which is what a
        process does most, calls one after the other and looks at nobody."""
        self._dropped: dict[Send, Subscriber] = {}
        """What has ceased to be in there since the last frame began to be sent."""
        self._owners: dict[str, set[Subscriber]] = {}
        self._items_shown: dict[bool, tuple[int, orjson.Fragment]] = {}
        """By audience: the items of a snapshot as JSON, and the version they are of."""
        self.heard_of = 0
        """The highest version spoken of: where it is ahead of `room`, what lies between is read from the database."""
        self.quiet_from = 0.0
        """Loop time before which an event waits for others. The hub's, like `pump`: what will send the pending ones."""
        self.pump: asyncio.Task[None] | asyncio.Handle | None = None

    @property
    def is_behind(self) -> bool:
        return self.heard_of > self.room.version

    # Sockets

    def __len__(self) -> int:
        return len(self._audiences[True]) + len(self._audiences[False])

    def __contains__(self, subscriber: Subscriber) -> bool:
        return subscriber in self._audiences[subscriber.whole]

    @property
    def is_small(self) -> bool:
        """All its sockets are written to in one step."""
        return len(self) <= WRITES_AT_ONCE

    @property
    def subscribers(self) -> list[Subscriber]:
        return [*self._audiences[True], *self._audiences[False]]

    def audience(self, now: float) -> Audience:
        """How many watch, and how they keep up; `now` is loop time."""
        lags = [now - each.lagging_since for each in self.subscribers if each.lagging_since is not None]
        return Audience(
            performer_id=self.room.performer_id,
            sockets=len(self),
            lagging=len(lags),
            longest_lag_seconds=max(lags, default=0.0),
        )

    def add(self, subscriber: Subscriber) -> None:
        self._audiences[subscriber.whole][subscriber] = None
        self.review(subscriber)
        if subscriber.owner_id is not None:
            self._owners.setdefault(subscriber.owner_id, set()).add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        del self._audiences[subscriber.whole][subscriber]
        self._send_by(None, subscriber)
        if subscriber.owner_id is not None and (sockets := self._owners.get(subscriber.owner_id)):
            sockets.discard(subscriber)
            if not sockets:
                del self._owners[subscriber.owner_id]

    def review(self, subscriber: Subscriber) -> None:
        """See anew whether a line can take frames. One that had missed any and has caught up is shown the room."""
        line = subscriber.line
        is_ready = line.is_open and not line.is_lagging
        self._send_by(line.send_at_once if is_ready else None, subscriber)
        if is_ready and subscriber.lagging_since is not None:
            subscriber.lagging_since = None
            self.show(subscriber)

    def _send_by(self, send: Send | None, subscriber: Subscriber) -> None:
        ready, before = self._ready[subscriber.whole], subscriber.send
        if before is not None and before != send:
            self._dropped.setdefault(before, ready.pop(before))
        if send is not None:
            ready[send] = subscriber
        subscriber.send = send

    def _is_ready(self, subscriber: Subscriber) -> bool:
        """Whether a socket can take a frame; one that lags has missed it from here on."""
        if subscriber.send is not None:
            return True
        if subscriber.line.is_open and subscriber.lagging_since is None:
            # What it gets next is a snapshot.
            subscriber.lagging_since = asyncio.get_running_loop().time()
            self._traffic.lagged += 1
        return False

    # Events

    def fold(self, events: Iterable[Event]) -> None:
        """Take in what follows on; the rest is old or comes too early."""
        for event in events:
            if event.version == self.room.version + 1:
                self.room = apply(self.room, event)
                self.pending.append(event)

    def take_as_shown(self) -> None:
        """What is pending came before the first socket: nobody need be told."""
        self._shown_up_to_date()

    def _shown_up_to_date(self) -> list[Event]:
        events, self.pending = self.pending, []
        self.shown = self.room
        self._recent.extend(events)
        return events

    def is_within_reach(self, version: int) -> bool:
        """Whether a socket at this version is better brought on by events than by a snapshot."""
        return 0 <= version <= self.shown.version and self.shown.version - version <= RECENT_EVENTS

    def has_since(self, version: int) -> bool:
        """Whether all events after a version are at hand."""
        return version == self.shown.version or bool(self._recent and self._recent[0].version <= version + 1)

    # Frames

    def send_pending(self) -> Iterator[None]:
        """Send what is pending; each step but the last has written to WRITES_AT_ONCE sockets or so."""
        before, events, after, now = self.shown, self._shown_up_to_date(), self.room, self._clock()
        self._dropped.clear()
        self._traffic.events += len(events)
        private = self._private_frames(events, before, after, now)
        owners = [(owner, own) for user_id, own in private.items() for owner in self._owners[user_id]]
        written = 0
        # Whoever joins or catches up while we write gets a snapshot of `after` and needs nothing from here.
        for whole, audience, ready in [
            (whole, audience, list(self._ready[whole])) for whole, audience in self._audiences.items() if audience
        ]:
            if len(ready) < len(audience):
                for subscriber in audience:
                    self._is_ready(subscriber)
            frame = text_frame(frames.update(events, after, self._epoch, now, since=before.version, whole=whole))
            for start in range(0, len(ready), WRITES_AT_ONCE):
                if written >= WRITES_AT_ONCE:
                    written = 0
                    yield
                some = ready[start : start + WRITES_AT_ONCE]
                self._write_to_all(some, whole, frame)
                written += len(some)
        for owner, own in owners:
            if owner.send is not None:
                self._write(owner, own)

    def resume(self, subscriber: Subscriber, since: int, missed: Sequence[Event]) -> bool:
        """Send what a socket has missed since a version, if all of it is at hand; returns whether."""
        known = {event.version: event for event in (*missed, *self._recent)}
        wanted = range(since + 1, self.shown.version + 1)
        if not all(version in known for version in wanted) or not self._is_ready(subscriber):
            return False
        now = self._clock()
        events = [known[version] for version in wanted]
        frame = frames.update(events, self.shown, self._epoch, now, since=since, whole=subscriber.whole, recovered=True)
        self._write(subscriber, [text_frame(frame)])
        self._tell_positions(self.shown, subscriber, now)
        return True

    def _tell_positions(self, room: Room, subscriber: Subscriber, now: datetime) -> None:
        mine: list[Item] = [item for item in room.items if item.user_id == subscriber.owner_id]
        if not mine:
            return
        waits = room.waits(now)
        self._write(subscriber, [text_frame(frames.position(room, item, waits)) for item in mine])

    def show(self, subscriber: Subscriber) -> None:
        """Send the current snapshot to a socket that can take it."""
        if not self._is_ready(subscriber):
            # It has gone, or it lags and gets its snapshot once it has caught up.
            return
        items = self._items(whole=subscriber.whole)
        frame = frames.snapshot(self.shown, self._epoch, self._clock(), items, user_id=subscriber.owner_id)
        self._write(subscriber, [text_frame(frame)])

    def _write(self, subscriber: Subscriber, own: Sequence[bytes]) -> None:
        for frame in own:
            subscriber.line.write(frame)
        self._traffic.frames += len(own)

    def _items(self, *, whole: bool) -> orjson.Fragment:
        """Made once a version, however many come back at once."""
        version, items = self._items_shown.get(whole, (-1, None))
        if items is None or version != self.shown.version:
            items = frames.items_fragment(self.shown, whole=whole)
            self._items_shown[whole] = (self.shown.version, items)
        return items

    def _write_to_all(self, ready: Sequence[Send], whole: bool, frame: bytes) -> None:
        """Send one frame by each of these, which were ready when the frame began to be sent."""
        if self._dropped:
            # After the list was made these left, or fell behind, or must now be sent to in another way.
            for subscriber in [self._dropped[send] for send in ready if send in self._dropped]:
                if subscriber in self and self._is_ready(subscriber):
                    self._write(subscriber, [frame])
            ready = [send for send in ready if send not in self._dropped]
        size = len(frame)
        for send in ready:
            try:
                sent = send(frame)
            except OSError:
                sent = 0
            if sent != size:
                self._ready[whole][send].line.write(frame[sent:])
        self._traffic.frames += len(ready)

    def _private_frames(
        self, events: Sequence[Event], before: Room, after: Room, now: datetime
    ) -> dict[str, list[bytes]]:
        """By user: where their items are now, and the milestones these have reached."""
        if not self._owners:
            return {}
        waits = after.waits(now)
        touched = {event.item.item_id: event.item for event in events if event.item is not None}
        old_position = {item.item_id: at for at, item in enumerate(before.items, start=1)}
        told: dict[str, list[bytes]] = {}
        for at, item in enumerate(after.items, start=1):
            if item.user_id not in self._owners:
                continue
            if item.item_id in touched or old_position.get(item.item_id) != at:
                told.setdefault(item.user_id, []).append(text_frame(frames.position(after, item, waits)))
            earlier = before.find(item.item_id)
            for milestone in item.notified:
                if earlier is None or milestone not in earlier.notified:
                    frame = text_frame(frames.notice(after, item, milestone, waits))
                    told.setdefault(item.user_id, []).append(frame)
        for item in touched.values():
            if item.user_id in self._owners and after.find(item.item_id) is None:
                told.setdefault(item.user_id, []).append(text_frame(frames.position(after, item, waits)))
        return told
