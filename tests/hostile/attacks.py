"""Attacks, each from one address and at a speed that anybody's line at home allows.

`python -m tests.hostile.attacks NAME PORT SECONDS` runs one, in a process of its own and with the lowest priority, so
that it takes nothing from the honest ones but by what it does to the server.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

SOURCE = "127.0.0.66"
PAUSE_SECONDS = 0.05
"""Between two bursts of one connection."""

Attack = Callable[[int], Awaitable[None]]


def masked(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    return bytes([(0x80 if final else 0) | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def handshake(room: str) -> bytes:
    return (
        f"GET /v1/performers/{room}/queue/live HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(SOURCE, 0), limit=4096)


async def again_and_again(count: int, once: Callable[[], Awaitable[None]]) -> None:
    """`count` of them at a time, each begun anew when it has ended."""

    async def repeat() -> None:
        while True:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await once()
            await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(repeat() for _ in range(count)))


def flood(burst: bytes, *, room: str = "mira", connections: int = 10, first: bytes = b"", reads: bool = True) -> Attack:
    """Sockets that send bursts until they are closed."""

    async def attack(port: int) -> None:
        async def once() -> None:
            reader, writer = await connect(port)
            try:
                writer.write(handshake(room) + first)
                while not writer.is_closing():
                    writer.write(burst)
                    await writer.drain()
                    if reads:
                        with suppress(TimeoutError):
                            async with asyncio.timeout(PAUSE_SECONDS):
                                if not await reader.read(65536):
                                    return
                    else:
                        await asyncio.sleep(PAUSE_SECONDS)
            finally:
                writer.transport.abort()

        await again_and_again(connections, once)

    return attack


def requests(first: bytes, burst: bytes, *, connections: int = 10, pause: float = PAUSE_SECONDS) -> Attack:
    """Connections that send a beginning and then bursts until they are closed."""

    async def attack(port: int) -> None:
        async def once() -> None:
            _reader, writer = await connect(port)
            try:
                writer.write(first)
                while not writer.is_closing():
                    writer.write(burst)
                    await writer.drain()
                    await asyncio.sleep(pause)
            finally:
                writer.transport.abort()

        await again_and_again(connections, once)

    return attack


def held(first: Callable[[int], bytes], *, count: int) -> Attack:
    """Connections that say something, or nothing, and stay."""

    async def attack(port: int) -> None:
        kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        number = 0
        while True:
            kept = [each for each in kept if not each[1].is_closing() and not each[0].at_eof()]
            for _ in range(min(20, count - len(kept))):
                number += 1
                with suppress(OSError):
                    pair = await connect(port)
                    pair[1].write(first(number))
                    kept.append(pair)
            await asyncio.sleep(PAUSE_SECONDS)

    return attack


GET = b"GET /healthz HTTP/1.1\r\nHost: test\r\n"
ATTACKS: dict[str, Attack] = {
    "pings": flood(masked(9) * 2000),
    "pongs": flood(masked(10, b"x") * 2000),
    "empty continuations": flood(masked(0, final=False) * 2000, first=masked(1, final=False)),
    "fragments without end": flood(masked(0, b"x" * 100, final=False) * 100, first=masked(1, b"{", final=False)),
    "pings, reading nothing": flood(masked(9, b"x" * 125) * 100, reads=False),
    "resyncs, reading nothing": flood(masked(1, b'{"type":"resync"}') * 100, reads=False),
    "messages": flood(masked(1, b'{"type":"ping"}') * 500),
    "broken frames": flood(b"\xff" * 4096),
    "endless headers": requests(GET, b"X-A: b\r\n" * 2048, pause=0.01),
    "an endless address": requests(b"GET /", b"x" * 16384, pause=0.01),
    "half a head": held(lambda number: GET, count=500),
    "silent connections": held(lambda number: b"", count=1500),
    "dripping bodies": requests(
        b"POST /v1/queue/items HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n", b"x", connections=300
    ),
    "endless chunks": requests(
        b"POST /v1/queue/items HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 2048
    ),
    "pipelined requests": requests(b"", (GET + b"\r\n") * 20, connections=4),
    "garbage": requests(b"garbage\r\n\r\n", b"garbage\r\n\r\n", connections=20),
    "sockets of rooms that never were": held(lambda number: handshake(f"nobody-{number}"), count=1500),
    "handshakes": requests(handshake("mira")[:-2] + b"\r\n", masked(8, b"\x03\xe8"), connections=20),
}


async def run(name: str, port: int, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ATTACKS[name](port)


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
