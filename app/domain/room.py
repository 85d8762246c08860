"""One performer's room at one version: what it holds, and how what happened is folded into it.

`fold` is the only way a room changes and `decision.decide` the only author of what is folded. Both are pure: a `Room`
is never changed, the time is a parameter. No clock, no I/O, no asyncio here.
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
"""The milestone of the item that is next to be served: at position 1, or at 2 behind the item on stage."""


class Policy(Struct, frozen=True, kw_only=True):
    """The operator's rules, the same for every room. Durations in seconds; 0 switches a clock off."""

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
    """The time of the last event: a room's time does not run backwards because processes' clocks differ a little."""
    settings: RoomSettings = DEFAULT_SETTINGS
    items: tuple[Item, ...] = ()
    history: History = NOTHING_LEARNT
    """Not compared: a room that has no stored history yet learns from its last items only, and knows a little less."""
    backlog_seconds: float | None = None
    """The turns of all who wait, in seconds, carried on from intake to intake: under a long queue the next one need not
    add it all up. None where it is not known; see `with_backlog`. Not compared."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Room) and _compared(self) == _compared(other)

    def __ne__(self, other: object) -> bool:
        # Struct brings one of its own, which does not ask `__eq__`.
        return not self == other

    def time(self, now: datetime) -> datetime:
        """The time of the next event. A last one that lies further ahead than clocks can differ was stamped by a clock
        that was wrong: following it, all the room's clocks would stand until that time has come."""
        if self.last_at is None or self.last_at - now > LARGEST_SKEW:
            return now
        return max(now, self.last_at)

    @property
    def depth(self) -> int:
        return len(self.items)

    @property
    def max_depth(self) -> int:
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
        """Counted from 1 over the active items; 0 for an item that is not among them."""
        items = self.items
        # Asked for most: the one that has just come, and those whose turn is near.
        if items and items[-1].item_id == item_id:
            return len(items)
        for position, item in enumerate(items, 1):
            if item.item_id == item_id:
                return position
        return 0

    def waits(self, now: datetime, first: int | None = None) -> Waits:
        """The estimated wait of each active item, or of the `first` so many, in queue order."""
        return Waits(self.items[:first], self.history, now, self.policy.default_duration_seconds)

    def with_backlog(self) -> "Room":
        """The same room, knowing its backlog."""
        if self.backlog_seconds is not None:
            return self
        waiting = self.items[1:] if self.started else self.items
        default = self.policy.default_duration_seconds
        return replace(self, backlog_seconds=backlog_seconds(waiting, self.history, default))

    def wait_of_next(self, now: datetime) -> float:
        """The estimated wait, in seconds, of one that would come now, after all the others."""
        first = first_seconds(self.items, self.history, now, self.policy.default_duration_seconds)
        return thinned(first, self.with_backlog().backlog_seconds or 0.0, self.history.leaving_rate)

    def quote(self, now: datetime) -> Wait:
        """The estimated wait of one that comes now, with its range."""
        seconds = self.wait_of_next(now)
        return Wait(seconds=seconds, range_seconds=range_seconds(self.items, self.history, now, self.depth, seconds))

    def deadline(self, item: Item) -> tuple[datetime, Reason] | None:
        """When an active item becomes overdue and why; None while no clock of it runs."""
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
    """Fold one event into the room it happened in. Events are folded in order, each once."""
    if event.version != room.version + 1:
        raise ValueError(f"event {event.version} does not follow version {room.version}")
    return fold(room, event.name, event.at, item=event.item, settings=event.settings)


def fold(
    room: Room, name: EventName, at: datetime, *, item: Item | None = None, settings: RoomSettings | None = None
) -> Room:
    """The room after what has happened in it: what `item` or the `settings` are from then on."""
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
    # One who came last has moved nobody.
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
    """Run or stop the clocks of the items at these positions, and note the milestones that they have reached.

    Only the first clock can run: the started item's or, while nobody is started, the next one's. The second may have to
    stop, when its item has just been overtaken.
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
