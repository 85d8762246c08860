"""A transport whose writes go straight to the socket while the buffer of the transport that it wraps is empty.

uvloop does bookkeeping per write and calls write(2), which is slower than send(2): without it, a broadcast to 1,000
sockets takes a quarter less CPU (`bench --without direct`). It also pauses reading through a `ReadGate`, and closes in
bounded time even if the peer does not read.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from app.server.read_gate import ReadGate


class DirectTransport:
    """Wraps an asyncio transport; methods that are not here are those of the wrapped one. Every write must come through
    here, so that bytes keep their order."""

    def __init__(
        self,
        transport: asyncio.Transport,
        on_change: Callable[[], None],
        on_read: Callable[[], None] = lambda: None,
        close_seconds: float = 2.0,
    ) -> None:
        """`on_change` is called when `send` has become another function, `on_read` when a hold on reading is released.
        `close_seconds`: how long a peer may take to read the rest once the connection is closed."""
        self._transport = transport
        self._on_change = on_change
        self._close_seconds = close_seconds
        self._socket = _socket_of(transport)
        self.reading = ReadGate(transport, on_read)
        self._joined: list[bytes] = []
        """What `join` has collected."""
        self.send: Callable[[bytes], int] = self._send_behind
        """Sends as much of the data as it can and returns the number of bytes sent; the caller gives the rest to
        `write`. May raise OSError with nothing sent: then all goes to `write`, which handles the error. To be called
        while the transport is not closing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    # Writing

    def write(self, data: bytes) -> None:
        try:
            sent = self.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            # The kernel takes no more, or the connection is broken: the wrapped transport handles either.
            self._transport.write(data[sent:])
            self._use(self._send_behind)

    def _send_behind(self, data: bytes) -> int:
        """The `send` while the wrapped transport's buffer holds something, or may."""
        if self._socket is not None and not self._transport.get_write_buffer_size():
            self._use(self._socket.send)
            self.write(data)
        else:
            self._transport.write(data)
        return len(data)

    def join(self) -> None:
        """Collect what is written until the loop's next turn, and send it in one write. The answer to a handshake and
        the first frames leave together: saves 12 % of a joining socket's CPU (`bench --without joined`)."""
        if self._socket is not None:
            self._use(self._send_joined)
            asyncio.get_running_loop().call_soon(self._part)

    def _send_joined(self, data: bytes) -> int:
        self._joined.append(data)
        return len(data)

    def _part(self) -> None:
        """End `join`."""
        data, self._joined = b"".join(self._joined), []
        if self.send == self._send_joined:
            self._use(self._send_behind)
        if data and not self._transport.is_closing():
            self.write(data)

    def _use(self, send: Callable[[bytes], int]) -> None:
        self.send = send
        self._on_change()

    # Reading

    def pause_reading(self) -> None:
        self.reading.pause_reading()

    def resume_reading(self) -> None:
        self.reading.resume_reading()

    # The end

    def write_eof(self) -> None:
        """Half-close, where the transport can: nothing more will be written."""
        self._part()
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        """Close once everything is written, and in any case after `close_seconds`."""
        self._part()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self._close_seconds, self._transport.abort)

    def release(self) -> None:
        """Let go of the socket: the connection is lost, and its descriptor may soon be another connection's."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
            self._joined = []
            self._use(self._send_behind)


def _socket_of(transport: asyncio.Transport) -> socket.socket | None:
    """The transport's socket, on the same descriptor; None where the bytes sent differ from the bytes written (TLS)."""
    theirs = transport.get_extra_info("socket")
    if theirs is None or transport.get_extra_info("sslcontext") is not None:
        return None
    ours = socket.socket(theirs.family, theirs.type, theirs.proto, fileno=theirs.fileno())
    ours.setblocking(False)
    return ours
