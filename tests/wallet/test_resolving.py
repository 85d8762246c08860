"""The result of an administrator's resolution, by the status of the escrow at the wallet."""

import pytest

from app.domain.command import Confirm, ResolveOperation
from app.domain.errors import InvalidTransition
from app.domain.operation import OperationStatus, Resolution
from app.wallet.answers import Escrow, EscrowStatus
from app.wallet.resolving import resolution_command
from tests.support.builders import ADMIN, NOON
from tests.support.stores import build_operation

DEAD = build_operation(status=OperationStatus.DEAD)


def command(found: Escrow, resolution: Resolution) -> object:
    return resolution_command(DEAD, found, resolution, actor=ADMIN, reason="told", now=NOON)


def escrow(status: EscrowStatus, **amounts: int) -> Escrow:
    found = {"amount": DEAD.tokens, **amounts}
    return Escrow(escrow_id=DEAD.escrow_transaction_id, user_id=DEAD.user_id, status=status, **found)


@pytest.mark.parametrize("resolution", Resolution)
def test_an_escrow_that_was_resolved_meanwhile_is_confirmed_as_it_is(resolution: Resolution) -> None:
    confirmed = command(escrow(EscrowStatus.REFUNDED), resolution)
    assert isinstance(confirmed, Confirm)
    assert confirmed.receipt.refunded_tokens == DEAD.tokens


@pytest.mark.parametrize(
    "found",
    [
        escrow(EscrowStatus.REFUNDED, amount=DEAD.tokens + 1),
        escrow(EscrowStatus.SETTLED, amount=DEAD.tokens - 1),
        escrow(EscrowStatus.SETTLED, settled_amount=DEAD.tokens - 1),
        escrow(EscrowStatus.SETTLED, settled_amount=DEAD.tokens, refunded_amount=1),
    ],
)
def test_amounts_that_are_not_the_items_are_never_taken_over(found: Escrow) -> None:
    for resolution in (Resolution.SETTLE, Resolution.REFUND):
        with pytest.raises(InvalidTransition, match="another amount"):
            command(found, resolution)
    assert isinstance(command(found, Resolution.WRITTEN_OFF), ResolveOperation)
