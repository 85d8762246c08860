"""The wallet and the network before it: the sandbox's own ledger and handlers behind a bad network.

Keeps what the wallet was sent, so that it can be held against the outbox in the end.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import httpx2
from sqlalchemy import Engine

from app.domain.operation import Operation, OperationKind
from app.sandbox.faults import Faults, Reply, deliver
from app.sandbox.ledger import Hold, Ledger
from app.sandbox.wallet_handlers import WalletHandlers
from app.wallet.client import authorisation, order_body

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

QUEUE_SECRET = "a-queue-secret-for-the-simulation-of-enough-bytes"
POCKET_MONEY = 100_000
WAYS = {"settle": OperationKind.SETTLE, "refund": OperationKind.REFUND, "partial-settle": OperationKind.PARTIAL}


@dataclass(frozen=True, slots=True)
class Order:
    """One POST as the wallet received it."""

    escrow_id: str
    kind: OperationKind
    body: bytes


class WalletSide:
    def __init__(self, world: "World", engine: Engine) -> None:
        self._world = world
        self.engine = engine
        ids = world.ids("wallet")
        self.ledger = Ledger(engine, clock=world.true_time, new_id=ids)
        self.handlers = WalletHandlers(self.ledger, queue_secret=QUEUE_SECRET, api_token=None, clock=world.true_time)
        self.faults = Faults(world.random("wallet faults"))
        self.orders: dict[str, set[Order]] = {}
        """The first request under each idempotency key."""
        self._flights: dict[str, list[Process]] = {}

    def hold(self, user_id: str, amount: int, *, key: str) -> str:
        """The hold before a feature's intake."""
        order = Hold(user_id=user_id, amount=amount, reason="a spin", queue_item_id=None, feature_type="wheel")
        return self.ledger.hold(order, key=key).escrow_id

    def carry_out(self, operation: Operation) -> None:
        """Execute an operation at once, without the network; only sabotage does that."""
        way = next(way for way, kind in WAYS.items() if kind is operation.kind)
        path = f"/wallets/escrow/{quote(operation.escrow_transaction_id, safe='')}/{way}"
        headers = {
            "X-Idempotency-Key": operation.idempotency_key,
            "X-Queue-Auth-Token": authorisation(operation, QUEUE_SECRET, self._world.true_time()),
        }
        self.work(httpx2.Request("POST", f"http://wallet{path}", headers=headers, content=order_body(operation)))()

    def work(self, request: httpx2.Request) -> Callable[[], Reply]:
        """The wallet's handling of a request that arrives."""
        _, _, *parts = [unquote(part) for part in request.url.raw_path.decode().split("/")]
        headers, body = request.headers, request.content
        if request.method == "GET":
            user_id, _, escrow_id = parts
            return lambda: self.handlers.escrow(user_id, escrow_id, headers)
        _, escrow_id, way = parts
        self.orders.setdefault(headers["X-Idempotency-Key"], set()).add(Order(escrow_id, WAYS[way], body))
        handlers = {
            "settle": self.handlers.settle,
            "refund": self.handlers.refund,
            "partial-settle": self.handlers.partial_settle,
        }
        return lambda: handlers[way](escrow_id, headers, body)

    @contextmanager
    def flight(self, process: "Process", request: httpx2.Request) -> Iterator[None]:
        """Check that no two calls move the same escrow at once."""
        if request.method == "GET":
            yield
            return
        escrow_id = unquote(request.url.raw_path.decode().split("/")[3])
        flying = self._flights.setdefault(escrow_id, [])
        if any(other.alive for other in flying) and self._world.climate.steady_clocks:
            self._world.violated(f"two calls at once for escrow {escrow_id}")
        flying.append(process)
        try:
            yield
        finally:
            flying.remove(process)


class Network(httpx2.AsyncBaseTransport):
    """One process's connection to the wallet."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self._world = process.world
        self._random = process.world.random(f"network {process.number}")

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        process, world, random = self._process, self._world, self._random
        wallet, climate = world.wallet, world.climate
        process.must_live()
        process.may_die("before a wallet call", climate.death_at_wallet)
        with wallet.flight(process, request):
            await asyncio.sleep(random.random() * climate.latency_seconds)
            if world.wallet_is_away() or random.random() < climate.connection:
                world.count("connection")
                raise random.choice((httpx2.ConnectError, httpx2.ReadError))("played")
            wallet.faults.rates = climate.wallet
            work, fault = wallet.work(request), wallet.faults.draw()
            if random.random() < climate.late_delivery:
                world.count("late delivery")
                world.loop.call_later(random.uniform(1, 8), work)
                await _nothing_comes()
            reply = deliver(work, fault)
            if fault is not None:
                world.count(f"wallet: {fault.kind}")
            process.may_die("after a wallet call", climate.death_at_wallet)
            if reply is None:
                await _nothing_comes()
                raise AssertionError
            await asyncio.sleep(random.random() * climate.latency_seconds)
        headers = {"Content-Type": reply.content_type}
        if reply.retry_after_seconds is not None:
            headers["Retry-After"] = str(reply.retry_after_seconds)
        return httpx2.Response(reply.status, headers=headers, stream=httpx2.ByteStream(reply.body))


async def _nothing_comes() -> None:
    await asyncio.get_running_loop().create_future()
