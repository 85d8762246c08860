"""The service as a process whose database is locked, full or frozen: it reports this in time, recovers, and ends."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
import pytest

from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.support.cluster import Node
from tests.support.server import Api, intake_body, problem
from tests.support.stores import locked_by_a_shell

pytestmark = pytest.mark.anyio

COMMAND_SECONDS = 5
SLACK_SECONDS = 1.5
"""For a machine that does other things, too; without a deadline it takes a minute."""
ITEMS = "/v1/queue/items"


@asynccontextmanager
async def serving(folder: Path, url: str) -> AsyncIterator[tuple[Node, Api]]:
    node = Node({**os.environ, "DATABASE_URL": url, "USER_INTAKES_PER_MINUTE": "0"}, folder / "log")
    node.start()
    try:
        node.wait_until_ready()
        async with node.server.api() as api:
            yield node, api
    finally:
        node.kill()


async def refused_in_time(api: Api, performer_id: str = "mira") -> tuple[dict[str, object], set[int]]:
    """An intake must be refused within the deadline; returns its body, and the answers that a repetition may get."""
    body, began = intake_body(performer_id), time.monotonic()
    refusal = problem(await api.post(ITEMS, api.server.feature(), body), 503, "UNAVAILABLE")
    assert time.monotonic() - began < COMMAND_SECONDS + SLACK_SECONDS
    assert refusal["retryAfterSeconds"] >= 1
    # The last attempt may still be waiting for the lock when the refusal is sent, which says so then.
    return body, {201} if "nothing was done" in refusal["detail"] else {200, 201}


async def repeated(api: Api, body: dict[str, object], expected: set[int]) -> None:
    response = await api.post(ITEMS, api.server.feature(), body)
    assert response.status_code in expected, response.text


def becomes(node: Node, status: int, seconds: float = 10) -> None:
    """Wait until /readyz has this status."""
    deadline = time.monotonic() + seconds
    while node.readiness() != status:
        assert time.monotonic() < deadline, f"/readyz does not become {status}"
        time.sleep(0.05)


def ends_in_time(node: Node) -> None:
    began = time.monotonic()
    node.terminate()
    assert node.wait() == 0
    assert time.monotonic() - began < 10


async def test_a_locked_database_is_reported_in_time_heals_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with serving(tmp_path, url) as (node, api):
        item = await api.intake("mira")
        with locked_by_a_shell(url):
            body, expected = await refused_in_time(api)
            becomes(node, 503)
            # Reads are still answered.
            assert (await api.queue("mira"))["items"][0]["itemId"] == item["itemId"]
        becomes(node, 200)
        await repeated(api, body, expected)
        with locked_by_a_shell(url):
            ends_in_time(node)


async def test_a_full_disk_is_reported_in_time_heals_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with serving(tmp_path, url) as (node, api):
        await api.intake("mira")
        assert node.process is not None
        # No file of the process may grow any more: what is written to comes back as an error, as on a full disk.
        limits = resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (1, limits[1]))
        body, expected = await refused_in_time(api)
        becomes(node, 503)
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, limits)
        becomes(node, 200)
        await repeated(api, body, expected)
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (1, limits[1]))
        ends_in_time(node)


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Inside the block another connection holds a lock on a table."""
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback()


@contextmanager
def full(url: str) -> Iterator[None]:
    """The server answers every insertion into the log as one whose disk is full, and goes on updating what there is.
    `python -m tests.faults` fills a real disk, which needs the right to mount one."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
        )
        other.execute("CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()")
        try:
            yield
        finally:
            other.execute("DROP FUNCTION refuse() CASCADE")


@pytest.mark.parametrize("trouble", [locked, full], ids=["a locked table", "a full disk"])
async def test_a_postgresql_that_takes_no_command_is_reported_in_time_heals_and_does_not_hold_up_the_end(
    tmp_path: Path, postgres_url: str, trouble: Callable[[str], AbstractContextManager[None]]
) -> None:
    engines = open_engines(postgres_url)
    migrate(engines.writer)
    engines.dispose()
    async with serving(tmp_path, postgres_url) as (node, api):
        await api.intake("mira")
        with trouble(postgres_url):
            body, expected = await refused_in_time(api)
            becomes(node, 503)
        becomes(node, 200)
        await repeated(api, body, expected)
        with trouble(postgres_url):
            ends_in_time(node)


def backends(url: str) -> list[int]:
    with psycopg.connect(url) as other:
        rows = other.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [pid for (pid,) in rows]


async def test_a_frozen_postgresql_is_reported_in_time_and_does_not_hold_up_the_end(
    tmp_path: Path, postgres_url: str
) -> None:
    engines = open_engines(postgres_url)
    migrate(engines.writer)
    engines.dispose()
    async with serving(tmp_path, postgres_url) as (node, api):
        await api.intake("mira")
        stopped = backends(postgres_url)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            # Watched meanwhile: with the refusal the service cuts its connections, and new ones are not frozen.
            reported = asyncio.create_task(asyncio.to_thread(becomes, node, 503))
            body, expected = await refused_in_time(api)
            await reported
            ends_in_time(node)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
    async with serving(tmp_path, postgres_url) as (node, api):
        # Whichever it was, the same request with the same key says now what came of it.
        await repeated(api, body, expected)
        assert (await api.queue("mira"))["room"]["depth"] == 2
