"""Peer: Django Channels with its in-memory layer, on uvicorn. Run as `channels_fanout.py PORT`."""

import sys
from typing import Any

import django  # type: ignore[import-not-found]
import uvicorn
from django.conf import settings  # type: ignore[import-not-found]

settings.configure(
    SECRET_KEY="a benchmark on loopback has no secrets",
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 10_000}}},
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]  # noqa: E402
from channels.routing import URLRouter  # type: ignore[import-untyped]  # noqa: E402
from django.urls import path  # type: ignore[import-not-found]  # noqa: E402


class Live(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def connect(self) -> None:
        await self.channel_layer.group_add("live", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("live", self.channel_name)

    async def told(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["text"])


class Publish(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("live", {"type": "told", "text": text_data})


if __name__ == "__main__":
    application = URLRouter([path("live", Live.as_asgi()), path("publish", Publish.as_asgi())])
    uvicorn.run(
        application,
        port=int(sys.argv[1]),
        log_level="warning",
        ws_per_message_deflate=False,
        lifespan="off",
        backlog=4096,
    )
