"""Direct writes to the socket: they never overtake each other, lose no byte, and never reach another connection."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.server.direct_transport import DirectTransport

pytestmark = pytest.mark.anyio

LOOPS: list[Any] = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Protocol(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Line:
    """A connection with small buffers: the tested transport, the transport behind it, and the peer's end."""

    def __init__(self, behind: asyncio.Transport, protocol: Protocol, peer: socket.socket) -> None:
        self.behind, self.protocol, self.peer = behind, protocol, peer
        self.changes = 0
        self.direct = DirectTransport(behind, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def is_direct(self) -> bool:
        return isinstance(getattr(self.direct.send, "__self__", None), socket.socket)

    async def received(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(10):
            while len(data) < size:
                data += await asyncio.get_running_loop().sock_recv(self.peer, 65536)
        return data


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    ours, peer = socket.socketpair()
    for end in (ours, peer):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    behind, protocol = await asyncio.get_running_loop().create_connection(Protocol, sock=ours)
    here = Line(behind, protocol, peer)
    try:
        yield here
    finally:
        here.direct.release()
        behind.abort()
        await protocol.lost.wait()
        peer.close()


async def test_a_write_reaches_the_socket_at_once_and_not_the_transport_behind() -> None:
    async with line() as here:
        here.direct.write(b"one")
        assert here.direct.send(b"two") == 3
        assert here.behind.get_write_buffer_size() == 0
        assert here.peer.recv(100) == b"onetwo"
        assert here.is_direct


async def test_joined_writes_leave_in_one_with_the_loops_next_turn() -> None:
    async with line() as here:
        here.direct.join()
        here.direct.write(b"one")
        assert here.direct.send(b"two") == 3
        with pytest.raises(BlockingIOError):
            here.peer.recv(100)
        await asyncio.sleep(0)
        assert here.peer.recv(100) == b"onetwo"
        assert here.is_direct
        here.direct.write(b"three")
        assert here.peer.recv(100) == b"three"


@pytest.mark.parametrize("end", [DirectTransport.write_eof, DirectTransport.close])
async def test_joined_writes_leave_before_the_end(end: Callable[[DirectTransport], None]) -> None:
    async with line() as here:
        here.direct.join()
        here.direct.write(b"last words")
        end(here.direct)
        assert await here.received(10) == b"last words"


async def test_joined_writes_of_a_lost_connection_are_dropped() -> None:
    async with line() as here:
        here.direct.join()
        here.direct.write(b"lost")
        here.direct.release()
        await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            here.peer.recv(100)


async def test_a_peer_that_reads_slowly_gets_every_byte_in_order() -> None:
    frames = [bytes([number]) * 3000 for number in range(100)]
    async with line() as here:
        for frame in frames[:50]:
            here.direct.write(frame)
        assert not here.is_direct
        assert here.behind.get_write_buffer_size() > 0
        # The kernel has room again, and the loop has had no turn to use it.
        begun = here.peer.recv(50_000)
        for frame in frames[50:]:
            assert here.direct.send(frame) == len(frame), "what cannot go now is taken all the same"
        assert begun + await here.received(300_000 - len(begun)) == b"".join(frames)


async def test_once_the_buffer_behind_is_empty_writes_go_straight_again() -> None:
    async with line() as here:
        here.direct.write(b"x" * 100_000)
        before = here.changes
        await here.received(100_000)
        while here.behind.get_write_buffer_size():  # noqa: ASYNC110 - a transport gives no signal
            await asyncio.sleep(0)
        assert here.changes == before
        here.direct.write(b"again")
        assert here.is_direct
        assert here.changes == before + 1
        assert await here.received(5) == b"again"


async def test_a_broken_connection_ends_by_way_of_the_transport_behind() -> None:
    async with line() as here:
        here.peer.close()
        here.direct.write(b"lost")
        async with asyncio.timeout(10):
            await here.protocol.lost.wait()


async def test_the_send_of_a_lost_connection_cannot_reach_the_next_owner_of_its_descriptor() -> None:
    async with line() as here:
        here.direct.write(b"x")
        held = here.direct.send
        here.direct.release()
        # Still open, as the next one's would be.
        assert os.fstat(here.behind.get_extra_info("socket").fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            held(b"secret")
        assert here.peer.recv(100) == b"x"


async def test_an_encrypted_connection_is_never_written_directly() -> None:
    class Encrypted(asyncio.Transport):
        written = b""

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return {"socket": object(), "sslcontext": object()}.get(name, default)

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written += bytes(data)

    behind = Encrypted()
    direct = DirectTransport(behind, lambda: None)
    direct.write(b"one")
    assert direct.send(b"two") == 3
    assert behind.written == b"onetwo"
