"""The commands a room takes: imperatives, each with who asks. They carry values and decide nothing.

Whether the asker has the right to ask at all is settled before (`auth`); a command that depends on the state of the
room for that (a viewer's cancellation) is settled by `decision.decide`.
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
    role: Role
    id: str


TIMER = Actor(role=Role.SYSTEM, id="timer")
WALLET = Actor(role=Role.SYSTEM, id="wallet")
PRESENCE = Actor(role=Role.SYSTEM, id="presence")


class Mode(StrEnum):
    ON = "on"
    OFF = "off"


class Intake(Struct, frozen=True, kw_only=True):
    """Queue a draft item. `decide` gives it its mode, its times and its place."""

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
    """The value of a setting that a change leaves as it is (None means: back to the service's default)."""

    KEEP = "keep"


KEEP = Keep.KEEP


class ChangeSettings(Struct, frozen=True, kw_only=True):
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
    """A timer's word that an item may be overdue; the room checks for itself."""

    item_id: str
    at: datetime
    """The time at which the timer looked. A clock that has been set since then makes nothing overdue."""
    actor: Actor = TIMER


class RestartClocks(Struct, frozen=True, kw_only=True):
    """Nobody served the room for a while, or the service's clock was set: the room's clocks stopped at `stopped_at`
    and run again from now."""

    stopped_at: datetime
    set_after: datetime | None = None
    """By the time as it is now, the earliest moment at which it can have been set; None: nothing was started since."""
    actor: Actor = TIMER


class SetPresence(Struct, frozen=True, kw_only=True):
    """The performer's first panel has connected, or the last one has gone."""

    online: bool
    actor: Actor = PRESENCE


class Confirm(Struct, frozen=True, kw_only=True):
    """The wallet has carried an operation out. `operation` is its row as it is to be kept."""

    item_id: str
    operation: Operation
    receipt: Receipt
    actor: Actor = WALLET
    reason: str | None = None
    """Why an administrator asked, where one did."""


class Report(Struct, frozen=True, kw_only=True):
    """An attempt failed, or the operation was given up."""

    item_id: str
    operation: Operation
    actor: Actor = WALLET


class RetryOperation(Struct, frozen=True, kw_only=True):
    """Try an item's dead operation again, or its retrying one now."""

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
