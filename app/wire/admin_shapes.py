"""The JSON of administration: wallet operations, rooms, searches and sockets."""

from datetime import datetime

# pydantic, which makes the JSON Schemas, reads the inheritance of typing.TypedDict only from Python 3.12 on.
from typing_extensions import TypedDict

from app.domain.operation import Operation, OperationKind, OperationStatus
from app.wire.shapes import RoomShape, WholeItem


class OperationShape(TypedDict):
    id: str
    itemId: str
    performerId: str
    escrowTransactionId: str
    kind: OperationKind
    status: OperationStatus
    settleTokens: int
    refundTokens: int
    """The two amounts add up to the hold."""
    attempts: int
    nextAttemptAt: datetime | None
    lastProblem: str | None
    createdAt: datetime
    updatedAt: datetime


def operation_shape(operation: Operation) -> OperationShape:
    waits = operation.status in ("pending", "retrying")
    return {
        "id": operation.operation_id,
        "itemId": operation.item_id,
        "performerId": operation.performer_id,
        "escrowTransactionId": operation.escrow_transaction_id,
        "kind": operation.kind,
        "status": operation.status,
        "settleTokens": operation.settle_tokens,
        "refundTokens": operation.refund_tokens,
        "attempts": operation.attempts,
        "nextAttemptAt": operation.next_attempt_at if waits else None,
        "lastProblem": operation.last_problem,
        "createdAt": operation.created_at,
        "updatedAt": operation.updated_at,
    }


class RetriedShape(TypedDict):
    retried: int
    """How many operations were sent on their way again."""


class EscrowDifferenceShape(TypedDict):
    """An escrow about which the wallet says something else than the queue."""

    itemId: str
    performerId: str
    escrowTransactionId: str
    problem: str


class WalletCheckPart(TypedDict):
    """A part of a comparison with the wallet; `examined` and `different` are the sums up to its end."""

    differences: list[EscrowDifferenceShape]
    examined: int
    different: int
    next: str | None
    """Asks for the next part; null: this was the last one."""


class WalletCheckShape(TypedDict):
    """The last comparison that got to its end, wherever it was made; all null: there has been none."""

    comparedAt: datetime | None
    examined: int | None
    different: int | None


class OperationsPage(TypedDict):
    operations: list[OperationShape]
    total: int
    limit: int
    skip: int


class FoundItems(TypedDict):
    """The items that a search has found, newest first."""

    items: list[WholeItem]
    more: bool
    """There are others beyond the limit."""
    lookedBackTo: datetime | None
    """A feature's event and the end of a reference are looked for among the newest items only: since then. Null: all
    items were looked at."""
    limit: int


class RoomsPage(TypedDict):
    rooms: list[RoomShape]
    total: int
    limit: int
    skip: int


class AudienceShape(TypedDict):
    """The sockets that watch a room. A lag is the time for which a socket has been behind so far."""

    performerId: str
    sockets: int
    laggingSockets: int
    longestLagSeconds: float


class AudiencesPage(TypedDict):
    audiences: list[AudienceShape]
    total: int
    sockets: int
    """Of all these rooms, like the lagging ones: not of this page's alone."""
    laggingSockets: int
    processes: int
    """Whose figures are in it: fewer than there are while they cannot reach each other."""
    limit: int
    skip: int


class DisconnectedShape(TypedDict):
    """Sockets and event streams that were ended by an administrator."""

    sockets: int
    """How many of both the answering process has closed."""
    processes: int
    """How many processes were told, this one included."""
