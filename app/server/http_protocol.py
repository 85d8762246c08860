"""uvicorn's HTTP protocol, opened up so that a connection can be dropped whose peer does not read.

The application finds the way to do it under `EXTENSION` in `scope["extensions"]`: ASGI itself can only close, and
closing waits until everything has been read. Also mended here: an answer's head and body leave in one write.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "performance_queue.abort"

Abort = Callable[[], None]


class _HeadWithBody:
    """A response's transport, on which the first write waits for the second, at most until the loop's next turn.

    uvicorn writes the head of a response and then its body: two system calls, and a reader that is woken twice.
    """

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: bytes | None = b""
        """What waits; None once nothing waits any more."""

    def write(self, data: bytes) -> None:
        if self._held is None:
            self._transport.write(data)
        elif self._held:
            held, self._held = self._held, None
            self._transport.write(held + data)
        else:
            self._held = data
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        held, self._held = self._held, None
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        self._release()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class QueueHttpProtocol(HttpToolsProtocol):
    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            # Its task has not run yet.
            self.cycle.transport = cast(asyncio.Transport, _HeadWithBody(self.transport))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {EXTENSION: self.transport.abort}
        self.scope["extensions"] = extensions
