"""Decides commands in a room: the result is events and perhaps an order to the wallet, or a refusal.

`decide` is a pure function of the room, the command and the time. It refuses by raising one of `errors`, and then
changes nothing. `item` has the table of statuses; every other rule about commands is here or in `payment`.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec.structs import replace

from app.domain import command as do
from app.domain import payment
from app.domain.command import KEEP, Command, Mode, Role
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
from app.domain.event import EventName, PauseReason
from app.domain.item import STOPPED, Item, Move, Reason, Status, WalletStatus, after
from app.domain.operation import (
    PARTIAL_PERFORMANCE,
    PERFORMANCE_ABANDONED,
    PERFORMANCE_COMPLETED,
    Operation,
    OperationKind,
)
from app.domain.recorder import Decision, EventRecorder
from app.domain.room import Room

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
"""The settings that a command sets without further effect; `paused` also sets a reason."""


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
    """The result of `command` in `room`, or a raised refusal.

    `item`: the item that the command names, if it has ended (an active one is in the room). `operation`: that item's
    row in the outbox. `claimed`: whether a process has ever claimed that row to send it. `new_id` makes the id of a new
    operation.
    """
    recorder = EventRecorder(room, command.actor, now, new_id)
    match command:
        case do.Intake():
            return _intake(recorder, command)
        case do.StartNext():
            return _start_next(recorder)
        case do.ChangeSettings():
            return _change_settings(recorder, command)
        case do.RestartClocks():
            return _restart_clocks(recorder, command)
        case do.SetPresence():
            return _set_presence(recorder, command.online)
    subject = room.find(command.item_id) or item
    if subject is None:
        raise ItemNotFound("There is no such item.")
    match command:
        case do.Start():
            return _start(recorder, subject)
        case do.Complete():
            return _complete(recorder, subject, command.refund_tokens)
        case do.Abandon():
            return _abandon(recorder, subject, command.reason)
        case do.Refund():
            return _refund(recorder, subject, command.reason, operation, claimed)
        case do.Pause():
            return _pause(recorder, subject, paused=True)
        case do.Resume():
            return _pause(recorder, subject, paused=False)
        case do.Expire():
            return _expire(recorder, subject, command.at)
        case do.Confirm():
            return payment.confirm(recorder, subject, command)
        case do.Report():
            return payment.report(recorder, subject, command.operation, operation)
        case do.RetryOperation():
            return payment.retry(recorder, subject, operation)
        case do.ResolveOperation():
            return payment.resolve(recorder, subject, operation, command)


def _intake(recorder: EventRecorder, command: do.Intake) -> Decision:
    room = recorder.room
    if not room.settings.accepting:
        raise QueueClosed("This performer's queue is not accepting requests right now.")
    if (command.queue_mode or room.settings.mode) is Mode.OFF:
        return _pass_through(recorder, command.item)
    if room.depth >= room.max_depth:
        raise QueueFull(f"This performer's queue is full ({room.depth} of {room.max_depth}).")
    _check_user_limit(room, command.item.user_id)
    arrival = _arrival(recorder, command.item)
    recorder.room = room = room.with_backlog()
    quote = room.quote(recorder.at)
    longest = room.settings.max_wait_seconds
    if longest is not None and quote.seconds > longest:
        wait = round(quote.seconds)
        raise QueueFull(f"A new item would wait about {wait} s; this performer takes none beyond {longest} s.")
    low, high = quote.range_seconds or (None, None)
    item = recorder.record(
        EventName.ITEM_CREATED,
        command.item,
        queue_mode=Mode.ON,
        pass_through_mode=False,
        created_at=arrival,
        quoted_wait_seconds=quote.seconds,
        quoted_position=room.depth + 1,
        quoted_low_seconds=low,
        quoted_high_seconds=high,
    )
    return recorder.end(item)


def _check_user_limit(room: Room, user_id: str) -> None:
    limit = room.settings.max_per_user
    if limit is None:
        return
    count = sum(item.user_id == user_id for item in room.items)
    if count >= limit:
        raise UserLimitReached(f"This user has {count} items in this queue; this performer takes at most {limit} each.")


def _arrival(recorder: EventRecorder, item: Item) -> datetime:
    """The item's time of arrival: now, or as much later as it takes to be last. Items are in order of arrival, ties in
    order of id, so an item with a smaller id in the same millisecond, or one that arrives after the clock was set back,
    would overtake others."""
    room = recorder.room
    waiting = room.items[1:] if room.started else room.items
    if not waiting:
        return recorder.at
    last = waiting[-1]
    if last.created_at > recorder.at:
        return last.created_at + timedelta(milliseconds=1)
    if last.created_at == recorder.at and item.item_id <= last.item_id:
        recorder.at += timedelta(milliseconds=1)
    return recorder.at


def _pass_through(recorder: EventRecorder, draft: Item) -> Decision:
    """Mode off: the item is created, started and finished in one step, and never has a place in the queue."""
    created = recorder.record(
        EventName.ITEM_CREATED, draft, queue_mode=Mode.OFF, pass_through_mode=True, created_at=recorder.at
    )
    started = recorder.record(EventName.ITEM_STARTED, created, status=Status.STARTED, started_at=recorder.at)
    finished = recorder.record(
        EventName.ITEM_FINISHED,
        started,
        status=Status.FINISHED,
        finished_at=recorder.at,
        wallet_status=WalletStatus.PENDING,
    )
    delay = recorder.room.policy.settle_delay_seconds
    settle = recorder.order(finished, OperationKind.SETTLE, PERFORMANCE_COMPLETED, delay_seconds=delay)
    return recorder.end(finished, settle)


def _start_next(recorder: EventRecorder) -> Decision:
    room = recorder.room
    if room.started is not None:
        raise _already_processing(room.started)
    if room.head is None:
        raise QueueEmpty("There is nobody waiting in this queue.")
    return _start(recorder, room.head)


def _start(recorder: EventRecorder, item: Item) -> Decision:
    status = after(item, Move.START)
    room = recorder.room
    if room.started is not None:
        raise _already_processing(room.started)
    overtaken = room.position(item.item_id) - 1
    if overtaken and room.settings.strict_fifo:
        raise OutOfOrder(
            f"This room is strictly first in, first out; {overtaken} waiting before this item.", item_id=item.item_id
        )
    recorder.record(
        EventName.ITEM_STARTED,
        item,
        reason=f"overtook {overtaken}" if overtaken else None,
        params={"overtook": overtaken},
        status=status,
        started_at=recorder.at,
        clock=STOPPED,
    )
    return recorder.end(item)


def _already_processing(started: Item) -> AlreadyProcessing:
    return AlreadyProcessing("Another item is being performed; end it first.", item_id=started.item_id)


def _complete(recorder: EventRecorder, item: Item, refund_tokens: int | None) -> Decision:
    status = after(item, Move.COMPLETE)
    if refund_tokens is not None and not 0 < refund_tokens < item.tokens:
        raise InvalidRequest(
            f"refundTokens must be more than 0 and less than the item's {item.tokens} tokens.",
            errors=[FieldError("refundTokens", f"must be more than 0 and less than {item.tokens}")],
            item_id=item.item_id,
        )
    split = refund_tokens is not None
    order = recorder.order(
        item,
        OperationKind.PARTIAL if split else OperationKind.SETTLE,
        PARTIAL_PERFORMANCE if split else PERFORMANCE_COMPLETED,
        refund_tokens=refund_tokens or 0,
        delay_seconds=recorder.room.policy.settle_delay_seconds,
    )
    recorder.record(
        EventName.ITEM_FINISHED,
        item,
        params={"refundTokens": refund_tokens} if split else None,
        status=status,
        paused=False,
        finished_at=recorder.at,
        clock=item.clock.stop(recorder.at),
        wallet_status=WalletStatus.PENDING,
    )
    return recorder.end(item, order)


def _abandon(recorder: EventRecorder, item: Item, reason: Reason) -> Decision:
    status = after(item, Move.ABANDON)
    recorder.record(
        EventName.ITEM_ABANDONED,
        item,
        reason=reason,
        status=status,
        paused=False,
        abandoned_at=recorder.at,
        abandon_reason=reason,
        clock=item.clock.stop(recorder.at),
        wallet_status=WalletStatus.PENDING,
    )
    refund = recorder.order(item, OperationKind.REFUND, PERFORMANCE_ABANDONED, refund_tokens=item.tokens)
    return recorder.end(item, refund)


def _refund(
    recorder: EventRecorder, item: Item, reason: Reason, operation: Operation | None, claimed: bool
) -> Decision:
    status = after(item, Move.REFUND)
    if recorder.actor.role is Role.VIEWER and item.status is not Status.CREATED:
        raise Forbidden(f"You can cancel an item only while it waits; it is {item.status}.", item_id=item.item_id)
    if item.status is Status.FINISHED and (claimed or item.wallet_status is not WalletStatus.PENDING):
        raise InvalidTransition(
            "The settlement of this item has already been sent to the wallet; it can no longer be refunded here. "
            "An administrator may resolve its wallet operation.",
            item_id=item.item_id,
        )
    order = None
    # An abandoned item's refund was ordered when it was abandoned, and an escrow is resolved once.
    if item.status is not Status.ABANDONED:
        order = recorder.order(item, OperationKind.REFUND, reason, refund_tokens=item.tokens)
        if operation is not None:
            # The refund replaces a settlement that was never claimed: the same row, so still one per escrow.
            order = replace(order, operation_id=operation.operation_id, created_at=operation.created_at)
    recorder.record(
        EventName.ITEM_REFUNDED,
        item,
        reason=reason,
        status=status,
        paused=False,
        refunded_at=recorder.at,
        refund_reason=reason,
        clock=item.clock.stop(recorder.at),
        wallet_status=item.wallet_status if order is None else WalletStatus.PENDING,
    )
    return recorder.end(item, order)


def _pause(recorder: EventRecorder, item: Item, *, paused: bool) -> Decision:
    after(item, Move.PAUSE if paused else Move.RESUME)
    if item.paused is paused:
        state = "paused already" if paused else "not paused"
        raise InvalidTransition(f"This item is {state}.", item_id=item.item_id)
    recorder.record(EventName.ITEM_PAUSED if paused else EventName.ITEM_RESUMED, item, paused=paused)
    return recorder.end(item)


def _change_settings(recorder: EventRecorder, command: do.ChangeSettings) -> Decision:
    room = recorder.room
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
    # The first setting creates the room, even if it repeats the default.
    if settings != before or room.version == 0:
        recorder.record_settings(EventName.ROOM_CHANGED, settings)
    return recorder.end()


def _restart_clocks(recorder: EventRecorder, command: do.RestartClocks) -> Decision:
    """Restarts the clock of the room's first item, the only one that can run, and the grace period of an absent
    performer, who could not come back meanwhile."""
    # Even if the last event has a later time: that came from a clock that has been set back since.
    recorder.at = recorder.now
    room, settings = recorder.room, recorder.room.settings
    if settings.offline_since is not None:
        settings = replace(settings, offline_since=recorder.at)
    head = room.items[0] if room.items else None
    if head is not None and head.clock.since is not None:
        clock = head.clock.restart(room.time(command.stopped_at), recorder.at, command.set_after)
        recorder.record_settings(EventName.ROOM_CHANGED, settings, replace(head, clock=clock))
    elif settings != room.settings:
        recorder.record_settings(EventName.ROOM_CHANGED, settings)
    return recorder.end()


def _set_presence(recorder: EventRecorder, online: bool) -> Decision:
    """Offline pauses the room, which stops its clocks; online resumes it unless the performer had paused it."""
    before = recorder.room.settings
    if online is before.performer_online or recorder.room.version == 0:
        # A room is created by its first intake or setting, not by a panel that watches it.
        return recorder.end()
    settings = replace(
        before,
        performer_online=online,
        offline_since=None if online else recorder.at,
    )
    if online and before.pause_reason is PauseReason.PERFORMER_DISCONNECTED:
        settings = replace(settings, paused=False, pause_reason=None)
    elif not online and not before.paused:
        settings = replace(settings, paused=True, pause_reason=PauseReason.PERFORMER_DISCONNECTED)
    recorder.record_settings(EventName.PERFORMER_ONLINE if online else EventName.PERFORMER_OFFLINE, settings)
    return recorder.end()


def _expire(recorder: EventRecorder, item: Item, looked_at: datetime) -> Decision:
    deadline = recorder.room.deadline(item) if item.is_active else None
    if deadline is None or deadline[0] > min(recorder.at, looked_at):
        return recorder.end(item)
    return _abandon(recorder, item, deadline[1])
