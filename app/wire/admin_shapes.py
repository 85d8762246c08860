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
    """The number of operations that will be tried again."""


class EscrowDifferenceShape(TypedDict):
    """An escrow on which the wallet and the queue disagree."""

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
    """The `next` of the request for the next part; null after the last one."""


class WalletCheckShape(TypedDict):
    """The last comparison that was completed, by any process; every field is null if there was none."""

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
    """Whether more than `limit` items match."""
    lookedBackTo: datetime | None
    """Searches for a feature's event and for the end of a reference cover only the items created since this time. Null:
    they covered all items, or the searches by index had already found more than `limit`."""
    limit: int


class RoomsPage(TypedDict):
    rooms: list[RoomShape]
    total: int
    limit: int
    skip: int


class AudienceShape(TypedDict):
    """The sockets that watch a room. The lag of a socket is the time since it first missed a frame."""

    performerId: str
    sockets: int
    laggingSockets: int
    longestLagSeconds: float


class AudiencesPage(TypedDict):
    audiences: list[AudienceShape]
    total: int
    sockets: int
    """Over the rooms of all pages, like `laggingSockets`."""
    laggingSockets: int
    processes: int
    """The number of processes that are counted: lower than the number that run while they cannot reach each other."""
    limit: int
    skip: int


class DisconnectedShape(TypedDict):
    """Sockets and event streams that were ended by an administrator."""

    sockets: int
    """Sockets and event streams that the answering process has closed."""
    processes: int
    """Processes that got the order, the answering one included."""
