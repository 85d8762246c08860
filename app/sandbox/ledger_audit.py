"""Audits the sandbox's ledger: the tokens granted, where they are now, and every contradiction. Only reads."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select

from app.sandbox.ledger import HoldStatus
from app.sandbox.tables import ACCOUNT, ESCROW, MINT, POSTING


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTotals:
    granted: int
    available: int
    escrow: int
    earned: int

    @property
    def balanced(self) -> bool:
        return self.granted == self.available + self.escrow + self.earned


def read_totals(engine: Engine) -> LedgerTotals:
    with engine.begin() as connection:
        sums = {
            str(kind): int(total)
            for kind, total in connection.execute(
                select(ACCOUNT.c.kind, func.sum(ACCOUNT.c.balance)).group_by(ACCOUNT.c.kind)
            )
        }
    return LedgerTotals(
        granted=-sums.get(MINT, 0),
        available=sums.get("available", 0),
        escrow=sums.get("escrow", 0),
        earned=sums.get("earned", 0),
    )


def audit(engine: Engine) -> list[str]:
    """Every contradiction of the ledger, as sentences; empty: none. Reads all rows."""
    with engine.begin() as connection:
        return [*_unbalanced_transfers(connection), *_wrong_balances(connection), *_wrong_escrows(connection)]


def _unbalanced_transfers(connection: Connection) -> Iterator[str]:
    for row in connection.execute(
        select(POSTING.c.transaction_id, POSTING.c.transfer)
        .group_by(POSTING.c.transaction_id, POSTING.c.transfer)
        .having((func.sum(POSTING.c.amount) != 0) | (func.count() != 2))
    ):
        yield f"transfer {row.transaction_id}/{row.transfer} is not two postings that sum to zero"


def _wrong_balances(connection: Connection) -> Iterator[str]:
    posted = (
        select(POSTING.c.account, func.sum(POSTING.c.amount).label("posted")).group_by(POSTING.c.account).subquery()
    )
    balance = func.coalesce(ACCOUNT.c.balance, 0)
    for row in connection.execute(
        select(func.coalesce(ACCOUNT.c.account, posted.c.account).label("account"))
        .select_from(ACCOUNT.join(posted, posted.c.account == ACCOUNT.c.account, full=True))
        .where(balance != func.coalesce(posted.c.posted, 0))
    ):
        yield f"the balance of {row.account} is not the sum of its postings"


def _wrong_escrows(connection: Connection) -> Iterator[str]:
    accounts = ESCROW.outerjoin(ACCOUNT, ACCOUNT.c.account == "escrow:" + ESCROW.c.escrow_id)
    for row in connection.execute(select(ESCROW, ACCOUNT.c.balance).select_from(accounts)):
        held = row.status == HoldStatus.HELD
        if (row.balance or 0) != (row.amount if held else 0):
            yield f"escrow {row.escrow_id} is {row.status} with {row.balance} in it"
        if row.settled_amount + row.refunded_amount != (0 if held else row.amount):
            yield f"escrow {row.escrow_id} is {row.status} but was not resolved in full"
