"""What a command leads to in a room: events and perhaps an order to the wallet, or a refusal.

`decide` is pure: it is given the room, the command and the time, and leaves nothing behind when it refuses by raising
one of `errors`. Which status may follow which is `item`'s; everything else a command depends on is decided here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.domain import command as do
from app.domain.command import KEEP, Actor, Command, Mode, Role
from app.domain.errors import (
    AlreadyProcessing,
    FieldError,
    Forbidden,
    InvalidRequest,
    InvalidTransition,
    ItemNotFound,
    OutOfOrder,
    QueueClosed,
    QueueEmpty,
    QueueFull,
    UserLimitReached,
)
from app.domain.event import Event, EventName, PauseReason, RoomSettings
from app.domain.item import STOPPED, Item, Move, Reason, Status, WalletStatus, after, changed
from app.domain.operation import Operation, OperationKind, OperationStatus
from app.domain.room import Room, fold

PERFORMANCE_COMPLETED = "performance_completed"
PERFORMANCE_ABANDONED = "performance_abandoned"
PARTIAL_PERFORMANCE = "partial_performance"
_PLAIN_SETTINGS = (
    "mode",
    "accepting",
    "strict_fifo",
    "max_depth",
    "max_per_user",
    "max_wait_seconds",
    "notify_positions",
    "announcement",
)
"""The settings that are as they were asked for; `paused` has a reason as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a command leads to: all of it is committed in one transaction, or none."""

    room: Room
    """The room after the events."""
    events: tuple[Event, ...] = ()
    item: Item | None = None
    """The item the command was about, as it is afterwards: what the caller is answered with."""
    operation: Operation | None = None
    """The outbox row to write or replace."""


def decide(
    room: Room,
    command: Command,
    now: datetime,
    *,
    item: Item | None = None,
    operation: Operation | None = None,
    claimed: bool = False,
    new_id: Callable[[], str] = lambda: "",
) -> Decision:
    """What `command` leads to in `room`, or a raised refusal.

    `item` is the item the command names if it has already ended (an active one is found in the room), `operation` its
    outbox row, `claimed` whether that row has ever been taken up to be sent. `new_id` names a new operation.
    """
    story = _Story(room, command.actor, now, new_id)
    match command:
        case do.Intake():
            return _intake(story, command)
        case do.StartNext():
            return _start_next(story)
        case do.ChangeSettings():
            return _change_settings(story, command)
        case do.SetPresence():
            return _set_presence(story, command.online)
    subject = room.find(command.item_id) or item
    if subject is None:
        raise ItemNotFound("There is no such item.")
    match command:
        case do.Start():
            return _start(story, subject)
        case do.Complete():
            return _complete(story, subject, command.refund_tokens)
        case do.Abandon():
            return _abandon(story, subject, command.reason)
        case do.Refund():
            return _refund(story, subject, command.reason, operation, claimed)
        case do.Pause():
            return _pause(story, subject, paused=True)
        case do.Resume():
            return _pause(story, subject, paused=False)
        case do.Expire():
            return _expire(story, subject)
        case do.Confirm():
            return _confirm(story, subject, command)
        case do.Report():
            return _report(story, subject, command.operation, operation)


class _Story:
    """The events of one command so far; each is folded before the next is told, so positions are always true."""

    def __init__(self, room: Room, actor: Actor, now: datetime, new_id: Callable[[], str]) -> None:
        self.room = room
        self.actor = actor
        self.at = now if room.last_at is None else max(now, room.last_at)
        self.new_id = new_id
        self.events: list[Event] = []

    def tell(
        self,
        name: EventName,
        item: Item,
        *,
        reason: str | None = None,
        params: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Item:
        """What has happened to `item`, and what it is now: `changes` are the fields that differ."""
        told = changed(item, updated_at=self.at, **changes)
        self.room = fold(self.room, name, self.at, item=told)
        # As it is in the room now: the fold may have started its clock.
        told = self.room.find(item.item_id) or told
        position = self.room.position(item.item_id)
        shown = {"title": item.title, "tokens": item.tokens, "sourceFeature": item.source_feature}
        self._note(
            name,
            item=told,
            position=position,
            from_status=None if name is EventName.ITEM_CREATED else item.status,
            reason=reason,
            params={**shown, "position": position, **(params or {})},
        )
        return told

    def tell_settings(self, name: EventName, settings: RoomSettings) -> None:
        """The room's settings have changed. Where that stops or starts the clock of the item on stage, the event
        carries the item."""
        before = self.room.started
        self.room = fold(self.room, name, self.at, settings=settings)
        after = self.room.started
        if before is None or after is None or after.clock == before.clock:
            self._note(name, settings=settings)
        else:
            self._note(name, settings=settings, item=after, position=1, from_status=after.status)

    def _note(self, name: EventName, **fields: Any) -> None:
        room = self.room
        self.events.append(
            Event(
                performer_id=room.performer_id, version=room.version, name=name, at=self.at, actor=self.actor, **fields
            )
        )

    def order(
        self,
        item: Item,
        kind: OperationKind,
        reason: str,
        *,
        refund_tokens: int = 0,
        delay_seconds: float = 0,
    ) -> Operation:
        return Operation(
            operation_id=self.new_id(),
            item_id=item.item_id,
            performer_id=item.performer_id,
            user_id=item.user_id,
            escrow_transaction_id=item.escrow_transaction_id,
            kind=kind,
            settle_tokens=item.tokens - refund_tokens,
            refund_tokens=refund_tokens,
            reason=reason,
            next_attempt_at=self.at + timedelta(seconds=delay_seconds),
            created_at=self.at,
            updated_at=self.at,
        )

    def end(self, item: Item | None = None, operation: Operation | None = None) -> Decision:
        if item is not None:
            told = (event.item for event in reversed(self.events) if event.item and event.item.item_id == item.item_id)
            item = self.room.find(item.item_id) or next(told, item)
        return Decision(room=self.room, events=tuple(self.events), item=item, operation=operation)


def _intake(story: _Story, command: do.Intake) -> Decision:
    room = story.room
    if not room.settings.accepting:
        raise QueueClosed("This performer's queue is not accepting requests right now.")
    if (command.queue_mode or room.settings.mode) is Mode.OFF:
        return _pass_through(story, command.item)
    if room.depth >= room.max_depth:
        raise QueueFull(f"This performer's queue is full ({room.depth} of {room.max_depth}).")
    _check_user_limit(room, command.item.user_id)
    _keep_arrival_order(story, command.item)
    story.room = room = room.with_backlog()
    wait = room.wait_of_next(story.at)
    longest = room.settings.max_wait_seconds
    if longest is not None and wait > longest:
        raise QueueFull(f"A new item would wait about {round(wait)} s; this performer takes none beyond {longest} s.")
    item = story.tell(
        EventName.ITEM_CREATED,
        command.item,
        queue_mode=Mode.ON,
        pass_through_mode=False,
        created_at=story.at,
        quoted_wait_seconds=wait,
        quoted_position=room.depth + 1,
    )
    return story.end(item)


def _check_user_limit(room: Room, user_id: str) -> None:
    limit = room.settings.max_per_user
    if limit is None:
        return
    count = sum(item.user_id == user_id for item in room.items)
    if count >= limit:
        raise UserLimitReached(f"This user has {count} items in this queue; this performer takes at most {limit} each.")


def _keep_arrival_order(story: _Story, item: Item) -> None:
    """Order is by arrival, ties by id: within one millisecond a smaller id than the last one's would overtake it."""
    last = story.room.items[-1] if story.room.items else None
    if last is not None and last.created_at == story.at and item.item_id <= last.item_id:
        story.at += timedelta(milliseconds=1)


def _pass_through(story: _Story, draft: Item) -> Decision:
    """Mode off: created, started and finished in one step; the item never takes a place."""
    created = story.tell(
        EventName.ITEM_CREATED, draft, queue_mode=Mode.OFF, pass_through_mode=True, created_at=story.at
    )
    started = story.tell(EventName.ITEM_STARTED, created, status=Status.STARTED, started_at=story.at)
    finished = story.tell(
        EventName.ITEM_FINISHED,
        started,
        status=Status.FINISHED,
        finished_at=story.at,
        wallet_status=WalletStatus.PENDING,
    )
    delay = story.room.policy.settle_delay_seconds
    settle = story.order(finished, OperationKind.SETTLE, PERFORMANCE_COMPLETED, delay_seconds=delay)
    return story.end(finished, settle)


def _start_next(story: _Story) -> Decision:
    room = story.room
    if room.started is not None:
        raise _already_processing(room.started)
    if room.head is None:
        raise QueueEmpty("There is nobody waiting in this queue.")
    return _start(story, room.head)


def _start(story: _Story, item: Item) -> Decision:
    status = after(item, Move.START)
    room = story.room
    if room.started is not None:
        raise _already_processing(room.started)
    overtaken = room.position(item.item_id) - 1
    if overtaken and room.settings.strict_fifo:
        raise OutOfOrder(
            f"This room is strictly first in, first out; {overtaken} waiting before this item.", item_id=item.item_id
        )
    story.tell(
        EventName.ITEM_STARTED,
        item,
        reason=f"overtook {overtaken}" if overtaken else None,
        params={"overtook": overtaken},
        status=status,
        started_at=story.at,
        clock=STOPPED,
    )
    return story.end(item)


def _already_processing(started: Item) -> AlreadyProcessing:
    return AlreadyProcessing("Another item is being performed; end it first.", item_id=started.item_id)


def _complete(story: _Story, item: Item, refund_tokens: int | None) -> Decision:
    status = after(item, Move.COMPLETE)
    if refund_tokens is not None and not 0 < refund_tokens < item.tokens:
        raise InvalidRequest(
            f"refundTokens must be more than 0 and less than the item's {item.tokens} tokens.",
            errors=[FieldError("refundTokens", f"must be more than 0 and less than {item.tokens}")],
            item_id=item.item_id,
        )
    split = refund_tokens is not None
    order = story.order(
        item,
        OperationKind.PARTIAL if split else OperationKind.SETTLE,
        PARTIAL_PERFORMANCE if split else PERFORMANCE_COMPLETED,
        refund_tokens=refund_tokens or 0,
        delay_seconds=story.room.policy.settle_delay_seconds,
    )
    story.tell(
        EventName.ITEM_FINISHED,
        item,
        params={"refundTokens": refund_tokens} if split else None,
        status=status,
        paused=False,
        finished_at=story.at,
        clock=item.clock.stop(story.at),
        wallet_status=WalletStatus.PENDING,
    )
    return story.end(item, order)


def _abandon(story: _Story, item: Item, reason: Reason) -> Decision:
    status = after(item, Move.ABANDON)
    story.tell(
        EventName.ITEM_ABANDONED,
        item,
        reason=reason,
        status=status,
        paused=False,
        abandoned_at=story.at,
        abandon_reason=reason,
        clock=item.clock.stop(story.at),
        wallet_status=WalletStatus.PENDING,
    )
    refund = story.order(item, OperationKind.REFUND, PERFORMANCE_ABANDONED, refund_tokens=item.tokens)
    return story.end(item, refund)


def _refund(story: _Story, item: Item, reason: Reason, operation: Operation | None, claimed: bool) -> Decision:
    status = after(item, Move.REFUND)
    if story.actor.role is Role.VIEWER and item.status is not Status.CREATED:
        raise Forbidden(f"You can cancel an item only while it waits; it is {item.status}.", item_id=item.item_id)
    if item.status is Status.FINISHED and (claimed or item.wallet_status is not WalletStatus.PENDING):
        raise InvalidTransition(
            "The settlement of this item has already been sent to the wallet; it can no longer be refunded.",
            item_id=item.item_id,
        )
    order = None
    # An abandoned item's refund was ordered when it was abandoned, and an escrow is resolved once.
    if item.status is not Status.ABANDONED:
        order = story.order(item, OperationKind.REFUND, reason, refund_tokens=item.tokens)
        if operation is not None:
            # A settlement that was never taken up becomes the refund: the same row, so still one per escrow.
            order = replace(order, operation_id=operation.operation_id, created_at=operation.created_at)
    story.tell(
        EventName.ITEM_REFUNDED,
        item,
        reason=reason,
        status=status,
        paused=False,
        refunded_at=story.at,
        refund_reason=reason,
        clock=item.clock.stop(story.at),
        wallet_status=item.wallet_status if order is None else WalletStatus.PENDING,
    )
    return story.end(item, order)


def _pause(story: _Story, item: Item, *, paused: bool) -> Decision:
    after(item, Move.PAUSE if paused else Move.RESUME)
    if item.paused is paused:
        state = "paused already" if paused else "not paused"
        raise InvalidTransition(f"This item is {state}.", item_id=item.item_id)
    story.tell(EventName.ITEM_PAUSED if paused else EventName.ITEM_RESUMED, item, paused=paused)
    return story.end(item)


def _change_settings(story: _Story, command: do.ChangeSettings) -> Decision:
    room = story.room
    before = room.settings
    wanted = {name: value for name in _PLAIN_SETTINGS if (value := getattr(command, name)) is not KEEP}
    if command.paused is not KEEP:
        wanted["paused"] = command.paused
        wanted["pause_reason"] = PauseReason.REQUESTED if command.paused else None
    max_depth = wanted.get("max_depth")
    if max_depth is not None and max_depth > room.policy.max_depth:
        raise InvalidRequest(
            f"maxDepth can be at most {room.policy.max_depth} here.",
            errors=[FieldError("maxDepth", f"must be at most {room.policy.max_depth}")],
        )
    settings = replace(before, **wanted)
    # A room comes to be with its first setting, even one that repeats the default.
    if settings != before or room.version == 0:
        story.tell_settings(EventName.ROOM_CHANGED, settings)
    return story.end()


def _set_presence(story: _Story, online: bool) -> Decision:
    """Offline stops the clocks; coming back starts them again unless the performer had paused the room."""
    before = story.room.settings
    if online is before.performer_online or story.room.version == 0:
        # A room comes to be with its first intake or setting, not because somebody looks at it.
        return story.end()
    settings = replace(
        before,
        performer_online=online,
        offline_since=None if online else story.at,
    )
    if online and before.pause_reason is PauseReason.PERFORMER_DISCONNECTED:
        settings = replace(settings, paused=False, pause_reason=None)
    elif not online and not before.paused:
        settings = replace(settings, paused=True, pause_reason=PauseReason.PERFORMER_DISCONNECTED)
    story.tell_settings(EventName.PERFORMER_ONLINE if online else EventName.PERFORMER_OFFLINE, settings)
    return story.end()


def _expire(story: _Story, item: Item) -> Decision:
    deadline = story.room.deadline(item) if item.is_active else None
    if deadline is None or deadline[0] > story.at:
        return story.end(item)
    return _abandon(story, item, deadline[1])


def _confirm(story: _Story, item: Item, command: do.Confirm) -> Decision:
    if item.wallet_status is WalletStatus.DONE:
        # A lease ran out and two attempts came back; the wallet's idempotency key made them one.
        return story.end(item)
    operation, receipt = command.operation, command.receipt
    changes: dict[str, Any] = {"wallet_status": WalletStatus.DONE}
    if receipt.settled_tokens:
        changes |= {
            "settled": True,
            "settled_at": story.at,
            "settled_tokens": receipt.settled_tokens,
            "settlement_transaction_id": receipt.transaction_id,
        }
    if receipt.refunded_tokens:
        changes |= {"refunded_tokens": receipt.refunded_tokens, "refund_transaction_id": receipt.transaction_id}
    if operation.kind is not OperationKind.REFUND:
        story.tell(EventName.ITEM_SETTLED, item, **changes)
    elif item.status is Status.ABANDONED:
        reason, status = item.abandon_reason, after(item, Move.REFUND)
        changes |= {"status": status, "refunded_at": story.at, "refund_reason": reason}
        story.tell(EventName.ITEM_REFUNDED, item, reason=reason, **changes)
    else:
        story.tell(EventName.ITEM_WALLET_CHANGED, item, **changes)
    return story.end(item, operation)


def _report(story: _Story, item: Item, operation: Operation, current: Operation | None) -> Decision:
    if current is None or item.wallet_status is WalletStatus.DONE:
        return story.end(item)
    if operation.status is OperationStatus.PENDING:
        if current.status is not OperationStatus.DEAD:
            # Of two administrators one was first; a second start would be a second attempt at the same time.
            raise InvalidTransition(
                f"Only a dead operation is retried by hand; this one is {current.status}.", item_id=item.item_id
            )
    elif operation.lease_until != current.lease_until:
        # The lease ran out during the attempt and somebody else is at it: what counts is what they report.
        return story.end(item)
    wallet_status = WalletStatus(operation.status)
    if wallet_status is not item.wallet_status:
        story.tell(EventName.ITEM_WALLET_CHANGED, item, wallet_status=wallet_status)
    return story.end(item, operation)
