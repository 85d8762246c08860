"""The events of a room: one record per version, named in the past tense, with all that folding and display need.

An event carries the whole item, or the whole room settings, as they are after it, so folding replaces the old value. It
knows no JSON (`wire`) and no table (`store`).
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from app.domain.command import Actor, Mode
from app.domain.item import Item, Status


class EventName(StrEnum):
    ITEM_CREATED = "queue.item.created"
    ITEM_STARTED = "queue.item.started"
    ITEM_FINISHED = "queue.item.finished"
    ITEM_ABANDONED = "queue.item.abandoned"
    ITEM_REFUNDED = "queue.item.refunded"
    ITEM_SETTLED = "queue.item.settled"
    ITEM_PAUSED = "queue.item.paused"
    ITEM_RESUMED = "queue.item.resumed"
    ITEM_WALLET_CHANGED = "queue.item.wallet_changed"
    """Only the wallet's part of an item has changed (retrying, dead, a refund confirmed later)."""
    ROOM_CHANGED = "queue.room.changed"
    PERFORMER_ONLINE = "queue.performer.online"
    PERFORMER_OFFLINE = "queue.performer.offline"


TEMPLATES: Mapping[EventName, str] = {
    EventName.ITEM_CREATED: "queue.item.created",
    EventName.ITEM_STARTED: "queue.item.started",
    EventName.ITEM_FINISHED: "queue.item.completed",
    EventName.ITEM_ABANDONED: "queue.item.abandoned",
    EventName.ITEM_REFUNDED: "queue.item.refunded",
    EventName.ITEM_SETTLED: "queue.item.settled",
}
"""The chat message key of an event; an event without one has no chat message."""

THIRD_POSITION_NOTICE = "queue.item.third_position_notice"
NEXT_UP_NOTICE = "queue.item.next_up_notice"
POSITION_NOTICE = "queue.item.position_notice"


def notice_template(position: int) -> str:
    """The chat message key of the notice that an item has reached this position."""
    return {3: THIRD_POSITION_NOTICE, 1: NEXT_UP_NOTICE}.get(position, POSITION_NOTICE)


class PauseReason(StrEnum):
    REQUESTED = "requested"
    PERFORMER_DISCONNECTED = "performer_disconnected"


class RoomSettings(Struct, frozen=True, kw_only=True):
    """The performer's settings and presence. None: the service's default applies."""

    mode: Mode = Mode.ON
    accepting: bool = True
    paused: bool = False
    pause_reason: PauseReason | None = None
    strict_fifo: bool = False
    max_depth: int | None = None
    max_per_user: int | None = None
    """Active items of one user; None: any number."""
    max_wait_seconds: int | None = None
    """Intakes are refused while the estimated wait of a new item is longer; None: any wait."""
    notify_positions: tuple[int, ...] | None = None
    announcement: str | None = None
    performer_online: bool = False
    offline_since: datetime | None = None
    """When the last panel disconnected; None while one is connected, or if none ever was."""


DEFAULT_SETTINGS = RoomSettings()


class Event(Struct, frozen=True, kw_only=True):
    performer_id: str
    version: int
    """The event's number in its room, from 1 and without a gap."""
    name: EventName
    at: datetime
    actor: Actor
    item: Item | None = None
    position: int = 0
    """The item's position after the event."""
    settings: RoomSettings | None = None
    from_status: Status | None = None
    reason: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """The values that a chat message needs."""

    @property
    def template(self) -> str | None:
        return TEMPLATES.get(self.name)

    @property
    def is_public(self) -> bool:
        """Whether every viewer may see it. Events about money alone are only in the full view."""
        return self.name not in (EventName.ITEM_SETTLED, EventName.ITEM_WALLET_CHANGED)


class Logged(Struct, frozen=True, kw_only=True):
    """An event with its place in the log over all rooms."""

    cursor: str
    event: Event
