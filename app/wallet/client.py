"""The client of the wallet service that holds the escrow.

Owns the requests of the wallet's published interface: headers, bodies, idempotency keys, authorisation tokens, pooled
connections and time limits. Never decides what happens to an escrow (`room` does), what an answer means (`verdict`
does), and never waits and repeats (`outbox` does).
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
import jwt
import orjson
import uuid_utils

from app.domain.operation import Operation, OperationKind
from app.wallet.answers import (
    MAX_ANSWER_BYTES,
    Answer,
    EscrowAnswer,
    HoldAnswer,
    Never,
    NoEscrow,
    Outcome,
    TryAgain,
    failure,
    judge,
    read_escrow,
)

TOKEN_SECONDS: Final = 300

_ENDPOINTS: Final[Mapping[OperationKind, str]] = {
    OperationKind.SETTLE: "settle",
    OperationKind.REFUND: "refund",
    OperationKind.PARTIAL: "partial-settle",
}


class Wallet:
    """One pool of connections to one wallet. Use as `async with`; safe for many concurrent calls."""

    def __init__(
        self,
        *,
        base_url: str,
        api_token: str | None,
        queue_secret: str,
        timeout_seconds: float,
        clock: Callable[[], datetime],
        connections: int = 32,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._queue_secret = queue_secret
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        headers = {
            "Accept": "application/json",
            # Nothing is decompressed, so that a small answer stays small.
            "Accept-Encoding": "identity",
            "User-Agent": "performance-queue",
        }
        if api_token is not None:
            headers["Authorization"] = f"Bearer {api_token}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            # A redirect is never followed: it would carry the tokens to wherever it points.
            follow_redirects=False,
            timeout=timeout_seconds,
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30
            ),
            # The interface has no cookies; a jar would grow with whatever the wallet's side sets.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def execute(self, operation: Operation) -> Outcome:
        """One attempt. Cancelling it, like a time-out, leaves open whether the wallet has acted."""
        escrow = _path_segment(operation.escrow_transaction_id)
        if escrow is None:
            return Never(problem="the escrow id cannot be part of a URL")
        answer = await self._call(
            "POST",
            f"/wallets/escrow/{escrow}/{_ENDPOINTS[operation.kind]}",
            {
                "X-Idempotency-Key": operation.idempotency_key,
                "X-Queue-Auth-Token": authorisation(operation, self._queue_secret, self._clock()),
            },
            order_body(operation),
        )
        return answer if isinstance(answer, TryAgain) else judge(operation, answer, self._clock())

    async def escrow(self, user_id: str, escrow_id: str, *, idempotency_key: str | None = None) -> EscrowAnswer:
        """The escrow as the wallet has it now; `idempotency_key` is that of the operation it is asked for, if any."""
        user, escrow = _path_segment(user_id), _path_segment(escrow_id)
        if user is None or escrow is None:
            return NoEscrow()
        headers = {} if idempotency_key is None else {"X-Idempotency-Key": idempotency_key}
        answer = await self._call("GET", f"/wallets/{user}/escrow/{escrow}", headers)
        if isinstance(answer, TryAgain):
            return answer
        if answer.status == 404:
            return NoEscrow()
        if answer.status != 200:
            return failure(answer, self._clock())
        found = read_escrow(answer.body)
        if found is None or (found.user_id, found.escrow_id) != (user_id, escrow_id):
            return TryAgain(problem="the wallet's answer about the escrow is not one its interface promises")
        return found

    async def hold(
        self,
        user_id: str,
        *,
        amount: int,
        reason: str,
        queue_item_id: str | None,
        feature_type: str,
        metadata: Mapping[str, Any],
        idempotency_key: str,
    ) -> HoldAnswer:
        """Holds a user's tokens, as a feature does before it posts an intake; the queue itself never holds."""
        user = _path_segment(user_id)
        if user is None:
            return Never(problem="the user id cannot be part of a URL")
        body = {
            "amount": amount,
            "reason": reason,
            "queueItemId": queue_item_id,
            "featureType": feature_type,
            "metadata": dict(metadata),
        }
        answer = await self._call(
            "POST",
            f"/wallets/{user}/escrow/hold",
            {"X-Idempotency-Key": idempotency_key},
            orjson.dumps(body),
        )
        if isinstance(answer, TryAgain):
            return answer
        if answer.status == 402:
            return Never(problem="the user's balance is too low (402)")
        if answer.status not in (200, 201):
            return failure(answer, self._clock())
        held = read_escrow(answer.body)
        if held is None or held.user_id != user_id or held.amount != amount:
            return TryAgain(problem="the wallet's answer to the hold is not one its interface promises")
        return held

    async def _call(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer | TryAgain:
        sent = {**headers, "X-Request-ID": str(uuid_utils.uuid7())}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            # httpx2 limits each read; a wallet that drips its answer byte by byte is stopped only by a total.
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream(method, self._base_url + path, headers=sent, content=body) as response,
            ):
                return Answer(
                    status=response.status_code,
                    retry_after=response.headers.get("Retry-After"),
                    body=await _read_bounded(response),
                )
        except (TimeoutError, httpx2.TimeoutException):
            return TryAgain(problem="the wallet did not answer in time")
        except httpx2.ConnectError:
            return TryAgain(problem="the wallet could not be reached")
        except httpx2.RequestError:
            return TryAgain(problem="the connection to the wallet broke before it answered")


def order_body(operation: Operation) -> bytes:
    """The request body of an operation: the same bytes at every attempt."""
    match operation.kind:
        case OperationKind.SETTLE:
            parties: dict[str, Any] = {"modelId": operation.performer_id, "amount": operation.settle_tokens}
        case OperationKind.REFUND:
            parties = {"userId": operation.user_id, "amount": operation.refund_tokens}
        case OperationKind.PARTIAL:
            parties = {
                "userId": operation.user_id,
                "modelId": operation.performer_id,
                "refundAmount": operation.refund_tokens,
                "settleAmount": operation.settle_tokens,
            }
    return orjson.dumps(
        {
            **parties,
            "queueItemId": operation.item_id,
            "reason": operation.reason,
            "metadata": {"operationId": operation.operation_id},
        }
    )


def authorisation(operation: Operation, queue_secret: str, now: datetime) -> str:
    """The queue's word that this operation is its decision, good for five minutes."""
    issued = int(now.timestamp())
    claims = {
        "queueItemId": operation.item_id,
        "escrowId": operation.escrow_transaction_id,
        "modelId": operation.performer_id,
        "amount": operation.tokens,
        "reason": operation.reason,
        "iat": issued,
        "exp": issued + TOKEN_SECONDS,
    }
    return jwt.encode(claims, queue_secret, algorithm="HS256")


async def _read_bounded(response: httpx2.Response) -> bytes | None:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


def _path_segment(identifier: str) -> str | None:
    """None for what no path can carry: proxies and clients resolve dot segments, even escaped ones."""
    return None if identifier in ("", ".", "..") else quote(identifier, safe="")
