"""The workers of one machine, which share a port: their metrics are merged, and a worker that ends is replaced."""

import asyncio
import os
import re
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
from websockets.exceptions import ConnectionClosed

from app.metrics.workers import FOLDER
from tests.support.cluster import database_url_fixture as database_url_fixture
from tests.support.cluster import environment_of, faults, nodes, until
from tests.support.live_socket import LiveSocket
from tests.support.server import fresh


def total(text: str, name: str) -> float:
    """The sum of a metric over all its labels."""
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def test_workers_count_together_and_one_that_goes_is_replaced(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with nodes(1, environment_of(database_url, redis_url, web_concurrency=2), tmp_path) as (node,):
        performer_id = fresh("star")

        async def scrape(name: str) -> float:
            # A connection of its own, so that either worker may answer; while both are starting it waits for one.
            async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
                return total((await http.get(f"{node.server.url}/metrics")).text, name)

        async def all_see(name: str, value: float) -> None:
            """Wait until a metric has this value in six scrapes in a row, whichever workers answer."""
            agreed, seen = 0, -1.0

            async def looked() -> bool:
                nonlocal agreed, seen
                seen = await scrape(name)
                agreed = agreed + 1 if seen == value else 0
                return agreed >= 6

            try:
                await until(looked)
            except TimeoutError:
                raise AssertionError(f"{name}: {seen} last, not {value} six times running") from None

        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(node.server.live(performer_id)) for _ in range(12)]
            for viewer in viewers:
                await viewer.until("snapshot")
            for _ in range(10):
                async with node.server.api() as api:
                    await api.intake(performer_id)
            for viewer in viewers:
                await viewer.reach(10)
            await all_see("queue_intakes_total", 10)
            await all_see("queue_sockets", 12)
            await all_see("queue_info", 1)

            await until(lambda: len(node.children()) == 2)
            first, second = node.children()
            os.kill(first, signal.SIGTERM)
            await until(lambda: len(node.children()) == 2 and first not in node.children())
            gone = [viewer for viewer in viewers if not await is_open(viewer)]
            for viewer in gone:
                query = f"?epoch={viewer.epoch}&since={viewer.version}"
                again = await stack.enter_async_context(node.server.live(performer_id, query=query))
                again.continue_from(viewer)
                viewers[viewers.index(viewer)] = again
            async with node.server.api() as api:
                await api.intake(performer_id)
            for viewer in viewers:
                await viewer.reach(11)
                assert len(viewer.items) == 11
            counted = time.time()
            # The other worker's counters are kept, and its sockets are no longer counted.
            await all_see("queue_intakes_total", 11)
            await all_see("queue_sockets", 12)
            # It may have answered each time itself. The others know what it had counted when it last wrote its metrics,
            # some time before that was written.
            await until(lambda: written_by(second) > counted + 0.5)
            os.kill(second, signal.SIGKILL)
            await until(lambda: len(node.children()) == 2 and second not in node.children())
            await all_see("queue_intakes_total", 11)
        node.terminate()
        assert await asyncio.to_thread(node.wait) == 0
    assert faults(database_url) == []


def written_by(worker: int) -> float:
    """The time at which a worker last wrote its metrics."""
    environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    (folder,) = [each.partition(b"=")[2] for each in environment if each.startswith(FOLDER.encode())]
    (figures,) = Path(os.fsdecode(folder)).glob(f"{worker}-*.json")
    return figures.stat().st_mtime


async def is_open(viewer: LiveSocket) -> bool:
    """Whether a viewer's connection is open; a closed one must have the code 1012."""
    try:
        await viewer.settled()
    except ConnectionClosed:
        assert await viewer.closed() == 1012
        return False
    return True
