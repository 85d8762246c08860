"""Server and wallet as processes on real ports, either killed at any moment under load: in the end the books agree.

MONEY_KILL_ROUNDS says how often one of them is killed. Everybody goes on meanwhile, as callers do: who gets no answer
asks again with the same key.
"""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from app.access import auth
from app.domain.command import Role
from app.domain.room import Policy
from app.sandbox.tables import ANSWER
from app.store import Store, reading
from app.store.engines import open_engines
from tests.simulation import checks

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("MONEY_KILL_ROUNDS", "8"))
START_SECONDS = 60.0
CALM_SECONDS = 120.0
ROOT = Path(__file__).parents[2]
SECRET, QUEUE_SECRET, API_TOKEN = secrets.token_hex(), secrets.token_hex(), secrets.token_hex()
PERFORMERS = ("ada", "bo")
USERS = ("ann", "ben", "cy")
POCKET_MONEY = 1_000_000
FAULTS = {"errorRate": 0.05, "conflictRate": 0.02, "lostAnswerRate": 0.05, "duplicateRate": 0.05}

Json = dict[str, Any]


def token(role: Role, sub: str) -> str:
    return auth.sign(SECRET, role, sub, now=datetime.now(UTC))


ADMIN = token(Role.ADMIN, "ops")


class Program:
    """The server or the wallet, on a fixed port; it is killed and started again."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], port: int, log: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._arguments = arguments
        self._environment = {"PATH": os.environ["PATH"], **environment}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "app", *self._arguments]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def is_up(self, http: httpx2.AsyncClient, path: str) -> None:
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self._process is not None
                assert self._process.poll() is None, f"{self.name} has ended: {self._log.read_text()[-2000:]}"
                try:
                    if (await http.get(self.url + path)).status_code < 500:
                        return
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)


@contextmanager
def programs(folder: Path) -> Iterator[tuple[Program, Program]]:
    server_port, wallet_port = free_ports()
    shared = {"AUTH_SECRET": SECRET, "WALLET_QUEUE_SECRET": QUEUE_SECRET, "WALLET_API_TOKEN": API_TOKEN}
    wallet = Program(
        "the wallet",
        ["sandbox", "--port", str(wallet_port), "--database-url", f"sqlite:///{folder}/wallet.db"],
        shared,
        wallet_port,
        folder / "wallet.log",
    )
    server = Program(
        "the server",
        ["serve"],
        shared
        | {
            "PORT": str(server_port),
            "DATABASE_URL": f"sqlite:///{folder}/queue.db",
            "WALLET_URL": wallet.url,
            "WALLET_TIMEOUT_SECONDS": "2",
            "WALLET_RETRY_BASE_SECONDS": "0.05",
            "WALLET_RETRY_MAX_SECONDS": "1",
            "USER_INTAKES_PER_MINUTE": "0",
            "MAX_QUEUE_DEPTH": "1000",
        },
        server_port,
        folder / "server.log",
    )
    try:
        wallet.start()
        server.start()
        yield server, wallet
    finally:
        server.kill()
        wallet.kill()


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as another:
        one.bind(("127.0.0.1", 0))
        another.bind(("127.0.0.1", 0))
        return one.getsockname()[1], another.getsockname()[1]


@dataclass(kw_only=True)
class Load:
    """Callers that send requests until they are stopped, and their answers."""

    server: Program
    wallet: Program
    http: httpx2.AsyncClient
    is_over: bool = False
    items: dict[str, Json] = field(default_factory=dict)
    """Acknowledged intakes."""
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Acknowledged commands: (item, status after it)."""
    asked_again: Counter[str] = field(default_factory=Counter)

    async def ask(self, program: Program, path: str, bearer: str, key: str, body: Json) -> httpx2.Response:
        """Send a POST again and again until there is an answer."""
        header = "X-Idempotency-Key" if program is self.wallet else "Idempotency-Key"
        headers = {"Authorization": f"Bearer {bearer}", header: key}
        while True:
            try:
                response = await self.http.post(program.url + path, headers=headers, json=body)
            except httpx2.TransportError:
                self.asked_again[f"{program.name} was gone"] += 1
                await asyncio.sleep(0.05)
                continue
            # A conflict at the wallet is one that it plays; at the server it is an answer.
            if response.status_code < 500 and (program is self.server or response.status_code not in (409, 429)):
                return response
            self.asked_again[f"{program.name} failed"] += 1
            await asyncio.sleep(0.05)

    async def queue(self, feature: str, random: Random) -> None:
        """A feature: hold tokens, then post the intake."""
        for number in count():
            if self.is_over:
                return
            name, user, tokens = f"{feature}-{number}", random.choice(USERS), random.randint(2, 50)
            hold = {"amount": tokens, "reason": "a song", "featureType": feature, "queueItemId": name}
            held = await self.ask(self.wallet, f"/wallets/{user}/escrow/hold", API_TOKEN, f"hold-{name}", hold)
            assert held.status_code == 201, held.text
            body = {
                "sourceFeature": feature,
                "sourceEventId": name,
                "performerId": random.choice(PERFORMERS),
                "userId": user,
                "escrowTransactionId": held.json()["escrowId"],
                "tokens": tokens,
                "title": f"Request {name}",
                "description": "A song",
            }
            bearer = token(Role.FEATURE, feature)
            answer = await self.ask(self.server, "/v1/queue/items", bearer, f"key-{name}", body)
            assert answer.status_code in (200, 201), answer.text
            item = answer.json()
            self.items[item["itemId"]] = item
            if random.random() < 0.2:
                await self.command(f"cancel-{name}", token(Role.VIEWER, user), item, "refund", reason="user_cancelled")

    async def perform(self, performer_id: str, random: Random) -> None:
        bearer = token(Role.PERFORMER, performer_id)
        for number in count():
            if self.is_over:
                return
            key = f"{performer_id}-{number}"
            path = f"/v1/performers/{performer_id}/queue/start-next"
            answer = await self.ask(self.server, path, bearer, f"start-{key}", {})
            started = answer.json() if answer.status_code == 200 else answer.json().get("item")
            if started is None:
                await asyncio.sleep(0.02)
                continue
            if answer.status_code == 200:
                self.steps.append((started["itemId"], "started"))
            way = random.random()
            if way < 0.2:
                await self.command(f"end-{key}", bearer, started, "abandon")
            elif way < 0.3:
                await self.command(f"end-{key}", bearer, started, "refund", reason="technical_error")
            elif way < 0.5:
                await self.command(f"end-{key}", bearer, started, "complete", refundTokens=1)
            else:
                await self.command(f"end-{key}", bearer, started, "complete")

    async def command(self, key: str, bearer: str, item: Json, name: str, **body: Any) -> None:
        path = f"/v1/queue/items/{item['itemId']}/{name}"
        answer = await self.ask(self.server, path, bearer, key, body)
        assert answer.status_code in (200, 403, 409), answer.text
        if answer.status_code == 200:
            self.steps.append((item["itemId"], answer.json()["status"]))

    async def operations(self, status: str) -> list[Json]:
        path = f"{self.server.url}/v1/admin/wallet-operations?status={status}&limit=100"
        response = await self.http.get(path, headers={"Authorization": f"Bearer {ADMIN}"})
        assert response.status_code == 200, response.text
        return list(response.json()["operations"])


@pytest.mark.timeout(180 + 15 * ROUNDS)
async def test_whichever_is_killed_every_escrow_is_resolved_once_and_both_books_agree(tmp_path: Path) -> None:
    random, began = Random(), perf_counter()
    killed: Counter[str] = Counter()
    with programs(tmp_path) as (server, wallet):
        async with httpx2.AsyncClient(timeout=5, trust_env=False) as http, asyncio.TaskGroup() as people:
            await asyncio.gather(server.is_up(http, "/healthz"), wallet.is_up(http, "/books"))
            load = Load(server=server, wallet=wallet, http=http)
            for user in USERS:
                await load.ask(wallet, "/grants", API_TOKEN, f"grant-{user}", {"userId": user, "amount": POCKET_MONEY})
            await turn_dial(http, wallet, FAULTS)
            for number in range(3):
                people.create_task(load.queue(f"feature-{number}", Random(random.random())))
            for performer_id in PERFORMERS:
                people.create_task(load.perform(performer_id, Random(random.random())))

            for _ in range(ROUNDS):
                await asyncio.sleep(random.uniform(0.1, 0.6))  # the moment is meant to be any
                victims = random.choice(((server,), (wallet,), (server, wallet)))
                for victim in victims:
                    victim.kill()
                    killed[victim.name] += 1
                for victim in victims:
                    victim.start()
                for victim in victims:
                    await victim.is_up(http, "/healthz" if victim is server else "/books")
                if wallet in victims:
                    await turn_dial(http, wallet, FAULTS)
            load.is_over = True
            kills_took = perf_counter() - began
            await turn_dial(http, wallet, dict.fromkeys(FAULTS, 0))
        await calm(load)
    print(f"{ROUNDS} rounds in {kills_took:.0f} s, {perf_counter() - began:.0f} s in all; killed: {dict(killed)}")
    resolved = check_everything(tmp_path, load)
    print(f"{len(load.items)} items, {len(load.steps)} commands, {resolved} escrows resolved, {dict(load.asked_again)}")


async def turn_dial(http: httpx2.AsyncClient, wallet: Program, rates: Mapping[str, float]) -> None:
    headers = {"Authorization": f"Bearer {API_TOKEN}"}
    response = await http.put(f"{wallet.url}/faults", headers=headers, json=rates)
    assert response.status_code == 200, response.text


async def calm(load: Load) -> None:
    """Wait until nothing is under way any more; an administrator retries dead operations."""
    async with asyncio.timeout(CALM_SECONDS), httpx2.AsyncClient(timeout=5, trust_env=False) as http:
        load.http = http
        while True:
            for operation in await load.operations("dead"):
                path = f"/v1/admin/wallet-operations/{operation['id']}/retry"
                answer = await load.ask(load.server, path, ADMIN, f"retry-{secrets.token_hex(8)}", {})
                assert answer.status_code in (200, 409), answer.text
            if not any([await load.operations(status) for status in ("pending", "retrying", "dead")]):
                return
            await asyncio.sleep(0.2)


def check_everything(folder: Path, load: Load) -> int:
    """Compare both databases with each other and with the acknowledged requests; returns the number of resolved
    escrows."""
    store = Store(open_engines(f"sqlite:///{folder}/queue.db"), Policy(max_depth=1000))
    engines = open_engines(f"sqlite:///{folder}/wallet.db")
    try:
        with store.reading() as connection:
            rooms = reading.load_rooms(connection, store.policy, PERFORMERS)
            tables = checks.read_tables(connection)
        with engines.writer.begin() as connection:
            keys = set(connection.execute(select(ANSWER.c.idempotency_key)).scalars())
        violations = [
            *checks.logs(store.policy, rooms, tables.events),
            *checks.money(tables, engines.writer),
            *checks.books(tables.items, engines.writer, granted=POCKET_MONEY * len(USERS)),
        ]
        assert violations == []
        resolved = len(checks.resolutions_of(engines.writer))
    finally:
        store.engines.dispose()
        engines.dispose()
    # The wallet has carried out nothing but what the outbox holds, under its key.
    ours = {operation.idempotency_key for operation in tables.operations}
    assert {key for key in keys if key.startswith("queue-")} == ours
    assert set(load.items) == {item.item_id for item in tables.items}
    happened = {(event.item.item_id, str(event.item.status)) for event in tables.events if event.item is not None}
    assert set(load.steps) <= happened
    return resolved
