"""Limits of WebSocket connections, with low-level sockets: floods, clients that read nothing, too many handshakes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from app.server.limits import Limits, Rate
from tests.support.raw_socket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, raw_live, tcp, upgrade
from tests.support.server import Api, Server, serving

pytestmark = pytest.mark.anyio


def masked(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A small frame of a client, masked with zeros."""
    return bytes([(0x80 if final else 0) | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


FLOODS = {
    "pings": b"" + masked(PING),
    "pongs": masked(PONG),
    "large pings": masked(PING, b"x" * 125),
    "empty continuations": masked(CONTINUATION, final=False),
    "messages": masked(TEXT, b'{"type": "ping"}'),
}


async def refusals(api: Api) -> dict[str, float]:
    """The metric of refusals by cause."""
    lines = (await api.get("/metrics", api.server.admin)).text.splitlines()
    found = [line.partition('cause="')[2].partition('"} ') for line in lines if line.startswith("queue_refusals_total")]
    return {cause: float(value) for cause, _, value in found}


@pytest.fixture
async def begun(server: Server, performer_id: str) -> AsyncIterator[RawSocket]:
    """A socket that has been sent its first two frames."""
    async with raw_live(server.port, performer_id) as raw:
        await raw.next_json()
        await raw.next_json()
        yield raw


@pytest.mark.parametrize("flood", FLOODS, ids=str)
async def test_a_flood_of_any_frame_is_ended_with_4529(begun: RawSocket, flood: str, api: Api) -> None:
    if flood == "empty continuations":
        await begun.send_bytes(masked(TEXT, b"{", final=False))
    with suppress(ConnectionError):
        await begun.send_bytes(FLOODS[flood] * 2000)
    code = await begun.close_code()
    # The kernel resets a connection that is closed while much is still on its way, and drops our close frame with it.
    assert code == 4529 or (flood == "large pings" and code is None)
    if flood != "messages":
        assert (await refusals(api))["connection_frames"] >= 1


async def test_as_many_frames_as_anybody_needs_are_taken(begun: RawSocket) -> None:
    """120 messages, and as many pings and pongs beside them."""
    for _ in range(50):
        await begun.send_bytes(masked(PING) + masked(PONG) + FLOODS["messages"])
    seen = [await begun.frame() for _ in range(100)]
    assert sum(frame is not None and frame.opcode == PONG for frame in seen) == 50


async def test_more_bytes_than_all_messages_together_may_have_are_too_many(server: Server, performer_id: str) -> None:
    message = b'{"type": "ping", "x": "' + b"x" * 60_000 + b'"}'
    frame = bytes([0x81, 0xFE]) + len(message).to_bytes(2, "big") + bytes(4) + message
    async with raw_live(server.port, performer_id) as raw:
        with suppress(ConnectionError):
            await raw.send_bytes(frame * 60)
        # Unknown fields would end it as well; bytes are counted before they are looked at.
        assert await raw.close_code() in (4501, 4529)


async def test_a_message_has_a_bounded_number_of_fragments(tmp_path: Path) -> None:
    limits = Limits(fragments=10)
    with serving(tmp_path, limits=limits) as server:
        async with raw_live(server.port, "mira") as raw:
            await raw.send_bytes(masked(TEXT, b"{", final=False) + masked(CONTINUATION, b" ", final=False) * 10)
            assert await raw.close_code() == 4529


async def test_the_frames_of_all_connections_of_an_address_are_counted_together(tmp_path: Path) -> None:
    limits = Limits(free_frames=Rate(5, 0.01), address_frames=Rate(20, 0.01))
    with serving(tmp_path, limits=limits) as server:
        async with AsyncExitStack() as stack:
            calm = await stack.enter_async_context(raw_live(server.port, "mira", source="127.0.0.2"))
            other = await stack.enter_async_context(raw_live(server.port, "mira", source="127.0.0.3"))
            codes = []
            for _ in range(5):
                raw = await stack.enter_async_context(raw_live(server.port, "mira", source="127.0.0.2"))
                await raw.send_bytes(masked(PONG) * 12 + masked(CLOSE, b"\x03\xe8"))
                codes.append(await raw.close_code())
            assert codes.count(4529) >= 2
            assert codes[0] == 1000
            # One that only answers pings pays nothing for its neighbours, another address never.
            await calm.send_bytes(masked(PING) * 4 + masked(CLOSE, b"\x03\xe8"))
            await other.send_bytes(masked(PING) * 20 + masked(CLOSE, b"\x03\xe8"))
            assert await calm.close_code() == 1000
            assert await other.close_code() == 1000


async def test_a_peer_that_pings_and_never_reads_is_not_read_either(
    server: Server, performer_id: str, api: Api
) -> None:
    """Otherwise the server would have to keep the pongs."""
    limits_of_kernel_and_us = 8 * 1024 * 1024
    async with raw_live(server.port, performer_id, server.admin) as raw:
        sent = 0
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(3):
                while sent < limits_of_kernel_and_us:
                    await raw.send_bytes(FLOODS["large pings"] * 100)
                    sent += 100 * 131
        assert sent < limits_of_kernel_and_us
        assert (await api.get("/healthz")).status_code == 200


async def test_a_ping_is_answered_when_its_sender_reads_again(server: Server, performer_id: str, api: Api) -> None:
    for _ in range(20):
        await api.intake(performer_id, description="é" * 2000, metadata={"a": "x" * 8000})
    async with raw_live(server.port, performer_id, server.admin) as raw:
        for _ in range(20):
            await raw.send_json({"type": "resync"})
        await raw.send(PING, b"still there?")
        while (frame := await raw.frame()) is not None and frame.opcode != PONG:
            assert frame.opcode == TEXT
        assert frame is not None
        assert frame.payload == b"still there?"


async def test_a_connection_ends_at_once_when_its_peer_has_heard_the_code(begun: RawSocket) -> None:
    loop = asyncio.get_running_loop()
    await begun.send(BINARY, b"{}")
    assert await begun.close_code() == 4501
    heard = loop.time()
    # Half-closed by the server: nothing keeps a client waiting that closes when it reads the end.
    assert await begun.ended()
    assert loop.time() - heard < 0.5


# Addresses


async def test_an_address_may_have_so_many_sockets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path, sockets_per_address=3, trusted_proxies="127.0.0.9") as server:
        async with server.api() as api, AsyncExitStack() as stack:
            held = [
                await stack.enter_async_context(raw_live(server.port, f"room-{number}", source="127.0.0.2"))
                for number in range(3)
            ]
            for path in ("room-0", "room-9"):
                async with raw_live(server.port, path, source="127.0.0.2") as raw:
                    assert await raw.close_code() == 4504
                    assert raw.received < 100, "nothing but the close frame"
            async with raw_live(server.port, "room-0", source="127.0.0.3") as raw:
                assert (await raw.next_json())["type"] == "welcome"
            # Behind a proxy everybody counts for themselves, and for the same as without it.
            for client, code in (("127.0.0.2", 4504), ("192.0.2.7", None), ("2001:db8::7", None)):
                forwarded = f"X-Forwarded-For: 203.0.113.1, {client}"
                async with raw_live(server.port, "room-0", None, forwarded, source="127.0.0.9") as raw:
                    if code is None:
                        assert (await raw.next_json())["type"] == "welcome"
                    else:
                        assert await raw.close_code() == code
            await held[0].send_bytes(masked(CLOSE, b"\x03\xe8"))
            assert await held[0].close_code() == 1000
            assert await held[0].ended()
            async with raw_live(server.port, "room-0", source="127.0.0.2") as raw:
                assert (await raw.next_json())["type"] == "welcome"
            assert (await refusals(api))["address_sockets"] == 3
            text = (await api.get("/metrics", server.admin)).text
            assert 'queue_socket_closes_total{code="4504"} 3.0' in text
    assert "TRUSTED_PROXIES" not in caplog.text, "the proxy is named there already"


async def test_an_address_may_come_so_often(tmp_path: Path) -> None:
    limits = Limits(handshakes_per_second=1)
    with serving(tmp_path, sockets_per_address=5, limits=limits) as server:
        statuses = []
        for _ in range(24):
            async with tcp(server.port, "127.0.0.2") as raw:
                await raw.send_bytes(upgrade("mira"))
                answer = await raw.answer()
                statuses.append(answer.status)
        assert statuses[:20] == [101] * 20
        answer.problem(429, "RATE_LIMIT_EXCEEDED")
        assert int(answer.headers["retry-after"]) >= 1
        async with raw_live(server.port, "mira", source="127.0.0.3") as raw:
            assert (await raw.next_json())["type"] == "welcome"


async def test_handshakes_that_are_too_many_at_once_wait_or_are_answered_with_retry_after(tmp_path: Path) -> None:
    limits = Limits(process_handshakes=Rate(2, 10), handshake_wait_seconds=0.35)
    with serving(tmp_path, limits=limits) as server:
        async with AsyncExitStack() as stack:
            raws = [await stack.enter_async_context(tcp(server.port)) for _ in range(12)]
            for raw in raws:
                await raw.send_bytes(upgrade("mira"))
            statuses = [(await raw.answer()).status for raw in raws]
        assert statuses.count(503) >= 4
        assert statuses.count(101) >= 5


async def test_a_proxy_that_is_not_named_is_hinted_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path, sockets_per_address=1) as server:
        async with raw_live(server.port, "mira"):
            for _ in range(3):
                async with raw_live(server.port, "mira", None, "X-Forwarded-For: 192.0.2.1") as raw:
                    assert await raw.close_code() == 4504
    assert caplog.text.count("TRUSTED_PROXIES") == 1


async def test_everything_that_was_counted_is_given_back(tmp_path: Path) -> None:
    with serving(tmp_path, sockets_per_address=100) as server:
        async with server.api() as api:
            for number in range(60):
                with suppress(ConnectionError, EOFError):
                    async with tcp(server.port) as raw:
                        await raw.send_bytes(upgrade("mira")[: 10 + number * 5])
                        if number % 2:
                            raw.reset()
            async with asyncio.timeout(5):
                while "queue_connections 1.0" not in (text := (await api.get("/metrics", server.admin)).text):
                    pass
            assert "queue_sockets 0.0" in text
