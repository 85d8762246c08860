"""Compares the queue's escrows with the wallet's own word about each: those that are open, and those of late."""

import asyncio
from datetime import datetime

from app.domain.item import Item, WalletStatus
from app.store import Store, reading
from app.store.checking import LISTED, Result
from app.wallet.answers import Escrow, EscrowAnswer, EscrowStatus, NoEscrow, Rejected, Retry
from app.wallet.client import Wallet

RULE = "wallet"
BATCH = 200
QUESTIONS_AT_ONCE = 16


async def compare_with_wallet(store: Store, wallet: Wallet, *, since: datetime) -> Result:
    """Asks the wallet about every escrow that is not resolved, or whose item has changed since `since`.

    Reads in batches and asks QUESTIONS_AT_ONCE at a time. An escrow that the wallet says nothing about counts as wrong.
    """
    examined, wrong, findings, after = 0, 0, list[str](), ""
    places = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def ask(item: Item) -> str | None:
        async with places:
            return difference(item, await wallet.escrow(item.user_id, item.escrow_transaction_id))

    while True:
        with store.reading() as connection:
            batch = reading.items_to_compare(connection, after=after, since=since, at_most=BATCH)
        for item, found in zip(batch, await asyncio.gather(*map(ask, batch)), strict=True):
            if found is not None:
                wrong += 1
                if len(findings) < LISTED:
                    findings.append(f"item {item.item_id}, escrow {item.escrow_transaction_id}: {found}")
        examined += len(batch)
        if len(batch) < BATCH:
            return Result(rule=RULE, examined=examined, wrong=wrong, findings=findings)
        after = batch[-1].item_id


def difference(item: Item, found: EscrowAnswer) -> str | None:
    """What the wallet says otherwise than the queue; None: they agree, or may agree once an attempt has ended."""
    match found:
        case Retry() | Rejected():
            return f"not compared: {found.problem}"
        case NoEscrow():
            return "the wallet knows no such escrow of this user"
        case Escrow() if found.amount != item.tokens:
            return f"{item.tokens} tokens here, {found.amount} at the wallet"
        case Escrow() if item.wallet_status is WalletStatus.DONE:
            return _difference_when_done(item, found)
        case Escrow() if item.wallet_status in (WalletStatus.PENDING, WalletStatus.RETRYING):
            return None
        case Escrow() if found.is_resolved:
            return f"{item.status}, payment {item.wallet_status} here, {found.status} at the wallet"
        case Escrow() if item.is_active and found.status is not EscrowStatus.HELD:
            return f"{item.status} here, {found.status} at the wallet"
    return None


def _difference_when_done(item: Item, found: Escrow) -> str | None:
    expected = EscrowStatus.SETTLED if item.settled else EscrowStatus.REFUNDED
    settled, refunded = item.settled_tokens or 0, item.refunded_tokens or 0
    if found.status is not expected:
        return f"{expected} here, {found.status} at the wallet"
    if found.settled_amount not in (None, settled) or found.refunded_amount not in (None, refunded):
        return (
            f"{settled} settled and {refunded} refunded here, "
            f"{found.settled_amount} and {found.refunded_amount} at the wallet"
        )
    return None
