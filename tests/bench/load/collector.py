"""A collector of traces for the service under load, on the load's core: it takes everything and keeps nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import servers
from tests.support.ports import free_port

PROGRAM = Path(__file__).parent / "collector_stub.py"


@contextmanager
def collector(data: Path, core: int) -> Iterator[dict[str, str]]:
    """The settings that make the service send its traces there."""
    port = free_port()
    with (
        servers.data_folder(data) as folder,
        servers.running([sys.executable, PROGRAM, str(port)], core=core, port=port, folder=folder),
    ):
        yield {"TRACES_URL": f"http://127.0.0.1:{port}/v1/traces"}
