"""What a command leads to in a room: events and perhaps an order to the wallet, or a refusal.

`decide` is pure: it is given the room, the command and the time, and leaves nothing behind when it refuses by raising
one of `errors`. Which status may follow which is `item`'s; everything else a command depends on is decided here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app import command as do
from app.command import KEEP, Actor, Command, Mode, Role
from app.errors import (
    AlreadyProcessing,
    Forbidden,
    InvalidRequest,
    InvalidTransition,
    ItemNotFound,
    OutOfOrder,
    QueueClosed,
    QueueEmpty,
    QueueFull,
)
from app.estimate import waits
from app.event import Event, EventName, PauseReason, RoomSettings
from app.item import STOPPED, Item, Move, Reason, Status, WalletStatus, after
from app.operation import Operation, OperationKind, OperationStatus
from app.room import Room, apply

PERFORMANCE_COMPLETED = "performance_completed"
PERFORMANCE_ABANDONED = "performance_abandoned"
PARTIAL_PERFORMANCE = "partial_performance"


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
            return _report(story, subject, command.operation)


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
        *,
        item: Item | None = None,
        settings: RoomSettings | None = None,
        from_status: Status | None = None,
        reason: str | None = None,
        **params: Any,
    ) -> None:
        event = Event(
            performer_id=self.room.performer_id,
            version=self.room.version + 1,
            name=name,
            at=self.at,
            actor=self.actor,
            item=item and replace(item, updated_at=self.at),
            settings=settings,
            from_status=from_status,
            reason=reason,
        )
        self.room = apply(self.room, event)
        if item is not None:
            position = self.room.position(item.item_id)
            shown = {"title": item.title, "tokens": item.tokens, "sourceFeature": item.source_feature}
            event = replace(event, position=position, params={**shown, "position": position, **params})
        self.events.append(event)

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
            told = [event.item for event in self.events if event.item and event.item.item_id == item.item_id]
            item = self.room.find(item.item_id) or (told[-1] if told else item)
        return Decision(room=self.room, events=tuple(self.events), item=item, operation=operation)


def _intake(story: _Story, command: do.Intake) -> Decision:
    room = story.room
    if not room.settings.accepting:
        raise QueueClosed("This performer's queue is not accepting requests right now.")
    mode = command.queue_mode or room.settings.mode
    passes_through = mode is Mode.OFF
    if not passes_through and room.depth >= room.max_depth:
        raise QueueFull(f"This performer's queue is full ({room.depth} of {room.max_depth}).")
    _keep_arrival_order(story, command.item)
    item = replace(
        command.item,
        queue_mode=mode,
        pass_through_mode=passes_through,
        created_at=story.at,
        updated_at=story.at,
    )
    if passes_through:
        return _pass_through(story, item)
    quoted = waits((*room.items, item), room.history, story.at, room.policy.default_duration_seconds)[-1]
    item = replace(item, quoted_wait_seconds=quoted.seconds, quoted_position=room.depth + 1)
    story.tell(EventName.ITEM_CREATED, item=item)
    return story.end(item)


def _keep_arrival_order(story: _Story, item: Item) -> None:
    """Order is by arrival, ties by id: within one millisecond a smaller id than the last one's would overtake it."""
    last = story.room.items[-1] if story.room.items else None
    if last is not None and last.created_at == story.at and item.item_id <= last.item_id:
        story.at += timedelta(milliseconds=1)


def _pass_through(story: _Story, item: Item) -> Decision:
    """Mode off: created, started and finished in one step; the item never takes a place."""
    started = replace(item, status=Status.STARTED, started_at=story.at)
    finished = replace(started, status=Status.FINISHED, finished_at=story.at, wallet_status=WalletStatus.PENDING)
    story.tell(EventName.ITEM_CREATED, item=item)
    story.tell(EventName.ITEM_STARTED, item=started, from_status=Status.CREATED)
    story.tell(EventName.ITEM_FINISHED, item=finished, from_status=Status.STARTED)
    delay = story.room.policy.settle_delay_seconds
    settle = story.order(item, OperationKind.SETTLE, PERFORMANCE_COMPLETED, delay_seconds=delay)
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
    started = replace(item, status=status, started_at=story.at, clock=STOPPED)
    story.tell(
        EventName.ITEM_STARTED,
        item=started,
        from_status=item.status,
        reason=f"overtook {overtaken}" if overtaken else None,
        overtook=overtaken,
    )
    return story.end(started)


def _already_processing(started: Item) -> AlreadyProcessing:
    return AlreadyProcessing("Another item is being performed; end it first.", item_id=started.item_id)


def _complete(story: _Story, item: Item, refund_tokens: int | None) -> Decision:
    status = after(item, Move.COMPLETE)
    if refund_tokens is not None and not 0 < refund_tokens < item.tokens:
        raise InvalidRequest(
            f"refundTokens must be more than 0 and less than the item's {item.tokens} tokens.", item_id=item.item_id
        )
    finished = replace(
        item,
        status=status,
        paused=False,
        finished_at=story.at,
        clock=item.clock.stop(story.at),
        wallet_status=WalletStatus.PENDING,
    )
    delay = story.room.policy.settle_delay_seconds
    if refund_tokens is None:
        operation = story.order(item, OperationKind.SETTLE, PERFORMANCE_COMPLETED, delay_seconds=delay)
        story.tell(EventName.ITEM_FINISHED, item=finished, from_status=item.status)
    else:
        operation = story.order(
            item, OperationKind.PARTIAL, PARTIAL_PERFORMANCE, refund_tokens=refund_tokens, delay_seconds=delay
        )
        story.tell(EventName.ITEM_FINISHED, item=finished, from_status=item.status, refundTokens=refund_tokens)
    return story.end(finished, operation)


def _abandon(story: _Story, item: Item, reason: Reason) -> Decision:
    status = after(item, Move.ABANDON)
    abandoned = replace(
        item,
        status=status,
        paused=False,
        abandoned_at=story.at,
        abandon_reason=reason,
        clock=item.clock.stop(story.at),
        wallet_status=WalletStatus.PENDING,
    )
    story.tell(EventName.ITEM_ABANDONED, item=abandoned, from_status=item.status, reason=reason)
    refund = story.order(item, OperationKind.REFUND, PERFORMANCE_ABANDONED, refund_tokens=item.tokens)
    return story.end(abandoned, refund)


def _refund(story: _Story, item: Item, reason: Reason, operation: Operation | None, claimed: bool) -> Decision:
    status = after(item, Move.REFUND)
    if story.actor.role is Role.VIEWER and item.status is not Status.CREATED:
        raise Forbidden(f"You can cancel an item only while it waits; it is {item.status}.", item_id=item.item_id)
    if item.status is Status.FINISHED and (claimed or item.wallet_status is not WalletStatus.PENDING):
        raise InvalidTransition(
            "The settlement of this item has already been sent to the wallet; it can no longer be refunded.",
            item_id=item.item_id,
        )
    refunded = replace(
        item,
        status=status,
        paused=False,
        refunded_at=story.at,
        refund_reason=reason,
        clock=item.clock.stop(story.at),
    )
    if item.status is Status.ABANDONED:
        # Its refund was ordered when it was abandoned, and an escrow is resolved once.
        order = None
    else:
        refunded = replace(refunded, wallet_status=WalletStatus.PENDING)
        order = story.order(item, OperationKind.REFUND, reason, refund_tokens=item.tokens)
        if operation is not None:
            # A settlement that was never taken up becomes the refund: the same row, so still one per escrow.
            order = replace(order, operation_id=operation.operation_id, created_at=operation.created_at)
    story.tell(EventName.ITEM_REFUNDED, item=refunded, from_status=item.status, reason=reason)
    return story.end(refunded, order)


def _pause(story: _Story, item: Item, *, paused: bool) -> Decision:
    after(item, Move.PAUSE if paused else Move.RESUME)
    if item.paused is paused:
        state = "paused already" if paused else "not paused"
        raise InvalidTransition(f"This item is {state}.", item_id=item.item_id)
    changed = replace(item, paused=paused)
    story.tell(EventName.ITEM_PAUSED if paused else EventName.ITEM_RESUMED, item=changed, from_status=item.status)
    return story.end(changed)


def _change_settings(story: _Story, command: do.ChangeSettings) -> Decision:
    room = story.room
    before = room.settings
    wanted = {
        name: value
        for name in ("mode", "accepting", "strict_fifo", "max_depth", "notify_positions", "announcement")
        if (value := getattr(command, name)) is not KEEP
    }
    if command.paused is not KEEP:
        wanted["paused"] = command.paused
        wanted["pause_reason"] = PauseReason.REQUESTED if command.paused else None
    max_depth = wanted.get("max_depth")
    if max_depth is not None and max_depth > room.policy.max_depth:
        raise InvalidRequest(f"maxDepth can be at most {room.policy.max_depth} here.")
    settings = replace(before, **wanted)
    # A room comes to be with its first setting, even one that repeats the default.
    if settings != before or room.version == 0:
        story.tell(EventName.ROOM_CHANGED, settings=settings)
    return story.end()


def _set_presence(story: _Story, online: bool) -> Decision:
    """Offline stops the clocks; coming back starts them again unless the performer had paused the room."""
    before = story.room.settings
    if online is before.performer_online:
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
    name = EventName.PERFORMER_ONLINE if online else EventName.PERFORMER_OFFLINE
    story.tell(name, settings=settings)
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
    done = replace(item, wallet_status=WalletStatus.DONE)
    if receipt.settled_tokens:
        done = replace(
            done,
            settled=True,
            settled_at=story.at,
            settled_tokens=receipt.settled_tokens,
            settlement_transaction_id=receipt.transaction_id,
        )
    if receipt.refunded_tokens:
        done = replace(done, refunded_tokens=receipt.refunded_tokens, refund_transaction_id=receipt.transaction_id)
    if operation.kind is not OperationKind.REFUND:
        name = EventName.ITEM_SETTLED
    elif item.status is Status.ABANDONED:
        name = EventName.ITEM_REFUNDED
        done = replace(
            done,
            status=after(item, Move.REFUND),
            refunded_at=story.at,
            refund_reason=item.abandon_reason,
        )
    else:
        name = EventName.ITEM_WALLET_CHANGED
    story.tell(
        name,
        item=done,
        from_status=item.status,
        reason=item.abandon_reason if name is EventName.ITEM_REFUNDED else None,
    )
    return story.end(done, operation)


def _report(story: _Story, item: Item, operation: Operation) -> Decision:
    if item.wallet_status is WalletStatus.DONE:
        return story.end(item)
    wallet_status = WalletStatus(operation.status)
    if operation.status is OperationStatus.PENDING and operation.attempts:
        wallet_status = WalletStatus.RETRYING
    if wallet_status is not item.wallet_status:
        item = replace(item, wallet_status=wallet_status)
        story.tell(EventName.ITEM_WALLET_CHANGED, item=item, from_status=item.status)
    return story.end(item, operation)
