"""Classifies the wallet's responses as one of four answers.

    Succeeded  200 with a transaction id and exactly the ordered amounts
    Retry      the effect is unknown, or the wallet could not act: the same key and body may be sent again without harm
    Conflict   409: the escrow's status has to be read, then `classify_escrow` decides
    Rejected   repeating the same request cannot help; an administrator has to decide

Sends nothing, and puts no body and no token into a problem text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from app.domain.operation import Operation, OperationKind, Receipt

MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_TRANSACTION_ID_LENGTH: Final = 255
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""A longer Retry-After is cut to this, so that a wrong header cannot delay a payment for long."""

CLOCK_TOLERANCE_SECONDS: Final = 5.0
"""A smaller difference of the wallet's `Date` is ignored: it has whole seconds, and the response took some time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    problem: str
    retry_after_seconds: float | None = None
    """The wallet's Retry-After; None: it sent none."""
    reached: bool = True
    """False: no connection was made, so the wallet cannot have received the request."""
    clocks_differ: bool = False
    """The wallet refused our token, and its clock differs from ours: by its clock the token was not valid yet, or not
    any more."""

    @property
    def may_have_acted(self) -> bool:
        """Whether the request may have had its effect, although no valid answer arrived."""
        return self.reached and not self.clocks_differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    problem: str
    concerns_credentials: bool = False
    """The wallet refused our token or key (401, 403), which says nothing about the request itself."""


WalletAnswer = Succeeded | Retry | Conflict | Rejected


class EscrowStatus(StrEnum):
    HELD = "held"
    SETTLING = "settling"
    SETTLED = "settled"
    REFUNDING = "refunding"
    REFUNDED = "refunded"
    PARTIAL_SETTLING = "partial_settling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Escrow:
    escrow_id: str
    user_id: str
    amount: int
    status: EscrowStatus
    settled_amount: int | None = None
    refunded_amount: int | None = None
    """`settled_amount` and `refunded_amount` are optional in the interface; None: the wallet does not state it."""

    @property
    def is_resolved(self) -> bool:
        return self.status in (EscrowStatus.SETTLED, EscrowStatus.REFUNDED)


@dataclass(frozen=True, slots=True)
class NoEscrow:
    """The wallet knows no such escrow of this user."""


EscrowAnswer = Escrow | NoEscrow | Retry | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletResponse:
    """A response as it was received. `body` is None if it was longer than MAX_ANSWER_BYTES."""

    status: int
    retry_after: str | None = None
    date: str | None = None
    """The time by the wallet's clock (RFC 9110, 6.6.1)."""
    body: bytes | None = b""


def classify(operation: Operation, response: WalletResponse, now: datetime) -> WalletAnswer:
    """Classifies the response to one attempt at `operation`."""
    if response.status == 409:
        return Conflict(problem="the wallet reports a conflict (409)")
    if response.status != 200:
        return classify_failure(response, now)
    # A 200 with a wrong or missing receipt may have had its effect or not. It is tried again: the key makes that
    # harmless, and a correct wallet then repeats its receipt. After the last attempt it becomes an administrator's
    # case. The escrow's status alone could not show that the ordered amount was settled.
    fields = _read_object(response.body)
    if fields is None:
        return Retry(problem="the wallet answered 200 without a readable receipt")
    if fields.get("error") or fields.get("errors") or fields.get("success") is False:
        return Retry(problem="the wallet answered 200 with an error in it")
    transaction_id = fields.get("transactionId")
    if not _is_transaction_id(transaction_id):
        return Retry(problem="the wallet answered 200 without a transaction id")
    promised = {"settledAmount": operation.settle_tokens, "refundedAmount": operation.refund_tokens}
    for field, ordered in promised.items():
        # The answer to a settlement or refund needs one amount only; the other may also be present as 0 or null.
        stated = fields.get(field)
        if (0 if stated is None else _amount(stated)) != ordered:
            return Retry(problem=f"the wallet's receipt shows another amount ({field}) than was ordered")
    return Succeeded(
        receipt=Receipt(
            transaction_id=transaction_id,
            settled_tokens=operation.settle_tokens,
            refunded_tokens=operation.refund_tokens,
        )
    )


def classify_escrow(operation: Operation, found: EscrowAnswer) -> Succeeded | Retry | Rejected:
    """Classifies the escrow's status, read after a 409, for `operation`.

    The wallet's status after a split is `settled` too. So amounts are compared if the wallet states them. If it does
    not, `settled` confirms a settlement and a split alike, since only this operation could have ordered either.
    """
    match found:
        case Retry() | Rejected():
            return found
        case NoEscrow():
            return Rejected(problem="the wallet knows no such escrow of this user")
        case Escrow():
            return _compare(operation, found)


def _compare(operation: Operation, escrow: Escrow) -> Succeeded | Retry | Rejected:
    if escrow.amount != operation.tokens:
        return Rejected(problem="the escrow holds another amount than the operation orders")
    match escrow.status:
        case EscrowStatus.SETTLED:
            ours = operation.kind is not OperationKind.REFUND
        case EscrowStatus.REFUNDED:
            ours = operation.kind is OperationKind.REFUND
        case EscrowStatus.HELD:
            return Retry(problem="the escrow is still held at the wallet")
        case EscrowStatus.SETTLING | EscrowStatus.REFUNDING | EscrowStatus.PARTIAL_SETTLING:
            return Retry(problem=f"the escrow is {escrow.status} at the wallet")
    ours = (
        ours
        and escrow.settled_amount in (None, operation.settle_tokens)
        and escrow.refunded_amount in (None, operation.refund_tokens)
    )
    if not ours:
        return Rejected(
            problem=f"the escrow was resolved another way: {escrow.status}, "
            f"where {operation.settle_tokens} to settle and {operation.refund_tokens} to refund were ordered"
        )
    return Succeeded(
        receipt=Receipt(
            # The status does not name the transaction.
            transaction_id=None,
            settled_tokens=operation.settle_tokens,
            refunded_tokens=operation.refund_tokens,
        )
    )


def is_held(found: Escrow, *, tokens: int) -> bool:
    """Whether the wallet holds exactly `tokens` in this escrow. (`Wallet.escrow` has checked that it is the user's.)"""
    return found.status is EscrowStatus.HELD and found.amount == tokens


_REJECTIONS: Final[Mapping[int, str]] = {
    400: "the wallet found our request wrong (400)",
    401: "the wallet refused our credentials (401): check WALLET_API_TOKEN and WALLET_QUEUE_SECRET",
    403: "the wallet refused our credentials (403): check WALLET_API_TOKEN and WALLET_QUEUE_SECRET",
    404: "the wallet knows no such escrow (404)",
    422: "the wallet found our request wrong (422)",
}

_PASSING: Final = frozenset({408, 409, 423, 425, 429})
"""4xx statuses that are about the moment and not the request: time-out, conflict, locked, too early, too many."""


def classify_failure(response: WalletResponse, now: datetime) -> Retry | Rejected:
    """Classifies a response that is not a success. A 409 is a Retry here; `classify` handles it before."""
    status = response.status
    concerns_credentials = status in (401, 403)
    ahead = seconds_ahead(response.date, now)
    if concerns_credentials and ahead is not None and abs(ahead) > CLOCK_TOLERANCE_SECONDS:
        problem = f"{_REJECTIONS[status]}; its clock and ours differ by {abs(ahead):.0f} s"
        return Retry(problem=problem, clocks_differ=True)
    if 400 <= status < 500 and status not in _PASSING:
        return Rejected(
            problem=_REJECTIONS.get(status, f"the wallet refused our request ({status})"),
            concerns_credentials=concerns_credentials,
        )
    # 5xx, and statuses that the interface does not define (another 2xx, a redirect): the effect is unknown.
    return Retry(
        problem=f"the wallet answered {status}",
        retry_after_seconds=retry_after_seconds(response.retry_after, now),
    )


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """The seconds of a Retry-After (RFC 9110, 10.2.3: seconds or an HTTP date), at most MAX_RETRY_AFTER_SECONDS; None
    for an invalid value."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Cut before conversion: a header may hold thousands of digits.
        seconds = float(value[:20])
    else:
        away = seconds_ahead(value, now)
        if away is None:
            return None
        seconds = -away
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def seconds_ahead(http_date: str | None, now: datetime) -> float | None:
    """Seconds from an HTTP date (RFC 9110, 5.6.7) to `now`; None for a missing or invalid date."""
    if http_date is None:
        return None
    try:
        at = parsedate_to_datetime(http_date)
    except ValueError:
        return None
    # "-0000" parses as naive: UTC, of unknown origin.
    return (now - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds()


def _read_object(body: bytes | None) -> dict[str, Any] | None:
    try:
        value = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


_STATUSES: Final = frozenset(map(str, EscrowStatus))


def read_escrow(body: bytes | None) -> Escrow | None:
    """The escrow in a response's body; None if it is not in the form of the interface."""
    fields = _read_object(body)
    if fields is None or fields.get("error"):
        return None
    escrow_id, user_id, status = fields.get("escrowId"), fields.get("userId"), fields.get("status")
    amount = _amount(fields.get("amount"))
    if not (isinstance(escrow_id, str) and escrow_id and isinstance(user_id, str) and amount):
        return None
    if not (isinstance(status, str) and status in _STATUSES):
        return None
    return Escrow(
        escrow_id=escrow_id,
        user_id=user_id,
        amount=amount,
        status=EscrowStatus(status),
        settled_amount=_amount(fields.get("settledAmount")),
        refunded_amount=_amount(fields.get("refundedAmount")),
    )


def _amount(value: object) -> int | None:
    """A whole number of tokens, or None. A wallet in another language may write 25.0; True does not count as 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value >= 0 and value == value // 1 else None


def _is_transaction_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TRANSACTION_ID_LENGTH and bool(value.strip())
