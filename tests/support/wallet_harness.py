"""The service and a sandbox wallet, both on real ports, for tests of money and time at the level of the contract.

The wallet adopts no unknown escrows; tests can use its ledger and set its fault rates. Both share one clock, which the
test moves.
"""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Engine

from app.main import Periods
from app.parts import utc_now
from app.sandbox import create_sandbox
from app.sandbox.faults import FaultRates, Faults
from app.sandbox.ledger import Hold, Ledger, LedgerEscrow, Resolution
from app.sandbox.ledger_audit import LedgerTotals, audit, read_totals
from app.store.engines import open_engines
from tests.support.builders import API_TOKEN, QUEUE_SECRET
from tests.support.live_socket import LiveSocket
from tests.support.sandbox_audit import create_tables
from tests.support.server import START_SECONDS, Api, Json, Server, fresh, ok, serving
from tests.support.stores import HandClock

AWAY = FaultRates(error=1.0)
"""The rates of a wallet that answers everything with an error."""
WELL = FaultRates()


@dataclass(frozen=True, kw_only=True)
class WalletServer:
    url: str
    ledger: Ledger
    engine: Engine
    faults: Faults

    @property
    def books(self) -> LedgerTotals:
        return read_totals(self.engine)

    def hold(self, user_id: str, tokens: int) -> str:
        """Grant tokens to a user and hold them, as before an intake; returns the escrow's id."""
        self.ledger.grant(user_id, tokens, key=fresh("grant"))
        order = Hold(user_id=user_id, amount=tokens, reason="a song", queue_item_id=None, feature_type="wheel")
        return self.ledger.hold(order, key=fresh("hold")).escrow_id

    def resolve(self, item: Json, *, settle: int, refund: int) -> None:
        """Resolve an item's escrow without the queue."""
        order = Resolution(
            escrow_id=item["escrowTransactionId"],
            model_id=item["performerId"] if settle else None,
            user_id=item["userId"],
            settle=settle,
            refund=refund,
            queue_item_id=item["itemId"],
            reason="by hand",
        )
        self.ledger.resolve(order, key=fresh("by-hand"))

    def escrow(self, item: Json) -> LedgerEscrow:
        found = self.ledger.escrow(item["userId"], item["escrowTransactionId"])
        assert found is not None
        return found


@contextmanager
def wallet_serving(folder: Path, clock: HandClock) -> Iterator[WalletServer]:
    """Run the sandbox wallet on a port, in a thread; its ledger must balance at the end."""
    engines = open_engines(f"sqlite:///{folder}/wallet.db")
    create_tables(engines.writer)
    faults = Faults(Random(3))
    app = create_sandbox(engines.writer, queue_secret=QUEUE_SECRET, api_token=API_TOKEN, clock=clock, faults=faults)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, args=([listener],), name="wallet", daemon=True)
        thread.start()
        try:
            yield WalletServer(
                url=f"http://127.0.0.1:{listener.getsockname()[1]}",
                ledger=Ledger(engines.writer, clock=clock),
                engine=engines.writer,
                faults=faults,
            )
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)
    assert not thread.is_alive(), "the wallet did not stop"
    assert audit(engines.writer) == []
    assert read_totals(engines.writer).balanced
    engines.dispose()


class Money:
    """A service, an HTTP client of it and its wallet."""

    def __init__(self, server: Server, api: Api, wallet: WalletServer, clock: HandClock) -> None:
        self.server = server
        self.api = api
        self.wallet = wallet
        self.clock = clock

    # Requests of features, performers and administrators

    async def queued(self, performer_id: str, *, tokens: int = 100, **fields: Any) -> Json:
        """An item whose escrow is held."""
        user_id = fields.pop("userId", None) or fresh("user")
        escrow_id = self.wallet.hold(user_id, tokens)
        return await self.api.intake(
            performer_id, userId=user_id, tokens=tokens, escrowTransactionId=escrow_id, **fields
        )

    async def started(self, performer_id: str, **fields: Any) -> Json:
        return await self.api.command("start", await self.queued(performer_id, **fields))

    async def finished(self, performer_id: str, *, refund_tokens: int | None = None, **fields: Any) -> Json:
        body = None if refund_tokens is None else {"refundTokens": refund_tokens}
        return await self.api.command("complete", await self.started(performer_id, **fields), body)

    async def refund(self, item: Json, reason: str = "admin_refund") -> Json:
        path = f"/v1/queue/items/{item['itemId']}/refund"
        return ok(await self.api.post(path, self.server.admin, {"reason": reason}))

    async def item(self, item: Json) -> Json:
        return ok(await self.api.get(f"/v1/queue/items/{item['itemId']}", self.server.admin))

    async def operation(self, item: Json) -> Json:
        listing = ok(await self.api.get("/v1/admin/wallet-operations?limit=100", self.server.admin))
        (found,) = [each for each in listing["operations"] if each["itemId"] == item["itemId"]]
        return dict(found)

    async def retry(self, operation: Json, **options: Any) -> Any:
        path = f"/v1/admin/wallet-operations/{operation['id']}/retry"
        return await self.api.post(path, self.server.admin, **options)

    @asynccontextmanager
    async def watching(self, performer_id: str) -> AsyncIterator["Screen"]:
        """The room on an administrator's socket: it gets whole items, and does not count as a panel."""
        async with self.server.live(performer_id, self.server.admin) as live:
            await live.until("snapshot")
            yield Screen(live)


class Screen:
    """A room on an administrator's socket: the events of each item in order; each event is returned once."""

    def __init__(self, live: LiveSocket) -> None:
        self.live = live
        self._unseen: dict[str, list[Json]] = {}

    async def sees(self, item: Json, name: str | None = None, **fields: Any) -> Json:
        """Wait for an item's next event, of this name if one is given, after which it has these fields."""
        unseen = self._unseen.setdefault(item["itemId"], [])
        while True:
            while unseen:
                event = unseen.pop(0)
                if name in (None, event["event"]) and fields.items() <= event["item"].items():
                    return dict(event["item"])
            await self._read()

    async def sees_room(self, **fields: Any) -> Json:
        """Wait until the room has these fields."""
        while not fields.items() <= self.live.room.items():
            await self._read()
        return self.live.room

    async def _read(self) -> None:
        for event in (await self.live.until("update"))["events"]:
            if event["itemId"] is not None:
                self._unseen.setdefault(event["itemId"], []).append(event)


@asynccontextmanager
async def money(folder: Path, wallet: WalletServer, clock: HandClock, **settings: Any) -> AsyncIterator[Money]:
    """The service with this wallet. Moving the clock by 5 s makes every retry due."""
    quick = {
        "wallet_url": wallet.url,
        "wallet_api_token": API_TOKEN,
        "wallet_queue_secret": QUEUE_SECRET,
        "wallet_retry_base_seconds": 1,
        "wallet_retry_max_seconds": 2,
        "wallet_timeout_seconds": 5,
        "settle_delay_seconds": 0,
        "rope_drop_seconds": 0,
        "started_timeout_seconds": 0,
        "disconnect_grace_seconds": 0,
    }
    # The service counts the time that the test's clock skips as time at work, not as a standstill.
    with serving(folder, clock=clock, periods=Periods(standstill=10**8), **{**quick, **settings}) as server:
        async with server.api() as api:
            yield Money(server, api, wallet, clock)


def real_clock() -> HandClock:
    """A clock that stands at the real time, so that the tokens of the tests are valid."""
    return HandClock(utc_now())


@pytest.fixture(name="clock")
def clock_fixture() -> HandClock:
    return real_clock()


@pytest.fixture(name="wallet")
def wallet_fixture(tmp_path: Path, clock: HandClock) -> Iterator[WalletServer]:
    with wallet_serving(tmp_path, clock) as wallet:
        yield wallet
