"""A socket's way out under a server that does not expose its connections: ordinary ASGI sends, one after the other.

The same promises as `socket_protocol`'s connection: writing never waits, lag is known, and a lagging client can be cut
off. It costs a task while there is something to send.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.server.websocket_protocol import HIGH_WATER


class AsgiLine:
    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self._reader = asyncio.current_task()
        self.cut_off_with: int | None = None
        self.on_change: Callable[[], None] | None = None
        """Called when `is_lagging` has changed, or the line has been cut off."""

    deflates = False

    @property
    def is_open(self) -> bool:
        return self.cut_off_with is None and self._websocket.application_state is WebSocketState.CONNECTED

    @property
    def is_lagging(self) -> bool:
        return self._waiting_bytes > HIGH_WATER

    def send_at_once(self, frame: bytes) -> int:
        self.write(frame)
        return len(frame)

    def write(self, frame: bytes) -> None:
        if not self.is_open:
            # Closed by the application meanwhile, which is about to leave the room.
            return
        self._waiting.append(frame)
        self._count(len(frame))
        if self._sender is None:
            self._sender = asyncio.ensure_future(self._send())

    def _count(self, more_bytes: int) -> None:
        lagged = self.is_lagging
        self._waiting_bytes += more_bytes
        if lagged is not self.is_lagging:
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    async def _send(self) -> None:
        try:
            while self._waiting and self.is_open:
                frame = self._waiting.popleft()
                await self._websocket.send_text(_payload(frame).decode())
                self._count(-len(frame))
        except (RuntimeError, OSError, WebSocketDisconnect):
            # The socket went away under us; its reader finds out by itself.
            self._waiting.clear()
        finally:
            self._sender = None

    async def flushed(self) -> None:
        """Until everything written so far is sent, or the connection has gone."""
        if self._sender is not None:
            await asyncio.wait([self._sender])

    def cut_off(self, code: int, reason: str) -> None:
        """End the connection's task: a close frame would have to wait behind what the peer does not take."""
        if self.cut_off_with is None:
            self.cut_off_with = code
            self._changed()
            if self._reader is not None and self._reader is not asyncio.current_task():
                self._reader.cancel(reason)

    def stop(self) -> None:
        self._waiting.clear()
        if self._sender is not None:
            self._sender.cancel()


def _payload(frame: bytes) -> bytes:
    """The payload of a frame made by `text_frame`."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]
