"""Running the application under uvicorn: its limits, its signals, and an orderly end."""

import logging
import signal
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from app.http_protocol import QueueHttpProtocol
from app.settings import Settings
from app.socket_protocol import LARGEST_FRAME, QueueSocketProtocol
from app.wire.frames import PING_SECONDS

GRACE_SECONDS = 5
"""How long requests in flight may take to finish once the sockets are gone; the whole end stays under 10 s."""


class DrainingServer(uvicorn.Server):
    """Sends the sockets away in batches before it stops, where uvicorn would close all of them in one go."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        app = self.config.app
        if isinstance(app, Starlette):
            await app.state.drain()
        await super().shutdown(sockets)


def server_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=QueueHttpProtocol,
        ws=QueueSocketProtocol,
        ws_max_size=LARGEST_FRAME,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        ws_per_message_deflate=False,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=4096,
    )


def serve(app: Starlette, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return."""
    config = server_config(app, settings)
    # uvicorn raises the signal again once it has stopped; an orderly stop is not a death by signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _already_handled)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    DrainingServer(config).run()


def _already_handled(number: int, frame: FrameType | None) -> None:
    pass
