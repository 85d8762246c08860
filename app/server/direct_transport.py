"""A transport whose writes go straight to the socket, as long as nothing waits in the buffer of the one behind it.

uvloop's own keeps books on every write, and makes it by write(2), which takes the kernel longer than send(2). To many
connections in a row that comes to a tenth of a broadcast, which gains nothing by it.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any


class DirectTransport:
    """Stands for an asyncio transport; what is not here is the other's. Everything written must come through here, so
    that nothing overtakes anything."""

    def __init__(self, transport: asyncio.Transport, on_change: Callable[[], None]) -> None:
        """`on_change` is called when `send` has become another function."""
        self._transport = transport
        self._on_change = on_change
        self._socket = _socket_of(transport)
        self.send: Callable[[bytes], int] = self._send_behind
        """Sends what it can of the data and returns how many bytes; what is left goes to `write`. May raise OSError,
        having sent nothing: what is wrong shows in `write`. To be called while the transport is not closing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        try:
            sent = self.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            # The kernel takes no more, or the connection is broken: either is the other transport's to deal with.
            self._transport.write(data[sent:])
            self._use(self._send_behind)

    def _send_behind(self, data: bytes) -> int:
        """While something waits in the other's buffer, or may."""
        if self._socket is not None and not self._transport.get_write_buffer_size():
            self._use(self._socket.send)
            self.write(data)
        else:
            self._transport.write(data)
        return len(data)

    def _use(self, send: Callable[[bytes], int]) -> None:
        self.send = send
        self._on_change()

    def release(self) -> None:
        """The connection is lost and its descriptor will soon be another's."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
            self._use(self._send_behind)


def _socket_of(transport: asyncio.Transport) -> socket.socket | None:
    """The transport's socket, on the same descriptor; None where what is written is not what is sent."""
    theirs = transport.get_extra_info("socket")
    if theirs is None or transport.get_extra_info("sslcontext") is not None:
        return None
    ours = socket.socket(theirs.family, theirs.type, theirs.proto, fileno=theirs.fileno())
    ours.setblocking(False)
    return ours
