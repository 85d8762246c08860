"""Decides the commands about an item's payment, which come from the outbox and from administrators.

The wallet resolves an escrow once. A confirmation is therefore accepted from any attempt; a failure is accepted only
from the attempt that holds the operation's lease.
"""

from typing import Any

from msgspec.structs import replace

from app.domain import command as do
from app.domain.errors import InvalidTransition
from app.domain.event import EventName
from app.domain.item import Item, Move, Reason, Status, WalletStatus, after
from app.domain.operation import (
    PERFORMANCE_ABANDONED,
    PERFORMANCE_COMPLETED,
    Operation,
    OperationKind,
    OperationStatus,
    Resolution,
)
from app.domain.recorder import Decision, EventRecorder

ENDED = (WalletStatus.DONE, WalletStatus.WRITTEN_OFF)


def confirm(recorder: EventRecorder, item: Item, command: do.Confirm) -> Decision:
    """The wallet has resolved the escrow: the item records how, even if it has been written off meanwhile."""
    if item.wallet_status is WalletStatus.DONE:
        # A lease ran out and two attempts were confirmed; the wallet's idempotency key made them one.
        return recorder.end(item)
    receipt = command.receipt
    changes: dict[str, Any] = {"wallet_status": WalletStatus.DONE}
    if receipt.settled_tokens:
        changes |= {
            "settled": True,
            "settled_at": recorder.at,
            "settled_tokens": receipt.settled_tokens,
            "settlement_transaction_id": receipt.transaction_id,
        }
    if receipt.refunded_tokens:
        changes |= {"refunded_tokens": receipt.refunded_tokens, "refund_transaction_id": receipt.transaction_id}
    if receipt.settled_tokens:
        recorder.record(EventName.ITEM_SETTLED, item, reason=command.reason, **changes)
    elif item.status in (Status.ABANDONED, Status.FINISHED):
        reason, status = item.abandon_reason or Reason.ADMIN_REFUND, after(item, Move.REFUND)
        changes |= {"status": status, "refunded_at": recorder.at, "refund_reason": reason}
        recorder.record(EventName.ITEM_REFUNDED, item, reason=command.reason or reason, **changes)
    else:
        recorder.record(EventName.ITEM_WALLET_CHANGED, item, reason=command.reason, **changes)
    return recorder.end(item, command.operation)


def report(recorder: EventRecorder, item: Item, operation: Operation, current: Operation | None) -> Decision:
    """An attempt has failed. `operation`: the row that the attempt wants stored. `current`: the stored row."""
    if current is None or item.wallet_status in ENDED or operation.lease_until != current.lease_until:
        # The lease ran out during the attempt, and another attempt has claimed the operation: that one reports.
        return recorder.end(item)
    wallet_status = WalletStatus(operation.status)
    if wallet_status is not item.wallet_status:
        recorder.record(EventName.ITEM_WALLET_CHANGED, item, wallet_status=wallet_status)
    return recorder.end(item, operation)


def retry(recorder: EventRecorder, item: Item, current: Operation | None) -> Decision:
    """A dead operation starts again with no attempts; a retrying one is due now, unless an attempt is running."""
    if current is not None and current.status is OperationStatus.DEAD:
        operation = _anew(recorder, current)
    elif current is not None and current.status is OperationStatus.RETRYING:
        if current.is_under_way(recorder.at):
            return recorder.end(item)
        operation = replace(current, next_attempt_at=recorder.at, updated_at=recorder.at)
    else:
        state = "done" if current is None else current.status
        raise InvalidTransition(
            f"Only a dead or retrying operation is retried by hand; this one is {state}.", item_id=item.item_id
        )
    recorder.record(EventName.ITEM_WALLET_CHANGED, item, reason="retried", wallet_status=WalletStatus(operation.status))
    return recorder.end(item, operation)


def resolve(recorder: EventRecorder, item: Item, current: Operation | None, command: do.ResolveOperation) -> Decision:
    """An administrator's resolution of an escrow that the wallet still holds: a new order, with the idempotency key of
    its kind, or no order. The item's status changes when the wallet has confirmed."""
    if current is None or not is_resolvable(current) or current.is_under_way(recorder.at):
        state = "done" if current is None else "under way" if is_resolvable(current) else current.status
        raise InvalidTransition(
            "Only an operation that is dead, or that retries and is not under way, is resolved by hand; "
            f"this one is {state}.",
            item_id=item.item_id,
        )
    match command.resolution:
        case Resolution.WRITTEN_OFF:
            operation = replace(
                current,
                status=OperationStatus.DONE,
                last_problem=f"written off: {command.reason}",
                updated_at=recorder.at,
            )
            wallet_status = WalletStatus.WRITTEN_OFF
        case Resolution.SETTLE:
            operation = replace(
                _anew(recorder, current),
                kind=OperationKind.SETTLE,
                settle_tokens=item.tokens,
                refund_tokens=0,
                reason=PERFORMANCE_COMPLETED,
            )
            wallet_status = WalletStatus.PENDING
        case Resolution.REFUND:
            operation = replace(
                _anew(recorder, current),
                kind=OperationKind.REFUND,
                settle_tokens=0,
                refund_tokens=item.tokens,
                reason=_refund_reason(item),
            )
            wallet_status = WalletStatus.PENDING
    recorder.record(
        EventName.ITEM_WALLET_CHANGED,
        item,
        reason=command.reason,
        params={"resolution": command.resolution},
        wallet_status=wallet_status,
    )
    return recorder.end(item, operation)


def is_resolvable(operation: Operation) -> bool:
    """Whether the operation's status allows `resolve`."""
    return operation.status in (OperationStatus.DEAD, OperationStatus.RETRYING)


def _anew(recorder: EventRecorder, operation: Operation) -> Operation:
    return replace(
        operation,
        status=OperationStatus.PENDING,
        attempts=0,
        rejected=False,
        next_attempt_at=recorder.at,
        updated_at=recorder.at,
    )


def _refund_reason(item: Item) -> str:
    """Always the same for an item: requests with the same idempotency key must have the same bytes."""
    if item.abandoned_at is not None:
        return PERFORMANCE_ABANDONED
    return item.refund_reason or Reason.ADMIN_REFUND
