"""One room that somebody watches: its sockets, what they have been shown, and the frames that bring them on.

Every frame is built once for all that are at the same version: one for viewers, one for the performer's side, and small
private ones for owners. A socket that lags is skipped; when it has caught up it gets the current snapshot.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from app.domain.event import Event
from app.domain.item import Item
from app.domain.room import Room, apply
from app.domain.view import View
from app.live.connections import Audience
from app.live.subscriber import Group, Subscriber
from app.live.update import Update, visible
from app.wire import frames
from app.wire.shapes import room_shape
from app.wire.websocket import compressed_frame, deflated, text_frame

RECENT_EVENTS = 256
"""Events a watched room keeps for sockets that resume."""


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


@dataclass(slots=True)
class _Step:
    """What brings those at one version to a later one, and what owners among them are told besides."""

    update: Update
    private: dict[Group, list[tuple[Subscriber, list[bytes]]]]


class WatchedRoom:
    """`room` is ahead of `shown`, which new sockets are shown, by the `pending` events. A group may be further behind:
    a broadcast tells one after the other, and each all that there is when its turn comes."""

    def __init__(self, room: Room, *, epoch: str, clock: Callable[[], datetime], traffic: Traffic) -> None:
        self._epoch = epoch
        self._clock = clock
        self._traffic = traffic
        self.room = room
        self.shown = room
        self._versions = dict.fromkeys(View, room.version)
        """By view: the version of the last event up to `shown` that it shows."""
        self.pending: list[Event] = []
        self._recent: deque[Event] = deque()
        """The latest events up to `shown`: RECENT_EVENTS, or as many as some group has not been told."""
        self._groups: dict[tuple[View, bool], list[Group]] = {
            (view, deflates): [] for view in View for deflates in (False, True)
        }
        """Who watches, by what they are sent: how much they see, and whether compressed."""
        self._owners: dict[str, set[Subscriber]] = {}
        self._bodies: dict[tuple[View, bool], tuple[Room, int, bytes]] = {}
        """The middle of a snapshot by view and whether compressed, with the room and the version that it shows."""
        self.heard_of = 0
        """The highest version spoken of: where it is ahead of `room`, what lies between is read from the database."""
        self.quiet_from = 0.0
        """Loop time before which an event waits for others. The hub's, like `pump`: what will send the pending ones."""
        self.pump: asyncio.Task[None] | asyncio.Handle | None = None

    @property
    def is_behind(self) -> bool:
        return self.heard_of > self.room.version

    @property
    def has_untold(self) -> bool:
        """Whether anybody has yet to be told something that is at hand."""
        return bool(self.pending) or any(group.shown is not self.shown for group in self._all_groups())

    # Sockets

    def __len__(self) -> int:
        return sum(len(group.members) for group in self._all_groups())

    def __contains__(self, subscriber: Subscriber) -> bool:
        return any(subscriber.group is group for group in self._groups[subscriber.view, subscriber.line.deflates])

    @property
    def is_small(self) -> bool:
        """All its sockets are written to in one step."""
        return len(self) <= Group.LIMIT

    def _all_groups(self) -> Iterator[Group]:
        return chain.from_iterable(self._groups.values())

    @property
    def subscribers(self) -> list[Subscriber]:
        return [subscriber for group in self._all_groups() for subscriber in group.members]

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
        """To be shown the room next, or what it has missed of it."""
        self._current_group(subscriber, self._versions[subscriber.view]).add(subscriber)
        if subscriber.owner_id is not None:
            self._owners.setdefault(subscriber.owner_id, set()).add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        self._take_out(subscriber)
        if subscriber.owner_id is not None and (sockets := self._owners.get(subscriber.owner_id)):
            sockets.discard(subscriber)
            if not sockets:
                del self._owners[subscriber.owner_id]

    def _current_group(self, subscriber: Subscriber, version: int) -> Group:
        """One with a place for a socket that has been shown everything and holds this version."""
        view, deflates = subscriber.view, subscriber.line.deflates
        groups = self._groups[view, deflates]
        last = groups[-1] if groups else None
        if last is None or last.shown is not self.shown or last.version != version or last.is_full:
            last = Group(self.shown, version, view, deflates)
            groups.append(last)
        return last

    def _move_to_current(self, subscriber: Subscriber, version: int) -> None:
        group = subscriber.group
        if group is None or group.shown is not self.shown or group.version != version:
            self._take_out(subscriber)
            self._current_group(subscriber, version).add(subscriber)

    def _take_out(self, subscriber: Subscriber) -> None:
        if (group := subscriber.group) is not None:
            group.remove(subscriber)
            if not group.members:
                self._groups[group.view, group.deflates].remove(group)

    def tidy(self) -> None:
        """Make one of groups that have grown small."""
        for groups in self._groups.values():
            kept: list[Group] = []
            for group in groups:
                if kept and kept[-1].has_place_for(group):
                    kept[-1].take_over(group)
                else:
                    kept.append(group)
            groups[:] = kept

    def review(self, subscriber: Subscriber) -> None:
        """See anew whether a line can take frames. One that had missed any and has caught up is shown the room."""
        if subscriber.group is not None:
            subscriber.group.review(subscriber)
        if subscriber.send is not None and subscriber.lagging_since is not None:
            subscriber.lagging_since = None
            self.show(subscriber)

    def _note_missed(self, subscriber: Subscriber) -> None:
        """What there is to tell cannot be told to a socket now. What it gets next is a snapshot."""
        if subscriber.line.is_open and subscriber.lagging_since is None:
            subscriber.lagging_since = asyncio.get_running_loop().time()
            self._traffic.lagged += 1

    # Events

    def fold(self, events: Iterable[Event]) -> None:
        """Take in what follows on; the rest is old or comes too early."""
        for event in events:
            if event.version == self.room.version + 1:
                self.room = apply(self.room, event)
                self.pending.append(event)

    def take_pending(self) -> None:
        """From now on what is pending is shown to who joins, and told to those who are told."""
        events, self.pending = self.pending, []
        self._recent.extend(events)
        self.shown = self.room
        for view in View:
            if seen := visible(events, view):
                self._versions[view] = seen[-1].version

    def is_within_reach(self, version: int) -> bool:
        """Whether a socket at this version is better brought on by events than by a snapshot."""
        return 0 <= version <= self.shown.version and self.shown.version - version <= RECENT_EVENTS

    def has_since(self, version: int) -> bool:
        """Whether all events after a version are at hand."""
        return version == self.shown.version or bool(self._recent and self._recent[0].version <= version + 1)

    def _forget_old_events(self) -> None:
        if len(self._recent) > RECENT_EVENTS:
            told = min((group.shown.version for group in self._all_groups()), default=self.shown.version)
            while len(self._recent) > RECENT_EVENTS and self._recent[0].version <= told:
                self._recent.popleft()

    # Frames

    def send_pending(self) -> Iterator[None]:
        """Tell every group, once, what it has not been told. Each turn but the last has written to Group.LIMIT
        sockets or so; what is folded in between two turns is told to those who are yet to be told as well."""
        steps: dict[tuple[int, int], _Step] = {}
        written = 0
        self._take_pending_to_tell()
        for groups in self._groups.values():
            for group in list(groups):
                if written and written + group.ready > Group.LIMIT:
                    written = 0
                    yield
                    self._take_pending_to_tell()
                if group.shown is self.shown:
                    continue
                versions = group.shown.version, self.shown.version
                if versions not in steps:
                    steps[versions] = self._step_from(group.shown)
                written += self._tell(group, steps[versions])
        self._forget_old_events()

    def _take_pending_to_tell(self) -> None:
        self._traffic.events += len(self.pending)
        self.take_pending()

    def _step_from(self, before: Room) -> _Step:
        events = [self._recent[at] for at in range(before.version - self.shown.version, 0)]
        update = Update(before=before, after=self.shown, events=events, epoch=self._epoch, now=self._clock())
        private: dict[Group, list[tuple[Subscriber, list[bytes]]]] = {}
        if self._owners:
            for user_id, own in update.private(self._owners, self._versions[View.PUBLIC]).items():
                for owner in self._owners[user_id]:
                    if owner.group is not None:
                        private.setdefault(owner.group, []).append((owner, own))
        return _Step(update, private)

    def _tell(self, group: Group, step: _Step) -> int:
        """Returns how many were written to."""
        group.shown = self.shown
        written = 0
        if not step.update.is_empty(group.view):
            since, group.version = group.version, max(group.version, self._versions[group.view])
            for subscriber in group.unready():
                self._note_missed(subscriber)
            written = group.write(step.update.frame(group.view, since, group.version, deflates=group.deflates))
            self._traffic.frames += written
        for owner, own in step.private.get(group, ()):
            # Who was shown the room since needs nothing from here.
            if owner.group is not group:
                continue
            if owner.send is not None:
                self._write(owner, own)
            else:
                self._note_missed(owner)
        return written

    def resume(self, subscriber: Subscriber, since: int, missed: Sequence[Event]) -> bool:
        """Send what a socket has missed since a version, if all of it is at hand; returns whether."""
        known = {event.version: event for event in (*missed, *self._recent)}
        wanted = range(since + 1, self.shown.version + 1)
        if not all(version in known for version in wanted) or subscriber.send is None:
            return False
        now, view = self._clock(), subscriber.view
        events = visible([known[version] for version in wanted], view)
        # A version that another process has shown may lie behind the last event of this view.
        version = max(since, self._versions[view])
        self._move_to_current(subscriber, version)
        changed = any(event.settings is not None for event in events)
        room = room_shape(self.shown, self._epoch) if changed else None
        frame = frames.update(events, now, since=since, version=version, view=view, room=room, recovered=True)
        deflates = subscriber.line.deflates
        self._write(subscriber, [compressed_frame(deflated(frame)) if deflates else text_frame(frame)])
        self._tell_positions(self.shown, subscriber, version, now)
        return True

    def _tell_positions(self, room: Room, subscriber: Subscriber, version: int, now: datetime) -> None:
        mine: list[Item] = [item for item in room.items if item.user_id == subscriber.owner_id]
        if not mine:
            return
        waits = room.waits(now)
        self._write(subscriber, [text_frame(frames.position(room, item, waits, version)) for item in mine])

    def show(self, subscriber: Subscriber) -> None:
        """Send the current snapshot to a socket that can take it."""
        if subscriber.send is None:
            # It has gone, or it lags and gets its snapshot once it has caught up.
            self._note_missed(subscriber)
            return
        group, version = subscriber.group, self._versions[subscriber.view]
        if group is not None:
            # Versions never go back, whatever another process has shown it.
            version = max(version, group.version)
        self._move_to_current(subscriber, version)
        deflates = subscriber.line.deflates
        beginning, body, end = frames.snapshot(
            self.shown,
            self._epoch,
            self._clock(),
            self._body(subscriber.view, version, deflates=deflates),
            version=version,
            user_id=subscriber.owner_id,
        )
        if deflates:
            self._write(subscriber, [compressed_frame(deflated(beginning), body, deflated(end))])
        else:
            self._write(subscriber, [text_frame(beginning + body + end)])

    def _write(self, subscriber: Subscriber, own: Sequence[bytes]) -> None:
        for frame in own:
            subscriber.line.write(frame)
        self._traffic.frames += len(own)

    def _body(self, view: View, version: int, *, deflates: bool) -> bytes:
        """Made once a version, however many come back at once."""
        known = self._bodies.get((view, deflates))
        if known is not None and known[0] is self.shown and known[1] == version:
            return known[2]
        body = frames.snapshot_body(self.shown, self._epoch, view, version)
        if deflates:
            body = deflated(body)
        self._bodies[view, deflates] = self.shown, version, body
        return body
