"""The commands a room takes: imperatives, each with who asks. They carry values and decide nothing.

Whether the asker has the right to ask at all is settled before (`auth`); a command that depends on the state of the
room for that (a viewer's cancellation) is settled by `decision.decide`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    role: Role
    id: str


TIMER = Actor(role=Role.SYSTEM, id="timer")
WALLET = Actor(role=Role.SYSTEM, id="wallet")
PRESENCE = Actor(role=Role.SYSTEM, id="presence")


class Mode(StrEnum):
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Queue a draft item. `decide` gives it its mode, its times and its place."""

    actor: Actor
    item: Item
    queue_mode: Mode | None = None
    """None: the room's mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    actor: Actor
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartNext:
    actor: Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    actor: Actor
    item_id: str
    refund_tokens: int | None = None
    """Split: this many tokens go back to the user, the rest to the performer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    actor: Actor
    item_id: str
    reason: Reason = Reason.PERFORMER_DECLINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    actor: Actor
    item_id: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    actor: Actor
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    actor: Actor
    item_id: str


class Keep(StrEnum):
    """The value of a setting that a change leaves as it is (None means: back to the service's default)."""

    KEEP = "keep"


KEEP = Keep.KEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """A timer's word that an item may be overdue; the room checks for itself."""

    item_id: str
    actor: Actor = field(default=TIMER)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartClocks:
    """Nobody served the room for a while, or the service's clock was set: the room's clocks stopped at `stopped_at`
    and run again from now."""

    stopped_at: datetime
    set_after: datetime | None = None
    """By the time as it is now, the earliest moment at which it can have been set; None: nothing was started since."""
    actor: Actor = field(default=TIMER)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPresence:
    """The performer's first panel has connected, or the last one has gone."""

    online: bool
    actor: Actor = field(default=PRESENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """The wallet has carried an operation out. `operation` is its row as it is to be kept."""

    item_id: str
    operation: Operation
    receipt: Receipt
    actor: Actor = field(default=WALLET)
    reason: str | None = None
    """Why an administrator asked, where one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An attempt failed, or the operation was given up."""

    item_id: str
    operation: Operation
    actor: Actor = field(default=WALLET)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOperation:
    """Try an item's dead operation again, or its retrying one now."""

    item_id: str
    actor: Actor = field(default=WALLET)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveOperation:
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
