"""Running the application under uvicorn, in one process or several: its options, its signals, and an orderly end."""

import logging
import os
import socket
from tempfile import TemporaryDirectory

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE

from app.metrics.workers import FOLDER
from app.server.draining_server import DrainingServer
from app.server.http_protocol import QueueHttpProtocol
from app.server.supervisor import HUNG_SECONDS, Workers
from app.server.websocket_protocol import LARGEST_FRAME, QueueSocketProtocol
from app.settings import Settings
from app.wire.frames import PING_SECONDS

GRACE_SECONDS = 5
"""How long requests in flight may take to finish once the sockets are gone; the whole end stays under 10 s."""

KEEP_ALIVE_SECONDS = 75
"""How long an HTTP connection may be idle. Proxies keep theirs for up to a minute, and should close first: a proxy that
sends a command on a connection that we are just closing cannot know whether it was carried out."""


def server_config(app: Starlette | str, settings: Settings) -> uvicorn.Config:
    """uvicorn's options. `app`: the application, or "module:function", which makes one in every worker."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.web_concurrency,
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
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=HUNG_SECONDS,
        backlog=4096,
    )


def serve(app: Starlette, settings: Settings, sockets: list[socket.socket]) -> None:
    """Serve in this process on bound sockets until SIGTERM or SIGINT, then drain and return."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    DrainingServer(server_config(app, settings)).run(sockets)


def serve_workers(factory: str, settings: Settings, sockets: list[socket.socket]) -> None:
    """Serve in several processes on bound sockets until SIGTERM or SIGINT; each drains by itself. Raises SystemExit
    with uvicorn's STARTUP_FAILURE if no worker could start.

    `factory` is "module:function". Each worker reads its settings from the environment, as this process did, and there
    finds the folder in which the workers share their metrics.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = server_config(factory, settings)
    with TemporaryDirectory(prefix="performance-queue-") as folder:
        os.environ[FOLDER] = folder
        workers = Workers(config, sockets)
        workers.run()
    if workers.could_not_start:
        raise SystemExit(STARTUP_FAILURE)
