"""The money side of an item: what the wallet's answers, and administrators, change about its operation and its status.

An escrow is resolved once, at the wallet. A confirmation is therefore taken as it comes, whichever attempt brings it;
everything else is taken only from the attempt that holds the operation's lease.
"""

from typing import Any

from app.domain import command as do
from app.domain.errors import InvalidTransition
from app.domain.event import EventName
from app.domain.item import Item, Move, Status, WalletStatus, after
from app.domain.operation import Operation, OperationKind, OperationStatus
from app.domain.recorder import Decision, EventRecorder


def confirm(recorder: EventRecorder, item: Item, command: do.Confirm) -> Decision:
    if item.wallet_status is WalletStatus.DONE:
        # A lease ran out and two attempts came back; the wallet's idempotency key made them one.
        return recorder.end(item)
    operation, receipt = command.operation, command.receipt
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
    if operation.kind is not OperationKind.REFUND:
        recorder.record(EventName.ITEM_SETTLED, item, **changes)
    elif item.status is Status.ABANDONED:
        reason, status = item.abandon_reason, after(item, Move.REFUND)
        changes |= {"status": status, "refunded_at": recorder.at, "refund_reason": reason}
        recorder.record(EventName.ITEM_REFUNDED, item, reason=reason, **changes)
    else:
        recorder.record(EventName.ITEM_WALLET_CHANGED, item, **changes)
    return recorder.end(item, operation)


def report(recorder: EventRecorder, item: Item, operation: Operation, current: Operation | None) -> Decision:
    if current is None or item.wallet_status is WalletStatus.DONE:
        return recorder.end(item)
    if operation.status is OperationStatus.PENDING:
        if current.status is not OperationStatus.DEAD:
            # Of two administrators one was first; a second start would be a second attempt at the same time.
            raise InvalidTransition(
                f"Only a dead operation is retried by hand; this one is {current.status}.", item_id=item.item_id
            )
    elif operation.lease_until != current.lease_until:
        # The lease ran out during the attempt and somebody else is at it: what counts is what they report.
        return recorder.end(item)
    wallet_status = WalletStatus(operation.status)
    if wallet_status is not item.wallet_status:
        recorder.record(EventName.ITEM_WALLET_CHANGED, item, wallet_status=wallet_status)
    return recorder.end(item, operation)
