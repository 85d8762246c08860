"""The wallet of a run: the strict sandbox on a fixed port, which can be slow, wrong, or refuse connections."""

import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import uvicorn
from sqlalchemy import Engine, select

from app.parts import utc_now
from app.sandbox import create_sandbox
from app.sandbox.faults import Faults
from app.sandbox.ledger import Hold, Ledger
from app.sandbox.tables import ESCROW, POSTING
from app.store.engines import open_engines
from tests.support.builders import API_TOKEN, QUEUE_SECRET
from tests.support.ports import free_port
from tests.support.sandbox_audit import create_tables

ORDER = re.compile(r"/wallets/escrow/([^/]+)/(settle|refund|partial-settle)")
REFUSAL = b'{"error":"Unprocessable Entity","message":"a fault of these tests"}'
START_SECONDS = 20


@dataclass(eq=False)
class Wallet:
    engine: Engine
    faults: Faults
    random: Random
    port: int = field(default_factory=free_port)
    refusal_share: float = 0.0
    """Of the orders, which are answered with 422 and not carried out."""
    orders: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By escrow, the idempotency keys of all orders that have come in."""
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.engine, clock=utc_now)
        self._app: Any = create_sandbox(
            self.engine, queue_secret=QUEUE_SECRET, api_token=API_TOKEN, clock=utc_now, faults=self.faults
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_config=None,
            log_level="critical",  # it says of every call that a stop cuts off
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(target=server.run, args=([listener],), name="wallet", daemon=True)
        self._thread.start()
        deadline = monotonic() + START_SECONDS
        while not server.started:
            assert monotonic() < deadline, "the wallet did not start"
            sleep(0.01)

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive(), "the wallet did not stop"
        self._server = self._thread = None

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (order := ORDER.fullmatch(scope["path"])) is not None:
            headers = dict(scope["headers"])
            self.orders[order[1]].add(headers.get(b"x-idempotency-key", b"").decode())
            if self.random.random() < self.refusal_share:
                head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(REFUSAL))]
                await send({"type": "http.response.start", "status": 422, "headers": head})
                await send({"type": "http.response.body", "body": REFUSAL})
                return
        await self._app(scope, receive, send)

    def hold(self, user_id: str, tokens: int) -> str:
        """Grant tokens to a user and hold them, as before an intake; returns the escrow's id. Blocks."""
        self.ledger.grant(user_id, tokens, key=f"grant-{uuid4().hex}")
        order = Hold(user_id=user_id, amount=tokens, reason="a song", queue_item_id=None, feature_type="wheel")
        return self.ledger.hold(order, key=f"hold-{uuid4().hex}").escrow_id

    def escrows(self) -> dict[str, tuple[str, int, int]]:
        """By id: the status, and the settled and refunded amounts."""
        columns = (ESCROW.c.escrow_id, ESCROW.c.status, ESCROW.c.settled_amount, ESCROW.c.refunded_amount)
        with self.engine.begin() as connection:
            return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(select(*columns))}

    def resolutions(self) -> dict[str, int]:
        """By escrow: the transactions that took tokens out of it."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        taken = select(POSTING.c.account, POSTING.c.transaction_id).where(
            POSTING.c.account.like("escrow:%"), POSTING.c.amount < 0
        )
        with self.engine.begin() as connection:
            for account, transaction_id in connection.execute(taken):
                found[account.removeprefix("escrow:")].add(transaction_id)
        return {escrow_id: len(transactions) for escrow_id, transactions in found.items()}


@contextmanager
def wallet_in(folder: Path, random: Random) -> Iterator[Wallet]:
    engines = open_engines(f"sqlite:///{folder}/wallet.db")
    create_tables(engines.writer)
    wallet = Wallet(engines.writer, Faults(random), random)
    wallet.start()
    try:
        yield wallet
    finally:
        wallet.stop()
        engines.dispose()
