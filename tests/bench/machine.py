"""The machine as the measurements see it: which core serves and which loads, CPU time and memory of a process tree."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILES_WANTED = 65_536


def cores() -> tuple[int, int]:
    """The core for what is measured and the one for the load; the same one twice where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextmanager
def born_on(core: int) -> Iterator[None]:
    """Processes started inside run on this core from their first instruction: they inherit it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raise the limit of open files as far as possible; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(hard, FILES_WANTED), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):
            continue
        return wanted
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def family(pid: int) -> list[int]:
    """A process and everything it has started, as it is now."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
            except OSError:
                continue
    found, grown = [pid], 0
    while grown < len(found):
        found.extend(parents.get(found[grown], ()))
        grown += 1
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes with all their threads, also those that have ended; to the nanosecond."""
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    """As clock_getcpuclockid(3) names it."""
    return (~pid << 3) | 2


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def resident_bytes(pids: list[int]) -> int:
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() for pid in pids)


def describe() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    server, load = cores()
    pinned = f"server on core {server}, load on core {load}"
    if server == load:
        pinned = f"server and load share core {server}: figures of wall time mean little"
    busy = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, kernel {os.uname().release}; {pinned}; load average at start {busy:.1f}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
