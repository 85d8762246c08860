"""One performer's room at one version: what it holds, and how what happened is folded into it.

`apply` is the only way a room changes and `decision.decide` the only author of what is applied. Both are pure: a `Room` is
never changed, the time is a parameter. No clock, no I/O, no asyncio here.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.estimate import NOTHING_LEARNT, History, Wait, waits
from app.event import DEFAULT_SETTINGS, Event, EventName, RoomSettings
from app.item import Item, Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's rules, the same for every room. Durations in seconds; 0 switches a clock off."""

    max_depth: int = 50
    default_duration_seconds: float = 60
    notify_positions: tuple[int, ...] = (3, 1)
    rope_drop_seconds: float = 600
    started_timeout_seconds: float = 3600
    disconnect_grace_seconds: float = 120
    settle_delay_seconds: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room at one version: its settings and its active items in queue order."""

    performer_id: str
    policy: Policy
    version: int = 0
    last_at: datetime | None = None
    """The time of the last event: a room's time never runs backwards, whatever the processes' clocks say."""
    settings: RoomSettings = DEFAULT_SETTINGS
    items: tuple[Item, ...] = ()
    history: History = field(default=NOTHING_LEARNT, compare=False)
    """Compared apart: it is learnt from the last items only, so that a reload may know a little less."""

    @property
    def depth(self) -> int:
        return len(self.items)

    @property
    def max_depth(self) -> int:
        return self.policy.max_depth if self.settings.max_depth is None else self.settings.max_depth

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
        return next((item for item in self.items if item.item_id == item_id), None)

    def position(self, item_id: str) -> int:
        """Counted from 1 over the active items; 0 for an item that is not among them."""
        return next((at for at, item in enumerate(self.items, start=1) if item.item_id == item_id), 0)

    def waits(self, now: datetime) -> list[Wait]:
        """The estimated wait of each active item, in queue order."""
        return waits(self.items, self.history, now, self.policy.default_duration_seconds)

    def deadline(self, item: Item) -> tuple[datetime, Reason] | None:
        """When an active item becomes overdue and why; None while no clock of it runs."""
        policy, settings = self.policy, self.settings
        if not settings.performer_online and settings.offline_since is not None:
            if not policy.disconnect_grace_seconds:
                return None
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


def apply(room: Room, event: Event) -> Room:
    """Fold one event into the room it happened in. Events are folded in order, each once."""
    if event.version != room.version + 1:
        raise ValueError(f"event {event.version} does not follow version {room.version}")
    items, history = room.items, room.history
    if event.item is not None:
        before = room.find(event.item.item_id)
        items = tuple(item for item in items if item is not before)
        if event.item.is_active and not event.item.pass_through_mode:
            items = tuple(sorted((*items, event.item), key=lambda item: item.order))
        history = _learn(room, before, event)
    folded = replace(
        room,
        version=event.version,
        last_at=event.at,
        settings=event.settings or room.settings,
        items=items,
        history=history,
    )
    return replace(folded, items=tuple(_attend(folded, item, event.at) for item in items)) if items else folded


def _learn(room: Room, before: Item | None, event: Event) -> History:
    item = event.item
    if item is None or item.pass_through_mode:
        return room.history
    if event.name is EventName.ITEM_STARTED:
        return room.history.started(item, event.at)
    if before is not None and before.status is Status.STARTED and not item.is_active:
        return room.history.ended(item, event.at, room.policy.default_duration_seconds)
    return room.history


def _attend(room: Room, item: Item, at: datetime) -> Item:
    """Run or stop an active item's clock, and note a milestone its position has reached."""
    counts = item is room.started or (room.started is None and item is room.head)
    runs = counts and not room.settings.paused and not item.paused
    clock = item.clock.start(at) if runs else item.clock.stop(at)
    if clock is not item.clock:
        item = replace(item, clock=clock)
    if item.status is Status.CREATED:
        position = room.position(item.item_id)
        if position in room.notify_positions and position not in item.notified:
            item = replace(item, notified=(*item.notified, position))
    return item
