"""uvicorn's server, with signals that count from the start and an end that sends the sockets away in batches."""

import gc
import signal
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette

RECEIVE_BUFFER = 64 * 1024
"""Asked of the kernel for each connection; Linux doubles it."""

COLLECT_AFTER = 20_000
"""Objects made and not dropped after which the garbage collector looks for cycles among the young ones."""


class DrainingServer(uvicorn.Server):
    """Sends the sockets away in batches before it stops, where uvicorn would close all of them in one go."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's; its signals are ours from the beginning, and SIGHUP is ignored."""
        # uvicorn listens only while it serves, and raises the signal again once it has stopped. One that comes while
        # it starts must count as well, and an orderly stop is not a death by signal.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's; then sets the listeners' buffers and the garbage collector."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                # Connections inherit it: one read brings no more than this of a connection into memory.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        # Objects that are loaded now stay: the collector need not go through them again and again, nor after every few
        # hundred objects, of which one intake makes as many and hardly ever a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 10, 10)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, after the sockets have been sent away; nothing new is accepted meanwhile."""
        for server in self.servers:
            server.close()
        app = self.config.loaded_app
        if isinstance(app, Starlette):
            await app.state.drain()
        await super().shutdown(sockets)
