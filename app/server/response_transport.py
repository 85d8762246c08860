"""The transport of one response: nothing is written behind its end, and its close takes bounded time."""

import asyncio
from collections.abc import Callable


class ResponseTransport:
    __slots__ = ("_close", "_is_ended", "_transport")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        """`close` ends the connection once everything is written."""
        self._transport = transport
        self._close = close
        self._is_ended = False

    def write(self, data: bytes) -> None:
        # The connection may be lost while the answer is made; uvicorn checks that only for the newest request on it.
        if not self.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        """Drop later writes: the connection is about to be half-closed. An application that asks for its body only
        later would otherwise have `100 Continue` written after that."""
        self._is_ended = True

    def close(self) -> None:
        self._close()

    def is_closing(self) -> bool:
        return self._is_ended or self._transport.is_closing()
