"""The workers of one machine and their supervisor: workers that cannot start, and workers that a signal adds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, sys
from app.server.listening import bound
from app.server.run import serve_workers
from app.settings import Settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    settings = Settings(port=int(sys.argv[2]), web_concurrency=2, database_url="postgresql://x/y", redis_url="redis://x")
    with bound(settings.host, settings.port) as sockets:
        serve_workers("tests.support.tiny_app:" + sys.argv[1], settings, sockets)
"""


@contextmanager
def workers(kind: str, folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the supervisor; its output is in the file `log` of the folder."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, program, kind, str(port)], stderr=log, cwd=ROOT, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def seen(port: int, count: int) -> set[int]:
    """The process ids of this many workers, from their answers."""
    found: set[int] = set()
    deadline = time.monotonic() + 40
    while len(found) < count:
        assert time.monotonic() < deadline, found
        try:
            found.add(int(httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).text))
        except httpx2.TransportError:
            continue
    return found


def test_a_service_whose_workers_cannot_start_ends_and_says_so(tmp_path: Path) -> None:
    with workers("broken", tmp_path, free_port()) as supervisor:
        assert supervisor.wait(60) == 3
    assert "could not start; the service stops" in (tmp_path / "log").read_text()


def test_a_worker_that_a_signal_asks_for_is_like_the_others(tmp_path: Path) -> None:
    port = free_port()
    with workers("working", tmp_path, port) as supervisor:
        seen(port, 2)
        supervisor.send_signal(signal.SIGTTIN)
        three = seen(port, 3)
        for pid in three:
            os.kill(pid, signal.SIGHUP)
        # None of them has gone, which would show in the log as soon as the supervisor looks.
        assert seen(port, 3) == three
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(20) == 0
    assert "died" not in (tmp_path / "log").read_text()
