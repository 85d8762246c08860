"""Sessions of commands in any order: the promised answers, and nothing left over."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

from tests.fuzz.commands import Report, play
from tests.fuzz.test_fuzz import memory, tasks
from tests.support.server import serving

pytestmark = pytest.mark.anyio

SESSIONS = 40
TOGETHER = 4


@pytest.mark.timeout(300)
async def test_commands_in_any_order_get_the_promised_answers(tmp_path: Path) -> None:
    report = Report()
    with serving(tmp_path, user_intakes_per_minute=0) as server:
        async with server.api() as api:
            # As many at once as later: what a client and a server keep for each, they have by then.
            first = range(1_000_000, 1_000_000 + TOGETHER)
            await asyncio.gather(*(play(server, api, range(number, number + 1), Report()) for number in first))
            gc.collect()
            before, descriptors, running = memory(), len(os.listdir("/proc/self/fd")), tasks()
            step = SESSIONS // TOGETHER
            shares = [range(start, start + step) for start in range(0, SESSIONS, step)]
            await asyncio.gather(*(play(server, api, share, report) for share in shares))
            async with asyncio.timeout(20):
                while "queue_sockets 0.0" not in (await api.get("/metrics", server.admin)).text:
                    pass
            gc.collect()
            assert report.failures == []
            assert {"200", "201", "401", "403", "404", "409", "422", "ack", "error"} <= set(report.outcomes)
            # A pool may have opened one connection more; one that a session in two leaves would be more than this.
            assert len(os.listdir("/proc/self/fd")) < descriptors + SESSIONS / 2
            assert tasks() <= running + TOGETHER
            assert memory() - before < 50 * 1024 * 1024
