"""Starting the program: the address that it prints, and one line with exit code 2 for every error."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent
SECONDS = 60


def environment(folder: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
    return {**kept, "DATABASE_URL": f"sqlite:///{folder}/queue.db", "PYTHONPATH": str(ROOT), **variables}


def refused(folder: Path, *command: str, **variables: str) -> str:
    """The line of a refused start."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *(command or ("serve",))],
        env=environment(folder, **variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return lines[0].removeprefix("performance-queue: ")


@contextmanager
def started(folder: Path, **variables: str) -> Iterator[str]:
    """The URL that a running service prints."""
    command = [sys.executable, "-m", "app", "serve"]
    process = subprocess.Popen(
        command, env=environment(folder, **variables), cwd=folder, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"Performance Queue on (\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail("no address was printed")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        process.stderr.close()


WRONG = {
    "DATABASE_URL": ["sqlite:///:memory:"],
    "PORT": ["http"],
    "HOST": ["192.0.2.1", "nobody.invalid"],
    "WALLET_API_TOKEN": ["schlüssel"],
    "TRACES_URL": ["collector:4318"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_line_and_exit_code_2(tmp_path: Path, name: str, value: str) -> None:
    assert refused(tmp_path, **{"PORT": "0", name: value}).startswith(f"{name}: ")


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert refused(tmp_path, PORT=port).startswith(f"PORT: 127.0.0.1:{port} cannot be listened on: ")
        assert refused(tmp_path, "sandbox", "--port", port).startswith(
            f"PORT: 127.0.0.1:{port} cannot be listened on: "
        )
    assert list(tmp_path.iterdir()) == [], "nothing has been begun"


def reaches(host: str, port: int) -> bool:
    """Whether the started service answers at this address."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with urlopen(f"http://{host}:{port}/healthz", timeout=SECONDS) as answer:
                return bool(answer.status == 200)
        except URLError:
            # The port is bound before the service listens on it.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")])
def test_port_0_prints_the_port_that_was_found(tmp_path: Path, host: str, shown: str) -> None:
    with started(tmp_path, HOST=host, PORT="0") as url:
        found = re.fullmatch(rf"http://{shown}:(\d+)", url)
        assert found
        assert int(found[1]) > 0
        assert reaches("127.0.0.1", int(found[1]))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_all_addresses_of_ipv6_are_those_of_ipv4_as_well(tmp_path: Path) -> None:
    with started(tmp_path, HOST="::", PORT="0") as url:
        found = re.fullmatch(r"http://\[::\]:(\d+)", url)
        assert found
        assert reaches("[::1]", int(found[1]))
        assert reaches("127.0.0.1", int(found[1]))


def test_a_token_that_would_be_refused_is_not_printed(tmp_path: Path) -> None:
    token = ("token", "--role", "viewer", "--sub", "ada")
    assert "longer than 600" in refused(tmp_path, *token, "--ttl", "601", MAX_TOKEN_SECONDS="600")
    assert refused(tmp_path, *token, AUTH_JWKS_URL="https://site.example/keys").startswith("AUTH_JWKS_URL")


@pytest.fixture
def without_opentelemetry(tmp_path: Path) -> str:
    """A PYTHONPATH without OpenTelemetry, as without the extra."""
    absent = tmp_path / "path" / "opentelemetry"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ImportError('not installed')\n")
    return os.pathsep.join([str(absent.parent), str(ROOT)])


def test_without_its_extra_the_service_starts_and_a_wish_for_traces_names_it(
    tmp_path: Path, without_opentelemetry: str
) -> None:
    with started(tmp_path, PORT="0", PYTHONPATH=without_opentelemetry) as url:
        assert reaches("127.0.0.1", int(url.rsplit(":", 1)[1]))
    wish = {"PORT": "0", "TRACES_URL": "http://127.0.0.1:4318/v1/traces"}
    said = refused(tmp_path, PYTHONPATH=without_opentelemetry, **wish)
    assert said == "TRACES_URL needs OpenTelemetry; install performance-queue[otel]"
