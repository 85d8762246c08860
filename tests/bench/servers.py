"""Processes under measurement: started on their core, waited for, read and stopped by their own id."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.access.auth import sign
from app.domain.command import Role
from app.parts import utc_now
from app.settings import DEVELOPMENT_AUTH_SECRET
from tests.bench import machine
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
STOP_SECONDS = 20
FEATURE = "bench"
DATABASE = "queue.db"


class DidNotStart(Exception):
    """The process ended or did not listen in time; `str()` has the end of what it said."""


@dataclass(slots=True)
class Server:
    process: "subprocess.Popen[bytes]"
    port: int
    pids: list[int]
    folder: Path
    """Its data, gone when it has stopped."""
    started_in: float = 0.0
    """Seconds from the start of the process to its readiness."""
    host: str = "127.0.0.1"

    def cpu(self) -> float:
        return machine.cpu_seconds(self.pids)

    def memory(self) -> int:
        return machine.resident_bytes(self.pids)

    def stop(self) -> float:
        """Returns the seconds it took; stopping what has stopped takes none."""
        began = time.monotonic()
        _stop(self.process)
        return time.monotonic() - began


Ready = Callable[[int], bool]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers_readyz(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    core: int,
    port: int,
    folder: Path,
    env: Mapping[str, str] | None = None,
    ready: Ready = listens,
) -> Iterator[Server]:
    """A program on a core from its start to the end of the block, whatever happens in it."""
    server = start(command, core=core, port=port, folder=folder, env=env, ready=ready)
    try:
        yield server
    finally:
        server.stop()


def start(
    command: Sequence[str | Path],
    *,
    core: int,
    port: int,
    folder: Path,
    env: Mapping[str, str] | None = None,
    ready: Ready = listens,
    source: Path = ROOT,
) -> Server:
    """Raises DidNotStart."""
    log = folder / "log"
    with machine.born_on(core), log.open("ab") as out:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=source,
            env={**os.environ, **(env or {})},
        )
    began = time.monotonic()
    try:
        while not ready(port):
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                said = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise DidNotStart(" / ".join(said) or f"ended with {process.returncode}")
            time.sleep(0.005)
        seconds = time.monotonic() - began
        return Server(process, port, machine.family(process.pid), folder, seconds)
    except BaseException:
        _stop(process)
        raise


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def data_folder(parent: Path) -> Iterator[Path]:
    """A folder on the disk the benchmark was told to use: durability costs nothing on a file system in memory."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


SERVE = ("-m", "app", "serve")


def start_ours(
    folder: Path,
    core: int,
    settings: Mapping[str, str] | None = None,
    *,
    port: int | None = None,
    program: Sequence[str] = SERVE,
    source: Path = ROOT,
    python: Path = Path(sys.executable),
) -> Server:
    """The real service, as `python -m app serve` runs it in `source`, on a database in `folder`."""
    port = port or free_port()
    env = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{folder / DATABASE}",
        "ENVIRONMENT": "development",
        "MAX_QUEUE_DEPTH": "1000",
        "USER_INTAKES_PER_MINUTE": "0",
        "SOCKETS_PER_ADDRESS": "0",
        **(settings or {}),
    }
    return start([python, *program], core=core, port=port, folder=folder, env=env, ready=answers_readyz, source=source)


@contextmanager
def ours(
    parent: Path,
    core: int,
    settings: Mapping[str, str] | None = None,
    *,
    source: Path = ROOT,
    python: Path = Path(sys.executable),
) -> Iterator[Server]:
    with data_folder(parent) as folder:
        server = start_ours(folder, core, settings, source=source, python=python)
        try:
            yield server
        finally:
            server.stop()


def token(role: Role, sub: str) -> str:
    return sign(DEVELOPMENT_AUTH_SECRET, role, sub, now=utc_now(), ttl_seconds=6 * 3600)
