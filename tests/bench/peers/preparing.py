"""Getting peers ready to run: installed into a throw-away environment in the user's cache, compiled, or found.

Nothing is ever installed into the project's own environment. What cannot be had is absent, with the reason.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import servers
from tests.bench.load.crowd import compiled
from tests.bench.peers.catalogue import Peer, Runtime
from tests.bench.servers import Server
from tests.support.ports import free_port

HERE = Path(__file__).parent
INSTALL_SECONDS = 600
GO_LIBRARIES = "/usr/share/gocode"
"""Where Debian lays the sources of Go libraries."""
NCHAN_MODULE = "ngx_nchan_module.so"
NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")


class Absent(Exception):
    """The peer cannot run here; `str()` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    peer: Peer
    command: tuple[str, ...]
    """To be followed by the port and the peer's arguments."""
    env: dict[str, str] = field(default_factory=dict)


def prepare(peer: Peer, cache: Path) -> Prepared:
    """Raises Absent."""
    source = str(HERE / peer.source)
    match peer.runtime:
        case Runtime.OWN:
            return Prepared(peer=peer, command=(sys.executable, source), env={"PYTHONPATH": str(servers.ROOT)})
        case Runtime.VENV:
            return Prepared(peer=peer, command=(str(_python_with(peer, cache / "venv")), source))
        case Runtime.NODE:
            node = _found("node")
            modules = _npm_with(peer, cache / "npm")
            return Prepared(peer=peer, command=(node, source), env={"NODE_PATH": str(modules)})
        case Runtime.BUN:
            return Prepared(peer=peer, command=(_bun(peer, cache), source))
        case Runtime.C:
            program = compiled(HERE / peer.source, cache / "bin")
            if program is None:
                raise Absent("no C compiler (cc, gcc or clang)")
            return Prepared(peer=peer, command=(str(program),))
        case Runtime.GO:
            return Prepared(peer=peer, command=(_go_program(HERE / peer.source, cache / "bin"),))
        case Runtime.NGINX:
            return Prepared(peer=peer, command=(_found("nginx", "/usr/sbin/nginx"), str(_nchan_folder())))


def _found(*names: str) -> str:
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    raise Absent(f"{names[0]} is not installed")


def _go_program(source: Path, folder: Path) -> str:
    """The compiled program, as old as its source at most."""
    go, program = _found("go"), folder / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        environment = {"GO111MODULE": "off", "GOFLAGS": "", "GOPATH": GO_LIBRARIES}
        what = f"{source.stem} (Debian: golang-github-centrifugal-centrifuge-dev and what it names)"
        _run([go, "build", "-o", str(program), str(source)], what, environment)
    return str(program)


def _nchan_folder() -> Path:
    for folder in NGINX_MODULES:
        if (Path(folder) / NCHAN_MODULE).exists():
            return Path(folder)
    raise Absent("nginx has no Nchan module (Debian: libnginx-mod-nchan)")


def _python_with(peer: Peer, folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)], "a virtual environment")
    if not _works([str(python), "-c", f"import {peer.proof}"]):
        _run([str(python), "-m", "pip", "install", "-q", *peer.packages], " ".join(peer.packages))
        if not _works([str(python), "-c", f"import {peer.proof}"]):
            raise Absent(f"{peer.proof} is installed but cannot be imported")
    return python


def _npm_with(peer: Peer, folder: Path) -> Path:
    modules = folder / "node_modules"
    missing = [package for package in peer.packages if not (modules / package).exists()]
    if missing:
        npm = _found("npm")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").exists() or (folder / "package.json").write_text('{"private": true}')
        _run([npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *missing], " ".join(missing))
    return modules


def _bun(peer: Peer, cache: Path) -> str:
    """An installed Bun, else the one that npm's package brings."""
    installed = shutil.which("bun")
    if installed is not None:
        return installed
    modules = _npm_with(peer, cache / "npm")
    program = modules / ".bin" / "bun"
    if _works([str(program), "--version"]):
        return str(program)
    raise Absent("npm's package has no Bun for this machine")


def _run(command: list[str], what: str, env: dict[str, str] | None = None) -> None:
    try:
        environment = {**os.environ, **(env or {})}
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS, env=environment)
    except subprocess.CalledProcessError as problem:
        said = problem.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise Absent(f"{what} could not be installed: {said[0][:200]}") from None
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Absent(f"{what} could not be installed: {type(problem).__name__}") from None


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def running(prepared: Prepared, data: Path, core: int, *arguments: str) -> Iterator[Server]:
    """The peer on a core, listening. Raises servers.DidNotStart."""
    peer, port = prepared.peer, free_port()
    with servers.data_folder(data) as folder:
        if peer.runtime is Runtime.NGINX:
            nginx, modules = prepared.command
            settings = {"PORT": str(port), "FOLDER": str(folder), "MODULES": modules}
            text = (HERE / peer.source).read_text()
            for name, value in settings.items():
                text = text.replace(name, value)
            (folder / "nginx.conf").write_text(text)
            command = [nginx, "-c", str(folder / "nginx.conf")]
            if os.geteuid() == 0:
                command += ["-g", "user root;"]
        else:
            command = [*prepared.command, str(port), *peer.arguments, *arguments]
        with servers.running(command, core=core, port=port, folder=folder, env=prepared.env) as server:
            yield server
