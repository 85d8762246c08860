"""The sandbox wallet's tables, created by the migrations. Only this package uses their rows. Times are ms since 1970.

Accounts: `available:<user>`, `escrow:<escrow>`, `earned:<model>`, and `mint`. The balance of `mint` is the negative sum
of all grants, so the balances of all accounts sum to zero.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Index, Table, text
from sqlmodel import Field, SQLModel

MINT: Final = "mint"


class SandboxAccount(SQLModel, table=True):
    __tablename__ = "sandbox_account"
    __table_args__ = (CheckConstraint("balance >= 0 OR kind = 'mint'", name="ck_sandbox_account_not_negative"),)

    account: str = Field(primary_key=True)
    kind: str
    balance: int = Field(sa_type=BigInteger)


class SandboxPosting(SQLModel, table=True):
    __tablename__ = "sandbox_posting"

    transaction_id: str = Field(primary_key=True)
    transfer: int = Field(primary_key=True)
    """The number of the transfer within its transaction; a split has two."""
    account: str = Field(primary_key=True)
    amount: int = Field(sa_type=BigInteger)
    at_ms: int = Field(sa_type=BigInteger)


class SandboxEscrow(SQLModel, table=True):
    __tablename__ = "sandbox_escrow"
    __table_args__ = (
        Index(
            "ix_sandbox_escrow_held",
            "user_id",
            sqlite_where=text("status = 'held'"),
            postgresql_where=text("status = 'held'"),
        ),
    )

    escrow_id: str = Field(primary_key=True)
    user_id: str
    amount: int = Field(sa_type=BigInteger)
    status: str
    queue_item_id: str | None
    feature_type: str
    reason: str
    settled_amount: int = Field(sa_type=BigInteger)
    refunded_amount: int = Field(sa_type=BigInteger)
    created_ms: int = Field(sa_type=BigInteger)
    resolved_ms: int | None = Field(sa_type=BigInteger)


class SandboxAnswer(SQLModel, table=True):
    """The first answer to an idempotency key, returned again for every repetition."""

    __tablename__ = "sandbox_answer"

    idempotency_key: str = Field(primary_key=True)
    request: str
    answer: str
    created_ms: int = Field(sa_type=BigInteger)


def _table(model: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[str(model.__tablename__)]


ACCOUNT: Final = _table(SandboxAccount)
POSTING: Final = _table(SandboxPosting)
ESCROW: Final = _table(SandboxEscrow)
ANSWER: Final = _table(SandboxAnswer)
SANDBOX_TABLES: Final[Sequence[Table]] = (ACCOUNT, POSTING, ESCROW, ANSWER)
