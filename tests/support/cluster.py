"""Real processes of the service on one PostgreSQL and one Redis: started, killed and restarted.

A test file imports a fixture by its function's name (`…_fixture`) and requests it by its short name.
"""

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.settings import Settings
from tests.support import environment
from tests.support.ports import free_port
from tests.support.server import Api, ErrorLog, Server

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.executable)
START_SECONDS = 60
STOP_SECONDS = 15


@dataclass(eq=False)
class Node:
    """One `python -m app serve`, on a port that it keeps."""

    environment: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    root: Path = ROOT
    """The source tree of its release."""
    python: Path = PYTHON
    """The interpreter of the environment with the release's dependencies."""
    module: str = "app"
    """The module that is run: python -m MODULE serve."""
    start_seconds: float = START_SECONDS
    """The time within which it must become ready."""
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def server(self) -> Server:
        """Its address and tokens, for clients."""
        return Server(port=self.port, settings=Settings(), stop=self.terminate, _errors=ErrorLog("", is_plain=False))

    def start(self) -> None:
        command = [str(self.python), "-m", self.module, "serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.root, env={**self.environment, "PORT": str(self.port)}
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while self.readiness() != 200:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the process did not become ready"
            time.sleep(0.02)

    def readiness(self) -> int:
        """The status of /readyz; 0 if there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        assert self.process is not None
        code = self.process.wait(STOP_SECONDS)
        self.process = None
        return code

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.wait()

    def stop(self) -> None:
        """End by SIGTERM, or by SIGKILL after STOP_SECONDS."""
        self.terminate()
        try:
            if self.process is not None:
                self.wait()
        except subprocess.TimeoutExpired:
            self.kill()

    def children(self) -> list[int]:
        """The process ids of its workers."""
        assert self.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == self.process.pid and b"spawn_main" in command:
                found.append(int(entry.name))
        return found


def environment_of(database_url: str, redis_url: str | None, **settings: Any) -> dict[str, str]:
    """The environment of a process: ours without variables of the service, plus `settings`."""
    known = {name.upper() for name in Settings.model_fields}
    ours = {name: value for name, value in os.environ.items() if name not in known}
    chosen = {"database_url": database_url, "redis_url": redis_url, "user_intakes_per_minute": 0, **settings}
    return ours | {name.upper(): str(value) for name, value in chosen.items() if value is not None}


def migrate(environment: dict[str, str], *options: str, root: Path = ROOT, python: Path = PYTHON) -> None:
    command = [str(python), "-m", "app", "migrate", *options]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, timeout=START_SECONDS)


@contextmanager
def nodes(count: int, environment: dict[str, str], folder: Path) -> Iterator[list[Node]]:
    """Processes that are started together, ready, and stopped at the end of the block."""
    with ExitStack() as stack:
        made = [Node(environment, folder / f"node-{number}.log") for number in range(count)]
        for node in made:
            stack.callback(node.stop)
            node.start()
        for node in made:
            node.wait_until_ready()
        yield made
        for node in made:
            node.terminate()


@pytest.fixture(scope="module", name="database_url")
def database_url_fixture(postgres_server: str) -> Iterator[str]:
    """A migrated database for one test file."""
    with environment.database(postgres_server) as url:
        migrate(environment_of(url, None))
        yield url


@asynccontextmanager
async def clients(some: Sequence[Node]) -> AsyncIterator[list[Api]]:
    """A client of each process."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node.server.api()) for node in some]


async def until(holds: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    """Poll until `holds()`: other processes give no signal. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


# Checks of a database that must hold at any time


def faults(database_url: str) -> list[str]:
    """The inconsistencies of the records, such as gaps in a room's log or an escrow with two operations; should be
    empty."""
    questions = {
        "versions with gaps": """SELECT performer_id FROM events GROUP BY performer_id
            HAVING count(*) <> max(version) OR min(version) <> 1""",
        "rooms that are not at their log's end": """SELECT r.performer_id FROM rooms r
            WHERE r.version <> (SELECT max(version) FROM events e WHERE e.performer_id = r.performer_id)""",
        "rooms with two started": """SELECT performer_id FROM items WHERE status = 'started'
            GROUP BY performer_id HAVING count(*) > 1""",
        "escrows with two orders": """SELECT escrow_transaction_id FROM wallet_operations
            GROUP BY escrow_transaction_id HAVING count(*) > 1""",
        "escrows of two items": """SELECT escrow_transaction_id FROM items
            GROUP BY escrow_transaction_id HAVING count(*) > 1""",
        "items with two orders": """SELECT item_id FROM wallet_operations GROUP BY item_id HAVING count(*) > 1""",
        "ended items without an order": """SELECT i.item_id FROM items i WHERE i.status NOT IN ('created', 'started')
            AND NOT EXISTS (SELECT 1 FROM wallet_operations o WHERE o.item_id = i.item_id)""",
    }
    with psycopg.connect(database_url) as connection:
        found = {what: connection.execute(question.encode()).fetchall() for what, question in questions.items()}
    return [f"{what}: {len(rows)}, {rows[0]}" for what, rows in found.items() if rows]


def unresolved(database_url: str) -> int:
    """Wallet operations that are not done yet."""
    with psycopg.connect(database_url) as connection:
        row: Sequence[Any] | None = connection.execute(
            "SELECT count(*) FROM wallet_operations WHERE status <> 'done'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def unlike_the_wallet(database_url: str) -> int:
    """The number of ended items whose escrow the sandbox wallet has resolved otherwise, in part or by more than one
    order. Should be 0 when all operations are done."""
    with psycopg.connect(database_url) as connection:
        row: Sequence[Any] | None = connection.execute(
            """SELECT count(*) FROM items i
            LEFT JOIN sandbox_escrow e ON e.escrow_id = i.escrow_transaction_id
            WHERE i.status NOT IN ('created', 'started') AND (
                e.status IS DISTINCT FROM CASE WHEN i.status = 'finished' THEN 'settled' ELSE 'refunded' END
                OR e.settled_amount + e.refunded_amount <> i.tokens
                OR 1 <> (SELECT count(*) FROM sandbox_answer a WHERE a.idempotency_key IN (
                    'queue-' || i.item_id || '-settle', 'queue-' || i.item_id || '-refund'
                ))
            )"""
        ).fetchone()
    assert row is not None
    return int(row[0])


def peaks(database_url: str) -> tuple[int, int]:
    """The largest numbers of active and of started items that any room has ever had, by its log."""
    with psycopg.connect(database_url) as connection:
        row: Sequence[Any] | None = connection.execute(
            """SELECT max(active), max(started) FROM (
                SELECT sum(active) OVER log AS active, sum(started) OVER log AS started FROM (
                    SELECT performer_id, version,
                        coalesce(to_status IN ('created', 'started'), false)::int
                        - coalesce(from_status IN ('created', 'started'), false)::int AS active,
                        coalesce(to_status = 'started', false)::int
                        - coalesce(from_status = 'started', false)::int AS started
                    FROM events
                ) changes WINDOW log AS (PARTITION BY performer_id ORDER BY version)
            ) moments"""
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
