"""Reverse proxies that run exactly what the guide "Operate" shows, before a service of a test's."""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import environment
from tests.support.environment import Say, free_port

GUIDE = Path(__file__).parents[2] / "static" / "docs" / "guides" / "operate.md"
START_SECONDS = 30.0


def shown(name: str) -> str:
    """The configuration that the guide shows under this name."""
    found = re.search(rf"<!-- config: {name} -->\n```\w+\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None, f"the guide shows no configuration of {name}"
    return found[1]


@dataclass(frozen=True, slots=True)
class Kind:
    """A proxy: how it is obtained and started."""

    program: Callable[[Say], Path]
    around: Callable[[str, Path], str]
    """The whole file, of what the guide shows: what a distribution's own file has around it."""
    arguments: Callable[[Path], Sequence[str]]


def _in_nginx(server: str, folder: Path) -> str:
    """In the foreground, with every file in the test's folder."""
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
        # Its second server, for changes while it runs, would listen on one port for all tests.
        lambda text, folder: f"{{\n    admin off\n}}\n{text}",
        lambda file: ["run", "--adapter", "caddyfile", "--config", str(file)],
    ),
}


@contextmanager
def proxying(name: str, program: Path, folder: Path, port: int) -> Iterator[int]:
    """The proxy before the service on a port; the port that it listens on. Only the two ports are not the guide's."""
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
