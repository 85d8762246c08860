"""A client that does not keep up: it delays nobody, costs a bounded amount of memory, and is brought up to date when it
wakes or cut off when it does not."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest

from app.main import Periods
from app.server.websocket_protocol import HIGH_WATER, KERNEL_BUFFER
from tests.support.live_socket import LiveSocket
from tests.support.raw_socket import RawSocket, raw_live
from tests.support.server import Api, Json, Server, serving

ITEMS = 20
LARGE: Json = {"description": "é" * 2000, "metadata": {"a": "x" * 8000}}
LARGE_ITEM = 13_500
"""About the bytes of a frame that shows such an item whole."""


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with tidying_often(tmp_path_factory.mktemp("slow")) as server:
        yield server


def tidying_often(folder: Path, lag: float = 30.0) -> AbstractContextManager[Server]:
    return serving(folder, periods=Periods(tidy=0.05, lag=lag), disconnect_grace_seconds=0)


@pytest.fixture
def server(patient: Server) -> Iterator[Server]:
    yield patient
    assert patient.expected_errors() == []


@pytest.fixture
async def full(api: Api, performer_id: str) -> Json:
    """A room of large items; the first one is started."""
    for _ in range(ITEMS):
        await api.intake(performer_id, **LARGE)
    return await api.start_next(performer_id)


async def make_noise(api: Api, started: Json, live: LiveSocket, times: int) -> None:
    """Make events one after the other, and wait for each at a client that reads."""
    for turn in range(times):
        await api.command("resume" if turn % 2 else "pause", started)
        await live.reach(await api.version(started["performerId"]))


async def stall(raw: RawSocket, resyncs: int) -> None:
    """Request large answers and read none of them."""
    for _ in range(resyncs):
        await raw.send_json({"type": "resync"})


async def wake(raw: RawSocket, version: int) -> list[Json]:
    """Read all frames in order up to the present state of the room."""
    frames: list[Json] = []
    while not frames or frames[-1].get("version") != version:
        frames.append(await raw.next_json())
    return frames


async def test_a_stalled_client_delays_nobody_and_gets_the_room_as_it_is_when_it_wakes(
    api: Api, server: Server, performer_id: str, full: Json
) -> None:
    async with server.live(performer_id) as live, raw_live(server.port, performer_id, server.admin) as raw:
        await live.until("snapshot")
        before = live.version
        await stall(raw, resyncs=60)
        await make_noise(api, full, live, 20)
        # Everybody else got every single event.
        assert [(update["from"], update["version"]) for update in live.of("update")] == [
            (version, version + 1) for version in range(before, before + 20)
        ]
        seen = await wake(raw, live.version)
        assert seen[-1]["type"] == "snapshot"
        assert "update" not in [frame["type"] for frame in seen[-2:]]
        # It is answered all that it asked for while it was not read.
        await raw.send_json({"type": "ping"})
        while (await raw.next_json())["type"] != "pong":
            pass
        # From here on it follows like anybody.
        await api.command("pause", full)
        update = await raw.next_json()
        assert (update["type"], update["from"], update["version"]) == ("update", live.version, live.version + 1)


async def test_the_cost_of_a_stalled_client_is_bounded(api: Api, server: Server, performer_id: str, full: Json) -> None:
    async with server.live(performer_id) as live, raw_live(server.port, performer_id, server.admin) as raw:
        await live.until("snapshot")
        # Unbounded this would be 25 MB.
        await stall(raw, resyncs=100)
        await make_noise(api, full, live, 4)
        await wake(raw, live.version)
        snapshot = ITEMS * LARGE_ITEM
        # The kernel's buffer, our buffer, the snapshot written before it was found to lag, and the one after it woke.
        assert raw.received < 2 * KERNEL_BUFFER + HIGH_WATER + 3 * snapshot


async def test_updates_too_are_left_out_while_a_client_lags(api: Api, server: Server, performer_id: str) -> None:
    item = await api.command("start", await api.intake(performer_id, **LARGE))
    async with server.live(performer_id) as live, raw_live(server.port, performer_id, server.admin) as raw:
        await live.until("snapshot")
        await raw.next_json()
        await raw.next_json()
        async with server.live(performer_id, server.admin) as other:
            await other.until("snapshot")
            for turn in range(60):
                await api.command("resume" if turn % 2 else "pause", item)
            version = await api.version(performer_id)
            await other.reach(version)
            assert len(other.of("update")) == 60
        seen = await wake(raw, version)
        kinds = [frame["type"] for frame in seen]
        assert kinds.count("snapshot") == 1
        assert len(seen) < 60
        # Up to the first snapshot every update joined up, and after it again.
        at = kinds.index("snapshot")
        for run in (seen[:at], seen[at:]):
            assert all(later["from"] == earlier["version"] for earlier, later in pairwise(run))


async def test_a_client_that_does_not_wake_is_cut_off(tmp_path: Path, performer_id: str) -> None:
    with tidying_often(tmp_path, lag=0.2) as server:
        async with (
            server.api() as api,
            server.live(performer_id) as live,
            raw_live(server.port, performer_id, server.performer(performer_id)) as raw,
        ):
            for _ in range(ITEMS):
                await api.intake(performer_id, **LARGE)
            started = await api.start_next(performer_id)
            await live.until_state(lambda live: bool(live.room.get("performerOnline")))
            await stall(raw, resyncs=60)
            await api.command("pause", started)
            # That the performer's only panel is gone is how everybody else notices.
            await live.until_state(lambda live: not live.room["performerOnline"])
            assert await raw.close_code() == 4000
            await live.settled()


async def test_stalled_clients_among_others_are_only_their_own_loss(
    api: Api, server: Server, performer_id: str
) -> None:
    item = await api.command("start", await api.intake(performer_id, **LARGE))
    async with (
        raw_live(server.port, performer_id, server.admin) as one,
        raw_live(server.port, performer_id, server.admin) as two,
        server.live(performer_id) as public,
        server.live(performer_id, server.admin) as admin,
        server.live(performer_id, server.viewer(item["userId"])) as owner,
    ):
        honest = (public, admin, owner)
        for live in honest:
            await live.until("snapshot")
        for _ in range(100):
            await stall(one, 1)
            await stall(two, 1)
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for turn in range(20):
            began = loop.time()
            await api.command("resume" if turn % 2 else "pause", item)
            for live in honest:
                await live.until("update")
            slowest = max(slowest, loop.time() - began)
        assert all(live.gaps == 0 for live in honest)
        assert slowest < 2
