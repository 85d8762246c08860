"""Running the application under uvicorn: its limits, its workers, its signals, and an orderly end."""

import gc
import logging
import os
import signal
import socket
from multiprocessing.connection import wait
from tempfile import TemporaryDirectory
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from app.metrics.workers import FOLDER
from app.server.http_protocol import QueueHttpProtocol
from app.server.websocket_protocol import LARGEST_FRAME, QueueSocketProtocol
from app.settings import Settings
from app.wire.frames import PING_SECONDS

log = logging.getLogger(__name__)

GRACE_SECONDS = 5
"""How long requests in flight may take to finish once the sockets are gone; the whole end stays under 10 s."""

KEEP_ALIVE_SECONDS = 75
"""How long an HTTP connection may be idle. Proxies keep theirs for up to a minute, and must be the ones to close: one
that sends a command into a connection that we are just closing cannot tell whether it was carried out."""

RECEIVE_BUFFER = 64 * 1024
"""Asked of the kernel for each connection; Linux doubles it."""

COLLECT_AFTER = 20_000
"""Objects made and not dropped after which the garbage collector looks for cycles among the young ones."""

HUNG_SECONDS = 30
"""How long a worker may not answer before it is replaced; it may be starting on a busy machine."""


class DrainingServer(uvicorn.Server):
    """Sends the sockets away in batches before it stops, where uvicorn would close all of them in one go."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn listens only while it serves, and raises the signal again once it has stopped. One that comes while
        # it starts must count as well, and an orderly stop is not a death by signal.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                # Connections inherit it: one read brings no more than this of a connection into memory.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        # What is loaded now stays: the collector need not go through it again and again, nor after every few hundred
        # objects, of which one intake makes as many and hardly ever a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 10, 10)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        app = self.config.loaded_app
        if isinstance(app, Starlette):
            await app.state.drain()
        await super().shutdown(sockets)


class _Worker(Process):
    """One of several processes that share a listening socket."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = DrainingServer(self.config)
        return self._server

    def ping(self, timeout: float = HUNG_SECONDS) -> bool:
        # uvicorn's would wait the whole time for one that dies between the question and its answer.
        try:
            self.parent_conn.send(b"ping")
            ready = wait([self.parent_conn, self.process.sentinel], timeout)
            if self.parent_conn in ready:
                self.parent_conn.recv()
            return self.parent_conn in ready
        except (OSError, EOFError):
            return False


class _Workers(Multiprocess):
    """Starts the workers, replaces one that dies, and passes the end on to all of them."""

    def init_processes(self) -> None:
        self.processes = [self._start() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        for index, process in enumerate(self.processes):
            if not self.should_exit.is_set() and not process.is_alive(self.config.timeout_worker_healthcheck):
                process.kill()
                process.join()
                log.warning("worker %s died and is replaced", process.pid)
                self.processes[index] = self._start()

    def _start(self) -> Process:
        process = _Worker(self.config, self.sockets)
        process.start()
        return process

    def handle_hup(self) -> None:
        """Ignored, as in a single process: a terminal that goes away is no reason to do anything."""


def server_config(app: Starlette | str, settings: Settings) -> uvicorn.Config:
    """`app` is the application, or where every worker finds the function that makes its own."""
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


def serve(app: Starlette, settings: Settings) -> None:
    """Serve in this process until SIGTERM or SIGINT, then drain and return."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    DrainingServer(server_config(app, settings)).run()


def serve_workers(factory: str, settings: Settings) -> None:
    """Serve in several processes until SIGTERM or SIGINT; each drains by itself.

    `factory` is "module:function"; each worker reads its settings from the environment, as this process has. There it
    also finds the folder in which the workers leave their figures for each other.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = server_config(factory, settings)
    with TemporaryDirectory(prefix="performance-queue-") as folder:
        os.environ[FOLDER] = folder
        _Workers(config, [config.bind_socket()]).run()
