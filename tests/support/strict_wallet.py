"""A wallet for tests that checks every request strictly against the published interface and records violations.

It gives the answers that a test has scripted, else honest ones, and keeps every request.
"""

import re
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx2
import jwt
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.domain.operation import Operation, OperationKind
from tests.support.builders import API_TOKEN, NOON, QUEUE_SECRET

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

BODIES = {
    "settle": {"modelId": str, "amount": int, "queueItemId": str, "reason": str, "metadata": dict},
    "refund": {"userId": str, "amount": int, "queueItemId": str, "reason": str, "metadata": dict},
    "partial-settle": {
        "userId": str,
        "modelId": str,
        "refundAmount": int,
        "settleAmount": int,
        "queueItemId": str,
        "reason": str,
        "metadata": dict,
    },
}
KEY_SUFFIXES = {"settle": "settle", "refund": "refund", "partial-settle": "partial"}
REASONS = {
    "settle": {"performance_completed"},
    "refund": {
        "performance_abandoned",
        "performer_disconnected",
        "performer_declined",
        "user_cancelled",
        "timeout",
        "technical_error",
        "admin_refund",
    },
    "partial-settle": {"partial_performance"},
}
TYPES = {"settle": "queue_settlement", "refund": "queue_refund", "partial-settle": "queue_partial_settlement"}
CLAIMS = {
    "sub": str,
    "role": str,
    "type": str,
    "queueItemId": str,
    "escrowId": str,
    "modelId": str,
    "amount": int,
    "reason": str,
    "iat": int,
    "exp": int,
}


def build_operation(kind: OperationKind = OperationKind.SETTLE, tokens: int = 100, **fields: Any) -> Operation:
    """A valid operation over `tokens`; a split gives 30 % back."""
    refund = {OperationKind.SETTLE: 0, OperationKind.REFUND: tokens, OperationKind.PARTIAL: tokens * 3 // 10}[kind]
    reason = {
        OperationKind.SETTLE: "performance_completed",
        OperationKind.REFUND: "performance_abandoned",
        OperationKind.PARTIAL: "partial_performance",
    }[kind]
    values: dict[str, Any] = {
        "operation_id": "operation-1",
        "item_id": "0000000a-0000-7000-8000-000000000000",
        "performer_id": "star",
        "user_id": "viewer-1",
        "escrow_transaction_id": "escrow-1",
        "kind": kind,
        "settle_tokens": tokens - refund,
        "refund_tokens": refund,
        "reason": reason,
        "next_attempt_at": NOON,
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Operation(**{**values, **fields})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    method: str
    target: str
    """The raw path, still percent-encoded."""
    headers: dict[str, str]
    body: bytes
    claims: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = orjson.loads(self.body)
        return fields


class StrictWallet:
    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.seen: list[Seen] = []
        self.violations: list[str] = []
        self.wants_uuid_keys = False
        self.script: deque[Response] = deque()
        """The next answers; when it is empty, answers are honest."""
        self.escrow: dict[str, Any] = {
            "escrowId": "escrow-1",
            "userId": "viewer-1",
            "amount": 100,
            "status": "held",
            "queueItemId": None,
            "featureType": "wheel",
            "reason": "a spin",
            "createdAt": "2026-01-31T11:59:00.000Z",
        }
        self.app = Starlette(
            routes=[
                Route("/wallets/escrow/{escrow_id:path}/{verb:str}", self._resolve, methods=["POST"]),
                Route("/wallets/{user_id}/escrow/{escrow_id:path}", self._look_up, methods=["GET"]),
            ]
        )

    def transport(self) -> httpx2.ASGITransport:
        return httpx2.ASGITransport(app=self.app)

    async def _resolve(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        body = await request.body()
        claims: dict[str, Any] = {}
        try:
            self._check_common(request)
            fields = orjson.loads(body)
            self._check_body(fields, BODIES[verb])
            require(fields["reason"] in REASONS[verb], f"reason {fields['reason']} of a {verb}")
            plain = f"queue-{fields['queueItemId']}-{KEY_SUFFIXES[verb]}"
            expected = str(uuid.uuid5(uuid.NAMESPACE_URL, plain)) if self.wants_uuid_keys else plain
            require(request.headers["x-idempotency-key"] == expected, "idempotency key")
            claims = self._check_token(request, fields, request.path_params["escrow_id"])
            require(claims["type"] == TYPES[verb], "type of the token")
        except (AssertionError, KeyError, orjson.JSONDecodeError, jwt.PyJWTError) as violation:
            self.violations.append(repr(violation))
        self._note(request, body, claims)
        if self.violations:
            return JSONResponse({"error": "violation"}, 400)
        if self.script:
            return self.script.popleft()
        return JSONResponse(honest_receipt(verb, fields, number=len(self.seen)))

    async def _look_up(self, request: Request) -> Response:
        try:
            self._check_common(request)
            require("x-queue-auth-token" not in request.headers, "a look-up carries no authorisation token")
        except (AssertionError, KeyError) as violation:
            self.violations.append(repr(violation))
        self._note(request, b"", {})
        return self.script.popleft() if self.script else JSONResponse(self.escrow)

    def _note(self, request: Request, body: bytes, claims: dict[str, Any]) -> None:
        self.seen.append(
            Seen(
                method=request.method,
                target=request.scope["raw_path"].decode(),
                headers=dict(request.headers),
                body=body,
                claims=claims,
            )
        )

    def _check_common(self, request: Request) -> None:
        headers = request.headers
        require(headers["authorization"] == f"Bearer {API_TOKEN}", "bearer token")
        require(UUID.fullmatch(headers["x-request-id"]) is not None, "request id")
        require("cookie" not in headers, "the interface has no cookies")
        if request.method == "POST":
            require(headers["content-type"] == "application/json", "content type")
            require(bool(headers["x-idempotency-key"]), "idempotency key")

    def _check_body(self, fields: dict[str, Any], shape: dict[str, type]) -> None:
        require(set(fields) == set(shape), f"fields {sorted(fields)}")
        for name, kind in shape.items():
            require(type(fields[name]) is kind, f"{name} is {fields[name]!r}")

    def _check_token(self, request: Request, fields: dict[str, Any], escrow_id: str) -> dict[str, Any]:
        token = request.headers["x-queue-auth-token"]
        require(jwt.get_unverified_header(token)["alg"] == "HS256", "algorithm")
        claims: dict[str, Any] = jwt.decode(
            token, QUEUE_SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
        )
        self._check_body(claims, CLAIMS)
        now = int(self._clock().timestamp())
        amount = fields["amount"] if "amount" in fields else fields["refundAmount"] + fields["settleAmount"]
        require(claims["iat"] == now, "the token was minted for this attempt")
        require(claims["exp"] == now + 300, "the token lives five minutes")
        require(claims["sub"] == claims["role"] == "queue_service", "role of the token")
        require(claims["escrowId"] == escrow_id, "escrow of the token")
        require(claims["queueItemId"] == fields["queueItemId"], "item of the token")
        require(claims["reason"] == fields["reason"], "reason of the token")
        require(claims["amount"] == amount, "amount of the token")
        require(claims["modelId"] == fields.get("modelId", claims["modelId"]), "model of the token")
        return claims


def require(holds: bool, what: str) -> None:
    assert holds, what


def honest_receipt(verb: str, fields: dict[str, Any], number: int = 1) -> dict[str, Any]:
    receipt: dict[str, Any] = {"transactionId": f"tx-{number}", "timestamp": "2026-01-31T12:00:00.000Z"}
    if verb != "refund":
        receipt |= {"settledAmount": fields.get("settleAmount", fields.get("amount")), "modelEarnedBalance": 1000}
    if verb != "settle":
        receipt |= {"refundedAmount": fields.get("refundAmount", fields.get("amount")), "userAvailableBalance": 500}
    return receipt
