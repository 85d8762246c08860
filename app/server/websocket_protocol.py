"""uvicorn's WebSocket protocol, opened up so that one ready frame can be written to many connections.

The application finds the connection under `EXTENSION` in `scope["extensions"]`. Writing there bypasses the per-message
work of ASGI; everything else (handshake, reading, closing) stays uvicorn's. Also mended here: the close codes for an
oversized frame and a missing pong, a write buffer that is small and known, an upgrade request that cannot be parsed.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import frames
from websockets.http11 import Request
from websockets.server import ServerProtocol

from app.server.compression import SharedDeflate
from app.server.direct_transport import DirectTransport
from app.wire.websocket import CloseCode

EXTENSION = "performance_queue.connection"

LARGEST_FRAME = 64 * 1024
HIGH_WATER = 64 * 1024
"""Bytes waiting in our own buffer above which a connection counts as lagging and is written no more."""
KERNEL_BUFFER = 64 * 1024
"""Asked of the kernel as the send buffer: left alone it hides megabytes of lag before ours begins to fill."""
DISCARD_SECONDS = 2.0
"""How long we go on reading after refusing a frame, so that the refusal is not lost in a reset."""


class _Protocol(ServerProtocol):
    """Gives our own close code to what the library calls too big or not UTF-8."""

    def fail(self, code: int, reason: str = "") -> None:
        ours = code in (frames.CloseCode.MESSAGE_TOO_BIG, frames.CloseCode.INVALID_DATA)
        super().fail(CloseCode.BAD_FRAME if ours else code, reason)


class QueueSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Protocol(max_size=LARGEST_FRAME, logger=self.logger, extensions=[SharedDeflate()])
        self.on_change: Callable[[], None] | None = None
        """Called when `is_open`, `is_lagging` or `send_at_once` has changed."""
        self.is_open = False
        """Frames may be written: the handshake is over, and no end has begun on either side."""
        self.is_lagging = False
        """More than HIGH_WATER waits in our buffer; so until it has run low."""

    def connection_made(self, transport: Any) -> None:
        self._direct = DirectTransport(transport, self._changed)
        super().connection_made(cast(asyncio.Transport, self._direct))
        transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 4)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.close_sent:
            # The upgrade request was too much for the parser (a header line over 8 KiB). It has made an answer, which
            # uvicorn never sends, and the connection would stay.
            self.handshake_complete = self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.handshake_complete:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self

    async def send(self, message: Any) -> None:
        await super().send(message)
        self._set_open(self.handshake_complete and not (self.close_sent or self.transport.is_closing()))
        if message["type"] == "websocket.accept":
            # 3 KB that nobody looks at again.
            del self.request, self.response
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # A handshake that was refused is complete too; otherwise each refusal is logged as an error.
            self.handshake_complete = True

    @property
    def deflates(self) -> bool:
        """The peer takes compressed frames. Known once the handshake has been answered."""
        return bool(self.conn.extensions)

    @property
    def send_at_once(self) -> Callable[[bytes], int]:
        """Sends what it can of a complete frame and returns how many bytes; what is left goes to `write`."""
        return self._direct.send

    def write(self, data: bytes) -> None:
        self._direct.write(data)

    def _set_open(self, is_open: bool) -> None:
        if is_open is not self.is_open:
            self.is_open = is_open
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    # Every way in which a connection ends: from then on it takes no frames.

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_open(False)
        self._direct.release()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        self._set_open(False)
        super().eof_received()

    def handle_close(self, event: frames.Frame) -> None:
        self._set_open(False)
        super().handle_close(event)

    def shutdown(self) -> None:
        self._set_open(False)
        super().shutdown()

    def cut_off(self, code: int, reason: str) -> None:
        """Close a connection whose buffer may never empty: the code goes behind what is in it, if it goes in time."""
        if not self.is_open:
            return
        self._set_open(False)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.loop.call_later(DISCARD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        self.is_lagging = True
        super().pause_writing()
        self._changed()

    def resume_writing(self) -> None:
        self.is_lagging = False
        super().resume_writing()
        self._changed()

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        self.cut_off(CloseCode.NO_PONG, "no pong")

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(CloseCode.BAD_FRAME, "not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        self._set_open(False)
        closing = self.conn.close_sent
        if closing is None or self.close_sent:
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(DISCARD_SECONDS, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
