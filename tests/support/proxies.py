"""Runs reverse proxies in front of a test's service, with the configurations of the guide "Operate"."""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import environment
from tests.support.environment import Say
from tests.support.ports import free_port

GUIDE = Path(__file__).parents[2] / "static" / "docs" / "guides" / "operate.md"
START_SECONDS = 30.0


def shown(name: str) -> str:
    """The configuration in the guide with this name."""
    found = re.search(rf"<!-- config: {name} -->\n```\w+\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None, f"the guide shows no configuration of {name}"
    return found[1]


@dataclass(frozen=True, slots=True)
class Kind:
    """A proxy's program, configuration file and arguments."""

    program: Callable[[Say], Path]
    around: Callable[[str, Path], str]
    """Makes the whole file from the guide's configuration, with the lines that a distribution's file has around it."""
    arguments: Callable[[Path], Sequence[str]]


def _in_nginx(server: str, folder: Path) -> str:
    """A configuration that runs nginx in the foreground, with all its files in the test's folder."""
    places = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;"
    return f"{main} events {{}} http {{ access_log off; {places} {server} }}"


KINDS = {
    "nginx": Kind(environment.nginx, _in_nginx, lambda file: ["-c", str(file), "-e", str(file.parent / "errors")]),
    "haproxy": Kind(environment.haproxy, lambda text, folder: text, lambda file: ["-db", "-f", str(file)]),
    "caddy": Kind(
        environment.caddy,
        # Caddy's admin server would listen on the same port in all tests.
        lambda text, folder: f"{{\n    admin off\n}}\n{text}",
        lambda file: ["run", "--adapter", "caddyfile", "--config", str(file)],
    ),
}


@contextmanager
def proxying(name: str, program: Path, folder: Path, port: int) -> Iterator[int]:
    """Run a proxy in front of the service on `port`; yields its own port. Only the two ports differ from the guide."""
    kind, own = KINDS[name], free_port()
    text = shown(name)
    assert ":8000" in text
    assert "8080" in text
    file = folder / f"{name}.conf"
    file.write_text(kind.around(text.replace("8080", str(own)).replace(":8000", f":{port}"), folder))
    environment_of_its_own = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *kind.arguments(file)], stdout=log, stderr=log, cwd=folder, env=environment_of_its_own
        )
    try:
        _wait(process, own, folder / f"{name}.log")
        yield own
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"the proxy did not start: {log.read_text()[-1000:]}")
