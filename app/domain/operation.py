"""A wallet operation: the one resolution of one escrow, ordered by the queue and carried out by the outbox.

Owns its kinds, its statuses and the idempotency key that makes it safe to repeat. Never calls a wallet and knows no
database.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

PERFORMANCE_COMPLETED: Final = "performance_completed"
PERFORMANCE_ABANDONED: Final = "performance_abandoned"
PARTIAL_PERFORMANCE: Final = "partial_performance"


class OperationKind(StrEnum):
    """The outcome of the escrow; the values are the last part of the wallet's idempotency key."""

    SETTLE = "settle"
    REFUND = "refund"
    PARTIAL = "partial"


class Resolution(StrEnum):
    """An administrator's way to end an operation that does not end by itself."""

    SETTLE = "settle"
    """The performer gets all tokens."""
    REFUND = "refund"
    """The user gets all tokens."""
    WRITTEN_OFF = "written_off"
    """The queue orders nothing from the wallet any more."""


class OperationStatus(StrEnum):
    PENDING = "pending"
    """Ordered; no attempt has failed yet."""
    RETRYING = "retrying"
    """At least one attempt failed in a way that may pass."""
    DONE = "done"
    """The wallet has confirmed, or an administrator has written the operation off."""
    DEAD = "dead"
    """Given up: it is in the dead-letter list until an administrator retries or resolves it."""


class Operation(Struct, frozen=True, kw_only=True):
    """One row of the outbox. All values that the wallet is sent are fixed when the operation is written."""

    operation_id: str
    item_id: str
    performer_id: str
    user_id: str
    escrow_transaction_id: str
    kind: OperationKind
    settle_tokens: int
    refund_tokens: int
    """`settle_tokens` and `refund_tokens` add up to the item's `tokens`, which the escrow holds."""
    reason: str
    status: OperationStatus = OperationStatus.PENDING
    attempts: int = 0
    next_attempt_at: datetime
    last_problem: str | None = None
    """Why the last attempt failed, in words fit for an administrator; never a body or a token."""
    created_at: datetime
    updated_at: datetime
    lease_until: datetime | None = None
    """Until when one process alone may attempt it. The value also identifies the claim. None: no process has it."""
    rejected: bool = False
    """Dead because the wallet refused it for good. A dead operation that was not rejected ran out of attempts or
    time."""
    traceparent: str | None = None
    """The span that has caused it (W3C Trace Context)."""

    @property
    def tokens(self) -> int:
        return self.settle_tokens + self.refund_tokens

    @property
    def idempotency_key(self) -> str:
        """The plain key for the wallet, before WALLET_KEY_FORMAT is applied."""
        return f"queue-{self.item_id}-{self.kind}"

    def is_under_way(self, now: datetime) -> bool:
        """Whether an attempt may be running."""
        return self.lease_until is not None and self.lease_until > now


class Receipt(Struct, frozen=True, kw_only=True):
    """The wallet's confirmation."""

    transaction_id: str | None
    """None: the confirmation is the escrow's status, which does not name a transaction."""
    settled_tokens: int
    refunded_tokens: int
