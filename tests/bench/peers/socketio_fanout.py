"""Peer: python-socketio on uvicorn. What comes in as the event `publish` goes out as `update` to everyone else.

Run as `socketio_fanout.py PORT`.
"""

import sys
from typing import Any

import socketio  # type: ignore[import-not-found]
import uvicorn

server = socketio.AsyncServer(async_mode="asgi", compression_threshold=1 << 20)


@server.event  # type: ignore[untyped-decorator]
async def publish(sid: str, data: Any) -> None:
    await server.emit("update", data, skip_sid=sid)


if __name__ == "__main__":
    app = socketio.ASGIApp(server)
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", ws_per_message_deflate=False, backlog=4096)
