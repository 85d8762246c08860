"""The faults: each is injected, lasts, and is undone. All draw from the run's own random source."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import psycopg

from app.sandbox.faults import FaultRates
from tests.faults.scene import COMMAND_SECONDS, Scene, bus_pid, descendants
from tests.support.stores import locked_by_a_shell

Inject = Callable[[Scene, Random], AbstractAsyncContextManager[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    name: str
    inject: Inject
    """Entered: it is there, and says what it is exactly. Left: it is undone."""
    seconds: tuple[float, float]
    """How long it lasts, in a short run."""
    long_seconds: tuple[float, float]
    """The same in a long one."""
    databases: tuple[str, ...] = ("sqlite", "postgres")
    inside: bool = True
    """Of the service's own processes or its database: one of these at a time."""


def _process(scene: Scene, random: Random) -> int:
    return random.choice(sorted(scene.up))


@asynccontextmanager
async def _ended_by(ending: signal.Signals, scene: Scene, random: Random) -> AsyncIterator[str]:
    number = _process(scene, random)
    with scene.history.rest(number):
        await scene.end(number, ending)
        yield f"process {number}"
        await scene.start(number)


killed = partial(_ended_by, signal.SIGKILL)
terminated = partial(_ended_by, signal.SIGTERM)


@asynccontextmanager
async def suspended(scene: Scene, random: Random) -> AsyncIterator[str]:
    number = _process(scene, random)
    process = scene.nodes[number].process
    assert process is not None
    with scene.history.rest(number):
        process.send_signal(signal.SIGSTOP)
        try:
            yield f"process {number}"
        finally:
            process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def clock_stepped(scene: Scene, random: Random) -> AsyncIterator[str]:
    number = random.randrange(len(scene.nodes))  # also of one that is just being restarted
    seconds = random.choice([-3600.0, -20.0, 20.0, 3600.0, 86400.0])
    scene.set_clock(number, seconds)
    try:
        yield f"process {number} by {seconds:+.0f} s"
    finally:
        scene.set_clock(number, 0)


@asynccontextmanager
async def locked(scene: Scene, random: Random) -> AsyncIterator[str]:
    if scene.postgres is None:
        with locked_by_a_shell(scene.database_url):
            yield "BEGIN IMMEDIATE"
        return
    statement = random.choice(
        [
            "SELECT 1 FROM rooms ORDER BY performer_id LIMIT 1 FOR UPDATE",
            "SELECT 1 FROM items WHERE status = 'created' FOR UPDATE",
            "LOCK TABLE events IN ACCESS EXCLUSIVE MODE",
            "LOCK TABLE wallet_operations IN SHARE MODE",
        ]
    )
    async with await psycopg.AsyncConnection.connect(scene.database_url) as other:
        await other.execute("SET LOCAL lock_timeout = '10s'")
        await other.execute(statement.encode())
        yield statement
        await other.rollback()


@asynccontextmanager
async def frozen(scene: Scene, random: Random) -> AsyncIterator[str]:
    assert scene.postgres is not None
    assert scene.postgres.process is not None
    pids = descendants(scene.postgres.process.pid)
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    try:
        yield f"{len(pids)} processes"
    finally:
        for pid in pids:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)


@asynccontextmanager
async def restarted(scene: Scene, random: Random) -> AsyncIterator[str]:
    postgres = scene.postgres
    assert postgres is not None
    assert postgres.process is not None
    how = random.choice(["a fast shutdown", "a crash"])
    if how == "a crash":
        postgres.process.send_signal(signal.SIGQUIT)
    await asyncio.to_thread(postgres.stop)
    yield how
    await asyncio.to_thread(postgres.start)


@asynccontextmanager
async def disk_full(scene: Scene, random: Random) -> AsyncIterator[str]:
    if scene.disk is not None:
        ballast = scene.disk / "ballast"
        try:
            # In a thread: on a busy machine it takes seconds, in which the clients would stand still.
            await asyncio.to_thread(_fill, ballast)
            yield "ENOSPC"
        finally:
            ballast.unlink(missing_ok=True)
    elif scene.postgres is None:
        with _no_growth(scene):
            yield "RLIMIT_FSIZE"
    else:
        # There is no right to mount a small disk, and a server whose log cannot grow ends, which is another fault.
        yield "left out"


def _fill(ballast: Path) -> None:
    """Write to a file until the disk is full."""
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 4096):
            with suppress(OSError):  # that is the end of the disk
                while True:
                    file.write(bytes(size))


@contextmanager
def _no_growth(scene: Scene) -> Iterator[None]:
    """No file of the processes may grow: writes fail as on a full disk."""
    pids = [node.process.pid for node in scene.nodes if node.process is not None]
    limits = resource.prlimit(pids[0], resource.RLIMIT_FSIZE)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@asynccontextmanager
async def bus_lost(scene: Scene, random: Random) -> AsyncIterator[str]:
    bus = scene.bus
    assert bus is not None
    if random.random() < 0.5:
        pid = bus_pid(bus)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield "frozen"
        finally:
            os.kill(pid, signal.SIGCONT)
        return
    await asyncio.to_thread(bus.stop)
    yield "stopped"
    await asyncio.to_thread(bus.start)


def _rates(**rates: float) -> Inject:
    @asynccontextmanager
    async def inject(scene: Scene, random: Random) -> AsyncIterator[str]:
        before = scene.wallet.faults.rates
        scene.wallet.faults.rates = replace(FaultRates(), **rates)
        try:
            yield ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        finally:
            scene.wallet.faults.rates = before

    return inject


@asynccontextmanager
async def wallet_refuses_orders(scene: Scene, random: Random) -> AsyncIterator[str]:
    scene.wallet.refusal_share = 0.5
    try:
        yield "422 for every second order"
    finally:
        scene.wallet.refusal_share = 0.0


@asynccontextmanager
async def wallet_away(scene: Scene, random: Random) -> AsyncIterator[str]:
    await asyncio.to_thread(scene.wallet.stop)
    yield "connections are refused"
    await asyncio.to_thread(scene.wallet.start)


LONG = (2 * COMMAND_SECONDS, 2.5 * COMMAND_SECONDS)
BEYOND_A_LEASE = (16.0, 20.0)
"""The lease of a wallet operation is 12 s with these settings, that of a panel 15 s."""
_WRONG = {"error": 0.2, "conflict": 0.1, "lost_answer": 0.15, "duplicate": 0.1, "wrong_answer": 0.2}

KINDS: tuple[Kind, ...] = (
    Kind(name="process killed", inject=killed, seconds=(0, 1), long_seconds=(0, 5)),
    Kind(name="process restarted", inject=terminated, seconds=(0, 0.5), long_seconds=(0, 5)),
    Kind(name="process suspended", inject=suspended, seconds=(1, 3), long_seconds=BEYOND_A_LEASE),
    Kind(name="database locked", inject=locked, seconds=(1, 3), long_seconds=LONG),
    Kind(name="disk full", inject=disk_full, seconds=(1, 2), long_seconds=LONG),
    Kind(name="database restarted", inject=restarted, seconds=(0, 1), long_seconds=LONG, databases=("postgres",)),
    Kind(name="database frozen", inject=frozen, seconds=(2, 6), long_seconds=LONG, databases=("postgres",)),
    Kind(name="clock stepped", inject=clock_stepped, seconds=(2, 4), long_seconds=(5, 30), inside=False),
    Kind(name="bus lost", inject=bus_lost, seconds=(1, 3), long_seconds=(5, 15), inside=False, databases=("postgres",)),
    Kind(
        name="wallet slow",
        inject=_rates(latency_seconds=0.8, timeout_before=0.2, timeout_after=0.2),
        seconds=(2, 4),
        long_seconds=(5, 20),
        inside=False,
    ),
    Kind(name="wallet wrong", inject=_rates(**_WRONG), seconds=(2, 4), long_seconds=(5, 20), inside=False),
    Kind(name="wallet refuses", inject=wallet_refuses_orders, seconds=(1, 3), long_seconds=(5, 10), inside=False),
    Kind(name="wallet away", inject=wallet_away, seconds=(1, 3), long_seconds=(30, 90), inside=False),
)
