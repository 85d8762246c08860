"""A webhook consumer on loopback: it records deliveries and gives the answers of a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.support.stream_server import listening, port_of


@dataclass(frozen=True, slots=True)
class Received:
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> Any:
        return orjson.loads(self.body)

    @property
    def place(self) -> tuple[str, int]:
        """The room and the version of the event."""
        data = self.content["data"]
        return data["performerId"], data["version"]


@dataclass(slots=True)
class Consumer:
    port: int = 0
    connections: int = 0
    received: list[Received] = field(default_factory=list)
    answer: Callable[[Received], tuple[int, str]] = lambda _: (204, "")
    """Status and further header lines, each ended by CRLF."""
    hold: asyncio.Event | None = None
    """While it is not set, no answer comes."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def until(self, count: int) -> list[Received]:
        """Wait until this many deliveries have come."""
        async with asyncio.timeout(20):
            while len(self.received) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")[1:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            received = Received(headers, await reader.readexactly(int(headers["content-length"])))
            self.received.append(received)
            self._changed.set()
            if self.hold is not None:
                await self.hold.wait()
            status, more = self.answer(received)
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{more}\r\n".encode())
            await writer.drain()


@asynccontextmanager
async def consumer(port: int = 0) -> AsyncIterator[Consumer]:
    consuming = Consumer()
    async with listening(consuming.serve, port) as server:
        consuming.port = port_of(server)
        yield consuming
