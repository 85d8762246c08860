"""Reads a client's frames within bounds, and the two exceptions that end a socket."""

import time
from typing import Any

from starlette.websockets import WebSocket

from app.domain.errors import InvalidRequest
from app.wire.encoding import decode
from app.wire.websocket import CloseCode

NO_CODE = 1005
"""RFC 6455: the close frame had no code."""
FRAMES_A_MINUTE = 120


class CloseConnection(Exception):
    """Ends a connection with a code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Disconnected(Exception):
    """The client has closed or vanished, or has answered our close frame."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class FrameReader:
    """Reads the frames of one connection, at most FRAMES_A_MINUTE in any minute."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._frame_times: list[float] = []
        """The times of the last minute's frames."""

    async def next(self) -> Any:
        """The next frame's JSON value.

        Raises CloseConnection for a frame out of bounds, Disconnected when there is none to come.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise Disconnected(message.get("code") or NO_CODE)
        now = time.monotonic()
        self._frame_times = [at for at in self._frame_times if now - at < 60]
        if len(self._frame_times) >= FRAMES_A_MINUTE:
            raise CloseConnection(CloseCode.TOO_MANY_FRAMES, "too many frames")
        self._frame_times.append(now)
        text = message.get("text")
        if text is None:
            raise CloseConnection(CloseCode.BAD_FRAME, "text frames only")
        try:
            return decode(text)
        except InvalidRequest:
            raise CloseConnection(CloseCode.BAD_FRAME, "not JSON") from None
