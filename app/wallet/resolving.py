"""Turns an administrator's resolution of an operation, and the escrow's state at the wallet, into a command."""

from datetime import datetime

from msgspec.structs import replace

from app.domain.command import Actor, Command, Confirm, ResolveOperation
from app.domain.errors import InvalidTransition, Unavailable
from app.domain.operation import Operation, OperationKind, OperationStatus, Receipt, Resolution
from app.wallet.answers import Escrow, EscrowAnswer, EscrowStatus, NoEscrow, Rejected, Retry

ASK_AGAIN_SECONDS = 5


def resolution_command(
    operation: Operation, found: EscrowAnswer, resolution: Resolution, *, actor: Actor, reason: str, now: datetime
) -> Command:
    """The command for a resolution. `found`: the wallet's answer about the escrow, read just now.

    A held escrow allows any resolution. An escrow that was resolved meanwhile is confirmed as it is, if its amounts add
    up to the item's tokens. Any other answer allows only a write-off, else InvalidTransition is raised.

    Raises Unavailable if the wallet could not be asked.
    """
    if isinstance(found, Escrow) and found.is_resolved and sum(_division(operation, found)) == operation.tokens:
        return confirmation_of(operation, found, actor=actor, reason=reason, now=now)
    if isinstance(found, Retry) or (isinstance(found, Rejected) and found.concerns_credentials):
        raise Unavailable(
            f"The wallet has to be asked first, and cannot be: {found.problem}.",
            retry_after_seconds=ASK_AGAIN_SECONDS,
            item_id=operation.item_id,
        )
    is_held = isinstance(found, Escrow) and found.status is EscrowStatus.HELD
    if not is_held and resolution is not Resolution.WRITTEN_OFF:
        raise InvalidTransition(
            f"This can only be written off, or tried again later: {_describe(found)}.", item_id=operation.item_id
        )
    return ResolveOperation(actor=actor, item_id=operation.item_id, resolution=resolution, reason=reason)


def confirmation_of(operation: Operation, escrow: Escrow, *, actor: Actor, reason: str, now: datetime) -> Confirm:
    """The command that records the resolution that the wallet states, even if the queue ordered another one."""
    settled, refunded = _division(operation, escrow)
    kind = OperationKind.REFUND if not settled else OperationKind.PARTIAL if refunded else OperationKind.SETTLE
    kept = replace(
        operation,
        kind=kind,
        settle_tokens=settled,
        refund_tokens=refunded,
        status=OperationStatus.DONE,
        last_problem=None,
        updated_at=now,
    )
    # The status does not name the transaction.
    receipt = Receipt(transaction_id=None, settled_tokens=settled, refunded_tokens=refunded)
    return Confirm(item_id=operation.item_id, operation=kept, receipt=receipt, actor=actor, reason=reason)


def _division(operation: Operation, escrow: Escrow) -> tuple[int, int]:
    """The tokens that were settled and refunded. The status after a split is `settled` too: if the wallet states no
    amounts and a split was ordered, its amounts are assumed."""
    if escrow.status is EscrowStatus.REFUNDED:
        return 0, escrow.amount
    if escrow.settled_amount:
        return escrow.settled_amount, escrow.refunded_amount or 0
    if operation.kind is OperationKind.PARTIAL and escrow.amount == operation.tokens:
        return operation.settle_tokens, operation.refund_tokens
    return escrow.amount, 0


def _describe(found: Escrow | NoEscrow | Rejected) -> str:
    match found:
        case Escrow(is_resolved=True):
            return f"the escrow is {found.status} at the wallet with another amount than the item's"
        case Escrow():
            return f"the escrow is {found.status} at the wallet"
        case NoEscrow():
            return "the wallet knows no such escrow of this user"
        case Rejected():
            return found.problem
