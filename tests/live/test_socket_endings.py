"""The ends of a live socket: each close code, and events that do not end it."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from app.main import Periods
from app.server.limits import Limits
from tests.support.live_socket import LiveSocket
from tests.support.server import Api, Server, fresh, intake_body, ok, serving

LARGEST = 64 * 1024


@pytest.fixture
def server(running_server: Server) -> Iterator[Server]:
    yield running_server
    assert running_server.expected_errors() == []


@pytest.fixture
def two_each(tmp_path: Path) -> Iterator[Server]:
    """A server that lets each principal have two sockets."""
    with serving(tmp_path, limits=Limits(sockets_per_principal=2)) as server:
        yield server


async def send_until_closed(live: LiveSocket, message: Any) -> int:
    """Send data that may be refused before all of it is sent; returns the close code."""
    with suppress(ConnectionClosed):
        await live.connection.send(message)
    return await live.closed()


# 4501: bad frames

BAD_FRAMES: dict[str, Any] = {
    "binary": b'{"type": "ping"}',
    "empty": "",
    "not JSON": "ping",
    "cut short": '{"type": "ping"',
    "two frames in one": '{"type": "ping"} {"type": "ping"}',
    "an array": '[{"type": "ping"}]',
    "a string": '"ping"',
    "null": "null",
    "no type": "{}",
    "an unknown type": '{"type": "hello"}',
    "a type of the server's": '{"type": "snapshot"}',
    "a type that is no text": '{"type": 5}',
    "a type in capitals": '{"type": "PING"}',
    "intake": '{"type": "intake", "id": "1"}',
    "a key twice": '{"type": "ping", "type": "ping"}',
    "NaN": '{"type": "ping", "id": NaN}',
    "a huge number": '{"type": "start", "id": "1", "n": 1e999}',
    "a lone surrogate": '{"type": "ping", "id": "\\ud800"}',
    "too deep": '{"type": "ping", "id": ' + "[" * 100 + "]" * 100 + "}",
    "too large": json.dumps({"type": "ping", "id": "x" * LARGEST}),
    "too large in bytes": json.dumps({"type": "ping", "id": "é" * (LARGEST // 2)}, ensure_ascii=False),
    "one megabyte": json.dumps({"type": "ping", "id": "x" * 1_000_000}),
    "one megabyte of nothing": " " * 1_000_000,
}


async def test_a_bad_frame_ends_the_connection(server: Server, performer_id: str) -> None:
    async def code(frame: Any) -> int:
        async with server.live(performer_id, server.performer(performer_id)) as live:
            await live.until("snapshot")
            return await send_until_closed(live, frame)

    codes = await asyncio.gather(*map(code, BAD_FRAMES.values()))
    assert dict(zip(BAD_FRAMES, codes, strict=True)) == dict.fromkeys(BAD_FRAMES, 4501)


async def test_a_bad_frame_changes_nothing_and_harms_nobody_else(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    version = await api.version(performer_id)
    async with server.live(performer_id) as other:
        await other.until("snapshot")
        for name in ("binary", "not JSON", "an unknown type", "one megabyte"):
            async with server.live(performer_id) as live:
                assert await send_until_closed(live, BAD_FRAMES[name]) == 4501
        await other.settled()
        assert await api.version(performer_id) == version
        await api.command("start", item)
        assert (await other.next())["type"] == "update"


async def test_a_frame_may_be_just_so_large_and_come_in_pieces(server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        frame = json.dumps({"type": "start-next", "id": "1", "note": ""})
        padded = frame[:-2] + "x" * (LARGEST - len(frame)) + frame[-2:]
        assert len(padded) == LARGEST
        await live.connection.send(padded)
        assert (await live.next())["code"] == "VALIDATION_ERROR"

        async def pieces() -> Any:
            for letter in '{"type": "ping"}':
                yield letter

        await live.connection.send(pieces())
        assert (await live.next())["type"] == "pong"


# 4529: too many frames


async def test_a_hundred_and_twenty_frames_a_minute_are_enough(server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        for _ in range(120):
            await live.send({"type": "ping"})
        await live.send({"type": "ping"})
        assert await live.closed() == 4529
        assert len(live.of("pong")) == 120


async def test_control_frames_do_not_count(server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        for _ in range(130):
            await (await live.connection.ping())
        await live.settled()


# 4504 and 1013: too many connections


async def test_one_principal_has_only_so_many_connections(two_each: Server, performer_id: str) -> None:
    server = two_each
    ada = server.viewer(fresh("user"))
    async with server.live(performer_id, ada) as first, server.live(fresh("star"), ada) as second:
        await first.until("snapshot")
        await second.until("snapshot")
        for third in (ada, None):
            async with server.live(performer_id, third) as live:
                if third is None:
                    await live.until("snapshot")
                    await live.send({"type": "auth", "token": ada})
                assert await live.closed() == 4504
        # A refresh needs no place of its own, another principal has places of their own, and nobody needs none.
        await first.auth(ada)
        for token in (server.viewer(fresh("user")), None, None, None):
            async with server.live(performer_id, token) as live:
                await live.until("snapshot")
        await second.connection.close()
        async with server.live(performer_id, ada) as live:
            await live.until("snapshot")


async def test_a_full_process_refuses_new_sockets(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(sockets=1)) as server:
        async with server.live("mira") as first:
            await first.until("snapshot")
            async with server.live("mira") as live:
                assert await live.closed() == 1013
                assert live.frames == []


# 1012: the end of the process


async def test_a_process_that_stops_asks_everybody_to_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, public_rooms=False) as server:
        async with (
            server.live("mira", server.viewer("ada")) as viewer,
            server.live("mira", server.performer("mira")) as performer,
            server.live("zoe", server.admin) as admin,
            server.live("mira") as silent,
        ):
            for live in (viewer, performer, admin):
                await live.until("snapshot")
            server.stop()
            assert await asyncio.gather(*(live.closed() for live in (viewer, performer, admin, silent))) == [1012] * 4


async def test_many_sockets_are_sent_away_in_batches(tmp_path: Path) -> None:
    ends: list[float] = []

    async def watch(server: Server) -> int:
        async with server.live("mira") as live:
            await live.until("snapshot")
            ready.release()
            code = await live.closed()
            ends.append(asyncio.get_running_loop().time())
            return code

    with serving(tmp_path, periods=Periods(drain=0.4)) as server:
        ready = asyncio.Semaphore(0)
        watching = [asyncio.create_task(watch(server)) for _ in range(40)]
        for _ in watching:
            await ready.acquire()
        server.stop()
        assert await asyncio.gather(*watching) == [1012] * 40
    assert max(ends) - min(ends) > 0.2


async def test_commands_acknowledged_before_the_end_exist_after_it(tmp_path: Path) -> None:
    """Intakes and commands go on while the process stops: each is answered, refused or cut off, and no acknowledged one
    is lost."""
    with serving(tmp_path) as server:
        async with server.api() as api, server.live("mira", server.performer("mira")) as panel:
            await panel.until("snapshot")
            await api.intake("mira")

            async def intake() -> Any:
                try:
                    response = await api.post("/v1/queue/items", server.feature(), intake_body(fresh("star")))
                except OSError as broken:
                    return broken
                except Exception as broken:  # the client's own classes for a connection that ended
                    return broken
                return response.json() if response.status_code == 201 else response

            intakes = [asyncio.create_task(intake()) for _ in range(50)]
            await intakes[0]
            server.stop()
            answers = await asyncio.gather(*intakes)
            await panel.closed()
    acknowledged = [answer for answer in answers if isinstance(answer, dict)]
    assert acknowledged
    with serving(tmp_path) as server:
        async with server.api() as api:
            for item in acknowledged:
                assert ok(await api.get(f"/v1/queue/items/{item['itemId']}", server.admin)) == item
            ok(await api.get("/v1/performers/mira/queue"))


# Events that never end a socket


async def test_a_client_may_go_at_any_moment(server: Server, performer_id: str) -> None:
    for frames in (0, 1, 2):
        async with server.live(performer_id, server.performer(performer_id)) as live:
            for _ in range(frames):
                await live.next()
            await live.send({"type": "resync"})
            live.connection.transport.abort()
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        await live.connection.close(1001, "going away")
    async with server.live(performer_id) as live:
        await live.until("snapshot")


async def test_a_storm_of_arrivals_and_departures_leaves_nothing_behind(server: Server, performer_id: str) -> None:
    async def come_and_go(number: int) -> None:
        async with server.live(performer_id, server.performer(performer_id) if number % 3 else None) as live:
            if number % 2:
                await live.next()
            live.connection.transport.abort()

    await asyncio.gather(*(come_and_go(number) for number in range(60)))
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        await live.settled()
