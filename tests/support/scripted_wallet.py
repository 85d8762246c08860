"""A wallet behind the service's own client: it gives the answers that a test has scripted, else honest ones.

It records all requests, and can hold answers back until the test releases them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httpx2
import orjson

WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that the wallet has received."""

    method: str
    path: str
    key: str
    body: bytes

    @property
    def is_order(self) -> bool:
        return self.method == "POST"

    @property
    def escrow_id(self) -> str:
        return unquote(self.path.split("/")[3 if self.is_order else 4])

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = orjson.loads(self.body)
        return fields


Scripted = httpx2.Response | Exception | Callable[[Asked], httpx2.Response]


def answer(status: int = 200, body: Any = None, **headers: str) -> httpx2.Response:
    """`headers` with underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, headers=named, stream=httpx2.ByteStream(orjson.dumps(body or {})))


def receipt(asked: Asked, **changes: Any) -> httpx2.Response:
    """The honest receipt of an order, with `changes`."""
    fields, way = asked.fields, asked.path.rsplit("/", 1)[1]
    body: dict[str, Any] = {"transactionId": f"tx-{asked.escrow_id}", "timestamp": "2026-01-31T12:00:00.000Z"}
    if way != "refund":
        body |= {"settledAmount": fields.get("settleAmount", fields.get("amount")), "modelEarnedBalance": 1000}
    if way != "settle":
        body |= {"refundedAmount": fields.get("refundAmount", fields.get("amount")), "userAvailableBalance": 500}
    return answer(200, {**body, **changes})


class ScriptedWallet(httpx2.AsyncBaseTransport):
    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: deque[Scripted] = deque()
        """Answers to the next orders, in the order in which they arrive."""
        self.escrows: dict[str, Mapping[str, Any] | Exception] = {}
        """The answers to look-ups, by escrow; any other escrow is unknown."""
        self.most_at_once = 0
        """The most orders that were under way together."""
        self._under_way = 0
        self._arrived = asyncio.Condition()
        self._holds_back = False
        self._gates: list[asyncio.Event] = []
        """One for each order; the answer is sent when it is set."""

    @property
    def orders(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.is_order]

    def hold_back(self) -> None:
        """Hold the answers to all further orders back."""
        self._holds_back = True

    def let_go(self, number: int | None = None) -> None:
        """Answer order `number`, counted from 0; without a number answer all orders, also further ones."""
        if number is not None:
            self._gates[number].set()
            return
        self._holds_back = False
        for gate in self._gates:
            gate.set()

    async def has_been_asked(self, orders: int) -> None:
        """Wait until this many orders have arrived in total."""
        async with asyncio.timeout(WAIT_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: len(self.orders) >= orders)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        asked = Asked(
            method=request.method,
            path=request.url.raw_path.decode(),
            key=request.headers.get("X-Idempotency-Key", ""),
            body=await request.aread(),
        )
        self.asked.append(asked)
        gate = asyncio.Event()
        if asked.is_order:
            self._gates.append(gate)
        if not self._holds_back:
            gate.set()
        async with self._arrived:
            self._arrived.notify_all()
        if not asked.is_order:
            return self._look_up(asked)
        chosen = self.script.popleft() if self.script else receipt
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            await gate.wait()
        finally:
            self._under_way -= 1
        if isinstance(chosen, Exception):
            raise chosen
        if isinstance(chosen, httpx2.Response):
            # A copy: the client changes the response, but a test's parameter is used in every run of the test.
            return httpx2.Response(chosen.status_code, headers=chosen.headers, stream=chosen.stream)
        return chosen(asked)

    def _look_up(self, asked: Asked) -> httpx2.Response:
        found = self.escrows.get(asked.escrow_id)
        if isinstance(found, Exception):
            raise found
        return answer(404) if found is None else answer(200, found)
