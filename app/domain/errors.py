"""Every refusal the service can give, as one exception tree.

Each class carries its public `code` (section 3 of the contract) and HTTP `status`. An instance becomes one problem+json
document over HTTP, or one `error` frame on a socket. This module never logs and does not know the transport.

    QueueError
    ├── BadRequest               400 BAD_REQUEST (not HTTP, or not a WebSocket handshake)
    │   └── BodyIncomplete       400 BAD_REQUEST
    ├── InvalidRequest           422 VALIDATION_ERROR
    │   └── InvalidMode          422 INVALID_MODE
    ├── DuplicateIdempotencyKey  422 DUPLICATE_IDEMPOTENCY_KEY
    ├── EscrowNotFound           422 ESCROW_NOT_FOUND
    ├── Unauthorized             401 UNAUTHORIZED
    │   └── TokenExpired         401 UNAUTHORIZED
    ├── Forbidden                403 FORBIDDEN
    ├── NotFound                 404 NOT_FOUND
    │   ├── ItemNotFound         404 ITEM_NOT_FOUND
    │   └── PerformerNotFound    404 PERFORMER_NOT_FOUND
    ├── MethodNotAllowed         405 METHOD_NOT_ALLOWED
    ├── Conflict                 409 (abstract: the state of the room or item refuses the command)
    │   ├── EscrowAlreadyQueued  409 ESCROW_ALREADY_QUEUED
    │   ├── QueueFull            409 QUEUE_FULL
    │   ├── UserLimitReached     409 USER_LIMIT_REACHED
    │   ├── QueueClosed          409 QUEUE_CLOSED
    │   ├── QueueEmpty           409 QUEUE_EMPTY
    │   ├── InvalidTransition    409 INVALID_STATE_TRANSITION
    │   ├── AlreadyProcessing    409 ALREADY_PROCESSING
    │   └── OutOfOrder           409 OUT_OF_ORDER
    ├── RequestTimeout           408 REQUEST_TIMEOUT
    ├── PayloadTooLarge          413 PAYLOAD_TOO_LARGE
    ├── UriTooLong               414 URI_TOO_LONG
    ├── HeadersTooLarge          431 HEADERS_TOO_LARGE
    ├── RateLimitExceeded        429 RATE_LIMIT_EXCEEDED
    ├── Unavailable              503 UNAVAILABLE
    └── Internal                 500 INTERNAL
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """An invalid field of a request; `field` is a dotted path in the caller's own (camelCase) names."""

    field: str
    message: str


class QueueError(Exception):
    """A refusal with a public code. `detail` is shown to the caller: it never holds anything internal."""

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: int | None = None,
        item_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        self.item_id = item_id
        """The item that the refusal is about. The response includes it if the caller may see it."""


class BadRequest(QueueError):
    """The bytes are not an HTTP request, or not a WebSocket handshake."""

    code, status, title = "BAD_REQUEST", 400, "Not a valid request"


class BodyIncomplete(BadRequest):
    """The body is shorter than announced."""


class InvalidRequest(QueueError):
    code, status, title = "VALIDATION_ERROR", 422, "The request is not valid"


class InvalidMode(InvalidRequest):
    code, title = "INVALID_MODE", "The mode must be on or off"


class DuplicateIdempotencyKey(QueueError):
    code, status, title = "DUPLICATE_IDEMPOTENCY_KEY", 422, "The idempotency key was used for another request"


class EscrowNotFound(QueueError):
    code, status, title = "ESCROW_NOT_FOUND", 422, "No such escrow is held"


class Unauthorized(QueueError):
    code, status, title = "UNAUTHORIZED", 401, "A valid token is needed"


class TokenExpired(Unauthorized):
    """A class of its own, because a socket then closes with 4002: the client may refresh the token and reconnect."""


class Forbidden(QueueError):
    code, status, title = "FORBIDDEN", 403, "Not allowed"


class NotFound(QueueError):
    code, status, title = "NOT_FOUND", 404, "Not found"


class ItemNotFound(NotFound):
    code, title = "ITEM_NOT_FOUND", "No such item"


class PerformerNotFound(NotFound):
    code, title = "PERFORMER_NOT_FOUND", "No such performer's room"


class MethodNotAllowed(QueueError):
    code, status, title = "METHOD_NOT_ALLOWED", 405, "Method not allowed"


class Conflict(QueueError):
    status = 409


class EscrowAlreadyQueued(Conflict):
    code, title = "ESCROW_ALREADY_QUEUED", "Another item holds this escrow"


class QueueFull(Conflict):
    code, title = "QUEUE_FULL", "The queue is full"


class UserLimitReached(Conflict):
    code, title = "USER_LIMIT_REACHED", "This user has as many items in the queue as the room allows"


class QueueClosed(Conflict):
    code, title = "QUEUE_CLOSED", "The queue is not accepting requests"


class QueueEmpty(Conflict):
    code, title = "QUEUE_EMPTY", "The queue is empty"


class InvalidTransition(Conflict):
    code, title = "INVALID_STATE_TRANSITION", "The item's status does not allow this"


class AlreadyProcessing(Conflict):
    code, title = "ALREADY_PROCESSING", "Another item is being performed"


class OutOfOrder(Conflict):
    code, title = "OUT_OF_ORDER", "This room is strictly first in, first out"


class RequestTimeout(QueueError):
    code, status, title = "REQUEST_TIMEOUT", 408, "The request did not come in time"


class UriTooLong(QueueError):
    code, status, title = "URI_TOO_LONG", 414, "The address is too long"


class HeadersTooLarge(QueueError):
    code, status, title = "HEADERS_TOO_LARGE", 431, "The request's headers are too large"


class PayloadTooLarge(QueueError):
    code, status, title = "PAYLOAD_TOO_LARGE", 413, "The request body is too large"


class RateLimitExceeded(QueueError):
    code, status, title = "RATE_LIMIT_EXCEEDED", 429, "Too many requests"


class Unavailable(QueueError):
    code, status, title = "UNAVAILABLE", 503, "Temporarily unavailable"


class Internal(QueueError):
    code, status, title = "INTERNAL", 500, "Internal error"
