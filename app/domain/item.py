"""One queue item: its fields, its statuses and the one table of moves between them.

This file alone says which status can follow which. It knows no room, no clock and no database; `decision` adds the
rules that depend on those.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from app.domain.errors import InvalidTransition


class Status(StrEnum):
    CREATED = "created"
    STARTED = "started"
    FINISHED = "finished"
    ABANDONED = "abandoned"
    REFUNDED = "refunded"


ACTIVE = frozenset({Status.CREATED, Status.STARTED})
"""The statuses of items that have a place in the queue."""


class Move(StrEnum):
    """The commands on an item; the values are the words of the public commands."""

    START = "start"
    COMPLETE = "complete"
    ABANDON = "abandon"
    REFUND = "refund"
    PAUSE = "pause"
    RESUME = "resume"


TRANSITIONS: Mapping[Status, Mapping[Move, Status]] = {
    Status.CREATED: {
        Move.START: Status.STARTED,
        Move.ABANDON: Status.ABANDONED,
        Move.REFUND: Status.REFUNDED,
    },
    Status.STARTED: {
        Move.COMPLETE: Status.FINISHED,
        Move.ABANDON: Status.ABANDONED,
        Move.REFUND: Status.REFUNDED,
        Move.PAUSE: Status.STARTED,
        Move.RESUME: Status.STARTED,
    },
    # `decision` refuses the refund of a finished item whose settlement has been sent.
    Status.FINISHED: {Move.REFUND: Status.REFUNDED},
    Status.ABANDONED: {Move.REFUND: Status.REFUNDED},
    Status.REFUNDED: {},
}


class WalletStatus(StrEnum):
    """The progress of the wallet with this item's escrow."""

    NONE = "none"
    PENDING = "pending"
    RETRYING = "retrying"
    DONE = "done"
    DEAD = "dead"
    WRITTEN_OFF = "written_off"
    """Ended by an administrator; the escrow at the wallet stays as it is."""


class Reason(StrEnum):
    """Why an item was abandoned or refunded."""

    PERFORMER_DISCONNECTED = "performer_disconnected"
    PERFORMER_DECLINED = "performer_declined"
    USER_CANCELLED = "user_cancelled"
    TIMEOUT = "timeout"
    TECHNICAL_ERROR = "technical_error"
    ADMIN_REFUND = "admin_refund"


class Clock(Struct, frozen=True, kw_only=True):
    """A stopwatch: it counts time while it runs."""

    used_seconds: float = 0.0
    """The seconds counted until `since`, or in all if it is stopped."""
    since: datetime | None = None
    """When it was started; None: it is stopped."""

    def start(self, now: datetime) -> "Clock":
        """The clock running from `now`; unchanged if it runs already."""
        return self if self.since is not None else replace(self, since=now)

    def stop(self, now: datetime) -> "Clock":
        """The clock stopped at `now`; unchanged if it is stopped already."""
        return self if self.since is None else Clock(used_seconds=self.elapsed(now))

    def restart(self, stopped_at: datetime, now: datetime, set_after: datetime | None = None) -> "Clock":
        """A running clock as if it had been stopped at `stopped_at` and started again now.

        If the time was set back, `stopped_at` is later than `now`. A clock whose start lies between `set_after` and
        `now` is taken to have started after the time was set, and counts until `now`. If it started before, by the old
        time, it counts too little; it never counts too much.
        """
        if self.since is None:
            return self
        if set_after is not None and set_after <= self.since <= now:
            stopped_at = min(stopped_at, now)
        return Clock(used_seconds=self.elapsed(stopped_at), since=now)

    def elapsed(self, now: datetime) -> float:
        """Seconds counted until `now`. A `now` before the start (a skewed clock) counts nothing."""
        if self.since is None:
            return self.used_seconds
        return self.used_seconds + max(0.0, (now - self.since).total_seconds())

    def due(self, limit_seconds: float) -> datetime | None:
        """When `limit_seconds` will have been counted; None while the clock is stopped."""
        if self.since is None:
            return None
        return self.since + timedelta(seconds=max(0.0, limit_seconds - self.used_seconds))


STOPPED = Clock()


class Item(Struct, frozen=True, kw_only=True):
    """A paid request. Times are UTC in whole milliseconds. Its place in the queue is derived, never stored."""

    item_id: str
    performer_id: str
    user_id: str
    source_feature: str
    source_event_id: str
    escrow_transaction_id: str
    idempotency_key: str
    tokens: int
    title: str
    description: str
    duration_seconds: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    queue_mode: str = "on"
    pass_through_mode: bool = False

    status: Status = Status.CREATED
    paused: bool = False
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    abandoned_at: datetime | None = None
    refunded_at: datetime | None = None
    abandon_reason: Reason | None = None
    refund_reason: Reason | None = None

    wallet_status: WalletStatus = WalletStatus.NONE
    settled: bool = False
    settled_at: datetime | None = None
    settlement_transaction_id: str | None = None
    settled_tokens: int | None = None
    refunded_tokens: int | None = None
    refund_transaction_id: str | None = None

    # The fields below are not public, except the clock of a started item (`service_clock`).
    clock: Clock = STOPPED
    """Waiting: the time for which it has been first in a room that is not paused. Started: the time in service."""
    notified: tuple[int, ...] = ()
    """The milestones (positions) of which the owner has been notified, each once in an item's life."""
    quoted_wait_seconds: float | None = None
    """The wait that was estimated on arrival, stored to measure the error of the estimate."""
    quoted_position: int | None = None
    quoted_low_seconds: float | None = None
    """The low end of the estimate's 10–90 % range, up to `quoted_high_seconds`; None if there was no range."""
    quoted_high_seconds: float | None = None

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    @property
    def service_clock(self) -> Clock:
        """Time in service without pauses; nothing counted until the item is started."""
        return STOPPED if self.started_at is None else self.clock

    @property
    def order(self) -> tuple[bool, datetime, str]:
        """The sort key of the queue: the started item first, then in order of arrival, ties in order of id."""
        return (self.status is not Status.STARTED, self.created_at, self.item_id)


def after(item: Item, move: Move) -> Status:
    """The status that `move` leads to. Raises InvalidTransition with the possible moves in its text."""
    target = TRANSITIONS[item.status].get(move)
    if target is None:
        possible = ", ".join(TRANSITIONS[item.status]) or "nothing"
        raise InvalidTransition(
            f"Cannot {move} an item that is {item.status}; possible from here: {possible}.", item_id=item.item_id
        )
    return target
