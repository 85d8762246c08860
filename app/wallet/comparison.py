"""Compares the queue's open and recently changed escrows with their state at the wallet."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from app.domain.item import Item, WalletStatus
from app.store import reading
from app.wallet.answers import Escrow, EscrowAnswer, EscrowStatus, NoEscrow, Rejected, Retry

RECENT = timedelta(days=7)
"""Resolved escrows are compared if their item has changed within this time."""
REQUESTS_AT_ONCE = 16
ROUNDS = 3
"""The most comparisons of an item that changes while the wallet is asked."""

T = TypeVar("T")


class EscrowSource(Protocol):
    """The part of the wallet's client that a comparison needs."""

    async def escrow(self, user_id: str, escrow_id: str) -> EscrowAnswer: ...


class Run(Protocol):
    """Runs a query over a read-only connection of its own."""

    def __call__(self, query: Callable[[Connection], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An escrow on which the wallet and the queue disagree, or for which the wallet gave no answer."""

    item: Item
    problem: str
    is_answered: bool
    """False: the wallet gave no answer about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The result for a batch of escrows, in the order of their items' ids."""

    examined: int
    differences: Sequence[Difference]
    after: str | None
    """The last item's id, after which the next batch begins; None: this was the last batch."""

    @property
    def unanswered(self) -> int:
        """The number of escrows for which the wallet gave no answer."""
        return sum(not each.is_answered for each in self.differences)


async def compare(
    run: Run, wallet: EscrowSource, *, since: datetime, after: str = "", at_most: int = REQUESTS_AT_ONCE
) -> Compared:
    """Compares the next `at_most` escrows with an item id beyond `after` that are not resolved, or whose item has
    changed since `since`. REQUESTS_AT_ONCE requests run at a time.
    """
    items = await run(
        lambda connection: reading.items_to_compare(connection, after=after, since=since, at_most=at_most)
    )
    return Compared(
        examined=len(items),
        differences=await _differences(run, wallet, items),
        after=items[-1].item_id if len(items) == at_most else None,
    )


async def _differences(run: Run, wallet: EscrowSource, items: Sequence[Item]) -> list[Difference]:
    """The differences of these items. An item that changes while the wallet is asked is compared again: the answer may
    be about its new state."""
    found: list[Difference] = []
    places = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def read(item: Item) -> EscrowAnswer:
        async with places:
            return await wallet.escrow(item.user_id, item.escrow_transaction_id)

    for _ in range(ROUNDS):
        answers = await asyncio.gather(*map(read, items))
        differing = [
            Difference(item=item, problem=problem, is_answered=_is_answer(answer))
            for item, answer in zip(items, answers, strict=True)
            if (problem := difference(item, answer)) is not None
        ]
        if not differing:
            break
        current = await run(partial(_current, item_ids=[each.item.item_id for each in differing]))
        found += [each for each in differing if current.get(each.item.item_id) == each.item]
        compared = {each.item.item_id: each.item for each in differing}
        items = [item for item in current.values() if item != compared[item.item_id]]
    return sorted(found, key=lambda each: each.item.item_id)


def _current(connection: Connection, item_ids: Sequence[str]) -> dict[str, Item]:
    """The items as they are now, by id, without those that retention has removed."""
    found = (reading.find_item(connection, item_id) for item_id in item_ids)
    return {item.item_id: item for item in found if item is not None}


def _is_answer(answer: EscrowAnswer) -> bool:
    match answer:
        case Retry() | Rejected(concerns_credentials=True):
            return False
    return True


def difference(item: Item, found: EscrowAnswer) -> str | None:
    """The difference between the queue and the wallet, as a text; None: they agree, or may agree after an attempt that
    is due or under way."""
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
