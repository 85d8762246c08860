"""The sandbox wallet's handlers: the wallet's published interface as plain functions, without a network.

Checks requests (bearer token, idempotency key, authorisation token, body) and makes the answers; `ledger` moves tokens.
"""

import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import jwt
import orjson
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.sandbox.faults import Reply, error_reply
from app.sandbox.ledger import MAX_AMOUNT, Hold, Ledger, LedgerRefusal, Resolution

MAX_TOKEN_SECONDS: Final = 300
CLOCK_SKEW_SECONDS: Final = 30
QUEUE_SERVICE: Final = "queue_service"
_TOKEN_TYPES: Final = {
    "settle": "queue_settlement",
    "refund": "queue_refund",
    "partial": "queue_partial_settlement",
}


class Refused(Exception):
    """The request is refused with this HTTP status; nothing was changed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WalletHandlers:
    """Synchronous handlers: each takes headers (by lower-case names) and a body, and returns a Reply."""

    def __init__(
        self, ledger: Ledger, *, queue_secret: str, api_token: str | None, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._queue_secret = queue_secret
        self._api_token = api_token
        self._clock = clock

    def settle(self, escrow_id: str, headers: Mapping[str, str], body: bytes) -> Reply:
        def work() -> Reply:
            fields = _read(body, _SETTLE)
            order = Resolution(
                escrow_id=escrow_id,
                model_id=fields["modelId"],
                user_id=None,
                settle=fields["amount"],
                refund=0,
                queue_item_id=fields["queueItemId"],
                reason=fields["reason"],
            )
            key = self._authorise(headers, order, "settle")
            done = self._ledger.resolve(order, key=key)
            return _json(
                200,
                transactionId=done.transaction_id,
                settledAmount=order.settle,
                modelEarnedBalance=done.model_earned,
                timestamp=_timestamp(done.at_ms),
            )

        return self._answer(headers, work)

    def refund(self, escrow_id: str, headers: Mapping[str, str], body: bytes) -> Reply:
        def work() -> Reply:
            fields = _read(body, _REFUND)
            order = Resolution(
                escrow_id=escrow_id,
                model_id=None,
                user_id=fields["userId"],
                settle=0,
                refund=fields["amount"],
                queue_item_id=fields["queueItemId"],
                reason=fields["reason"],
            )
            key = self._authorise(headers, order, "refund")
            done = self._ledger.resolve(order, key=key)
            return _json(
                200,
                transactionId=done.transaction_id,
                refundedAmount=order.refund,
                userAvailableBalance=done.user_available,
                timestamp=_timestamp(done.at_ms),
            )

        return self._answer(headers, work)

    def partial_settle(self, escrow_id: str, headers: Mapping[str, str], body: bytes) -> Reply:
        def work() -> Reply:
            fields = _read(body, _PARTIAL)
            order = Resolution(
                escrow_id=escrow_id,
                model_id=fields["modelId"],
                user_id=fields["userId"],
                settle=fields["settleAmount"],
                refund=fields["refundAmount"],
                queue_item_id=fields["queueItemId"],
                reason=fields["reason"],
            )
            key = self._authorise(headers, order, "partial")
            done = self._ledger.resolve(order, key=key)
            return _json(
                200,
                transactionId=done.transaction_id,
                refundedAmount=order.refund,
                settledAmount=order.settle,
                userAvailableBalance=done.user_available,
                modelEarnedBalance=done.model_earned,
                timestamp=_timestamp(done.at_ms),
            )

        return self._answer(headers, work)

    def escrow(self, user_id: str, escrow_id: str, headers: Mapping[str, str]) -> Reply:
        def work() -> Reply:
            found = self._ledger.escrow(user_id, escrow_id)
            if found is None:
                raise Refused(404, "no such escrow")
            resolved = found.resolved_ms is not None
            return _json(
                200,
                escrowId=found.escrow_id,
                userId=found.user_id,
                amount=found.amount,
                status=found.status,
                queueItemId=found.queue_item_id,
                featureType=found.feature_type,
                reason=found.reason,
                createdAt=_timestamp(found.created_ms),
                settledAmount=found.settled_amount if resolved else None,
                refundedAmount=found.refunded_amount if resolved else None,
                resolvedAt=None if found.resolved_ms is None else _timestamp(found.resolved_ms),
            )

        return self._answer(headers, work)

    def hold(self, user_id: str, headers: Mapping[str, str], body: bytes) -> Reply:
        def work() -> Reply:
            key = _any_key(headers)
            fields = _read(body, _HOLD)
            order = Hold(
                user_id=user_id,
                amount=fields["amount"],
                reason=fields["reason"],
                queue_item_id=fields["queueItemId"],
                feature_type=fields["featureType"],
            )
            held = self._ledger.hold(order, key=key)
            return _json(
                201,
                transactionId=held.transaction_id,
                escrowId=held.escrow_id,
                previousBalance=held.user_available + order.amount,
                newAvailableBalance=held.user_available,
                escrowBalance=held.user_escrow,
                timestamp=_timestamp(held.at_ms),
            )

        return self._answer(headers, work)

    def grant(self, headers: Mapping[str, str], body: bytes) -> Reply:
        def work() -> Reply:
            key = _any_key(headers)
            fields = _read(body, _GRANT)
            granted = self._ledger.grant(fields["userId"], fields["amount"], key=key)
            return _json(
                201,
                transactionId=granted.transaction_id,
                userAvailableBalance=granted.user_available,
                timestamp=_timestamp(granted.at_ms),
            )

        return self._answer(headers, work)

    def report(self, headers: Mapping[str, str], read: Callable[[], Mapping[str, object]]) -> Reply:
        """The result of `read` as JSON, for callers with the bearer token."""
        return self._answer(headers, lambda: _json(200, **read()))

    def _answer(self, headers: Mapping[str, str], work: Callable[[], Reply]) -> Reply:
        try:
            self._check_bearer(headers)
            return work()
        except (Refused, LedgerRefusal) as refusal:
            return error_reply(refusal.status, str(refusal))
        except (OperationalError, PoolTimeout):
            # A lock or a connection was not available; the transaction was rolled back.
            return error_reply(503, "the database is busy", retry_after_seconds=1)

    def _check_bearer(self, headers: Mapping[str, str]) -> None:
        if self._api_token is None:
            return
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._api_token}".encode()):
            raise Refused(401, "the bearer token is missing or wrong")

    def _authorise(self, headers: Mapping[str, str], order: Resolution, kind: str) -> str:
        """Compares the authorisation token with path and body; returns the idempotency key. Raises Refused."""
        claims = self._claims(headers)
        expected = {
            "sub": QUEUE_SERVICE,
            "role": QUEUE_SERVICE,
            "type": _TOKEN_TYPES[kind],
            "queueItemId": order.queue_item_id,
            "escrowId": order.escrow_id,
            "modelId": claims.get("modelId") if order.model_id is None else order.model_id,
            "amount": order.settle + order.refund,
            "reason": order.reason,
            "iat": claims.get("iat"),
            "exp": claims.get("exp"),
        }
        if claims != expected or not _is_id(claims["modelId"]):
            raise Refused(403, "the authorisation token is for another request")
        key = headers.get("x-idempotency-key")
        plain = f"queue-{order.queue_item_id}-{kind}"
        # The wallet's guide prescribes the plain key, its published OpenAPI a UUID.
        if key not in (plain, str(uuid5(NAMESPACE_URL, plain))):
            raise Refused(400, "X-Idempotency-Key does not name this item and operation")
        return plain

    def _claims(self, headers: Mapping[str, str]) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                headers.get("x-queue-auth-token", ""),
                self._queue_secret,
                algorithms=["HS256"],
                # Times are checked below, by this wallet's own clock.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.PyJWTError:
            raise Refused(401, "X-Queue-Auth-Token is missing or not signed by the queue") from None
        issued, expires, now = claims.get("iat"), claims.get("exp"), self._clock().timestamp()
        if type(issued) is not int or type(expires) is not int:
            raise Refused(401, "the authorisation token has no times")
        if not issued - CLOCK_SKEW_SECONDS <= now < expires or expires - issued > MAX_TOKEN_SECONDS:
            raise Refused(401, "the authorisation token has expired, is not valid yet, or lives too long")
        return claims


def _json(code: int, /, **fields: object) -> Reply:
    return Reply(status=code, body=orjson.dumps(fields))


def _timestamp(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _any_key(headers: Mapping[str, str]) -> str:
    key = headers.get("x-idempotency-key", "")
    if not 1 <= len(key) <= 255:
        raise Refused(400, "X-Idempotency-Key must have 1 to 255 characters")
    return key


def _is_id(value: object) -> bool:
    # PostgreSQL cannot store NUL in a text.
    return isinstance(value, str) and 1 <= len(value) <= 128 and "\0" not in value


def _is_amount(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_AMOUNT


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


Shape = Mapping[str, Callable[[object], bool]]

_DECISION: Final[Shape] = {"queueItemId": _is_id, "reason": _is_id, "metadata": _is_object}
_SETTLE: Final[Shape] = {"modelId": _is_id, "amount": _is_amount, **_DECISION}
_REFUND: Final[Shape] = {"userId": _is_id, "amount": _is_amount, **_DECISION}
_PARTIAL: Final[Shape] = {
    "userId": _is_id,
    "modelId": _is_id,
    "refundAmount": _is_amount,
    "settleAmount": _is_amount,
    **_DECISION,
}
_HOLD: Final[Shape] = {
    "amount": _is_amount,
    "reason": _is_id,
    "queueItemId": _is_id,
    "featureType": _is_id,
    "metadata": _is_object,
}
_GRANT: Final[Shape] = {"userId": _is_id, "amount": _is_amount}


def _read(body: bytes, shape: Shape) -> dict[str, Any]:
    """The fields of a body, all of them but `metadata` required. Raises Refused."""
    fields = read_object(body)
    if "metadata" in shape:
        fields.setdefault("metadata", {})
    wrong = shape.keys() ^ fields.keys() or {name for name, fits in shape.items() if not fits(fields[name])}
    if wrong:
        raise Refused(422, f"missing, unknown or wrong fields: {', '.join(sorted(wrong))}")
    return fields


def read_object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not a JSON object")
    return value
