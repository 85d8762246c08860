"""One queue item: its fields, its statuses and the one table of moves between them.

Everything that decides which status may follow which lives in this file. It knows no room, no clock and no database:
`room` decides when a move happens, this module whether it may.
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
"""The statuses that take a place in the queue."""


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
    # A finished item is refunded only while its settlement has not been sent: `room` knows, this table cannot.
    Status.FINISHED: {Move.REFUND: Status.REFUNDED},
    Status.ABANDONED: {Move.REFUND: Status.REFUNDED},
    Status.REFUNDED: {},
}


class WalletStatus(StrEnum):
    """How far the wallet is with this item's escrow."""

    NONE = "none"
    PENDING = "pending"
    RETRYING = "retrying"
    DONE = "done"
    DEAD = "dead"
    WRITTEN_OFF = "written_off"
    """Ended by an administrator; what the wallet holds stays as it is."""


class Reason(StrEnum):
    """Why an item was abandoned or refunded."""

    PERFORMER_DISCONNECTED = "performer_disconnected"
    PERFORMER_DECLINED = "performer_declined"
    USER_CANCELLED = "user_cancelled"
    TIMEOUT = "timeout"
    TECHNICAL_ERROR = "technical_error"
    ADMIN_REFUND = "admin_refund"


class Clock(Struct, frozen=True, kw_only=True):
    """Counted time that can be stopped: seconds used so far, and since when it runs (None: stopped)."""

    used_seconds: float = 0.0
    since: datetime | None = None

    def start(self, now: datetime) -> "Clock":
        return self if self.since is not None else replace(self, since=now)

    def stop(self, now: datetime) -> "Clock":
        return self if self.since is None else Clock(used_seconds=self.elapsed(now))

    def restart(self, stopped_at: datetime, now: datetime, set_after: datetime | None = None) -> "Clock":
        """A running clock as if it had been stopped at `stopped_at` and started again now.

        If the time was set back, `stopped_at` lies ahead of now. A clock that was started between `set_after` and now,
        by the time as it is since, was started after that: it has counted until now. One that was started by the time
        as it was before cannot be told apart if it shows a time in there; it counts too little then, never too much.
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
        """When `limit_seconds` will have been counted; None while the clock stands."""
        if self.since is None:
            return None
        return self.since + timedelta(seconds=max(0.0, limit_seconds - self.used_seconds))


STOPPED = Clock()


class Item(Struct, frozen=True, kw_only=True):
    """A paid request. Times are UTC with whole milliseconds; its place in the queue is derived, never stored."""

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

    # Not public, but for the clock of an item that has been started (`service_clock`).
    clock: Clock = STOPPED
    """Waiting: time spent as the next one with the performer free. Started: time in service, which is public."""
    notified: tuple[int, ...] = ()
    """The milestones (positions) the owner has been told about: each once in an item's life."""
    quoted_wait_seconds: float | None = None
    """The estimate the owner was given on arrival, kept to learn how good it was."""
    quoted_position: int | None = None
    quoted_low_seconds: float | None = None
    """The 10–90 % range of that estimate, from here to `quoted_high_seconds`; None where none was given."""
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
        """The sort key of the queue: the started item first, then by arrival, ties by id."""
        return (self.status is not Status.STARTED, self.created_at, self.item_id)


def after(item: Item, move: Move) -> Status:
    """The status `move` leads to. Raises InvalidTransition, naming what is possible, and changes nothing."""
    target = TRANSITIONS[item.status].get(move)
    if target is None:
        possible = ", ".join(TRANSITIONS[item.status]) or "nothing"
        raise InvalidTransition(
            f"Cannot {move} an item that is {item.status}; possible from here: {possible}.", item_id=item.item_id
        )
    return target
