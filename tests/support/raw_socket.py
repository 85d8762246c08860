"""A low-level WebSocket connection (RFC 6455): reads only when a test does, answers no ping, may break any rule."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

WAIT_SECONDS = 10.0

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
COMPRESSED = 0x40
"""Added to the opcode of a message that permessage-deflate has compressed."""


@dataclass(frozen=True, slots=True)
class RawFrame:
    opcode: int
    payload: bytes
    is_compressed: bool = False

    @property
    def json(self) -> Any:
        assert self.opcode == TEXT
        return json.loads(self.payload)

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big")


@dataclass(frozen=True, slots=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self, status: int, code: str) -> dict[str, Any]:
        """The problem document of the answer, which must be this refusal in the common shape of all refusals."""
        assert self.status == status, self
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["x-request-id"]
        document: dict[str, Any] = json.loads(self.body)
        assert (document["status"], document["code"]) == (status, code)
        assert document["type"]
        assert document["title"]
        assert isinstance(document["detail"], str)
        return document


class RawSocket:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self.received = 0
        """Bytes of all frames read so far."""

    async def send_bytes(self, data: bytes) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            await self._loop.sock_sendall(self._socket, data)

    async def send(self, opcode: int, payload: bytes, *, final: bool = True, masked: bool = True) -> None:
        mask = os.urandom(4) if masked else b""
        flag = 0x80 if masked else 0
        length = len(payload)
        if length < 126:
            size = bytes([flag | length])
        elif length < 65536:
            size = bytes([flag | 126]) + struct.pack(">H", length)
        else:
            size = bytes([flag | 127]) + struct.pack(">Q", length)
        body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if masked else payload
        await self.send_bytes(bytes([(0x80 if final else 0) | opcode]) + size + mask + body)

    def reset(self) -> None:
        """Reset the connection without a close frame, as after a power cut."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    async def send_json(self, frame: Any) -> None:
        await self.send(TEXT, json.dumps(frame).encode())

    async def frame(self) -> RawFrame | None:
        """The next frame; None if the connection has ended."""
        try:
            head = await self._take(2)
            length = head[1] & 0x7F
            assert not head[1] & 0x80, "a server masks nothing"
            if length == 126:
                length = int.from_bytes(await self._take(2), "big")
            elif length == 127:
                length = int.from_bytes(await self._take(8), "big")
            payload = await self._take(length)
        except EOFError:
            return None
        self.received += len(head) + len(payload)
        assert head[0] & 0x80, "the server never fragments"
        return RawFrame(head[0] & 0x0F, payload, bool(head[0] & COMPRESSED))

    async def next_json(self) -> Any:
        """The next text frame's contents."""
        while (frame := await self.frame()) is not None:
            if frame.opcode == TEXT:
                return frame.json
        raise EOFError("the connection has ended")

    async def close_code(self) -> int | None:
        """Read to the end; returns the close code, None if there was no close frame."""
        while (frame := await self.frame()) is not None:
            if frame.opcode == CLOSE:
                return frame.close_code
        return None

    async def head(self) -> bytes:
        """An HTTP response's status line and headers."""
        while b"\r\n\r\n" not in self._unread:
            self._unread += await self._receive()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head

    async def answer(self) -> RawAnswer:
        """An HTTP response with a Content-Length."""
        lines = (await self.head()).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = await self._take(int(headers.get("content-length", "0")))
        return RawAnswer(int(lines[0].split()[1]), headers, body)

    async def ended(self) -> bool:
        """Wait for the end of the connection; False if something else comes."""
        try:
            self._unread += await self._receive()
        except EOFError:
            return True
        return False

    async def _take(self, length: int) -> bytes:
        while len(self._unread) < length:
            self._unread += await self._receive()
        taken, self._unread = self._unread[:length], self._unread[length:]
        return taken

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                data = await self._loop.sock_recv(self._socket, 65536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        return data


@asynccontextmanager
async def tcp(port: int, source: str | None = None) -> AsyncIterator[RawSocket]:
    """A TCP connection without a request, with a receive buffer of 4 KiB. `source`: its own address in 127.0.0.0/8."""
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if source is not None:
            sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield RawSocket(sock)


def upgrade(performer_id: str, token: str | None = None, *extra: str) -> bytes:
    """A request for a live socket."""
    lines = [
        f"GET /v1/performers/{performer_id}/queue/live HTTP/1.1",
        "Host: test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *([f"Authorization: Bearer {token}"] if token else []),
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@asynccontextmanager
async def raw_live(
    port: int, performer_id: str, token: str | None = None, *extra: str, source: str | None = None
) -> AsyncIterator[RawSocket]:
    """A live socket; `extra` are headers of its request."""
    async with tcp(port, source) as raw:
        await raw.send_bytes(upgrade(performer_id, token, *extra))
        head = await raw.head()
        assert head.startswith(b"HTTP/1.1 101"), head
        yield raw
