"""The commands of a room, named as imperatives, each with its actor. They carry values and decide nothing.

`access.rights` checks the caller's rights before. A right that depends on the state of the room (a viewer's
cancellation) is checked by `decision.decide`.
"""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from app.domain.item import Item, Reason
from app.domain.operation import Operation, Receipt, Resolution


class Role(StrEnum):
    FEATURE = "feature"
    VIEWER = "viewer"
    PERFORMER = "performer"
    MODERATOR = "moderator"
    ADMIN = "admin"
    SYSTEM = "system"
    """The service itself: timers and wallet outcomes. No token carries it."""


class Actor(Struct, frozen=True, kw_only=True):
    """The author of a command, as events and the audit trail name it."""

    role: Role
    id: str


TIMER = Actor(role=Role.SYSTEM, id="timer")
WALLET = Actor(role=Role.SYSTEM, id="wallet")
PRESENCE = Actor(role=Role.SYSTEM, id="presence")


class Mode(StrEnum):
    ON = "on"
    OFF = "off"


class Intake(Struct, frozen=True, kw_only=True):
    """Queue a draft item. `decide` sets its mode, its times and its place."""

    actor: Actor
    item: Item
    queue_mode: Mode | None = None
    """None: the room's mode."""


class Start(Struct, frozen=True, kw_only=True):
    actor: Actor
    item_id: str


class StartNext(Struct, frozen=True, kw_only=True):
    actor: Actor


class Complete(Struct, frozen=True, kw_only=True):
    actor: Actor
    item_id: str
    refund_tokens: int | None = None
    """Split: this many tokens go back to the user, the rest to the performer."""


class Abandon(Struct, frozen=True, kw_only=True):
    actor: Actor
    item_id: str
    reason: Reason = Reason.PERFORMER_DECLINED


class Refund(Struct, frozen=True, kw_only=True):
    actor: Actor
    item_id: str
    reason: Reason


class Pause(Struct, frozen=True, kw_only=True):
    actor: Actor
    item_id: str


class Resume(Struct, frozen=True, kw_only=True):
    actor: Actor
    item_id: str


class Keep(StrEnum):
    """Stands for a setting that a change leaves as it is. (None sets it back to the service's default.)"""

    KEEP = "keep"


KEEP = Keep.KEEP


class ChangeSettings(Struct, frozen=True, kw_only=True):
    """Change those of the room's settings that are not KEEP; `event.RoomSettings` has their meanings."""

    actor: Actor
    mode: Mode | Keep = KEEP
    accepting: bool | Keep = KEEP
    paused: bool | Keep = KEEP
    strict_fifo: bool | Keep = KEEP
    max_depth: int | Keep | None = KEEP
    max_per_user: int | Keep | None = KEEP
    max_wait_seconds: int | Keep | None = KEEP
    notify_positions: tuple[int, ...] | Keep | None = KEEP
    announcement: str | Keep | None = KEEP


class Expire(Struct, frozen=True, kw_only=True):
    """Abandon an item if it is overdue; `decide` checks that it is."""

    item_id: str
    at: datetime
    """The time at which the timer looked. A clock that has been set since then makes no item overdue."""
    actor: Actor = TIMER


class RestartClocks(Struct, frozen=True, kw_only=True):
    """Treat the room's clocks as stopped at `stopped_at` and started again now: the service was not running in between,
    or its clock was set."""

    stopped_at: datetime
    set_after: datetime | None = None
    """The earliest time, by the clock as it is now, at which it can have been set; None: no item clock was started
    since then."""
    actor: Actor = TIMER


class SetPresence(Struct, frozen=True, kw_only=True):
    """Record that the performer's first panel has connected, or that the last one has disconnected."""

    online: bool
    actor: Actor = PRESENCE


class Confirm(Struct, frozen=True, kw_only=True):
    """Record that the wallet has carried out an operation. `operation` is the row to store."""

    item_id: str
    operation: Operation
    receipt: Receipt
    actor: Actor = WALLET
    reason: str | None = None
    """An administrator's reason; None: nobody gave one."""


class Report(Struct, frozen=True, kw_only=True):
    """Record that an attempt failed, or that the operation was given up. `operation` is the row to store."""

    item_id: str
    operation: Operation
    actor: Actor = WALLET


class RetryOperation(Struct, frozen=True, kw_only=True):
    """Try an item's dead operation again, or its retrying operation now."""

    item_id: str
    actor: Actor = WALLET


class ResolveOperation(Struct, frozen=True, kw_only=True):
    """End an item's dead or retrying operation in a way that an administrator has chosen."""

    actor: Actor
    item_id: str
    resolution: Resolution
    reason: str


Command = (
    Intake
    | Start
    | StartNext
    | Complete
    | Abandon
    | Refund
    | Pause
    | Resume
    | ChangeSettings
    | Expire
    | SetPresence
    | RestartClocks
    | Confirm
    | Report
    | RetryOperation
    | ResolveOperation
)

AboutItem = (
    Start | Complete | Abandon | Refund | Pause | Resume | Expire | Confirm | Report | RetryOperation | ResolveOperation
)
"""The commands that name an item, which may have ended long ago."""
