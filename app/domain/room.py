"""One performer's room at one version, and how events are folded into it.

Only `fold` makes the next version of a room, and only `decision.decide` makes the events. Both are pure: a `Room` is
immutable and the time is a parameter. No clock, no I/O, no asyncio here.
"""

from bisect import insort
from collections.abc import Iterable
from datetime import datetime, timedelta
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from app.domain.estimate import (
    NOTHING_LEARNT,
    History,
    Wait,
    Waits,
    backlog_seconds,
    first_seconds,
    range_seconds,
    thinned,
)
from app.domain.event import DEFAULT_SETTINGS, Event, EventName, RoomSettings
from app.domain.item import Item, Reason, Status

LARGEST_SKEW = timedelta(minutes=1)
NEXT_UP = 1
"""The milestone of the next item to be served, at position 1, or at position 2 behind a started item."""


class Policy(Struct, frozen=True, kw_only=True):
    """The operator's rules, the same for every room. Durations are in seconds; 0 switches a deadline off."""

    max_depth: int = 50
    default_duration_seconds: float = 60
    notify_positions: tuple[int, ...] = (3, 1)
    rope_drop_seconds: float = 600
    started_timeout_seconds: float = 3600
    disconnect_grace_seconds: float = 120
    settle_delay_seconds: float = 0


class Room(Struct, frozen=True, kw_only=True, eq=False):
    """A room at one version: its settings and its active items in queue order."""

    performer_id: str
    policy: Policy
    version: int = 0
    last_at: datetime | None = None
    """The time of the last event. The next event is not earlier, although processes' clocks differ a little."""
    settings: RoomSettings = DEFAULT_SETTINGS
    items: tuple[Item, ...] = ()
    history: History = NOTHING_LEARNT
    """Not compared: without a stored history a room learns from its last items only, and knows a little less."""
    backlog_seconds: float | None = None
    """The sum of the turns of all waiting items, in seconds. Each intake adds its own turn, so that the next intake in
    a long queue need not compute the sum: behind a few hundred items that saves 45 % of its CPU
    (`bench --without backlog`). None: not known; see `with_backlog`. Not compared."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Room) and _compared(self) == _compared(other)

    def __ne__(self, other: object) -> bool:
        # Struct brings one of its own, which does not ask `__eq__`.
        return not self == other

    def time(self, now: datetime) -> datetime:
        """The time of the next event: `now`, but not before the last event. If the last event is more than LARGEST_SKEW
        ahead, its clock was wrong, and it is ignored: otherwise the room's clocks would not count until then."""
        if self.last_at is None or self.last_at - now > LARGEST_SKEW:
            return now
        return max(now, self.last_at)

    @property
    def depth(self) -> int:
        return len(self.items)

    @property
    def max_depth(self) -> int:
        """The most active items: the room's own limit, but not above the operator's."""
        chosen = self.settings.max_depth
        return self.policy.max_depth if chosen is None else min(chosen, self.policy.max_depth)

    @property
    def notify_positions(self) -> tuple[int, ...]:
        chosen = self.settings.notify_positions
        return self.policy.notify_positions if chosen is None else chosen

    @property
    def started(self) -> Item | None:
        return self.items[0] if self.items and self.items[0].status is Status.STARTED else None

    @property
    def head(self) -> Item | None:
        """The item that start-next would start."""
        waiting = self.items[1:2] if self.started else self.items[:1]
        return waiting[0] if waiting else None

    def find(self, item_id: str) -> Item | None:
        """The active item with this id."""
        position = self.position(item_id)
        return self.items[position - 1] if position else None

    def position(self, item_id: str) -> int:
        """The item's position, counted from 1 over the active items; 0 for an item that is not active."""
        items = self.items
        # Most calls are about the newest item or about the first few. To look at the newest one first saves 26 % of an
        # intake's CPU behind a few hundred items (`bench --without last-first`).
        if items and items[-1].item_id == item_id:
            return len(items)
        for position, item in enumerate(items, 1):
            if item.item_id == item_id:
                return position
        return 0

    def waits(self, now: datetime, first: int | None = None) -> Waits:
        """The estimated waits of the active items, or of the first `first` of them, in queue order."""
        return Waits(self.items[:first], self.history, now, self.policy.default_duration_seconds)

    def with_backlog(self) -> "Room":
        """The same room with `backlog_seconds` computed."""
        if self.backlog_seconds is not None:
            return self
        waiting = self.items[1:] if self.started else self.items
        default = self.policy.default_duration_seconds
        return replace(self, backlog_seconds=backlog_seconds(waiting, self.history, default))

    def wait_of_next(self, now: datetime) -> float:
        """The estimated wait, in seconds, of an item that would arrive now."""
        first = first_seconds(self.items, self.history, now, self.policy.default_duration_seconds)
        return thinned(first, self.with_backlog().backlog_seconds or 0.0, self.history.leaving_rate)

    def quote(self, now: datetime) -> Wait:
        """The estimated wait of an item that arrives now, with its range."""
        seconds = self.wait_of_next(now)
        return Wait(seconds=seconds, range_seconds=range_seconds(self.items, self.history, now, self.depth, seconds))

    def deadline(self, item: Item) -> tuple[datetime, Reason] | None:
        """When an active item becomes overdue, and the reason to abandon it then; None while it has no deadline."""
        policy, settings = self.policy, self.settings
        if policy.disconnect_grace_seconds and settings.offline_since is not None:
            since = max(settings.offline_since, item.created_at)
            return since + timedelta(seconds=policy.disconnect_grace_seconds), Reason.PERFORMER_DISCONNECTED
        if item.status is Status.STARTED:
            limit = policy.started_timeout_seconds
            if limit:
                limit += item.duration_seconds or policy.default_duration_seconds
        else:
            limit = policy.rope_drop_seconds
        due = item.clock.due(limit) if limit else None
        return None if due is None else (due, Reason.TIMEOUT)


_compared = attrgetter("performer_id", "policy", "version", "last_at", "settings", "items")


def apply(room: Room, event: Event) -> Room:
    """Fold one event into its room. Raises ValueError unless the event has the next version."""
    if event.version != room.version + 1:
        raise ValueError(f"event {event.version} does not follow version {room.version}")
    return fold(room, event.name, event.at, item=event.item, settings=event.settings)


def fold(
    room: Room, name: EventName, at: datetime, *, item: Item | None = None, settings: RoomSettings | None = None
) -> Room:
    """The room after an event with this name at this time. `item`, `settings`: as they are after the event."""
    if settings is not None:
        room = replace(room, settings=settings)
    items, history, backlog = list(room.items), room.history, None
    came_last = False
    if item is not None:
        is_new = name is EventName.ITEM_CREATED
        position = 0 if is_new else room.position(item.item_id)
        before = items.pop(position - 1) if position else None
        if item.is_active and not item.pass_through_mode:
            if not items or items[-1].order < item.order:
                items.append(item)
                came_last = is_new
            else:
                insort(items, item, key=lambda item: item.order)
            if is_new and room.backlog_seconds is not None:
                turn = history.turn_seconds(item, room.policy.default_duration_seconds)
                backlog = room.backlog_seconds + turn
        history = _learn(room, before, name, at, item)
    # A new last item moves no other item. To leave the others saves 7 % of an intake's CPU behind a few hundred items
    # (`bench --without arrivals`).
    _attend(room, items, at, (len(items),) if came_last else {1, 2, *room.notify_positions})
    return replace(
        room,
        version=room.version + 1,
        last_at=at,
        items=tuple(items),
        history=history,
        backlog_seconds=backlog,
    )


def _learn(room: Room, before: Item | None, name: EventName, at: datetime, item: Item) -> History:
    if item.pass_through_mode:
        return room.history
    if name is EventName.ITEM_STARTED:
        return room.history.started(item, at)
    if before is None or item.is_active:
        return room.history
    if before.status is Status.STARTED:
        return room.history.ended(item, at, room.policy.default_duration_seconds)
    return room.history.left(item, at)


def _attend(room: Room, items: list[Item], at: datetime, positions: Iterable[int]) -> None:
    """Start or stop the clocks of the items at these positions, and note the milestones that they have reached.

    Only the clock of the first item runs, whether it is started or waits to be. The clock of the second must stop if
    its item has just been overtaken.
    """
    milestones = room.notify_positions
    next_position = 2 if items and items[0].status is Status.STARTED else 1
    for position in positions:
        if position > len(items):
            continue
        item = items[position - 1]
        runs = position == 1 and not item.paused and not room.settings.paused
        clock = item.clock.start(at) if runs else item.clock.stop(at)
        notified = item.notified
        if item.status is Status.CREATED:
            if position in milestones and position not in notified:
                notified = (*notified, position)
            if position == next_position and NEXT_UP in milestones and NEXT_UP not in notified:
                notified = (*notified, NEXT_UP)
        if clock is not item.clock or notified is not item.notified:
            items[position - 1] = replace(item, clock=clock, notified=notified)
