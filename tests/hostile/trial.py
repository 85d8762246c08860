"""One attack on one server: the honest ones by themselves, then beside the attack; then what the server gives back."""

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx2

from tests.hostile.crowd import Crowd, Measured, p99
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
RECOVERY_SECONDS = 60.0
SPARE_BYTES = 40 * 1024 * 1024
"""By which memory may have grown for good: the items that the honest ones have queued, and what the allocator keeps."""
SPARE_DESCRIPTORS = 10
DESCRIPTORS = 2048
"""The limit that the attacked server has; fewer than some attacks would take."""


class Use(NamedTuple):
    """The server's resources in use."""

    memory: int
    """Resident bytes."""
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> "Use":
        return cls(memory(pid), descriptors(pid))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    attack: str
    quiet: Measured
    attacked: Measured
    before: Use
    highest: Use
    after: Use
    recovery_seconds: float | None
    """Until memory and descriptors were back; None if they were not within RECOVERY_SECONDS."""

    @property
    def intake_ratio(self) -> float:
        return p99(self.attacked.intakes) / max(p99(self.quiet.intakes), 0.001)

    @property
    def update_ratio(self) -> float:
        return p99(self.attacked.updates) / max(p99(self.quiet.updates), 0.001)

    @property
    def refused(self) -> int:
        return len(self.attacked.refused)

    def holds(self, ratio: float = 2.0) -> bool:
        """The bar: honest p99 at most `ratio` times its quiet value, nobody refused, everything given back."""
        calm = self.intake_ratio <= ratio and self.update_ratio <= ratio
        return calm and not self.refused and self.recovery_seconds is not None


@contextmanager
def serving(folder: Path, port: int) -> Iterator[int]:
    """Run the real service with few descriptors; yields its process id."""
    environment = {
        **os.environ,
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{folder}/queue.db",
        "USER_INTAKES_PER_MINUTE": "0",
        "MAX_QUEUE_DEPTH": "1000",
        "SETTLE_DELAY_SECONDS": "3600",
        # With a window the slowest updates are those that come by chance shortly after another event of the room.
        "COALESCE_MS": "0",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            cwd=ROOT,
            env=environment,
            stderr=log,
            stdout=log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
        )
    try:
        asyncio.run(_until_ready(port))
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)
    lines = (folder / "log").read_bytes().count(b"\n")
    assert lines < 100, f"the server has logged {lines} lines"


async def _until_ready(port: int) -> None:
    async with asyncio.timeout(START_SECONDS), httpx2.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                await asyncio.sleep(0.1)


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def cpu_seconds(pid: int) -> float:
    """CPU seconds that the process has used so far. Unlike times, they do not depend on the load of the machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def run(attack: str, folder: Path, *, seconds: float, viewers: int, intakes_per_second: float) -> Outcome:
    """Measure an attack; the quiet part and the attacked part take `seconds` each."""
    port = free_port()
    with serving(folder, port) as pid:
        return asyncio.run(
            _measure(attack, pid, port, seconds, Crowd(port, viewers=viewers, intakes_per_second=intakes_per_second))
        )


async def _measure(attack: str, pid: int, port: int, seconds: float, crowd: Crowd) -> Outcome:
    async with crowd.at_work():
        await asyncio.sleep(seconds / 4)
        quiet = crowd.measured = Measured()
        began = cpu_seconds(pid)
        await asyncio.sleep(seconds)
        quiet.cpu = (cpu_seconds(pid) - began) / seconds
        before = highest = Use.of(pid)
        attacked = crowd.measured = Measured()
        command = [sys.executable, "-m", "tests.hostile.attacks", attack, str(port), str(seconds)]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
        began, started = cpu_seconds(pid), time.perf_counter()
        while process.returncode is None:
            await asyncio.sleep(0.1)
            highest = Use(*map(max, highest, Use.of(pid)))
        attacked.cpu = (cpu_seconds(pid) - began) / (time.perf_counter() - started)
        recovery, after = await _recovered(pid, before), Use.of(pid)
    return Outcome(
        attack=attack,
        quiet=quiet,
        attacked=attacked,
        before=before,
        highest=highest,
        after=after,
        recovery_seconds=recovery,
    )


async def _recovered(pid: int, before: Use) -> float | None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (passed := loop.time() - began) < RECOVERY_SECONDS:
        now = Use.of(pid)
        if now.memory <= before.memory + SPARE_BYTES and now.descriptors <= before.descriptors + SPARE_DESCRIPTORS:
            return passed
        await asyncio.sleep(0.2)
    return None
