"""uvicorn's HTTP protocol, opened up so that a connection can be dropped whose peer does not read.

The application finds the way to do it under `EXTENSION` in `scope["extensions"]`: ASGI itself can only close, and
closing waits until everything has been read.
"""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "performance_queue.abort"

Abort = Callable[[], None]


class QueueHttpProtocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {EXTENSION: self.transport.abort}
        self.scope["extensions"] = extensions
