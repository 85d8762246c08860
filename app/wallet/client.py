"""The client of the wallet service that holds the escrow.

Owns the requests of the wallet's published interface: headers, bodies, idempotency keys, authorisation tokens, pooled
connections and time limits. `decision` decides about escrows, `answers` classifies responses, and `outbox` repeats
attempts after a pause.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

import httpx2
import jwt
import orjson
import uuid_utils

from app.domain.operation import Operation, OperationKind
from app.tracing import HEADER as TRACEPARENT
from app.tracing import current
from app.wallet.answers import (
    MAX_ANSWER_BYTES,
    EscrowAnswer,
    NoEscrow,
    Rejected,
    Retry,
    WalletAnswer,
    WalletResponse,
    classify,
    classify_failure,
    read_escrow,
)

TOKEN_SECONDS: Final = 300

QUEUE_SERVICE: Final = "queue_service"
"""Subject and role of the queue's authorisation tokens."""

_TOKEN_TYPES: Final[Mapping[OperationKind, str]] = {
    OperationKind.SETTLE: "queue_settlement",
    OperationKind.REFUND: "queue_refund",
    OperationKind.PARTIAL: "queue_partial_settlement",
}
_ENDPOINTS: Final[Mapping[OperationKind, str]] = {
    OperationKind.SETTLE: "settle",
    OperationKind.REFUND: "refund",
    OperationKind.PARTIAL: "partial-settle",
}

Observe = Callable[[str, str, float], None]
"""Called for every call that ended, with its kind (an operation's, or `escrow`), its outcome (the class of the answer
in lower case, or `unreached`), and its seconds."""


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
        uuid_keys: bool = False,
        connections: int = 32,
        transport: httpx2.AsyncBaseTransport | None = None,
        observe: Observe = lambda kind, outcome, seconds: None,
    ) -> None:
        """`uuid_keys`: send the UUIDv5 of each idempotency key in place of the key itself (WALLET_KEY_FORMAT)."""
        self._base_url = base_url.rstrip("/")
        self._uuid_keys = uuid_keys
        self._observe = observe
        self._queue_secret = queue_secret
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        headers = {
            "Accept": "application/json",
            # Nothing is decompressed, so that MAX_ANSWER_BYTES limits the memory.
            "Accept-Encoding": "identity",
            "User-Agent": "performance-queue",
        }
        if api_token is not None:
            headers["Authorization"] = f"Bearer {api_token}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            # A redirect is never followed: it would carry the tokens to wherever it points.
            follow_redirects=False,
            # Shorter than the total, so that an unreachable wallet is distinguished from a slow one.
            timeout=httpx2.Timeout(timeout_seconds, connect=timeout_seconds / 2, pool=timeout_seconds / 2),
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30
            ),
            # The interface has no cookies. A jar would grow with every cookie that the wallet or its proxy sets.
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

    async def execute(self, operation: Operation) -> WalletAnswer:
        """Make one attempt at an operation. After cancellation or a time-out it is unknown whether the wallet has
        acted."""
        escrow = _path_segment(operation.escrow_transaction_id)
        if escrow is None:
            return Rejected(problem="the escrow id cannot be part of a URL")
        began = _now()
        response = await self._call(
            "POST",
            f"/wallets/escrow/{escrow}/{_ENDPOINTS[operation.kind]}",
            {
                "X-Idempotency-Key": self._sent_key(operation.idempotency_key),
                "X-Queue-Auth-Token": authorisation(operation, self._queue_secret, self._clock()),
            },
            order_body(operation),
        )
        answer = response if isinstance(response, Retry) else classify(operation, response, self._clock())
        self._observe(operation.kind, _outcome(answer), _now() - began)
        return answer

    async def escrow(
        self, user_id: str, escrow_id: str, *, idempotency_key: str | None = None, seconds: float | None = None
    ) -> EscrowAnswer:
        """Read the escrow's state at the wallet. `idempotency_key`: of the operation concerned, if any. `seconds`: a
        time limit below WALLET_TIMEOUT_SECONDS."""
        user, escrow = _path_segment(user_id), _path_segment(escrow_id)
        if user is None or escrow is None:
            return NoEscrow()
        headers = {} if idempotency_key is None else {"X-Idempotency-Key": self._sent_key(idempotency_key)}
        began = _now()
        response = await self._call("GET", f"/wallets/{user}/escrow/{escrow}", headers, seconds=seconds)
        answer = response if isinstance(response, Retry) else self._read_escrow(response, user_id, escrow_id)
        self._observe("escrow", _outcome(answer), _now() - began)
        return answer

    def _read_escrow(self, response: WalletResponse, user_id: str, escrow_id: str) -> EscrowAnswer:
        if response.status == 404:
            return NoEscrow()
        if response.status != 200:
            return classify_failure(response, self._clock())
        found = read_escrow(response.body)
        if found is None or (found.user_id, found.escrow_id) != (user_id, escrow_id):
            return Retry(problem="the wallet's answer about the escrow does not have the form of its interface")
        return found

    def _sent_key(self, key: str) -> str:
        return uuid_key(key) if self._uuid_keys else key

    async def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float | None = None,
    ) -> WalletResponse | Retry:
        sent = {**headers, "X-Request-ID": str(uuid_utils.uuid7())}
        if (traceparent := current.get()) is not None:
            sent[TRACEPARENT] = traceparent
        if body is not None:
            sent["Content-Type"] = "application/json"
        broke = False
        longest = self._timeout_seconds if seconds is None else min(self._timeout_seconds, seconds)
        try:
            # httpx2 limits each read; only a total stops a wallet that sends its answer byte by byte.
            async with asyncio.timeout(longest):
                try:
                    return await self._exchange(method, path, sent, body)
                except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                    # Usually the wallet has closed the pooled connection meanwhile, so one more try follows at once. If
                    # the first request has arrived after all, the idempotency key makes the second one harmless.
                    broke = True
                    return await self._exchange(method, path, sent, body)
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ConnectError):
            return Retry(problem="the wallet could not be reached", reached=broke)
        except (TimeoutError, httpx2.TimeoutException):
            return Retry(problem="the wallet did not answer in time")
        except httpx2.RequestError:
            return Retry(problem="the connection to the wallet broke before it answered")

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> WalletResponse:
        async with self._client.stream(method, self._base_url + path, headers=headers, content=body) as response:
            return WalletResponse(
                status=response.status_code,
                retry_after=response.headers.get("Retry-After"),
                date=response.headers.get("Date"),
                body=await _read_bounded(response),
            )


def uuid_key(key: str) -> str:
    """The UUIDv5 (RFC 9562) of a plain idempotency key, in the namespace for URLs."""
    return str(uuid5(NAMESPACE_URL, key))


def order_body(operation: Operation) -> bytes:
    """The request body of an operation: the same bytes for every attempt."""
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
    """A token, valid for TOKEN_SECONDS, that proves to the wallet that the queue has decided this operation."""
    issued = int(now.timestamp())
    claims = {
        "sub": QUEUE_SERVICE,
        "role": QUEUE_SERVICE,
        "type": _TOKEN_TYPES[operation.kind],
        "queueItemId": operation.item_id,
        "escrowId": operation.escrow_transaction_id,
        "modelId": operation.performer_id,
        "amount": operation.tokens,
        "reason": operation.reason,
        "iat": issued,
        "exp": issued + TOKEN_SECONDS,
    }
    return jwt.encode(claims, queue_secret, algorithm="HS256")


def _now() -> float:
    """Seconds by a monotonic clock."""
    return asyncio.get_running_loop().time()


def _outcome(answer: WalletAnswer | EscrowAnswer) -> str:
    return "unreached" if isinstance(answer, Retry) and not answer.reached else type(answer).__name__.lower()


async def _read_bounded(response: httpx2.Response) -> bytes | None:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


def _path_segment(identifier: str) -> str | None:
    """An id escaped for a path. None for an empty id and for dot segments, which proxies and clients resolve even if
    they are escaped."""
    return None if identifier in ("", ".", "..") else quote(identifier, safe="")
