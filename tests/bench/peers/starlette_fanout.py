"""Peers in Starlette on uvicorn: a loop of `send_text`, or a queue and a task for each socket.

Run as `starlette_fanout.py PORT loop|queues`. What comes in at /publish goes out to everyone at /live.
"""

import asyncio
import sys
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

viewers: set[WebSocket] = set()
queues: set["asyncio.Queue[str]"] = set()


async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    viewers.add(websocket)
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()
    viewers.discard(websocket)


async def live_by_queue(websocket: WebSocket) -> None:
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue(1000)
    queues.add(queue)

    async def send() -> None:
        while True:
            await websocket.send_text(await queue.get())

    sender = asyncio.create_task(send())
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()
    queues.discard(queue)
    sender.cancel()


async def publish(websocket: WebSocket) -> None:
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            message = await websocket.receive_text()
            for viewer in list(viewers):
                await viewer.send_text(message)
            for queue in queues:
                queue.put_nowait(message)


if __name__ == "__main__":
    endpoint = live_by_queue if sys.argv[2] == "queues" else live
    app = Starlette(routes=[WebSocketRoute("/live", endpoint), WebSocketRoute("/publish", publish)])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", ws_per_message_deflate=False, backlog=4096)
