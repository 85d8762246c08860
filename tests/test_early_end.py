"""SIGTERM in the first moments of a start: a clean end, after which the service can start again on the same files."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.store.engines import open_engines
from app.store.migrating import migrate

ROOT = Path(__file__).parents[1]
SECONDS = 60
Process = subprocess.Popen[str]

CLEAN = {0, -signal.SIGTERM}
"""Before the service has taken the signal over, the system ends it: nothing has begun that could be left undone."""


def start(folder: Path, **variables: str) -> Process:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    environment = {
        **kept,
        "DATABASE_URL": f"sqlite:///{folder}/queue.db",
        "PORT": "0",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "app", "serve"], env=environment, cwd=folder, stderr=subprocess.PIPE, text=True
    )


def at_once(process: Process, folder: Path) -> None:
    """Before or while modules are imported."""


def once_there_is_a_database(process: Process, folder: Path) -> None:
    """During the migrations."""
    deadline = time.monotonic() + SECONDS
    while not (folder / "queue.db").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.001)


def once_the_address_is_printed(process: Process, folder: Path) -> None:
    """Shortly before the server installs its signal handlers."""
    assert process.stderr is not None
    for line in process.stderr:
        if re.search("Performance Queue on", line):
            return
    pytest.fail("no address was printed")


def once_it_is_about_to_serve(process: Process, folder: Path) -> None:
    """After the last line that is printed before the lifespan."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Places for"):
            return
    pytest.fail("no places were printed")


def end(process: Process) -> str:
    """The rest of the process's output."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode in CLEAN, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    "moment", [at_once, once_there_is_a_database, once_the_address_is_printed, once_it_is_about_to_serve]
)
def test_it_ends_cleanly_and_starts_again(moment: Callable[[Process, Path], None], tmp_path: Path) -> None:
    first = start(tmp_path)
    moment(first, tmp_path)
    end(first)
    again = start(tmp_path)
    once_the_address_is_printed(again, tmp_path)
    end(again)


def test_several_workers_end_cleanly_and_none_is_left(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    engines = open_engines(postgres_url)
    migrate(engines.writer)
    engines.dispose()
    shared = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url, "WEB_CONCURRENCY": "2", "HOME": str(tmp_path)}
    process = start(tmp_path, **shared)
    once_it_is_about_to_serve(process, tmp_path)
    end(process)
    assert processes_with(f"HOME={tmp_path}") == []


def processes_with(variable: str) -> list[str]:
    """The ids of the processes with this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(entry.name)
        except OSError:
            continue  # gone, or not ours
    return found
