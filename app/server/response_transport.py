"""The transport of one response: head and body leave in one write, and its close takes bounded time."""

import asyncio
from collections.abc import Callable


class ResponseTransport:
    """The first write waits for the second, at most until the loop's next turn.

    uvicorn writes the head of a response and then its body: two system calls, and a reader that is woken twice.
    """

    __slots__ = ("_close", "_held", "_is_ended", "_transport")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        """`close` ends the connection once everything is written."""
        self._transport = transport
        self._close = close
        self._held: bytes | None = b""
        """The first write while it waits; None once later writes no longer wait."""
        self._is_ended = False

    def write(self, data: bytes) -> None:
        if self.is_closing():
            # The connection was lost while the answer was made; uvicorn checks that only for the newest request on it.
            return
        if self._held is None:
            self._transport.write(data)
        elif self._held:
            held, self._held = self._held, None
            self._transport.write(held + data)
        else:
            self._held = data
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write the waiting bytes, and let none wait any more."""
        held, self._held = self._held, None
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def end(self) -> None:
        """Write the waiting bytes, and drop later ones: the connection is about to be half-closed. An application that
        asks for its body only later would otherwise have `100 Continue` written after that."""
        self.flush()
        self._is_ended = True

    def close(self) -> None:
        self.flush()
        self._close()

    def is_closing(self) -> bool:
        return self._is_ended or self._transport.is_closing()
