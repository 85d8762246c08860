"""One room that somebody watches: folds its events, and sends them to its sockets.

An event after a quiet window leaves at once. Events that follow within the coalescing window travel together in the
next frame; sockets that the first frame has not reached by then get all of them in one. A frame is made once for all
sockets at the same version, for each view, plain and compressed; owners get small private ones besides. A socket that
lags is skipped; when it has caught up it gets the current snapshot. Missing events are read from the database.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.errors import QueueError
from app.domain.event import Event
from app.domain.room import Room, apply
from app.domain.view import View
from app.live.broadcast_trace import BroadcastTrace
from app.live.connections import Audience
from app.live.groups import Groups
from app.live.recent_events import RecentEvents
from app.live.snapshots import Snapshots
from app.live.step import Step, visible
from app.live.subscriber import Group, Subscriber
from app.tracing import Tracer
from app.wire.websocket import CloseCode

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Traffic:
    """Counters of what a process has sent to its sockets."""

    frames: int = 0
    events: int = 0
    """Each counts once, however many sockets its room has."""
    lagged: int = 0
    """How often a socket fell behind."""
    cut_off: int = 0
    """Sockets that did not catch up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fanout:
    """The parts that the watched rooms of a process share."""

    epoch: str
    missed: Callable[[str, int], Awaitable[Sequence[Event]]]
    """Reads a room's events after a version from the database. Raises QueueError."""
    clock: Callable[[], datetime]
    coalesce_seconds: float
    sockets_a_turn: int = 50
    """Sockets written to before the event loop, and the lanes' threads, get a turn: a third of a millisecond. An intake
    needs four or five turns; with twice as many sockets in each, the slowest wait half as long again, for 2 % less CPU
    (`bench --only latency,fanout`)."""
    recent_events: int = 256
    """Events a room keeps for sockets that come back."""
    traffic: Traffic = field(default_factory=Traffic)
    tracer: Tracer | None = None


@dataclass(slots=True)
class _Sending:
    """A step, and the private frames that go with it to owners, by the group that they are in."""

    step: Step
    private: dict[Group, list[tuple[Subscriber, list[bytes]]]]


class WatchedRoom:
    """The events and sockets of one room. Used from the event loop only.

    Sockets that join get `broadcast_room`; `room` is ahead of it by the `pending` events. A group may be further
    behind: a broadcast writes to one group after the other, to each all events that are there by then.
    """

    def __init__(self, room: Room, fanout: Fanout) -> None:
        self._fanout = fanout
        self._traffic = fanout.traffic
        self.room = room
        self.broadcast_room = room
        self._versions = dict.fromkeys(View, room.version)
        """By view: the version of the last event up to `broadcast_room` that the view shows."""
        self.pending: list[Event] = []
        self._trace = BroadcastTrace(fanout.tracer) if fanout.tracer is not None else None
        self._recent = RecentEvents(fanout.recent_events)
        self._groups = Groups(fanout.sockets_a_turn)
        self._snapshots = Snapshots(fanout.epoch, fanout.clock)
        self.latest_version = room.version
        """The highest version known: if it is ahead of `room`, the events between are read from the database."""
        self._coalesce_until = 0.0
        """Loop time before which an event waits for others."""
        self._sender: asyncio.Task[None] | None = None
        """The task that sends the pending events."""

    @property
    def _is_behind(self) -> bool:
        return self.latest_version > self.room.version

    @property
    def has_unsent(self) -> bool:
        """Whether there are events that some socket has not been sent yet."""
        return bool(self.pending) or any(group.room is not self.broadcast_room for group in self._groups)

    # Events in

    def publish(self, events: Sequence[Event]) -> None:
        """Take committed events, which may come late, twice or with a gap before them."""
        if self._trace is not None:
            self._trace.published()
        self._fold(events)
        self.hear_of(max((event.version for event in events), default=0))

    def hear_of(self, version: int) -> None:
        """Note that the room is at `version` at least, and begin to send, or to read, the events up to there."""
        self.latest_version = max(self.latest_version, version)
        if self._sender is None and (self.pending or self._is_behind):
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    def _fold(self, events: Iterable[Event]) -> None:
        """Apply the events that follow on; the others are old, or come after a gap."""
        for event in events:
            if event.version == self.room.version + 1:
                self.room = apply(self.room, event)
                self.pending.append(event)

    def open_with(self, events: Sequence[Event]) -> None:
        """Take the events that came while the room was read, before any socket joins."""
        self._fold(events)
        self._take_pending()
        self.hear_of(max((event.version for event in events), default=0))

    async def _catch_up(self) -> None:
        try:
            missed = await self._fanout.missed(self.room.performer_id, self.room.version)
        except QueueError as refusal:
            # The next event, or the next position check, has it tried again.
            log.warning("a watched room could not catch up (%s)", refusal.code)
            return
        self._fold(missed)

    # Frames out

    async def _send_all(self) -> None:
        """Send one frame after the other until no event is unsent."""
        loop = asyncio.get_running_loop()
        try:
            while self._is_behind or self.has_unsent:
                if self._is_behind:
                    await self._catch_up()
                if not self.has_unsent:
                    return
                if (pause := self._coalesce_until - loop.time()) > 0:
                    await asyncio.sleep(pause)
                self._coalesce_until = loop.time() + self._fanout.coalesce_seconds
                for _ in self._send_pending():
                    await asyncio.sleep(0)
        finally:
            self._sender = None

    def _send_pending(self) -> Iterator[None]:
        """Send each group, once, the events that it lacks. Yields after each turn of about `sockets_a_turn` sockets;
        events that come between two turns go to the later groups as well."""
        sendings: dict[int, _Sending] = {}
        """By `id()` of the room that the step leads from; the step keeps that room alive."""
        written = 0
        self._traffic.events += len(self.pending)
        self._take_pending()
        for group in list(self._groups):
            if written and written + group.ready > self._groups.largest:
                written = 0
                yield
                if self.pending:
                    self._traffic.events += len(self.pending)
                    self._take_pending()
                    sendings.clear()
            if group.room is self.broadcast_room or not group.members:
                continue
            if id(group.room) not in sendings:
                sendings[id(group.room)] = self._sending_from(group.room)
            written += self._send(group, sendings[id(group.room)])
        if self._trace is not None:
            self._trace.sent()
        self._recent.forget(min((group.room.version for group in self._groups), default=self.broadcast_room.version))

    def _take_pending(self) -> None:
        """Makes the pending events part of `broadcast_room`; sockets that join later get them in their snapshot."""
        events, self.pending = self.pending, []
        if self._trace is not None:
            self._trace.taken(self.room.performer_id, events, len(self._groups))
        self._recent.extend(events)
        self.broadcast_room = self.room
        for view in View:
            if seen := visible(events, view):
                self._versions[view] = seen[-1].version

    def _sending_from(self, before: Room) -> _Sending:
        fanout, after = self._fanout, self.broadcast_room
        events = self._recent.last(after.version - before.version)
        step = Step(before=before, after=after, events=events, epoch=fanout.epoch, now=fanout.clock())
        private: dict[Group, list[tuple[Subscriber, list[bytes]]]] = {}
        owners = self._groups.owners
        if owners:
            for user_id, own in step.private(owners, self._versions[View.PUBLIC]).items():
                for owner in owners[user_id]:
                    if owner.group is not None:
                        private.setdefault(owner.group, []).append((owner, own))
        return _Sending(step, private)

    def _send(self, group: Group, sending: _Sending) -> int:
        """Send a group a step, and its owners their private frames; returns the number of sockets that got the step."""
        group.room = self.broadcast_room
        view, written = group.format.view, 0
        if not sending.step.is_empty(view):
            since, group.version = group.version, max(group.version, self._versions[view])
            for subscriber in group.unready():
                self._note_missed(subscriber)
            written = group.write(sending.step.frame(group.format, since, group.version))
            self._traffic.frames += written
        for owner, own in sending.private.get(group, ()):
            # An owner that has left the group is gone, or has got a snapshot since.
            if owner.group is not group:
                continue
            if owner.send is not None:
                self._write(owner, own)
            else:
                self._note_missed(owner)
        return written

    def _write(self, subscriber: Subscriber, own: Sequence[bytes]) -> None:
        for frame in own:
            subscriber.connection.write(frame)
        self._traffic.frames += len(own)

    def _note_missed(self, subscriber: Subscriber) -> None:
        """Note that a socket could not take a frame; the next one that it gets is a snapshot."""
        if subscriber.connection.is_open and subscriber.lagging_since is None:
            subscriber.lagging_since = asyncio.get_running_loop().time()
            self._traffic.lagged += 1

    # Sockets

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def subscribers(self) -> list[Subscriber]:
        return self._groups.subscribers

    def audience(self, now: float) -> Audience:
        """The number of sockets, and their lag; `now` is loop time."""
        lags = [now - each.lagging_since for each in self.subscribers if each.lagging_since is not None]
        return Audience(
            performer_id=self.room.performer_id,
            sockets=len(self),
            lagging=len(lags),
            longest_lag_seconds=max(lags, default=0.0),
        )

    async def missed_since(self, version: int) -> list[Event] | None:
        """The events after a version, read from the database: an empty list if all are at hand, None if the version is
        not one of this room, or too old to be resumed from."""
        shown = self.broadcast_room.version
        if not 0 <= version <= shown or shown - version > self._recent.kept:
            return None
        if version == shown or self._recent.reach_back_to(version):
            return []
        return list(await self._fanout.missed(self.room.performer_id, version))

    def join(self, subscriber: Subscriber, *, since: int | None = None, missed: Sequence[Event] | None = None) -> None:
        """Add a socket and send it all events after version `since`, if none is lacking at hand and among `missed`, and
        otherwise a snapshot."""
        self._groups.add(subscriber, self.broadcast_room, self._versions[subscriber.view])
        if since is None or missed is None or not self._resume(subscriber, since, missed):
            self.show(subscriber)
        # The write may have changed the connection's state; the socket could not report that before it has its room.
        self.connection_changed(subscriber)

    def _resume(self, subscriber: Subscriber, since: int, missed: Sequence[Event]) -> bool:
        room = self.broadcast_room
        events = self._recent.since(since, room.version, missed)
        if events is None or subscriber.send is None:
            return False
        # A version that another process has sent may be higher than that of this view's last event.
        version = max(since, self._versions[subscriber.view])
        self._groups.move(subscriber, room, version)
        self._write(subscriber, self._snapshots.recovered(events, room, since, version, subscriber))
        return True

    def show(self, subscriber: Subscriber) -> None:
        """Send the current snapshot to a socket of this room, if it can take one."""
        if subscriber.group is None:
            return
        if subscriber.send is None:
            # It has gone, or it lags and gets its snapshot once it has caught up.
            self._note_missed(subscriber)
            return
        # Not below the version that it holds, which another process may have sent.
        version = max(subscriber.group.version, self._versions[subscriber.view])
        self._groups.move(subscriber, self.broadcast_room, version)
        self._write(subscriber, [self._snapshots.snapshot(self.broadcast_room, version, subscriber)])

    def connection_changed(self, subscriber: Subscriber) -> None:
        """Note that a connection takes frames from now on, or no more, or by another function. One that has missed any
        and has caught up gets a snapshot."""
        if subscriber.group is None:
            return
        subscriber.group.review(subscriber)
        if subscriber.send is not None and subscriber.lagging_since is not None:
            subscriber.lagging_since = None
            self.show(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        if subscriber.group is not None:
            self._groups.remove(subscriber)

    def tidy(self, lag_seconds: float) -> int:
        """Cut off sockets that have lagged for `lag_seconds`, and merge small groups; returns the number cut off."""
        limit = asyncio.get_running_loop().time() - lag_seconds
        slow = [
            each
            for each in self.subscribers
            if each.connection.is_open and each.lagging_since is not None and each.lagging_since < limit
        ]
        for subscriber in slow:
            subscriber.connection.cut_off(CloseCode.TOO_SLOW, "too slow")
        self._traffic.cut_off += len(slow)
        self._groups.merge_small()
        return len(slow)
