"""Attacks, each from one address and at a speed that anybody's line at home allows.

`python -m tests.hostile.attacks NAME PORT SECONDS` runs one, in a process of its own and with the lowest priority, so
that it takes nothing from the honest ones but by what it does to the server.
"""

import asyncio
import os
import sys
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

from app.access import auth
from app.domain.command import Role
from app.parts import utc_now
from app.settings import DEVELOPMENT_AUTH_SECRET

SOURCE = "127.0.0.66"
PAUSE_SECONDS = 0.05
"""Between two bursts of one connection."""

Attack = Callable[[int], Awaitable[None]]


def masked(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    return bytes([(0x80 if final else 0) | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def handshake(room: str, extensions: str | None = None) -> bytes:
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        f"GET /v1/performers/{room}/queue/live HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
    ).encode()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(SOURCE, 0), limit=4096)


async def again_and_again(count: int, once: Callable[[], Awaitable[None]]) -> None:
    """Run `count` attacks at a time; each is started again when it has ended."""

    async def repeat() -> None:
        while True:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await once()
            await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(repeat() for _ in range(count)))


def flood(
    burst: bytes,
    *,
    room: str = "mira",
    connections: int = 10,
    first: bytes = b"",
    reads: bool = True,
    extensions: str | None = None,
) -> Attack:
    """Sockets that send bursts until they are closed."""

    async def attack(port: int) -> None:
        async def once() -> None:
            reader, writer = await connect(port)
            try:
                writer.write(handshake(room, extensions) + first)
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


def again(prefix: str, *, connections: int) -> Attack:
    """Sockets that enter another non-existent room each time and leave at once."""
    numbers = count(1)

    async def attack(port: int) -> None:
        async def once() -> None:
            reader, writer = await connect(port)
            try:
                writer.write(handshake(f"{prefix}-{next(numbers)}"))
                await reader.read(4096)
            finally:
                writer.transport.abort()

        await again_and_again(connections, once)

    return attack


def held(first: Callable[[int], bytes], *, most: int) -> Attack:
    """Connections that send something or nothing, and stay open."""

    async def attack(port: int) -> None:
        kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        number = 0
        while True:
            kept = [each for each in kept if not each[1].is_closing() and not each[0].at_eof()]
            for _ in range(min(20, most - len(kept))):
                number += 1
                with suppress(OSError):
                    pair = await connect(port)
                    pair[1].write(first(number))
                    kept.append(pair)
            await asyncio.sleep(PAUSE_SECONDS)

    return attack


def token_of(name: str) -> str:
    """A valid token of the hostile user."""
    return auth.sign(DEVELOPMENT_AUTH_SECRET, Role.FEATURE, name, now=utc_now())


def bomb() -> bytes:
    """A message of a few bytes that inflates to four megabytes of spaces (RFC 7692)."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflater.compress(b" " * 4_000_000) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return frame(0xC1, data[:-4])


def frame(first: int, payload: bytes) -> bytes:
    """A frame of any size, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /v1/queue/items HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def streams(port: int) -> Awaitable[None]:
    """Event streams of one feature, as many as it can open; it reads nothing of them."""
    bearer = token_of("hostile")
    request = (
        f"GET /v1/events?after=0 HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\nAuthorization: Bearer {bearer}"
    )
    return held(lambda number: request.encode() + b"\r\n\r\n", most=500)(port)


DEEP = b"[" * 30_000 + b"]" * 30_000
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
    "half a head": held(lambda number: GET, most=500),
    "silent connections": held(lambda number: b"", most=1500),
    "dripping bodies": requests(
        b"POST /v1/queue/items HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n", b"x", connections=300
    ),
    "endless chunks": requests(
        b"POST /v1/queue/items HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 2048
    ),
    "pipelined requests": requests(b"", (GET + b"\r\n") * 20, connections=4),
    "garbage": requests(b"garbage\r\n\r\n", b"garbage\r\n\r\n", connections=20),
    "sockets of rooms that never were": held(lambda number: handshake(f"nobody-{number}"), most=1500),
    "bombs": flood(bomb() * 5, extensions="permessage-deflate"),
    "deep messages": flood(frame(0x81, DEEP)),
    "deep bodies": requests(b"", post(DEEP, "Content-Type: application/json") * 4),
    "bad tokens": requests(
        b"", post(b"{}", "Authorization: Bearer " + "eyJhbGciOiJIUzI1NiJ9." * 300) * 10, connections=20
    ),
    "ten thousand requests at once": requests((GET + b"\r\n") * 10_000, GET + b"\r\n", connections=4),
    "expectations and ranges": requests(
        b"",
        post(b"{}", "Expect: 100-continue") * 20
        + b"GET /panel HTTP/1.1\r\nHost: test\r\nRange: bytes="
        + b"0-0," * 1000
        + b"0-0\r\n\r\n",
    ),
    "queues that never were": requests(
        b"",
        b"".join(b"GET /v1/performers/n-%d/queue HTTP/1.1\r\nHost: t\r\n\r\n" % number for number in range(50)),
        connections=20,
    ),
    "long lists in handshakes": requests(
        b"",
        handshake("mira")[:-2] + (b"Sec-WebSocket-Extensions: a" + b";a" * 3500 + b"\r\n") * 3 + b"\r\n",
        connections=20,
    ),
    "long queries": requests(
        b"",
        (b"GET /v1/performers/mira/queue?" + b"%41=%42&" * 3500 + b" HTTP/1.1\r\nHost: t\r\n\r\n") * 4,
        connections=20,
    ),
    "wrong tokens for administrators": requests(
        b"", b"GET /v1/admin/rooms HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer x.y.z\r\n\r\n" * 50, connections=20
    ),
    "large answers, reading nothing": held(lambda number: b"GET /openapi.json HTTP/1.1\r\nHost: t\r\n\r\n", most=1500),
    "streams, reading nothing": streams,
    "entering again and again": again("n", connections=20),
    "handshakes": requests(handshake("mira")[:-2] + b"\r\n", masked(8, b"\x03\xe8"), connections=20),
}


async def run(name: str, port: int, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ATTACKS[name](port)


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
