"""The JSON that callers get, as typed dictionaries, and how each is made from the domain's values.

A shape's keys are the contract's own names. OpenAPI and AsyncAPI are generated from these very classes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired

# pydantic, which makes the JSON Schemas, reads the inheritance of typing.TypedDict only from Python 3.12 on.
from typing_extensions import TypedDict

from app.domain.command import Mode, Role
from app.domain.errors import QueueError
from app.domain.estimate import Waits
from app.domain.event import Event, EventName, Logged, PauseReason
from app.domain.item import Item, Reason, Status, WalletStatus
from app.domain.room import Room
from app.domain.view import View


class ClockShape(TypedDict):
    """Time in service without pauses: `usedSeconds`, plus the time since `runningSince` where that is not null."""

    usedSeconds: float
    runningSince: datetime | None


class PublicItem(TypedDict):
    """The part of an item that everybody may see."""

    itemId: str
    status: Status
    position: int
    title: str
    sourceFeature: str
    tokens: int
    durationSeconds: int | None
    paused: bool
    clock: ClockShape
    createdAt: datetime
    startedAt: datetime | None


class WholeItem(PublicItem):
    """An item as its owner, its feature, its performer and an administrator see it."""

    performerId: str
    userId: str
    sourceEventId: str
    escrowTransactionId: str
    idempotencyKey: str
    description: str
    metadata: dict[str, Any]
    queueMode: str
    passThroughMode: bool
    updatedAt: datetime
    finishedAt: datetime | None
    abandonedAt: datetime | None
    refundedAt: datetime | None
    settled: bool
    settledAt: datetime | None
    settlementTransactionId: str | None
    settledTokens: int | None
    refundedTokens: int | None
    refundTransactionId: str | None
    refundReason: Reason | None
    abandonReason: Reason | None
    walletStatus: WalletStatus


def clock_shape(item: Item) -> ClockShape:
    clock = item.service_clock
    return {"usedSeconds": round(clock.used_seconds, 3), "runningSince": clock.since}


def public_item(item: Item, position: int) -> PublicItem:
    return {
        "itemId": item.item_id,
        "status": item.status,
        "position": position,
        "title": item.title,
        "sourceFeature": item.source_feature,
        "tokens": item.tokens,
        "durationSeconds": item.duration_seconds,
        "paused": item.paused,
        "clock": clock_shape(item),
        "createdAt": item.created_at,
        "startedAt": item.started_at,
    }


def whole_item(item: Item, position: int) -> WholeItem:
    return {
        "itemId": item.item_id,
        "performerId": item.performer_id,
        "userId": item.user_id,
        "sourceFeature": item.source_feature,
        "sourceEventId": item.source_event_id,
        "escrowTransactionId": item.escrow_transaction_id,
        "idempotencyKey": item.idempotency_key,
        "status": item.status,
        "position": position,
        "title": item.title,
        "description": item.description,
        "tokens": item.tokens,
        "durationSeconds": item.duration_seconds,
        "metadata": dict(item.metadata),
        "queueMode": item.queue_mode,
        "passThroughMode": item.pass_through_mode,
        "paused": item.paused,
        "clock": clock_shape(item),
        "createdAt": item.created_at,
        "updatedAt": item.updated_at,
        "startedAt": item.started_at,
        "finishedAt": item.finished_at,
        "abandonedAt": item.abandoned_at,
        "refundedAt": item.refunded_at,
        "settled": item.settled,
        "settledAt": item.settled_at,
        "settlementTransactionId": item.settlement_transaction_id,
        "settledTokens": item.settled_tokens,
        "refundedTokens": item.refunded_tokens,
        "refundTransactionId": item.refund_transaction_id,
        "refundReason": item.refund_reason,
        "abandonReason": item.abandon_reason,
        "walletStatus": item.wallet_status,
    }


class RoomShape(TypedDict):
    performerId: str
    mode: Mode
    accepting: bool
    paused: bool
    pauseReason: PauseReason | None
    strictFifo: bool
    maxDepth: int
    maxPerUser: int | None
    maxWaitSeconds: int | None
    notifyPositions: list[int]
    announcement: str | None
    performerOnline: bool
    depth: int
    version: int
    epoch: str


def room_shape(room: Room, epoch: str) -> RoomShape:
    settings = room.settings
    return {
        "performerId": room.performer_id,
        "mode": settings.mode,
        "accepting": settings.accepting,
        "paused": settings.paused,
        "pauseReason": settings.pause_reason,
        "strictFifo": settings.strict_fifo,
        "maxDepth": room.max_depth,
        "maxPerUser": settings.max_per_user,
        "maxWaitSeconds": settings.max_wait_seconds,
        "notifyPositions": list(room.notify_positions),
        "announcement": settings.announcement,
        "performerOnline": settings.performer_online,
        "depth": room.depth,
        "version": room.version,
        "epoch": epoch,
    }


class QueueShape(TypedDict):
    room: RoomShape
    items: list[WholeItem] | list[PublicItem]


def queue_items(room: Room, view: View) -> list[WholeItem] | list[PublicItem]:
    """The active items in order."""
    if view is View.FULL:
        return [whole_item(item, position) for position, item in enumerate(room.items, start=1)]
    return [public_item(item, position) for position, item in enumerate(room.items, start=1)]


class DepthShape(TypedDict):
    performerId: str
    depth: int
    maxDepth: int


class PositionShape(TypedDict):
    itemId: str
    performerId: str
    status: Status
    position: int
    ahead: int
    totalInQueue: int
    estimatedWaitSeconds: int | None
    """Null once the item has ended."""
    estimatedWaitRange: list[int] | None
    """The 10th and the 90th percentile in seconds; null until enough waits have been measured."""


def position_shape(room: Room, item: Item, waits: Waits) -> PositionShape:
    """`waits` are the room's in queue order, at least as far as this item."""
    position = room.position(item.item_id)
    wait = waits[position - 1] if position else None
    low_high = wait.range_seconds if wait else None
    return {
        "itemId": item.item_id,
        "performerId": item.performer_id,
        "status": item.status,
        "position": position,
        "ahead": max(0, position - 1),
        "totalInQueue": room.depth,
        "estimatedWaitSeconds": round(wait.seconds) if wait else None,
        "estimatedWaitRange": [round(seconds) for seconds in low_high] if low_high else None,
    }


class EstimateAccuracy(TypedDict):
    """How far the waits quoted on arrival were from the actual ones, in either direction."""

    since: datetime
    count: int
    """The items, at most the last 100, that ended since then and had been started."""
    share: float
    withinSeconds: int
    """`share` of the actual waits differed from the quoted ones by no more than this."""


class OutlookShape(TypedDict):
    """The estimated wait of an item that would be queued now, if the performer keeps serving."""

    performerId: str
    estimatedWaitSeconds: int
    estimatedWaitRange: list[int] | None
    accuracy: EstimateAccuracy | None
    """Over the last twelve hours; null with fewer than ten items."""


# Spelt as a call because "from" is a keyword.
Transition = TypedDict(
    "Transition",
    {
        "from": Status | None,
        "to": Status,
        "at": datetime,
        "actorRole": Role,
        "actorId": str,
        "reason": str | None,
        "roomVersion": int,
    },
)


class TransitionsShape(TypedDict):
    transitions: list[Transition]


def transitions_shape(events: Sequence[Event]) -> TransitionsShape:
    """An item's audit trail from its events: the ones that changed its status, and what administrators did about its
    payment."""
    return {
        "transitions": [
            {
                "from": event.from_status,
                "to": event.item.status,
                "at": event.at,
                "actorRole": event.actor.role,
                "actorId": event.actor.id,
                "reason": event.reason,
                "roomVersion": event.version,
            }
            for event in events
            if event.item is not None
            and (
                event.item.status is not event.from_status
                or (event.name is EventName.ITEM_WALLET_CHANGED and event.actor.role is Role.ADMIN)
            )
        ]
    }


class ItemsPage(TypedDict):
    items: list[WholeItem]
    total: int
    limit: int
    skip: int


class EventShape(TypedDict):
    """An event as the sockets in a room get it."""

    event: EventName
    template: str | None
    params: dict[str, Any]
    itemId: str | None
    item: WholeItem | PublicItem | None
    at: datetime


_PRIVATE_PARAMS = frozenset({"refundTokens"})
"""Left out of View.PUBLIC: only the performer and the user who paid may know how an escrow was split."""


def event_shape(event: Event, view: View) -> EventShape:
    item = event.item
    is_full = view is View.FULL
    shape = whole_item if is_full else public_item
    return {
        "event": event.name,
        "template": event.template,
        "params": {name: value for name, value in event.params.items() if is_full or name not in _PRIVATE_PARAMS},
        "itemId": item.item_id if item else None,
        "item": shape(item, event.position) if item else None,
        "at": event.at,
    }


class LoggedEvent(TypedDict):
    cursor: str
    performerId: str
    version: int
    event: EventName
    template: str | None
    params: dict[str, Any]
    itemId: str | None
    item: WholeItem | PublicItem | None
    at: datetime


class EventsPage(TypedDict):
    events: list[LoggedEvent]
    next: str | None
    """The cursor to read on from: the last event's, or that of the request if there was nothing new."""


def logged_event(logged: Logged) -> LoggedEvent:
    event = logged.event
    return {
        "cursor": logged.cursor,
        "performerId": event.performer_id,
        "version": event.version,
        **event_shape(event, View.FULL),
    }


class FieldProblem(TypedDict):
    field: str
    message: str


class Problem(TypedDict):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: NotRequired[list[FieldProblem]]
    retryAfterSeconds: NotRequired[int]
    item: NotRequired[WholeItem]


def problem(error: QueueError, item: WholeItem | None = None) -> Problem:
    """An error as a problem document. `item`: the one that the error is about, as the caller may see it."""
    document: Problem = {
        "type": f"urn:performance-queue:{error.code.lower().replace('_', '-')}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.errors:
        document["errors"] = [{"field": wrong.field, "message": wrong.message} for wrong in error.errors]
    if error.retry_after_seconds is not None:
        document["retryAfterSeconds"] = error.retry_after_seconds
    if item is not None:
        document["item"] = item
    return document


class HealthShape(TypedDict):
    status: Literal["ok"]


class ReadinessShape(TypedDict):
    status: Literal["ok", "degraded", "unavailable"]
    checks: NotRequired[dict[str, str]]
    """The state of each dependency; only for callers on this machine, the metrics token and administrators."""
