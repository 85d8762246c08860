"""`honcho start` runs both lines of the Procfile in parallel, on an empty database."""

import os
import signal
import subprocess
import sys
import time
from http.client import HTTPException
from pathlib import Path

import pytest

from app.commandline.foreman import wait_for_schema
from app.settings import read_settings
from app.store.engines import DatabaseRefusedError
from tests.support.killed_server import ROOT, SECRET, Client, intake
from tests.support.ports import free_port
from tests.support.stores import empty_url_fixture as empty_url_fixture

SECONDS = 60


def ask(port: int, process: "subprocess.Popen[str]", output: Path) -> int:
    """Send an intake when the service answers; returns its status."""
    deadline = time.monotonic() + SECONDS
    while True:
        request = intake("first", "mira", "wheel")
        client = Client(port)
        try:
            client.send(request)
        except (OSError, HTTPException):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        else:
            return request.status
        finally:
            client.close()


def test_both_lines_of_the_procfile_run_beside_each_other(empty_url: str, tmp_path: Path) -> None:
    port, output = free_port(), tmp_path / "output"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "PORT": str(port),
        "DATABASE_URL": empty_url,
        "AUTH_SECRET": SECRET,
    }
    command = [sys.executable, "-m", "honcho", "-d", str(tmp_path), "-f", str(ROOT / "Procfile"), "start"]
    with output.open("w") as file:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=file, stderr=file, text=True)
    try:
        assert ask(port, process, output) == 201
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    running, _, ended = output.read_text().partition("SIGTERM received")
    assert " stopped " not in running
    assert [f"{line} stopped" in ended for line in ("release.1", "web.1")] == [True, True]


def test_a_schema_that_does_not_come_is_not_waited_for_forever(postgres_url: str) -> None:

    with pytest.raises(DatabaseRefusedError, match="older schema"):
        wait_for_schema(read_settings(database_url=postgres_url), seconds=0.3)
