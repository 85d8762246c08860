"""uvicorn's supervisor of several worker processes, for workers of our kind.

A worker that dies is replaced. One that cannot start stops the service if none has ever started. Otherwise another is
started in its place, after a pause that doubles with each failure, and with a warning.
"""

import logging
import socket
from multiprocessing.connection import wait
from time import monotonic
from typing import cast

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from app.server.draining_server import DrainingServer

HUNG_SECONDS = 30
"""How long a worker may not answer before it is replaced; it may be starting on a busy machine."""
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""The pauses before another worker is started in place of one that could not start."""

log = logging.getLogger(__name__)


class Worker(Process):
    """One of several processes that share a listening socket."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        """uvicorn's."""
        super().__init__(config, sockets)
        self.has_started = False
        """It has said that it serves."""
        self.start_again_at: float | None = None
        """When another is started in its place, if it could not start itself."""

    @property
    def server(self) -> uvicorn.Server:
        """In place of uvicorn's: a server of our kind."""
        if self._server is None:
            self._server = DrainingServer(self.config)
        return self._server

    def ping(self, timeout: float = HUNG_SECONDS) -> bool:
        """In place of uvicorn's, which waits the whole `timeout` for a worker that dies before it answers, and which
        does not keep the answer: whether the worker has started."""
        try:
            self.parent_conn.send(b"ping")
            ready = wait([self.parent_conn, self.process.sentinel], timeout)
            if self.parent_conn in ready:
                self.has_started |= self.parent_conn.recv()
            return self.parent_conn in ready
        except (OSError, EOFError):
            return False

    @property
    def was_killed(self) -> bool:
        return self.exitcode is not None and self.exitcode < 0


class Workers(Multiprocess):
    """Starts the workers, replaces those that die, and stops all of them."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        """uvicorn's."""
        super().__init__(config, sockets)
        self.could_not_start = False
        """No worker has ever started, and one has tried."""
        self._any_has_started = False
        self._pause = SHORTEST_PAUSE_SECONDS

    @property
    def _workers(self) -> list[Worker]:
        return cast(list[Worker], self.processes)

    def init_processes(self) -> None:
        """In place of uvicorn's: workers of our kind."""
        self.processes = [self._start() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        """In place of uvicorn's, which stops everything when a worker cannot start. Here that is so at the first start
        only: later it would end the workers that serve because the database is away for a minute."""
        for index, process in enumerate(self._workers):
            if self.should_exit.is_set():
                return
            if process.start_again_at is not None:
                if process.start_again_at <= monotonic():
                    self.processes[index] = self._start()
            elif process.is_alive(self.config.timeout_worker_healthcheck):
                self._note_start(process)
            else:
                process.kill()
                process.join()
                self._replace(index, process)

    def _note_start(self, worker: Worker) -> None:
        self._any_has_started |= worker.has_started
        if all(each.has_started for each in self._workers):
            self._pause = SHORTEST_PAUSE_SECONDS

    def _replace(self, index: int, worker: Worker) -> None:
        if worker.has_started or worker.was_killed:
            log.warning("worker %s died and is replaced", worker.pid)
            self.processes[index] = self._start()
        elif not self._any_has_started:
            log.error("worker %s could not start; the service stops", worker.pid)
            self.could_not_start = True
            self.should_exit.set()
        else:
            log.warning("worker %s could not start; another is started in %d s", worker.pid, self._pause)
            worker.start_again_at = monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _start(self) -> Worker:
        worker = Worker(self.config, self.sockets)
        worker.start()
        return worker

    def handle_hup(self) -> None:
        """In place of uvicorn's, which restarts the workers: ignored, as in a single process, so that a terminal that
        is closed does not disturb the service."""

    def handle_ttin(self) -> None:
        """In place of uvicorn's: one worker more, of our kind."""
        self.processes_num += 1
        self.processes.append(self._start())
